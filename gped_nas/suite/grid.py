"""A grid of evaluations: methods x teachers x students x tasks x seeds.

A cell of the grid is one entry of each axis. ``suite.grid_file`` reads grids.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gped_nas.models.base import Genotype

OWN = "own"
"""The method of the space itself; the student of the teacher's own genotype."""
STUDENTS = {
    "none": "the teacher alone",
    OWN: "a student of the teacher's own genotype",
    "smallest": "the smallest student of the space",
    "front": "the students of a searched front",
    "chosen": "the chosen student of a search",
    "best": "the best student of a search on validation",
}
"""What may stand on the axis of students by name."""
SEARCHED = ("front", "chosen", "best")
"""Those that a search finds: one study is enough for all of them."""

Part = Literal["validation", "test"]


@dataclass(frozen=True)
class MethodEntry:
    """A posterior method of the grid.

    Attributes:
        name: in the tables.
        settings: its own; None for the method of the space.
        overrides: settings of the space that go with it: dotted keys to values.
    """

    name: str
    settings: Mapping[str, Any] | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TeacherEntry:
    """A space with its overrides: data, network, prior and recipe.

    Attributes:
        name: in the tables.
        space: a file, or the name of a shipped space.
        overrides: dotted keys to values.
    """

    name: str
    space: str
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StudentEntry:
    """Who learns from the teacher; of a name that is not in ``STUDENTS`` the genotype is given."""

    name: str
    genotype: Genotype | None = None


@dataclass(frozen=True)
class Grid:
    """What is measured: every combination of the entries of five axes.

    Attributes:
        name: of the folder that the tables lie in.
        methods, teachers, students, tasks, seeds: the axes.
        part: of the dataset, where predictors are measured.
        metrics: those in the tables, which tasks that take metrics measure; empty for the usual.
        subjects: who is judged, see ``evaluate_tasks``; empty for everybody there is.
        limit: number of examples, drawn by the seed; None for all.
        source: the file, for messages.
    """

    name: str
    methods: tuple[MethodEntry, ...]
    teachers: tuple[TeacherEntry, ...]
    students: tuple[StudentEntry, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    part: Part = "test"
    metrics: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    limit: int | None = None
    source: str = "grid"

    @property
    def num_cells(self) -> int:
        """How many combinations there are."""
        sizes = (self.methods, self.teachers, self.students, self.tasks, self.seeds)
        product = 1
        for axis in sizes:
            product *= len(axis)
        return product
