"""What the cells of a grid are of: spaces, datasets, tasks, and the digest of all that decides."""

from typing import Any, cast

from gped_nas import __version__
from gped_nas.api.session import Session
from gped_nas.api.settings import method_settings
from gped_nas.api.tasks.base import OPTION, Asked, parse_tasks
from gped_nas.api.tasks.bench import MAP, Bench, Examples
from gped_nas.api.teacher import Teacher, load_dataset
from gped_nas.data.base import Dataset
from gped_nas.errors import ConfigError, GpedError
from gped_nas.evaluate.base import METRICS
from gped_nas.io import canonical_json, sha256_text
from gped_nas.search.space import SearchSpace
from gped_nas.search.space_file import load_space
from gped_nas.stream.reader import Stream
from gped_nas.suite.cells import Cell
from gped_nas.suite.grid import SEARCHED, Grid

_OF_THE_SEARCH = (
    *("search", "objectives", "constraints", "latency", "baseline", "twins"),
    *("conditions", "ood"),  # a task says which ones it asks about
)
"""Parts of a space that nothing but a search follows from."""
_OF_STUDENTS = ("students", "views", "recipe", *_OF_THE_SEARCH)
"""Parts that a teacher does not follow from; what runs along with its chains is looked at apart."""


class Spaces:
    """The spaces of a grid's cells, each read once with its dataset.

    Args:
        grid: what is measured.
        session: how to run; where seconds are measured, it says on what.
    """

    def __init__(self, grid: Grid, session: Session) -> None:
        self._grid = grid
        self._session = session
        self._spaces: dict[str, SearchSpace] = {}
        self._datasets: dict[str, Dataset] = {}
        self._settings: dict[str, Any] = {}

    def space(self, cell: Cell) -> SearchSpace:
        """The space of a cell: its teacher's, with its method and seed.

        Raises:
            ConfigError: a setting that does not suit; the message names the cell's entries.
            GpedError: see ``load_space``, ``load_dataset`` and ``method_settings``.
        """
        names = [cell.teacher.name, cell.method.name, cell.seed]
        key = canonical_json(names)
        if key not in self._spaces:
            try:
                self._spaces[key] = self._read(cell)
            except GpedError as error:
                names_of_cell = f"teacher '{cell.teacher.name}', method '{cell.method.name}'"
                raise type(error)(f"{self._grid.source}: {names_of_cell}: {error}") from None
        return self._spaces[key]

    def _read(self, cell: Cell) -> SearchSpace:
        overrides = {**cell.method.overrides, **cell.teacher.overrides, "seed": cell.seed}
        space = load_space(cell.teacher.space, overrides)
        if cell.method.settings is None:
            return space

        # completed by what suits the space's own budget, as where methods are compared
        settings = method_settings(space, self.dataset(space), cell.method.settings)
        method = settings.model_dump(mode="json")
        return load_space(cell.teacher.space, {**overrides, "teacher.method": method})

    def dataset(self, space: SearchSpace) -> Dataset:
        """A space's dataset, its dials turned; read once for all methods and seeds."""
        resolved = space.resolved
        parts = [resolved["dataset"], resolved["data"], resolved["teacher"].get("likelihood")]
        key = canonical_json([*parts, resolved["teacher"].get("trained_on")])
        if key not in self._datasets:
            self._datasets[key] = load_dataset(space)
        return self._datasets[key]

    def digest(self, cell: Cell) -> str:
        """Digest of everything that the rows of a cell follow from; the version is the code's.

        Raises:
            ConfigError: a task that does not fit the space.
            GpedError: see ``space``.
        """
        grid = self._grid
        space = self.space(cell)
        (asked,) = parse_tasks([cell.task])
        parts = {
            "student": student_digest(cell, space, self.dataset(space)),
            "who of it": cell.student.name,
            "task": [asked.text, asked.task.version, self._check(cell, space, asked)],
            "metrics": self.metrics(asked),
            "subjects": grid.subjects,
            "limit": grid.limit,
            "part": grid.part,
            "version": __version__,
        }
        if MAP in grid.subjects:  # of a space, it is trained where it is named
            parts["baseline"] = space.resolved["baseline"]
        return sha256_text(canonical_json(parts))

    def metrics(self, asked: Asked) -> tuple[str, ...]:
        """The metrics that a task is asked for; none leaves it to the task.

        What another task of the grid measures in any case is left to that one.
        """
        if not asked.task.takes_metrics:
            return ()
        elsewhere: list[str] = []
        for each in parse_tasks(self._grid.tasks):
            elsewhere += each.task.metrics

        names = []
        for name in self._grid.metrics:
            is_of_answers = name in METRICS and METRICS[name].task == "prediction"
            if is_of_answers and not name.startswith(tuple(elsewhere)):
                names.append(name)
        return tuple(names)

    def _check(self, cell: Cell, space: SearchSpace, asked: Asked) -> Any:
        """What the rows of a task follow from beside its argument.

        A task that does not fit is refused. Of the teacher its space alone is known yet.
        """
        key = canonical_json([cell.teacher.name, cell.method.name, cell.seed, asked.text])
        if key in self._settings:
            return self._settings[key]

        dataset = self.dataset(space)
        where = f"{self._grid.source}: tasks"
        if dataset.task not in asked.task.kinds:
            raise ConfigError(
                f"{where}: found '{asked.text}', which is for {' or '.join(asked.task.kinds)}, but "
                f"teacher '{cell.teacher.name}' is for {dataset.task}; leave one of them out"
            )
        bench = Bench(
            examples=Examples(dataset, self._grid.part, space.seed, self._grid.limit),
            teacher=Teacher(space, dataset, cast(Stream, None), self._session),
            subjects=(),
            session=self._session,
        )
        try:
            asked.task.check(bench, asked.argument)
            self._settings[key] = asked.task.settings(bench, asked.argument)
        except GpedError as error:
            message = str(error).removeprefix(f"{OPTION}: ")
            raise type(error)(f"{where}: teacher '{cell.teacher.name}': {message}") from None
        return self._settings[key]


def student_digest(cell: Cell, space: SearchSpace, dataset: Dataset) -> str:
    """Digest of everything that a cell's students follow from; of none, its teacher."""
    resolved = {key: value for key, value in space.resolved.items() if key != "name"}
    # the kernel changes students by rounding alone
    recipe = {key: value for key, value in resolved["recipe"].items() if key != "kernel"}
    resolved["recipe"] = recipe

    student = cell.student
    if student.name == "none":
        resolved = {key: value for key, value in resolved.items() if key not in _OF_STUDENTS}
        resolved["stream kept"] = [recipe.get("stream"), recipe.get("mode")]
    elif student.name not in SEARCHED:
        resolved = {key: value for key, value in resolved.items() if key not in _OF_THE_SEARCH}
    genotype = None if student.genotype is None else student.genotype.to_json()
    kind = student.name if genotype is None else "given"
    kind = "searched" if student.name in SEARCHED else kind
    return sha256_text(canonical_json([kind, genotype, resolved, dataset.digest]))
