"""Trials outside the region of interest: apart in figures, tables and JSON, and nowhere else."""

import dataclasses
import json
from typing import Any

import pytest

from gped_nas.api.dashboard import study_note
from gped_nas.api.snapshots import front_of
from gped_nas.report import svg
from gped_nas.report.beside import evidence_of
from gped_nas.report.data import data_of
from gped_nas.report.front import front_chart, legend
from gped_nas.report.page import numbers_of, page
from gped_nas.report.verdict import judge_study
from gped_nas.search.comparison import compare_fronts
from gped_nas.search.region import Region, make_region, outside
from gped_nas.search.snapshot import StudySnapshot
from tests.report.example import make_snapshot

BOUND = 0.3
REGION = make_region(0.9, (), know_nothing={"nll": 2.1}, teacher={"nll": 0.1})


def parted(region: Region | None = REGION) -> StudySnapshot:
    """The example with a region that half of its students are outside of."""
    whole = make_snapshot()
    apart = outside(whole.records, whole.objectives, region)
    front = tuple(front_of(whole.records, whole.objectives, region))
    evidence = {trial: next(iter(whole.evidence.values())) for trial in front}
    chosen = front[0] if front else None
    changes: dict[str, Any] = {"chosen": chosen, "knee": chosen, "evidence": evidence}
    return dataclasses.replace(whole, region=region, outside=apart, front=front, **changes)


def test_the_example_has_both_kinds() -> None:
    snapshot = parted()
    assert REGION.bounds[0].value == pytest.approx(BOUND)
    assert len(snapshot.outside) > 5 and len(snapshot.front) > 3


def test_who_is_outside_lies_on_a_shelf_of_the_figure() -> None:
    data = data_of(parted())
    flops, nll = (axis for axis in data["objectives"][1::-1])
    chart = front_chart(data, flops, nll)
    traces = {trace.meta["group"]: trace for trace in chart.figure.data}
    num = len(data["outside"])

    inside = [*traces["front"].y, *traces["complete"].y]
    best = min(inside)
    shelf = BOUND + 0.08 * (BOUND - best)
    assert list(traces["outside"].y) == pytest.approx([shelf] * num, rel=1e-4)
    assert max(inside) <= BOUND and max(traces["step"].y) <= BOUND
    # what is said of each is its own number
    trial = data["outside"][0]
    (row,) = (row for row in data["records"] if row["trial"] == trial)
    (text,) = (text for text in traces["outside"].hovertext if f"trial {trial}<" in text)
    assert f"{row['metrics']['nll']:.4f}" in text and row["metrics"]["nll"] > shelf

    (line,) = chart.figure.layout.shapes
    assert line.y0 == line.y1 == pytest.approx(BOUND) and line.xref == "paper"
    assert f"{num} outside the region of interest" in chart.text
    assert "just beyond the dotted end of the region" in chart.text
    assert "outside the region of interest" in [row["text"] for row in legend(data)]


def test_the_still_picture_has_them_apart_too() -> None:
    data = data_of(parted())
    flops, nll = (axis for axis in data["objectives"][1::-1])
    picture = svg.front(data, flops, nll)
    assert picture.count('class="apart"') == len(data["outside"])


def test_neither_the_layer_behind_nor_the_front_holds_them() -> None:
    snapshot = parted()
    data = data_of(snapshot)
    apart = set(data["outside"])
    assert apart == set(snapshot.outside) and not apart & {*data["front"], *data["near"]}
    assert {row["trial"] for row in data["records"] if row["outside"]} == apart


def test_the_page_and_its_json_say_it() -> None:
    snapshot = parted()
    data = data_of(snapshot)
    text = page(data)
    says = "Region of interest: nll &lt;= 0.3 (90 % of the teacher&#39;s skill), on validation."
    assert says in text
    assert f"{len(snapshot.outside)} outside the region of interest." in text
    assert text.count("○ outside</i>") == len(snapshot.outside)

    numbers = json.loads(json.dumps(numbers_of(data)))
    assert numbers["outside"] == list(snapshot.outside)
    assert numbers["region"]["bounds"] == {"nll": pytest.approx(BOUND)}
    assert numbers["region"]["keep"] == 0.9


def test_a_study_of_before_says_what_its_rule_is() -> None:
    data = data_of(make_snapshot())
    assert data["region"]["text"].startswith("none: the study was begun before")
    assert data["region"]["bounds"] == {} and data["outside"] == []
    assert not any("shelf" in axis for axis in data["axes"])
    assert "outside" not in {row["text"] for row in legend(data)}
    guesses = dataclasses.replace(make_snapshot(), outside=(40,))
    assert "no better than a guess" in [row["text"] for row in legend(data_of(guesses))]
    assert "Region of interest: none: the study was begun before" in page(data_of(guesses))


def test_a_page_without_a_front_says_why() -> None:
    strict = REGION.asking(1.04, ())
    empty = dataclasses.replace(parted(strict), rule="The front is empty, since no student keeps.")
    assert empty.front == ()
    assert "The front is empty, since no student keeps." in page(data_of(empty))


def test_verdicts_of_regions() -> None:
    strict = parted(REGION.asking(1.04, ()))
    verdict = judge_study(evidence_of(strict))
    assert verdict.kind == "nothing_learned" and verdict.trial is None
    assert verdict.sentence.startswith("No student is of use: no student keeps 104 % of the ")
    assert "search.keep" in verdict.details[0]

    lacking = make_region(0.9, (), know_nothing={"nll": 2.1}, teacher={"nll": 2.2})
    without = dataclasses.replace(parted(lacking), chosen=None)
    verdict = judge_study(evidence_of(without))
    assert verdict.kind == "teacher_guesses" and verdict.trial is None
    assert any("There is no region of interest" in detail for detail in verdict.details)


def test_a_comparison_counts_who_is_inside() -> None:
    """Beside a study without a region the box is the wider one: none outside may cover it."""
    plain = make_snapshot(name="before")
    some = parted()
    both = compare_fronts([plain, some])
    assert both.hypervolumes[1] < both.hypervolumes[0]
    nobody = dataclasses.replace(some, outside=tuple(r.trial for r in some.records))
    assert compare_fronts([plain, nobody]).hypervolumes[1] == 0


def test_the_dashboards_note_says_it() -> None:
    snapshot = parted()
    note = study_note(snapshot, "A verdict.")
    assert "region of interest: nll" in note
    assert f"outside are {len(snapshot.outside)} complete trials" in note
