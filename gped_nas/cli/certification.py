"""The verb ``certify``: answers that no input within a radius can change."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gped_nas.cli.completion import complete_study, complete_trial
from gped_nas.cli.options import (
    REPORTS,
    Device,
    FormatOption,
    Out,
    Seed,
    Set,
    Storage,
    overrides,
)
from gped_nas.cli.output import Format, print_json, print_rows, print_text
from gped_nas.cli.progress import progress, say
from gped_nas.cli.signals import stoppable
from gped_nas.cli.verbs import STUDENT, Verb

app = typer.Typer()


@app.command(cls=Verb, rich_help_panel=STUDENT)
def certify(
    what: Annotated[
        str,
        typer.Argument(
            metavar="STUDY|SPACE|STUDENT",
            help="A study, a space, whose teacher is certified, or a student's folder.",
            autocompletion=complete_study,
        ),
    ],
    trial: Annotated[
        str | None,
        typer.Argument(
            metavar="[TRIAL|teacher]",
            help="Of a study: a trial's number, 'chosen' (the default), 'best', or 'teacher'.",
            autocompletion=complete_trial,
        ),
    ] = None,
    epsilon: Annotated[
        str,
        typer.Option(
            "--epsilon",
            metavar="E",
            help="The radius, a share of the data's range: 0.03, or a curve 0.01..0.1.",
        ),
    ] = "",
    box: Annotated[
        Path | None,
        typer.Option(
            "--box", metavar="FILE.yaml", help="A box of your own, and what is safe in it."
        ),
    ] = None,
    bounds: Annotated[
        str,
        typer.Option("--bounds", metavar="A,B", help="Which bounds: ibp, crown, or both."),
    ] = "ibp,crown",
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Also decide by a mixed-integer programme, for small ones."),
    ] = False,
    time_limit: Annotated[
        float,
        typer.Option("--time-limit", metavar="S", help="Seconds an input that --exact may take."),
    ] = 10.0,
    each: Annotated[
        bool, typer.Option("--each", help="Print a row an input: what is known of each.")
    ] = False,
    part: Annotated[
        str | None,
        typer.Option(
            "--part",
            metavar="PART",
            help="validation or test; test for the front of a study that ended, else validation.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", help="Certify at N examples of the part."),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            "--space", metavar="SPACE", help="Whose data, for a student without its study."
        ),
    ] = None,
    set_: Set = None,
    seed: Seed = None,
    device: Device = "auto",
    storage: Storage = None,
    out: Out = REPORTS,
    format: FormatOption = Format.table,
) -> None:
    """Prove that no input within a radius changes an answer.

    Each input is certified, broken or unknown. Rows are kept with the study.
    """
    from gped_nas.api import new_session
    from gped_nas.api.certify_rows import certify_what, each_input, without_each
    from gped_nas.api.tasks.base import split
    from gped_nas.errors import ConfigError

    if box is not None and each:
        raise ConfigError("--each: found with --box, which has no examples; leave it out")
    with stoppable() as should_stop, progress() as teller:
        evaluation = certify_what(
            what,
            trial,
            epsilon=epsilon,
            box=box,
            bounds=split([bounds]),
            exact=exact,
            time_limit=time_limit,
            part=part,  # type: ignore[arg-type]  # checked there
            limit=limit,
            space=space,
            overrides=overrides(set_),
            seed=seed,
            storage=storage,
            out=out,
            session=new_session(device, progress=teller.report, should_stop=should_stop),
        )

    for note in evaluation.notes:
        say(note)
    rows = each_input(evaluation.rows) if each else without_each(evaluation.rows)
    if format is Format.json:
        print_json(rows)
    elif format is Format.csv:
        print_rows(rows, format)
    elif box is not None:
        _print_box(rows)
    else:
        _print_table(rows, is_of_each=each)


def _print_box(rows: list[dict[str, Any]]) -> None:
    """A line a number, and the input whose answer is not safe, where there is one."""
    safe = rows[0].get("safe")
    title = rows[0]["box"] if safe is None else f"{rows[0]['box']}: {safe}"
    columns = ("predictor", "of", "metric", "value", "n", "seconds")
    print_rows([{key: row[key] for key in columns} for row in rows], Format.table, title=title)
    for row in rows:
        if "witness" in row and isinstance(row["witness"], dict):
            numbers = ", ".join(f"{name} {number:.6g}" for name, number in row["witness"].items())
            print_text(f"{row['predictor']}: not safe at {numbers}")


def _print_table(rows: list[dict[str, Any]], *, is_of_each: bool) -> None:
    """Shares side by side, or a line an input; below them what must be said of the numbers."""
    from gped_nas.api.certify_rows import side_by_side

    first = rows[0]
    radii = dict.fromkeys(row["radius"] for row in rows)
    title = ", ".join([f"certified on {first['part']}", *radii])
    if is_of_each:
        columns = ("input", "label", "of", "epsilon", "bounds", "metric", "value", "lead")
        lines = [{key: row.get(key) for key in columns} for row in rows]
        print_rows(lines, Format.table, title=title)
    else:
        print_rows(side_by_side(rows), Format.table, title=title)
    for note in dict.fromkeys(row["note"] for row in rows if row.get("note")):
        print_text(note)
