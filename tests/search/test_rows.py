"""What may happen to a trial's row, in every order; nothing here has a clock or a storage."""

import json
from typing import Any

import pytest

from gped_nas.search.document import validate
from gped_nas.search.owners import Owner
from gped_nas.search.rows import (
    LEASE_S,
    Point,
    Refusal,
    Row,
    claim,
    finish,
    promote,
    renew,
    report,
    take_back,
)

ANN, BOB = Owner(name="ann"), Owner(name="bob")


def claimed(**changes: Any) -> Row:
    row = claim(None, ANN, 100.0)
    assert isinstance(row, Row)
    return row.model_copy(update=changes)


def paused() -> Row:
    row = report(claimed(until=30), ANN, 110.0, budget=30, metrics={"nll": 0.5}, checkpoint="a/1")
    assert isinstance(row, Row)
    return row


def waiting() -> Row:
    row = promote(paused(), 60)
    assert isinstance(row, Row)
    return row


def finished() -> Row:
    row = finish(claimed(), ANN, "record")
    assert isinstance(row, Row)
    return row


def test_a_new_trial_is_claimed() -> None:
    row = claimed()
    assert (row.state, row.owner, row.claimed, row.renewed) == ("claimed", ANN, 100.0, 100.0)
    assert (row.until, row.budget, row.curve, row.record) == (None, 0, (), None)


def test_reports_make_a_curve_and_renew_the_claim() -> None:
    early = report(claimed(), ANN, 120.0, budget=10, metrics={"nll": 0.9}, checkpoint="a/1")
    assert isinstance(early, Row)
    late = report(early, ANN, 130.0, budget=20, metrics={"nll": 0.8})
    assert isinstance(late, Row)
    assert (late.state, late.renewed, late.claimed) == ("claimed", 130.0, 100.0)
    assert late.budget == 20 and late.checkpoint == "a/1"
    assert late.curve == (
        Point(budget=10, metrics={"nll": 0.9}),
        Point(budget=20, metrics={"nll": 0.8}),
    )


def test_a_trial_pauses_at_the_end_of_its_budget_and_goes_on_when_promoted() -> None:
    early = report(claimed(until=30), ANN, 110.0, budget=29, metrics={})
    assert isinstance(early, Row) and early.state == "claimed"
    row = paused()
    assert (row.state, row.owner, row.checkpoint) == ("paused", None, "a/1")
    promoted = promote(row, 60)
    assert isinstance(promoted, Row) and (promoted.state, promoted.until) == ("waiting", 60)
    again = claim(promoted, BOB, 500.0)
    assert isinstance(again, Row) and (again.owner, again.claimed) == (BOB, 500.0)
    assert (again.budget, again.checkpoint, again.until) == (30, "a/1", 60)
    assert again.curve == row.curve


def test_the_asker_ends_what_nobody_works_on() -> None:
    for row in (paused(), waiting()):
        pruned = finish(row, None, "pruned")
        assert isinstance(pruned, Row) and (pruned.state, pruned.record) == ("finished", "pruned")
        assert pruned.curve == row.curve and pruned.owner is None


def test_a_claim_lives_for_a_lease_after_its_last_sign_of_life() -> None:
    assert not claimed().is_expired(100.0 + LEASE_S)
    assert claimed().is_expired(100.0 + LEASE_S + 1)
    renewed = renew(claimed(), ANN, 200.0)
    assert isinstance(renewed, Row)
    assert not renewed.is_expired(200.0 + LEASE_S) and renewed.is_expired(201.0 + LEASE_S)
    for row in (paused(), waiting(), finished()):
        assert not row.is_expired(1e12)


def test_what_is_taken_back_waits_where_it_can_go_on_and_is_lost_where_it_cannot() -> None:
    resumable = take_back(claimed(checkpoint="a/1", budget=10))
    assert (resumable.state, resumable.owner, resumable.budget) == ("waiting", None, 10)
    lost = take_back(claimed())
    assert (lost.state, lost.owner, lost.record) == ("finished", None, None)


# -- refusals

NOW = 1000.0
EVERY = {
    "claimed by ann": claimed(checkpoint="a/1"),
    "claimed by bob": claimed(owner=BOB),
    "paused": paused(),
    "waiting": waiting(),
    "finished": finished(),
}
VERBS = {
    "claim": lambda row: claim(row, ANN, NOW),
    "renew": lambda row: renew(row, ANN, NOW),
    "report": lambda row: report(row, ANN, NOW, budget=99, metrics={}),
    "promote": lambda row: promote(row, None),
    "finish": lambda row: finish(row, ANN, "record"),
    "finish as the asker": lambda row: finish(row, None, "record"),
}
ALLOWED = {
    ("claim", "waiting"),
    ("renew", "claimed by ann"),
    ("report", "claimed by ann"),
    ("promote", "paused"),
    ("finish", "claimed by ann"),
    ("finish as the asker", "paused"),
    ("finish as the asker", "waiting"),
}


@pytest.mark.parametrize("state", EVERY)
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_in_every_state_is_a_row_or_a_refusal(verb: str, state: str) -> None:
    row = EVERY[state]
    before = row.to_json()
    after = VERBS[verb](row)
    assert isinstance(after, Row if (verb, state) in ALLOWED else Refusal)
    assert row.to_json() == before  # a row is never changed in place
    if isinstance(after, Refusal):
        assert after.reason.startswith("it is ")


def test_the_report_and_the_finish_of_a_worker_that_was_given_up_are_refused() -> None:
    """Its claim was taken back; whether it waits, or somebody else has it by now, is no matter."""
    row = take_back(claimed(checkpoint="a/1"))
    taken = claim(row, BOB, 2000.0)
    assert isinstance(taken, Row)
    for given_up in (row, taken, take_back(claimed())):
        late = report(given_up, ANN, 2001.0, budget=50, metrics={"nll": 0.1})
        assert isinstance(late, Refusal)
        assert isinstance(finish(given_up, ANN, "record"), Refusal)
    assert isinstance(finish(taken, BOB, "record"), Row)


def test_a_budget_only_grows() -> None:
    row = claimed(budget=10)
    assert report(row, ANN, NOW, budget=10, metrics={}) == Refusal(
        "it reported 10 steps before, found 10"
    )
    assert promote(paused(), 30) == Refusal("it has spent 30 steps, found a budget of 30")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_report_that_is_not_finite_is_refused(value: float) -> None:
    assert report(claimed(), ANN, NOW, budget=1, metrics={"nll": value}) == Refusal(
        "its nll is not finite"
    )


@pytest.mark.parametrize("state", EVERY)
def test_a_row_is_read_back_as_it_was_written(state: str) -> None:
    row = EVERY[state]
    assert validate(Row, json.loads(json.dumps(row.to_json())), "here") == row
