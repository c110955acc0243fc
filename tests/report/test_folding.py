"""Students that hardly anybody would use are folded away and counted; the knee says what it is."""

from html.parser import HTMLParser

import pytest

from gped_nas.evaluate.measured import Key, Measured
from gped_nas.report.data import data_of
from gped_nas.report.page import page
from gped_nas.search.snapshot import Reference, StudySnapshot
from tests.report.example import make_single, make_snapshot

GUESS = Reference("guess", "guess from the labels", {Key("nll"): Measured(2.3)})
TEACHER = Reference("teacher", "teacher average", {Key("nll"): Measured(0.3)})


def snapshot_with(nlls: dict[int, float], **changes: object) -> StudySnapshot:
    """The example with these NLLs on validation, a guess at 2.3 and a teacher at 0.3."""
    records = []
    for record in make_snapshot().records:
        if record.trial in nlls:
            nll = Measured(nlls[record.trial])
            record = record.replace(measures={**record.measures, Key("nll"): nll})
        records.append(record)
    return make_snapshot(records=tuple(records), references=(TEACHER, GUESS), **changes)


def test_half_of_the_teachers_lead_is_the_bound() -> None:
    first, second, third, *others = make_snapshot().front
    nlls = dict.fromkeys([first, *others], 0.3)
    # half of 2.0 nats: 1.29 keeps it, 1.31 does not
    data = data_of(snapshot_with({**nlls, second: 1.29, third: 1.31}, chosen=first))
    assert (data["folded"], data["fold_metric"]) == ([third], "nll")

    chosen = data_of(snapshot_with({**nlls, second: 1.29, third: 1.31}, chosen=third))
    assert chosen["folded"] == []
    everyone = data_of(snapshot_with(dict.fromkeys(make_snapshot().front, 2.2)))
    assert everyone["folded"] == []
    # the example itself has no guess
    assert data_of(make_snapshot())["folded"] == []


class _Folded(HTMLParser):
    """Links to students, inside folds and outside them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.inside: set[str] = set()
        self.outside: set[str] = set()
        self._depth = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "details":
            self._depth += 1 if self._depth or attributes.get("class") == "folded" else 0
        identifier = attributes.get("id") or ""
        if identifier.startswith("student-"):
            (self.inside if self._depth else self.outside).add(identifier)

    def handle_endtag(self, tag: str) -> None:
        if tag == "details" and self._depth:
            self._depth -= 1


def test_the_page_folds_their_rows_and_cards_away_and_counts_them() -> None:
    front = make_snapshot().front
    weak = set(front[-2:])
    nlls = {trial: 2.0 if trial in weak else 0.3 for trial in front}
    text = page(data_of(snapshot_with(nlls, chosen=front[0])))
    assert text.count("2 more on the front keep less than half of the teacher") == 1
    folded = _Folded(text)
    assert folded.inside == {f"student-{trial}" for trial in weak}
    assert folded.outside == {f"student-{trial}" for trial in set(front) - weak}


def test_a_knee_that_is_far_behind_is_said_to_be_so() -> None:
    front = make_snapshot().front
    nlls = dict.fromkeys(front, 0.3)
    data = data_of(snapshot_with({**nlls, front[-1]: 1.1}, knee=front[-1]))
    # 0.8 of 2.0 nats are lost
    assert "nll is 1.1000, that of the front's best student 0.3000" in data["knee_text"]
    assert "keeps 60 % of the teacher's lead" in data["knee_text"]
    assert "which is far behind the best one" in page(data)
    assert "far behind the best one" not in page(data_of(snapshot_with(nlls, knee=front[-1])))


def test_one_trial_is_told_in_the_singular_and_without_savings() -> None:
    text = page(data_of(make_single()))
    assert "<p>1 trial:" in text and "1 trials" not in text
    assert "the stored samples saved" not in text
    assert "the stored samples saved" in page(data_of(make_snapshot()))


@pytest.mark.parametrize("seconds", [0.0, 50.0])
def test_savings_are_told_only_where_something_was_saved(seconds: float) -> None:
    teacher = {**make_snapshot().teacher, "seconds": seconds}
    text = page(data_of(make_snapshot(teacher=teacher)))
    assert ("the stored samples saved" in text) is bool(seconds)
