"""Cells: measured once, kept by what they follow from, and tried again where they failed."""

from pathlib import Path

import pytest

from gped_nas.errors import DivergenceError, EnvironmentProblem, Interrupted, StreamError
from gped_nas.suite.cells import Cell, CellStore, Planned, measure_missing
from gped_nas.suite.grid import MethodEntry, StudentEntry, TeacherEntry

TEACHER = TeacherEntry("t", "t.yaml")


def _planned(*tasks: str) -> list[Planned]:
    cells = [Cell(TEACHER, 0, MethodEntry("own"), StudentEntry("none"), task) for task in tasks]
    return [Planned(cell, f"{index:x}" * 64) for index, cell in enumerate(cells)]


def test_a_stopped_grid_goes_on_where_it_stopped(tmp_path: Path) -> None:
    store = CellStore(tmp_path / "cells")
    measured = []

    def measure(cell: Cell) -> dict[str, object]:
        if cell.task == "b" and len(measured) == 1:
            raise Interrupted("stopped")
        measured.append(cell.task)
        return {"rows": [{"value": len(measured)}]}

    with pytest.raises(Interrupted):
        measure_missing(_planned("a", "b", "c"), store, measure)
    measured.append("again")
    outcomes = measure_missing(_planned("a", "b", "c"), store, measure)
    assert measured == ["a", "again", "b", "c"]
    assert [outcome.record["rows"][0]["value"] for outcome in outcomes if outcome.record] == [
        1,
        3,
        4,
    ]


def test_a_cell_that_fails_is_told_tried_again_and_stops_no_other(tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    told = []

    def measure(cell: Cell) -> dict[str, object]:
        if cell.task == "a":
            raise DivergenceError("it left the finite numbers")
        return {"rows": []}

    def tell(cell: Cell, done: int, problem: str) -> None:
        told.append((cell.task, done, problem))

    outcomes = measure_missing(_planned("a", "b"), store, measure, told=tell)
    assert outcomes[0].record is None and "finite" in outcomes[0].problem
    assert outcomes[1].record is not None
    assert told == [("a", 1, "it left the finite numbers"), ("b", 2, "")]

    again = measure_missing(_planned("a", "b"), store, lambda cell: {"rows": [cell.task]})
    assert [outcome.record and outcome.record["rows"] for outcome in again] == [["a"], []]


def test_a_full_disk_ends_the_grid(tmp_path: Path) -> None:
    def measure(cell: Cell) -> dict[str, object]:
        raise EnvironmentProblem("no space")

    with pytest.raises(EnvironmentProblem):
        measure_missing(_planned("a", "b"), CellStore(tmp_path), measure)


def test_a_damaged_record_is_refused_and_one_of_another_digest_is_not_read(tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    (planned,) = _planned("a")
    store.write(planned.digest, {"rows": [3.25]})
    path = store.path(planned.digest)

    other = planned.digest[:32] + "f" * 32
    assert store.path(other) == path
    assert store.read(other) is None

    path.write_text(path.read_text().replace("3.25", "3.35"))
    with pytest.raises(StreamError, match="delete it to measure it again"):
        store.read(planned.digest)
