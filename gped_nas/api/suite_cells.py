"""One cell of a grid, measured.

Streams lie in the cache, as everybody's. Studies and students of the cells lie in the workspace, by
digest, so that cells of all grids of one ``out`` share them.
"""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gped_nas import device as devices
from gped_nas.api.evaluating import Evaluation, evaluate_tasks
from gped_nas.api.fixed_students import distill_fixed, smallest_of
from gped_nas.api.job import run
from gped_nas.api.session import Session
from gped_nas.api.study import Study
from gped_nas.api.suite_spaces import Spaces, student_digest
from gped_nas.api.tasks.base import parse_tasks
from gped_nas.api.teacher import sample_teacher
from gped_nas.distill.student import load_student
from gped_nas.errors import ConfigError, DataError, EnvironmentProblem, GpedError, Interrupted
from gped_nas.models.base import Genotype
from gped_nas.search.space import SearchSpace
from gped_nas.suite.cells import Cell
from gped_nas.suite.grid import OWN, SEARCHED, Grid

_NAME_DIGITS, _NAME_LENGTH = 32, 40


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
        digest = student_digest(cell, space, self._spaces.dataset(space))[:_NAME_DIGITS]

        # a killed cell finds here what it had measured of single subjects
        building = self._workspace / "building" / self._spaces.digest(cell)[:_NAME_DIGITS]
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
        (asked,) = parse_tasks([cell.task])
        return evaluate_tasks(
            what,
            asked.text,
            part=self._grid.part,
            metrics=self._spaces.metrics(asked),
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
