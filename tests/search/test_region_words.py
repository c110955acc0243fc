"""What is said of a region, of who is outside, and of a front that nobody is on."""

import pytest

from gped_nas.search.record import TrialRecord
from gped_nas.search.region import Keep, Region, make_region
from gped_nas.search.region_words import describe_region, explain_empty_front, note_outside
from tests.search.test_region import GOALS, KNOW_NOTHING, record, region

NO_SKILL = make_region(0.9, GOALS, know_nothing=KNOW_NOTHING, teacher={"nll": 2.4})


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (region(), "nll <= 0.5 (90 % of the teacher's skill)"),
        (region(0.875), "nll <= 0.55 (87.5 % of the teacher's skill)"),
        (
            region({"accuracy": 0.8, "storage_bytes": 2000}),
            "accuracy >= 0.8 and storage_bytes <= 2,000",
        ),
        (region({}), "none: search.keep asks for nothing"),
        (
            NO_SKILL,
            "none: the teacher has no skill, its validation nll is 2.4, that of a guess from the "
            "training labels 2.3",
        ),
        (
            make_region(0.9, GOALS, know_nothing=KNOW_NOTHING, teacher={}),
            "none: the teacher's validation nll is not finite",
        ),
        (None, "none: the study was begun before there was a region of interest"),
    ],
)
def test_a_region_in_words(made: Region | None, words: str) -> None:
    assert describe_region(made).startswith(words)


@pytest.mark.parametrize(
    ("records", "made", "what", "remedy"),
    [
        ([], region(), "no trial has finished", "run the search on"),
        ([record(0, 0.6, state="running")], region(), "no trial has finished", "search on"),
        ([record(0, 0.1, state="infeasible")], region(), "no student is feasible", "constraints"),
        (
            [record(0, 0.9), record(1, 0.61), record(2, 0.1, state="infeasible")],
            region(),
            "no student keeps 90 % of the teacher's skill (nll <= 0.5): the most that one of the "
            "2 complete ones keeps is 84 % (trial 1, nll 0.61)",
            "--set search.keep=0.84",
        ),
        ([record(0, 2.5)], region(), "keeps is -10 % (trial 0, nll 2.5)", "widen the space"),
        (
            [record(0, 0.6, accuracy=0.7), record(1, 0.6, accuracy=0.75)],
            region({"accuracy": 0.8, "storage_bytes": 200}),
            "no student is in the region of interest (accuracy >= 0.8 and storage_bytes <= 200): "
            "of the 2 complete ones trial 1 is nearest, with accuracy 0.75, storage_bytes 100",
            "loosen search.keep",
        ),
        ([record(0, 0.1)], NO_SKILL, "the teacher has no skill", "mend the teacher"),
        (
            [record(0, 2.3, above_guess={"nll": (0.0, -0.1, 0.1)})],
            None,
            "no student is better than a guess",
            "mend the teacher",
        ),
    ],
)
def test_an_empty_front_is_explained(
    records: list[TrialRecord], made: Region | None, what: str, remedy: str
) -> None:
    said, to_do = explain_empty_front(records, GOALS, made)
    assert what in said and remedy in to_do
    assert ";" not in said + to_do  # the last semicolon of a message parts the two


def test_who_keeps_nothing_is_not_told_to_ask_for_less() -> None:
    _, remedy = explain_empty_front([record(0, 2.5)], GOALS, region())
    assert "search.keep" not in remedy


@pytest.mark.parametrize("keep", [0.84, 0.5])
def test_what_is_advised_is_then_inside(keep: Keep) -> None:
    """84.5 % are kept: 84 % is advised."""
    student = record(0, 0.61)
    assert region(keep).is_inside(student)


def test_a_note_counts_who_is_outside() -> None:
    records = [record(0, 0.4), record(1, 0.6), record(2, 0.9), record(3, 0.1, state="failed")]
    (note,) = note_outside(records, GOALS, region())
    assert note == (
        "2 of 3 complete students are outside the region of interest, nll <= 0.5 (90 % of the "
        "teacher's skill): on no front, however small."
    )
    assert note_outside(records[:1], GOALS, region()) == ()
    guess = record(0, 2.3, above_guess={"nll": (0.0, -0.1, 0.1)})
    (note,) = note_outside([guess], GOALS, None)
    assert "cannot be told from a guess" in note
