"""The verb ``replay``: proposers compared on students that are trained already."""

from typing import Annotated, Any

import typer

from gped_nas.cli.completion import complete_study
from gped_nas.cli.options import REPORTS, FormatOption, Out, Storage
from gped_nas.cli.output import Format, print_json, print_rows
from gped_nas.cli.progress import progress, say
from gped_nas.cli.verbs import SEARCH, Verb

app = typer.Typer()


@app.command(cls=Verb, rich_help_panel=SEARCH)
def replay(
    studies: Annotated[
        list[str],
        typer.Argument(
            metavar="STUDY...",
            help="A study, several of one space whose seeds differ, or a pool's JSON file.",
            autocompletion=complete_study,
        ),
    ],
    proposer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SAMPLER",
            help="A sampler, perhaps with settings: 'costs_known start_up=12'. Give it again for "
            "others; random, tpe and auto by default.",
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(metavar="N", help="Repetitions of each.")] = 100,
    target: Annotated[
        int, typer.Option(metavar="N", help="Reach the median front of N random trainings.")
    ] = 64,
    at_once: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Students of a population.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Root of every seed.")] = 0,
    storage: Storage = None,
    out: Out = REPORTS,
    format: FormatOption = Format.table,
) -> None:
    """Compare samplers on the trials of a study, without training.

    Says by which factor each is cheaper than random draws until its front is as good as that of N
    of them, in steps and in multiply-adds.
    """
    from gped_nas.api import open_study
    from gped_nas.api.replaying import PROPOSERS
    from gped_nas.api.replaying import replay as run_replay

    given: Any = studies[0]
    if len(studies) > 1 or not given.endswith(".json"):
        given = [open_study(study, storage=storage, out=out) for study in studies]
    with progress() as teller:
        result = run_replay(
            given,
            proposers=proposer or PROPOSERS,
            repeats=repeats,
            target=target,
            at_once=at_once,
            seed=seed,
            progress=teller.report,
        )
    if format is Format.json:
        print_json(result.to_json())
        return

    rows = [_row(row, is_csv=format is Format.csv) for row in result.rows]
    title = f"cheaper than random draws by, at {result.at_once} at once (95 % interval)"
    print_rows(rows, format, title=title)
    seeds = len(result.studies)
    say(
        f"pool: {result.num_members} trainings, {seeds} {'seed' if seeds == 1 else 'seeds'}; "
        f"target: hypervolume {result.target:.4f}, the median of {result.num_target} random "
        "trainings; the intervals hold for this pool alone"
    )
    if seeds == 1:
        say("one seed: a front is judged by the values that it was chosen by, which flatters")


def _row(row: Any, *, is_csv: bool) -> dict[str, Any]:
    """One proposer as columns."""
    columns: dict[str, Any] = {
        "proposer": row.proposer,
        "reached": f"{row.num_reached} of {row.num_runs}",
    }
    counted = {
        "steps": row.factors["steps"],
        "MACs": row.factors["macs"],
        "steps, whole populations": row.whole["steps"],
    }
    for name, factor in counted.items():
        if is_csv:
            columns[name] = factor.value
            columns[f"{name} low"], columns[f"{name} high"] = factor.low, factor.high
        else:
            columns[name] = f"{factor.value:.2f} [{factor.low:.2f}, {factor.high:.2f}]"
    return columns
