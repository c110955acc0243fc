"""Verbs about studies that are there: read one, look at it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gped_nas.cli.completion import complete_study
from gped_nas.cli.listing import (
    MARK,
    full_rows,
    print_classes,
    print_references,
    print_students,
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
from gped_nas.cli.output import Format, print_json, print_pairs, print_rows
from gped_nas.cli.progress import say
from gped_nas.cli.verbs import SEARCH, STUDENT, Verb

app = typer.Typer()


def _number(record: Any) -> int | None:
    """The trial of a record, where there is one."""
    return None if record is None else int(record.trial)


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
        print_json([_as_json(record) for record in records])
    else:
        print_students(records, opened, format, wide=wide, chosen=_number(chosen))
    if format is Format.table:
        print_references(opened, wide=wide)

    warn_of_teacher(opened)
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
        print_json([record.to_json() for record in records])
        return

    chosen = _number(opened.chosen())
    is_at_work = opened.is_at_work()
    states = [_state_of(record, is_at_work) for record in records]
    print_students(records, opened, format, wide=wide, chosen=chosen, states=states)


@app.command(cls=Verb, rich_help_panel=SEARCH)
def status(
    study: StudyArgument,
    storage: Storage = None,
    out: Out = REPORTS,
    format: FormatOption = Format.table,
) -> None:
    """Print how far a study is.

    While a run is at work, it is what that run says of itself, in any phase.
    """
    from gped_nas.api.standing import find_folder, read_standing

    folder = find_folder(study, out)
    standing, is_held = read_standing(folder)
    if standing is not None and is_held:
        print_pairs(_describe_running(standing, folder), format)
        return

    has_study = (folder / "study.json").is_file()
    if standing is not None and not has_study:
        print_pairs({"study": standing.study, **_describe_stopped(standing)}, format)
        return

    from gped_nas.api import open_study

    opened = open_study(study, storage=storage, out=out)
    # one may have begun since its lock was looked at
    is_stopped = standing is not None and not opened.is_at_work()
    stopped = _describe_stopped(standing) if is_stopped else {}
    print_pairs({"study": opened.name, **stopped, **_count(opened)}, format)


def _describe_running(standing: Any, folder: Path) -> dict[str, Any]:
    """What a run that is at work says of itself."""
    import time

    rate, end = standing.per_second, standing.end
    left = None if end is None else max(0.0, end - time.time())
    return {
        "study": standing.study,
        "state": "running",
        "phase": standing.place,
        "done": standing.words or None,
        "per second": None if rate is None else float(f"{rate:.3g}"),
        "seconds left": None if left is None else round(left),
        "phase ends": None if end is None else time.strftime("%H:%M:%S", time.localtime(end)),
        "finished": standing.num_finished,
        **dict(sorted(standing.states.items())),
        "report": str(folder / "report.html"),
    }


def _describe_stopped(standing: Any) -> dict[str, Any]:
    """Where a run was that is not there any more."""
    stopped = {"state": "stopped; the same `gped-search run` goes on", "phase": standing.place}
    # what was done of students is below, trial by trial
    return stopped if standing.phase == "students" else {**stopped, "done": standing.words or None}


def _state_of(record: Any, is_at_work: bool) -> str:
    """A trial's state; none runs where nobody is at work."""
    is_left = record.state == "running" and not is_at_work
    return "interrupted" if is_left else str(record.state)


def _count(study: Any) -> dict[str, Any]:
    """What the trials of a study came to; none runs where nobody is at work."""
    from collections import Counter

    records, chosen = study.records(), study.chosen()
    is_at_work = study.is_at_work()
    references = study.ledger.document.references
    predictions = None if references is None else references.prediction_verdict
    counts = Counter(_state_of(record, is_at_work) for record in records)

    return {
        "finished": sum(record.is_counted for record in records),
        **{state: counts[state] for state in sorted(counts)},
        "on the front": len(study.front_records()),
        "chosen": _number(chosen),
        "student seconds": round(sum(record.seconds for record in records), 1),
        **({"ended": study.end.reason, "why": study.end.sentence} if study.end else {}),
        "report": str(study.path / "report.html"),
        "verdict": study.verdict().sentence,
        **({"prediction_verdict": predictions["sentence"]} if predictions else {}),
    }


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

    opened = open_study(study, storage=storage, out=out)
    record = opened.find(trial)
    if format is Format.json:
        print_json(record.to_json())
        return

    summary = {
        **full_rows([record], opened)[0],
        "state": record.state,
        "reason": record.reason,
        "seconds": record.seconds,
    }
    if format is Format.csv:
        print_pairs({**summary, **record.values}, format)
        return

    if record.trial == _number(opened.chosen()):
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
        print_classes(record, opened)
        print_rows(record.layers, format, title="layers")


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
