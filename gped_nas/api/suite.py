"""Measure a grid of methods x teachers x students x tasks x seeds, and write its tables.

Cells, studies and students lie in ``<out>/suite``, found by digest: a grid that was killed goes on,
and grids share what they have in common. The tables of a grid lie in ``<out>/<grid>-suite``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gped_nas.api.session import Session, new_session
from gped_nas.api.suite_cells import Measuring
from gped_nas.api.suite_spaces import Spaces
from gped_nas.api.tasks.base import OPTION, parse_tasks
from gped_nas.api.tasks.bench import SUBJECTS, metrics_named
from gped_nas.errors import ConfigError, GateError, GpedError, nearest
from gped_nas.evaluate.base import METRICS
from gped_nas.io import SCHEMA_VERSION, lock, make_dir, remove_temporaries, write_json, write_text
from gped_nas.suite.cells import Cell, CellStore, Outcome, Planned, cells_of, measure_missing
from gped_nas.suite.grid import Grid
from gped_nas.suite.grid_file import load_grid
from gped_nas.suite.summary import direction_of, rank_all, rows_of, summarize
from gped_nas.suite.tables import to_csv, to_json_lines, to_latex

if TYPE_CHECKING:
    import pandas as pd

WORKSPACE = "suite"
DATA, PAGE = "suite.json", "suite.html"
Told = Callable[[Cell, int, int, str], None]


@dataclass(frozen=True, eq=False)
class SuiteResult:
    """What a grid came to.

    Attributes:
        folder: where its tables lie: ``suite.html``, ``suite.json``, ``rows.jsonl``, ``rows.csv``
            and ``tables.tex``.
        rows: every measure of every cell, see ``evaluate.measured.rows``.
        data: the numbers of the page: means over seeds, rankings, and what could not be measured.
    """

    folder: Path
    rows: list[dict[str, Any]]
    data: dict[str, Any]

    @property
    def page(self) -> Path:
        """The page of all tables."""
        return self.folder / PAGE

    def frame(self) -> "pd.DataFrame":
        """The rows as a pandas frame."""
        import pandas as pd

        return pd.DataFrame(self.rows)


def read_grid(
    grid: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None = None
) -> Grid:
    """A grid by its file, its shipped name or its plain data. Raises as ``load_grid``."""
    read = load_grid(grid, read_task=_read_task, overrides=overrides)
    for name in read.subjects:
        if name not in SUBJECTS:
            raise ConfigError(f"{read.source}: subjects: found '{name}'{nearest(name, SUBJECTS)}")
    _check_metrics(read)
    return read


def _check_metrics(grid: Grid) -> None:
    """Refuse a metric that nobody knows, unless a task of a plug-in may be the one that has it."""
    tasks = [asked.task for asked in parse_tasks(grid.tasks)]
    if not all(task.takes_metrics or task.metrics for task in tasks):
        return

    # those of other tasks are registered, or like one that is
    starts = [start for task in tasks for start in task.metrics if not metrics_named(start)]
    for name in grid.metrics:
        if not direction_of(name) and not name.startswith(tuple(starts)):
            raise ConfigError(
                f"{grid.source}: metrics: unknown metric '{name}'{nearest(name, METRICS)}"
            )


def _read_task(text: str, where: str) -> list[str]:
    try:
        return [asked.text for asked in parse_tasks([text])]
    except GpedError as error:
        message = str(error).removeprefix(f"{OPTION}: ")
        raise type(error)(f"{where}: {message}") from None


def plan_suite(
    grid: str | Path | Mapping[str, Any],
    *,
    overrides: Mapping[str, Any] | None = None,
    out: str | Path = "reports",
    session: Session | None = None,
) -> list[dict[str, Any]]:
    """The cells of a grid, a row each, and whether each is measured; nothing is measured here.

    Raises as ``run_suite``.
    """
    read = read_grid(grid, overrides)
    store = CellStore(Path(out) / WORKSPACE / "cells")
    table = []
    for planned in _plan(read, Spaces(read, session or new_session())):
        is_done = store.read(planned.digest) is not None
        table.append({**planned.cell.names, "is_done": is_done})
    return table


def run_suite(
    grid: str | Path | Mapping[str, Any],
    *,
    overrides: Mapping[str, Any] | None = None,
    out: str | Path = "reports",
    session: Session | None = None,
    told: Told = lambda cell, done, total, problem: None,
) -> SuiteResult:
    """Measure the cells of a grid that were not measured yet, and write its tables.

    Args:
        grid: a YAML file, the name of a shipped grid, or what a file would hold.
        overrides: settings of every space, after the grid's own: dotted keys to values.
        out: folder of all reports.
        session: how to run.
        told: called after each cell: the cell, how many are done, of how many, what went wrong.

    Raises:
        ConfigError, RegistryError: the grid, a space or a task is not right; before any work.
        GateError: some cells could not be measured. The tables of the others are written, and the
            same call tries them again.
        Interrupted: the session said stop; the same call goes on from there.
    """
    session = session or new_session()
    read = read_grid(grid, overrides)
    spaces = Spaces(read, session)
    planned = _plan(read, spaces)  # what cannot be is refused before any teacher is built

    def tell(cell: Cell, done: int, problem: str) -> None:
        session.progress("cells", done, len(planned))
        told(cell, done, len(planned), problem)

    workspace = make_dir(Path(out) / WORKSPACE)
    folder = make_dir(Path(out) / f"{read.name}-suite")
    with lock(workspace / "lock", wait=False):
        remove_temporaries(workspace)
        remove_temporaries(folder)
        outcomes = measure_missing(
            planned,
            CellStore(workspace / "cells"),
            Measuring(spaces, workspace, read, session),
            told=tell,
        )

        rows = rows_of(outcomes)
        data = _data(read, outcomes, rows)
        _write(folder, rows, data)

    _check_complete(outcomes, folder)
    return SuiteResult(folder, rows, data)


def _plan(grid: Grid, spaces: Spaces) -> list[Planned]:
    """Every cell with its digest.

    Raises:
        GpedError: a space, or a method or a task of it, is not right.
    """
    return [Planned(cell, spaces.digest(cell)) for cell in cells_of(grid)]


def _data(grid: Grid, outcomes: list[Outcome], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the page shows."""
    problems = []
    notes: dict[str, None] = {}
    seconds = 0.0
    for outcome in outcomes:
        if outcome.record is None:
            problems.append({**outcome.planned.cell.names, "problem": outcome.problem})
            continue
        notes |= dict.fromkeys(outcome.record["notes"])
        seconds += outcome.record["seconds"]

    measured = {row["metric"] for row in rows}
    for metric in grid.metrics:
        if metric not in measured:
            notes[f"metric '{metric}' is of no row"] = None

    return {
        "schema_version": SCHEMA_VERSION,
        "name": grid.name,
        "part": grid.part,
        "axes": {
            "methods": [method.name for method in grid.methods],
            "teachers": [teacher.name for teacher in grid.teachers],
            "students": [student.name for student in grid.students],
            "tasks": list(grid.tasks),
            "seeds": list(grid.seeds),
        },
        "cells": len(outcomes),
        "seconds": round(seconds, 1),
        "means": summarize(rows, grid.metrics),
        "rankings": rank_all(rows, grid.metrics),
        "problems": problems,
        "notes": list(notes),
    }


def _write(folder: Path, rows: list[dict[str, Any]], data: dict[str, Any]) -> None:
    """Write every form of the rows and of what is made of them."""
    from gped_nas.report.suite import suite_page

    write_text(folder / "rows.jsonl", to_json_lines(rows))
    write_text(folder / "rows.csv", to_csv(rows))
    write_text(folder / "tables.tex", to_latex(data))
    write_json(folder / DATA, data)
    write_text(folder / PAGE, suite_page(data))


def _check_complete(outcomes: list[Outcome], folder: Path) -> None:
    """Raise ``GateError`` where a cell could not be measured."""
    failed = [outcome for outcome in outcomes if outcome.record is None]
    if not failed:
        return
    first = failed[0]
    raise GateError(
        f"{len(failed)} of {len(outcomes)} cells could not be measured, the first one "
        f"{first.planned.cell}: {first.problem.rstrip('.')}. The tables of the others are in "
        f"{folder}; the same command tries them again"
    )
