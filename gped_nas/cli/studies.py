"""Verbs about studies that are there: read one, look at it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gped_nas.cli.completion import complete_study
from gped_nas.cli.listing import (
    MARK,
    finalist_json,
    full_rows,
    print_classes,
    print_finalists,
    print_references,
    print_students,
    warn_of_outside,
    warn_of_teacher,
)
from gped_nas.cli.options import (
    REPORTS,
    FormatOption,
    Out,
    Storage,
    StudyArgument,
    TrialArgument,
    Wide,
    Within,
)
from gped_nas.cli.output import Format, print_json, print_pairs, print_rows, print_text
from gped_nas.cli.progress import say
from gped_nas.cli.status import (
    count_trials,
    describe_far,
    describe_running,
    describe_stopped,
    number_of,
    state_of,
)
from gped_nas.cli.verbs import SEARCH, STUDENT, Verb

app = typer.Typer()


def _as_json(record: Any) -> dict[str, Any]:
    data = record.to_json()
    keys = ("schema_version", "trial", "genotype", "metrics", "intervals", "n", "costs")
    return {key: data[key] for key in keys}


@app.command(cls=Verb, rich_help_panel=SEARCH)
def front(
    study: StudyArgument,
    within: Within = None,
    storage: Storage = None,
    out: Out = REPORTS,
    format: FormatOption = Format.table,
    wide: Wide = False,
) -> None:
    """Print the Pareto front, best by the first objective.

    With budgets, it is what lies within them, and what ``pick`` picks there is marked.
    """
    from gped_nas.api import open_study

    opened = open_study(study, storage=storage, out=out)
    records = opened.front_records(within or ())
    chosen = records[0] if within else opened.chosen()
    if format is Format.json:
        rows = [_as_json(record) | finalist_json(opened, record.trial) for record in records]
        print_json(rows)
    else:
        print_students(records, opened, format, wide=wide, chosen=number_of(chosen))
    if format is Format.table:
        print_finalists(opened, format)
        print_references(opened, wide=wide)

    warn_of_teacher(opened)
    warn_of_outside(opened)
    if not records:
        say(f"the front is empty: {'; '.join(opened.explain_empty_front())}")


@app.command(cls=Verb, rich_help_panel=SEARCH)
def trials(
    study: StudyArgument,
    storage: Storage = None,
    out: Out = REPORTS,
    format: FormatOption = Format.table,
    wide: Wide = False,
) -> None:
    """Print every trial with its state.

    A trial that is not complete has the reason beside it.
    """
    from gped_nas.api import open_study

    opened = open_study(study, storage=storage, out=out)
    records = opened.records()
    if format is Format.json:
        apart = {record.trial for record in opened.outside_records()}
        print_json([record.to_json() | {"outside": record.trial in apart} for record in records])
        return

    chosen = number_of(opened.chosen())
    is_at_work = opened.is_at_work()
    states = [state_of(record, is_at_work) for record in records]
    print_students(records, opened, format, wide=wide, chosen=chosen, states=states)


@app.command(cls=Verb, rich_help_panel=SEARCH)
def status(
    study: StudyArgument,
    storage: Storage = None,
    out: Out = REPORTS,
    format: FormatOption = Format.table,
) -> None:
    """Print how far a study is.

    While a run is at work, it is what that run says of itself, in any phase. With a storage it is
    seen from other machines, too.
    """
    from gped_nas.api.standing import LOCK, find_folder, read_standing

    folder = find_folder(study, out)
    standing, is_held = read_standing(folder)
    if standing is not None and is_held:
        print_pairs(describe_running(standing, folder), format)
        return

    has_study = (folder / "study.json").is_file()
    if standing is not None and not has_study:
        print_pairs({"study": standing.study, **describe_stopped(standing)}, format)
        return
    if storage and not has_study:
        from gped_nas.api.sighting import sight

        print_pairs(describe_far(sight(storage, study)), format)
        return

    from gped_nas.api import open_study
    from gped_nas.api.sighting import look
    from gped_nas.io import is_locked

    opened = open_study(study, storage=storage, out=out)
    if opened.is_at_work() and not is_locked(folder / LOCK):
        print_pairs(describe_far(look(opened.ledger)), format)
        return

    # one may have begun since its lock was looked at
    is_stopped = standing is not None and not opened.is_at_work()
    stopped = describe_stopped(standing) if is_stopped else {}
    print_pairs({"study": opened.name, **stopped, **count_trials(opened)}, format)


@app.command(cls=Verb, rich_help_panel=STUDENT)
def pick(
    study: StudyArgument,
    within: Within = None,
    storage: Storage = None,
    out: Out = REPORTS,
    format: FormatOption = Format.table,
    wide: Wide = False,
) -> None:
    """Pick the best student within budgets.

    Without a budget, it is the student that the report chooses.
    """
    from gped_nas.api import open_study

    opened = open_study(study, storage=storage, out=out)
    record = opened.pick(within) if within else opened.find("chosen")
    if format is Format.json:
        print_json(_as_json(record))
    else:
        print_students([record], opened, format, wide=wide, chosen=record.trial)


@app.command(cls=Verb, rich_help_panel=STUDENT)
def show(
    study: StudyArgument,
    trial: TrialArgument,
    storage: Storage = None,
    out: Out = REPORTS,
    format: FormatOption = Format.table,
) -> None:
    """Show one trial with its layers, costs and metrics.

    The metrics have their 95 % intervals, or why there is none.
    """
    from gped_nas.api import open_study
    from gped_nas.evaluate.measured import by_name
    from gped_nas.models.labels import budget_text

    opened = open_study(study, storage=storage, out=out)
    record = opened.find(trial)
    if format is Format.json:
        of_trial = _standing_in_region(record, opened) | finalist_json(opened, record.trial)
        print_json(record.to_json() | of_trial)
        return

    summary = {
        **full_rows([record], opened)[0],
        "state": record.state,
        "reason": record.reason or record.origin,
        "seconds": record.seconds,
        **_standing_in_region(record, opened),
    }
    if "budget" in record.extra:
        summary["budget"] = budget_text(record.extra["budget"], record.extra["dead_units"])
    if format is Format.csv:
        print_pairs({**summary, **record.values}, format)
        return

    if record.trial == number_of(opened.chosen()):
        summary["trial"] = f"{record.trial}  {MARK}"
    print_pairs(summary, format)
    guesses = [r.metrics for r in opened.references() if r.name == "guess"]
    rows = []
    for name, measured in by_name(record.measures).items():
        low, high = measured.low, measured.high
        row = {"metric": name, "value": measured.value, "low": low, "high": high, "n": measured.n}
        for metrics in guesses:
            row["guess"] = metrics.get(name)
        rows.append(row)
    if rows:
        print_rows(rows, format, title="metrics, 95 % interval")
        reasons = [
            {"metric": name, "why": measured.why}
            for name, measured in by_name(record.measures).items()
            if measured.why
        ]
        if reasons:
            print_rows(reasons, format, title="why some have no interval")
        print_finalists(opened, format, record.trial)
        print_classes(record, opened)
        print_rows(record.layers, format, title="layers")
    for note in opened.training_notes():
        print_text(note)


def _standing_in_region(record: Any, study: Any) -> dict[str, Any]:
    """Whether a student is outside the region of interest, and how much skill it keeps."""
    apart = {other.trial for other in study.outside_records()}
    skill = None if study.region is None else study.region.skill(record)
    kept = None if skill is None else round(skill, 4)
    return {"outside": record.trial in apart, "skill_kept": kept}


@app.command(cls=Verb, rich_help_panel=SEARCH)
def report(
    studies: Annotated[
        list[str],
        typer.Argument(
            metavar="STUDY...",
            help="A study's name or folder, or several.",
            autocompletion=complete_study,
        ),
    ],
    to: Annotated[Path | None, typer.Option("--to", help="File to write.")] = None,
    storage: Storage = None,
    out: Out = REPORTS,
) -> None:
    """Write the report of a study, or compare several.

    It is one HTML file that needs no network.
    """
    from gped_nas.api import compare_studies, open_study

    opened = [open_study(study, storage=storage, out=out) for study in studies]
    if len(opened) == 1:
        print(opened[0].write_report(to))
    else:
        print(compare_studies(opened, to))


@app.command(cls=Verb, rich_help_panel=SEARCH)
def dashboard(
    study: StudyArgument,
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 8080,
    storage: Storage = None,
    out: Out = REPORTS,
) -> None:
    """Serve the study with the Optuna dashboard.

    It is served to this machine only.
    """
    from gped_nas.api import open_study, serve_study

    serve_study(
        open_study(study, storage=storage, out=out),
        port=port,
        ready=lambda: say(f"http://127.0.0.1:{port}/dashboard  (Ctrl-C ends it)"),
    )
