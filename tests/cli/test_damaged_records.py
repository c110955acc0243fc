"""A record that was changed in the database is refused by every command that needs the front."""

import sqlite3
from contextlib import closing

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
