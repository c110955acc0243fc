"""The verb ``suite``: a grid of methods x teachers x students x tasks x seeds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gped_nas.cli.completion import complete_grid
from gped_nas.cli.options import REPORTS, Device, FormatOption, Processes, Set, overrides
from gped_nas.cli.output import Format, print_rows
from gped_nas.cli.progress import progress, say
from gped_nas.cli.signals import stoppable
from gped_nas.cli.verbs import SEARCH, Verb

if TYPE_CHECKING:
    from gped_nas.suite.cells import Cell

app = typer.Typer()

_COLUMNS = (
    *("task", "teacher", "method", "subject", "metric", "condition", "detail"),
    *("value", "low", "high", "n", "seeds", "why"),
)


@app.command(cls=Verb, rich_help_panel=SEARCH)
def suite(
    grid: Annotated[
        str | None,
        typer.Argument(
            metavar="GRID",
            help="A YAML grid, or the name of a shipped one; none lists those.",
            autocompletion=complete_grid,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the cells, and which of them are measured.")
    ] = False,
    set_: Set = None,
    device: Device = "auto",
    processes: Processes = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of all studies and grids.")] = REPORTS,
    format: FormatOption = Format.table,
) -> None:
    """Measure a grid of methods, teachers, students and tasks.

    What is measured is kept: stopped or killed, the same command goes on from there.
    """
    if grid is None:
        from gped_nas.suite.shipped import shipped_grids

        rows = [{"grid": name, "file": str(path)} for name, path in shipped_grids().items()]
        print_rows(rows, format)
        return

    from gped_nas.api.session import new_session
    from gped_nas.api.suite import plan_suite, run_suite

    settings = overrides(set_)
    if dry_run:
        plan = plan_suite(grid, overrides=settings, out=out, session=new_session(device))
        print_rows(plan, format)
        num_done = sum(row["is_done"] for row in plan)
        say(f"{num_done} of {len(plan)} cells are measured")
        return

    with stoppable() as should_stop, progress() as teller:
        session = new_session(
            device, progress=teller.report, should_stop=should_stop, processes=processes
        )
        result = run_suite(grid, overrides=settings, out=out, session=session, told=_tell)

    means = [{name: mean[name] for name in _COLUMNS} for mean in result.data["means"]]
    print_rows(means, format, title=f"Means over seeds on {result.data['part']}, 95 % intervals")
    for note in result.data["notes"]:
        say(note)
    say(f"rows: {result.folder / 'rows.jsonl'}, {result.folder / 'rows.csv'}")
    say(f"tables: {result.folder / 'tables.tex'}")
    say(f"report: {result.page}")


def _tell(cell: "Cell", done: int, total: int, problem: str) -> None:
    """One line where a cell is measured, or cannot be."""
    say(f"cell {done} of {total}: {cell}" + (f": not measured: {problem}" if problem else ""))
