"""Records: there and back as JSON, and texts that are none refused."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gped_nas.evaluate.measured import Key, Measured, from_public
from gped_nas.search.record import FINISHED, TrialRecord

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.text(max_size=8)
KEYS = st.builds(
    Key,
    st.sampled_from(["nll", "my_metric", "tests"]),
    st.sampled_from(["clean", "permuted", "fgsm-0.1"]),
    st.sampled_from(["validation", "test"]),
)
MEASURED = st.one_of(
    st.builds(Measured, NUMBERS, NUMBERS, NUMBERS, st.integers(0, 10**9)),
    st.builds(Measured, NUMBERS, why=st.text(max_size=8)),
)
RECORDS = st.builds(
    TrialRecord,
    trial=st.integers(0, 10**6),
    state=st.sampled_from(["complete", "pruned", "infeasible", "duplicate", "failed", "running"]),
    genotype=st.just(
        {"family": "mlp", "depth": 1, "width": [3], "group_penalty": 0.0, "storage_dtype": "int8"}
    ),
    reason=st.text(max_size=20),
    measures=st.dictionaries(KEYS, MEASURED, max_size=3),
    costs=st.dictionaries(NAMES, st.integers(0, 2**60), max_size=3),
    layers=st.lists(
        st.fixed_dictionaries({"layer": NAMES, "params": st.integers(0, 9)}), max_size=2
    ).map(tuple),
    layers_drawn=st.just(({"layer": "layers.0", "params": 3},)),
    extra=st.just({"loss": [[0, 1.5], [50, 0.5]], "seed": 2**62}),
    seconds=NUMBERS,
    created=NUMBERS,
    spec_sha256=NAMES,
)


@given(RECORDS)
@settings(max_examples=60, deadline=None)
def test_json_round_trip(record):
    assert TrialRecord.loads(record.dumps()) == record


@pytest.mark.parametrize(
    "text",
    [
        None,
        3,
        {},
        "",
        "garbage",
        "[]",
        "null",
        "{}",
        '{"trial": 0, "state": "complete"}',
        '{"trial": 0, "state": "perfect", "genotype": {}}',
        '{"trial": 0, "state": "complete", "genotype": {}, "metrics": {"nll": "low"}}',
        '{"trial": 0, "state": "complete", "genotype": {}, "metrics": {"nll": NaN}}',
        '{"trial": 0, "state": "complete", "genotype": {}, "metrics": {"nll": 1e999}}',
        '{"trial": 0, "state": "complete", "genotype": {}, "intervals": {"nll": [0]}}',
        "[" * 100_000,
    ],
)
def test_a_text_that_is_no_record_is_told(text):
    with pytest.raises(ValueError):
        TrialRecord.loads(text)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", ["metrics", "extra", "intervals"])
def test_a_number_that_is_not_finite_cannot_be_written(value, part):
    record = TrialRecord(0, "complete", {})
    changed = {
        "metrics": record.replace(measures={Key("nll"): Measured(value)}),
        "intervals": record.replace(measures={Key("nll"): Measured(0.0, 0.0, value)}),
        "extra": record.replace(extra={"nll": value}),
    }
    with pytest.raises(ValueError, match="not JSON compliant"):
        changed[part].dumps()


def test_values_are_metrics_or_costs():
    record = TrialRecord(0, "complete", {}, measures=from_public({"nll": 0.5}), costs={"macs": 300})
    assert (record.value("nll"), record.value("macs")) == (0.5, 300.0)
    with pytest.raises(KeyError):
        record.value("flops")


def test_failed_and_running_are_not_finished():
    assert FINISHED == {"complete", "pruned", "infeasible", "duplicate"}


def test_a_record_of_an_earlier_version_is_read():
    text = (
        '{"trial": 3, "state": "complete", "genotype": {"family": "mlp"}, '
        '"metrics": {"nll": 0.5, "accuracy": 0.9}, "intervals": {"nll": [0.4, 0.6]}, '
        '"n": {"nll": 7, "accuracy": 7}, "costs": {"macs": 9}, "layers": [], "layers_drawn": []}'
    )
    record = TrialRecord.loads(text)
    assert record.measures == {
        Key("nll"): Measured(0.5, 0.4, 0.6, 7),
        Key("accuracy"): Measured(0.9, n=7),
    }
    assert record.values == {"nll": 0.5, "accuracy": 0.9, "macs": 9}


def test_json_says_its_version_and_a_later_one_is_refused():
    data = TrialRecord(0, "complete", {}).to_json()
    assert data["schema_version"] == 1
    with pytest.raises(ValueError, match="schema version 2, expected 1"):
        TrialRecord.loads(json.dumps(data | {"schema_version": 2}))
