"""The one table of measures: its public names there and back, its public JSON, its rows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gped_nas.evaluate.measured import (
    Key,
    Measured,
    by_name,
    from_public,
    is_metric_name,
    parse_name,
    public_name,
    rows,
    to_public,
)
from gped_nas.io import SCHEMA_VERSION

METRIC_NAMES = st.text(min_size=1, max_size=12).filter(is_metric_name)
KEYS = st.builds(
    Key,
    METRIC_NAMES,
    st.text(min_size=1, max_size=12),
    st.sampled_from(["validation", "test"]),
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
MEASURED = st.one_of(
    st.builds(Measured, NUMBERS, NUMBERS, NUMBERS, st.integers(0, 10**9)),
    st.builds(Measured, NUMBERS, n=st.integers(0, 10**9), why=st.text(max_size=9)),
    st.builds(Measured, NUMBERS),
)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (Key("nll"), "nll"),
        (Key("nll", "permuted"), "nll@permuted"),
        (Key("nll", part="test"), "test_nll"),
        (Key("nll", "fgsm-0.1", "test"), "test_nll@fgsm-0.1"),
    ],
)
def test_a_key_has_one_public_name(key, name):
    assert public_name(key) == name
    assert parse_name(name) == key


@given(KEYS)
def test_a_public_name_leads_back_to_its_key(key):
    assert parse_name(public_name(key)) == key


def test_names_that_would_lead_elsewhere_are_no_metric_names():
    assert not is_metric_name("test_nll")
    assert not is_metric_name("nll@clean")
    assert not is_metric_name("")
    assert is_metric_name("tested_nll")


@given(st.dictionaries(KEYS, MEASURED, max_size=4))
def test_a_table_survives_its_public_json(table):
    assert from_public(**to_public(table)) == table


def test_public_json_keeps_the_keys_of_earlier_versions():
    table = {
        Key("nll"): Measured(0.5, 0.4, 0.6, 9),
        Key("nll", part="test"): Measured(0.7, n=3, why="one example"),
    }
    public = {
        "metrics": {"nll": 0.5, "test_nll": 0.7},
        "intervals": {"nll": [0.4, 0.6]},
        "n": {"nll": 9, "test_nll": 3},
    }
    assert to_public({Key("nll"): table[Key("nll")]}).keys() == public.keys()
    assert to_public(table) == public | {"why": {"test_nll": "one example"}}

    # What an earlier version wrote says no reason, and not everywhere a size.
    assert from_public({"nll": 0.5}) == {Key("nll"): Measured(0.5)}
    assert by_name(from_public(**public))["test_nll"] == Measured(0.7, n=3)


def test_rows_say_everything_of_a_measure_and_why_there_is_no_interval():
    table = {
        Key("nll", "permuted", "test"): Measured(0.5, 0.4, 0.6, 9),
        Key("nll"): Measured(0.7, n=1, why="one example"),
    }
    head = {"schema_version": SCHEMA_VERSION, "predictor": "map", "task": "classification"}
    with_interval = {
        **head,
        "metric": "nll",
        "condition": "permuted",
        "part": "test",
        "value": 0.5,
        "low": 0.4,
        "high": 0.6,
        "n": 9,
    }
    without_interval = {
        **head,
        "metric": "nll",
        "condition": "clean",
        "part": "validation",
        "value": 0.7,
        "low": None,
        "high": None,
        "n": 1,
        "why": "one example",
    }

    assert rows(table, predictor="map", task="classification") == [with_interval, without_interval]


def test_every_row_without_an_interval_says_why():
    (row,) = rows({Key("nll"): Measured(0.5)}, predictor="teacher", task="classification")
    assert row["why"]
