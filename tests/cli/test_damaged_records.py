"""A record that was changed in the database is refused by every command that needs the front."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from tests.cli.harness import N_TRIALS, Home, contents, refused


def test_a_damaged_record_is_named_and_nothing_is_said_of_the_front(own: Home) -> None:
    with closing(sqlite3.connect(own.study / "study.db")) as database, database:
        database.execute("UPDATE trial_values SET value = 0.01 WHERE trial_id = 2")

    says = ("trial 1", "0.01", "restore the study from a backup")
    for verb in ("front", "pick", "report"):
        refused(4, verb, own.study, says=says)
    before = contents(own.study)
    refused(4, "run", own.space, "--out", own.out, "--n-trials", N_TRIALS + 1, says=says)
    assert contents(own.study) == before


def spoil_document(document: dict[str, Any]) -> None:
    document["description"]["box"]["worst"][0] += 1


def spoil_test(test: dict[str, Any]) -> None:
    name = next(iter(test["metrics"]))
    test["metrics"][name] /= 2


@pytest.mark.parametrize(
    ("key", "spoil"), [("gped:document", spoil_document), ("gped:test:", spoil_test)]
)
def test_another_number_in_an_attribute_of_the_study_is_refused(
    own: Home, key: str, spoil: Callable[[dict[str, Any]], None]
) -> None:
    """Its digest alone can tell: all is of the right types."""
    with closing(sqlite3.connect(own.study / "study.db")) as database, database:
        name, text = database.execute(
            "SELECT key, value_json FROM study_user_attributes WHERE key LIKE ?", (f"{key}%",)
        ).fetchone()
        stored = json.loads(text)
        spoil(stored)
        database.execute(
            "UPDATE study_user_attributes SET value_json = ? WHERE key = ?",
            (json.dumps(stored), name),
        )
    refused(4, "report", own.study, says=("its digest does not fit", name))
