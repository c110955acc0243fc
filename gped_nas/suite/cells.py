"""The cells of a grid, and the record that each leaves: found again by what it follows from.

A record is one sealed file, named by the digest of everything that decides what is in it. Two grids
with a cell in common measure it once; a cell whose settings changed has another digest.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gped_nas.errors import EnvironmentProblem, GpedError, Interrupted
from gped_nas.io import SCHEMA_VERSION, make_dir, read_sealed, write_sealed
from gped_nas.suite.grid import Grid, MethodEntry, StudentEntry, TeacherEntry

_REMEDY = "delete it to measure it again"


@dataclass(frozen=True)
class Cell:
    """One entry of each axis."""

    teacher: TeacherEntry
    seed: int
    method: MethodEntry
    student: StudentEntry
    task: str

    @property
    def names(self) -> dict[str, Any]:
        """The names of the entries by axis, as rows have them."""
        return {
            "teacher": self.teacher.name,
            "method": self.method.name,
            "student": self.student.name,
            "task": self.task,
            "seed": self.seed,
        }

    def __str__(self) -> str:
        parts = [self.teacher.name, self.method.name, self.student.name, self.task]
        return " / ".join([*parts, f"seed {self.seed}"])


def cells_of(grid: Grid) -> Iterator[Cell]:
    """Every cell; those of one teacher follow one another, so that it is made ready once."""
    for teacher in grid.teachers:
        for seed in grid.seeds:
            for method in grid.methods:
                for student in grid.students:
                    for task in grid.tasks:
                        yield Cell(teacher, seed, method, student, task)


@dataclass(frozen=True)
class Planned:
    """A cell and the digest of all that its record follows from."""

    cell: Cell
    digest: str


@dataclass(frozen=True)
class Outcome:
    """What became of a cell: its rows, or why there are none."""

    planned: Planned
    record: Mapping[str, Any] | None
    problem: str = ""


class CellStore:
    """The records of cells in a folder, one sealed file each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, digest: str) -> Path:
        """The file of a cell, which need not be there."""
        return self.folder / f"{digest[:32]}.json"

    def read(self, digest: str) -> dict[str, Any] | None:
        """The record of a cell; None where it was not measured.

        Raises:
            StreamError: it is not what was written.
        """
        path = self.path(digest)
        if not path.exists():
            return None
        record, is_sealed = read_sealed(path, _REMEDY)
        is_ours = is_sealed and record.get("identity") == digest
        return record if is_ours else None

    def write(self, digest: str, record: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a record, whole or not at all; what was kept."""
        make_dir(self.folder)
        kept = {"schema_version": SCHEMA_VERSION, "identity": digest, **record}
        write_sealed(self.path(digest), kept)
        return kept


def measure_missing(
    planned: Sequence[Planned],
    store: CellStore,
    measure: Callable[[Cell], Mapping[str, Any]],
    *,
    told: Callable[[Cell, int, str], None] = lambda cell, done, problem: None,
) -> list[Outcome]:
    """Measure the cells that have no record, one after the other; the outcome of every cell.

    A cell that cannot be measured keeps no record, so that the next call tries it again, and the
    others go on.

    Args:
        planned: the cells.
        store: where records are kept.
        measure: a cell to plain data.
        told: called after each cell with the number of cells that are done, and what went wrong.

    Raises:
        Interrupted: the session said stop; every finished cell is kept.
        EnvironmentProblem: the disk is full, for example; other cells would meet it, too.
        StreamError: a record is damaged.
    """
    outcomes = []
    for number, entry in enumerate(planned, 1):
        problem = ""
        record = store.read(entry.digest)
        if record is None:
            try:
                record = store.write(entry.digest, measure(entry.cell))
            except (Interrupted, EnvironmentProblem):
                raise
            except GpedError as error:
                problem = str(error)

        outcomes.append(Outcome(entry, record, problem))
        told(entry.cell, number, problem)
    return outcomes
