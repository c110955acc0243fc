"""One cell of a grid: its space, the digest of all that its rows follow from, and the rows.

Streams lie in the cache, as everybody's. Studies and students of the cells lie in the workspace, by
digest, so that cells of all grids of one ``out`` share them.
"""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gped_nas import __version__
from gped_nas import device as devices
from gped_nas.api.evaluating import Evaluation, evaluate_tasks
from gped_nas.api.fixed_students import distill_fixed, smallest_of
from gped_nas.api.job import run
from gped_nas.api.session import Session
from gped_nas.api.settings import method_settings
from gped_nas.api.study import Study
from gped_nas.api.tasks.base import parse_tasks
from gped_nas.api.teacher import load_dataset, sample_teacher
from gped_nas.data.base import Dataset
from gped_nas.distill.student import load_student
from gped_nas.errors import ConfigError, DataError, EnvironmentProblem, GpedError, Interrupted
from gped_nas.evaluate.base import METRICS
from gped_nas.io import canonical_json, sha256_text
from gped_nas.models.base import Genotype
from gped_nas.search.space import SearchSpace
from gped_nas.search.space_file import load_space
from gped_nas.suite.cells import Cell
from gped_nas.suite.grid import OWN, SEARCHED, Grid

_OF_THE_SEARCH = ("search", "objectives", "constraints", "baseline", "twins")
"""Parts of a space that nothing but a search follows from."""
_OF_STUDENTS = ("students", "views", "recipe", *_OF_THE_SEARCH)
"""Parts that a teacher does not follow from; what runs along with its chains is looked at apart."""
_NAME_DIGITS, _NAME_LENGTH = 32, 40


class Spaces:
    """The spaces of a grid's teachers, each read once with its dataset."""

    def __init__(self) -> None:
        self._spaces: dict[str, SearchSpace] = {}
        self._datasets: dict[str, Dataset] = {}

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
                place = f"teacher '{cell.teacher.name}', method '{cell.method.name}'"
                raise type(error)(f"{place}: {error}") from None
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


def asked_metrics(grid: Grid, cell: Cell) -> tuple[str, ...]:
    """The metrics that a cell's task is asked for; none leaves it to the task."""
    (asked,) = parse_tasks([cell.task])
    if not asked.task.takes_metrics:
        return ()
    of_labels = [name for name in grid.metrics if name in METRICS]
    return tuple(name for name in of_labels if METRICS[name].task == "prediction")


def cell_digest(cell: Cell, space: SearchSpace, dataset: Dataset, grid: Grid) -> str:
    """Digest of everything that the rows of a cell follow from; the version stands for the code."""
    (asked,) = parse_tasks([cell.task])
    parts = {
        "student": student_digest(cell, space, dataset),
        "who of it": cell.student.name,
        "conditions": space.resolved["conditions"],
        "task": [asked.text, asked.task.version],
        "metrics": asked_metrics(grid, cell),
        "subjects": grid.subjects,
        "limit": grid.limit,
        "part": grid.part,
        "version": __version__,
    }
    return sha256_text(canonical_json(parts))


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


class Measuring:
    """Measures cells; what one of them made is there for the next one.

    Args:
        spaces: of the grid.
        workspace: the folder of studies, students and half-done cells.
        grid: what is measured.
        session: how to run.
    """

    def __init__(self, spaces: Spaces, workspace: Path, grid: Grid, session: Session) -> None:
        self._spaces = spaces
        self._workspace = workspace
        self._grid = grid
        self._session = session
        self._studies: dict[str, Study] = {}
        self._problems: dict[str, GpedError] = {}

    def __call__(self, cell: Cell) -> Mapping[str, Any]:
        """The record of a cell: ``rows`` of the house, ``notes``, and how it was measured.

        Raises:
            Interrupted: the session said stop.
            GpedError: it cannot be measured.
        """
        started = time.monotonic()
        space = self._spaces.space(cell)
        dataset = self._spaces.dataset(space)
        digest = student_digest(cell, space, dataset)[:_NAME_DIGITS]

        # a killed cell finds here what it had measured of single subjects
        name = cell_digest(cell, space, dataset, self._grid)[:_NAME_DIGITS]
        building = self._workspace / "building" / name
        if cell.student.name in SEARCHED:
            evaluation, rows = self._searched(cell, space, digest)
        elif cell.student.name == "none":
            evaluation = self._evaluate(space, cell, out=building)
            rows = evaluation.rows
        else:
            folder = self._student(cell, space, digest)
            evaluation = self._evaluate(folder, cell, space=space, out=building)
            rows = evaluation.rows

        shutil.rmtree(building, ignore_errors=True)
        return {
            "rows": rows,
            "notes": evaluation.notes,
            "seconds": round(time.monotonic() - started, 1),
            "hardware": devices.fingerprint(self._session.device),
        }

    def _evaluate(self, what: Any, cell: Cell, **options: Any) -> Evaluation:
        return evaluate_tasks(
            what,
            cell.task,
            part=self._grid.part,
            metrics=asked_metrics(self._grid, cell),
            subjects=self._grid.subjects,
            limit=self._grid.limit,
            session=self._session,
            **options,
        )

    def _student(self, cell: Cell, space: SearchSpace, digest: str) -> Path:
        """The folder of a student that nobody searched for; distilled where it is not there."""
        students = self._workspace / "students"
        folder = students / digest
        if folder.is_dir():
            try:
                load_student(folder)
                return folder
            except DataError:
                pass  # somebody damaged it: it is made again

        genotype = _genotype(cell, space)
        teacher = sample_teacher(space, self._session)
        return distill_fixed(teacher, {digest: genotype}, students)[digest]

    def _searched(
        self, cell: Cell, space: SearchSpace, digest: str
    ) -> tuple[Evaluation, list[dict[str, Any]]]:
        """Students that a search found; rows of the chosen and the best one say so."""
        study = self._study(space, digest)
        kind = cell.student.name
        trials = ("front", "chosen") if kind == "front" else (kind,)
        evaluation = self._evaluate(study, cell, trials=trials)

        role = "best" if kind == "best" else "chosen"
        named = f"trial {study.find(role).trial}"
        rows = []
        for row in evaluation.rows:
            rows.append({**row, "role": role} if row["predictor"] == named else row)
        return evaluation, rows

    def _study(self, space: SearchSpace, digest: str) -> Study:
        """The study of a front, run to its end once; one that failed fails for each of its tasks.

        Raises:
            GpedError: see ``run``.
        """
        if digest in self._problems:
            raise self._problems[digest]
        if digest not in self._studies:
            studies = self._workspace / "studies"
            name = f"{space.name[:_NAME_LENGTH]}-{digest}"
            try:
                study = run(space, out=studies, study_name=name, session=self._session)
            except (Interrupted, EnvironmentProblem):
                raise
            except GpedError as error:
                self._problems[digest] = error
                raise
            self._studies[digest] = study
        return self._studies[digest]


def _genotype(cell: Cell, space: SearchSpace) -> Genotype:
    """Of a student that nobody searched for.

    Raises:
        ConfigError: the teacher's own genotype is none of a student.
    """
    if cell.student.genotype is not None:
        return cell.student.genotype
    if cell.student.name != OWN:
        return smallest_of(space)
    if space.module is not None:
        raise ConfigError(
            f"{space.source}: students: found '{OWN}', but the teacher is a module, which no "
            "student can be; name another student"
        )
    return space.network
