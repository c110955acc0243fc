"""Verbs about studies: run one, read it, look at it."""

import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from gped_nas.cli.options import (
    REPORTS,
    Device,
    FormatOption,
    Out,
    Processes,
    Seed,
    Set,
    Space,
    Storage,
    StudyArgument,
    TrialArgument,
    overrides,
    seconds,
)
from gped_nas.cli.output import Format, print_json, print_pairs, print_rows
from gped_nas.cli.progress import progress, say
from gped_nas.cli.signals import stoppable
from gped_nas.cli.verbs import SEARCH, STUDENT, Verb

app = typer.Typer()

_COSTS = ("macs", "params", "storage_bytes")


@app.command(cls=Verb, rich_help_panel=SEARCH)
def run(
    space: Space,
    study_name: Annotated[
        str | None,
        typer.Option(
            "--study-name",
            help="Name of the study and of its folder in --out; the space's name by default. The "
            "same name goes on with a study, another one starts anew.",
        ),
    ] = None,
    n_trials: Annotated[
        int | None,
        typer.Option("--n-trials", help="Finished trials in all, earlier runs included."),
    ] = None,
    timeout: Annotated[
        str | None, typer.Option("--timeout", help="Start no population after this: 90, 30m, 2h.")
    ] = None,
    storage: Storage = None,
    set_: Set = None,
    seed: Seed = None,
    device: Device = "auto",
    processes: Processes = None,
    out: Out = REPORTS,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Take the study over from the folder it belongs to.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and stop.")
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the resolved space, and stop.")
    ] = False,
) -> None:
    """Search for students, write the front and its report.

    The teacher is sampled once and its stream kept. The same command goes on where an earlier one
    stopped.
    """
    from gped_nas.api import load_space, new_session
    from gped_nas.api import run as run_study
    from gped_nas.api.plan import plan
    from gped_nas.config import dump_yaml
    from gped_nas.errors import ConfigError

    search_space = load_space(space, overrides(set_, seed))
    limit = seconds(timeout)
    if n_trials is not None and n_trials < 1:
        raise ConfigError(f"--n-trials: found {n_trials}, expected at least 1")
    if print_config:
        print(dump_yaml(search_space.resolved), end="")
        return
    if dry_run:
        print_pairs(plan(search_space, new_session(device), n_trials), Format.table)
        return

    num_trials = n_trials or search_space.search.n_trials

    def tell(record: Any, finished: int) -> None:
        what = record.reason
        if record.costs:
            what = f"nll {record.metrics['nll']:.4f}, {record.costs['params']:,} parameters"
        say(f"trial {record.trial}: {record.state}, {what} ({finished} of {num_trials})")

    with (
        stoppable(_again(space, study_name, storage, set_, seed, out, n_trials)) as should_stop,
        progress() as report,
    ):
        session = new_session(device, progress=report, should_stop=should_stop, processes=processes)
        study = run_study(
            search_space,
            out=out,
            study_name=study_name,
            storage=storage,
            n_trials=n_trials,
            timeout_s=limit,
            adopt=adopt,
            session=session,
            told=tell,
        )

    _print_front(study)
    _warn_of_teacher(study)
    num_tested = study.num_test_evaluations
    say(f"students tested so far: {num_tested}, each once and only when on the front")
    print(f"report: {study.path / 'report.html'}")


def _again(
    space: str,
    name: str | None,
    storage: str | None,
    set_: Any,
    seed: Any,
    out: Path,
    n_trials: Any,
) -> str:
    """The command that resumes a run.

    A storage URL may hold a password and is left to the environment.
    """
    words = ["gped-search", "run", space]
    if name is not None:
        words += ["--study-name", name]
    if storage is not None:
        words += ["--storage", "$GPED_STORAGE"]
    for setting in set_ or ():
        words += ["--set", setting]
    if seed is not None:
        words += ["--seed", str(seed)]
    if n_trials is not None:
        words += ["--n-trials", str(n_trials)]
    if out != REPORTS:
        words += ["--out", str(out)]

    return " ".join(word if word.startswith("$") else shlex.quote(word) for word in words)


def _rows(records: Sequence[Any], study: Any) -> list[dict[str, Any]]:
    """A row a record, with those of the objectives and usual metrics that any of them has."""
    measured = {name for record in records for name in record.metrics}
    columns = _columns(study, measured)
    return [_row(record, columns) for record in records]


def _columns(study: Any, measured: Collection[str]) -> list[str]:
    """Of the names that were measured the objectives, and those that are usually asked for."""
    objectives = [objective.name for objective in study.objectives]
    quality = ("nll", "accuracy", "rmse", "kl_to_teacher")
    tested = ("test_nll", "test_nll_above_teacher", "test_accuracy", "test_rmse")
    columns = dict.fromkeys(name for name in (*objectives, *quality, *tested) if name in measured)
    return list(columns)


def _row(record: Any, metrics: Sequence[str]) -> dict[str, Any]:
    from gped_nas.api.study import name_student

    return {
        "trial": record.trial,
        "genotype": name_student(record),
        **{name: record.metrics.get(name) for name in metrics},
        **{name: record.costs.get(name) for name in _COSTS},
    }


def _print_front(study: Any) -> None:
    chosen = study.chosen()
    front = study.front_records()
    rows = _rows(front, study)
    for row in rows:
        row[""] = "<- chosen" if row["trial"] == chosen.trial else ""

    title = f"front of {study.name}: best by {study.objectives[0].name} first"
    print_rows(rows, Format.table, title=title)


def _warn_of_teacher(study: Any) -> None:
    """Say so where nothing that students imitate is worth it."""
    if study.is_teacher_guess:
        say(
            "the teacher is not better than a guess from the training labels: no student of it is "
            "to be used; mend the teacher, see `gped-search teacher info`"
        )


def _print_references(study: Any) -> None:
    """What the front is compared with, a row each with the columns of the front."""
    measured = {name for reference in study.references() for name in reference.metrics}
    rows = []
    for reference in study.references():
        row: dict[str, Any] = {"reference": reference.label}
        row |= {name: reference.metrics.get(name) for name in _columns(study, measured)}
        row |= {name: reference.costs.get(name) for name in _COSTS}
        rows.append(row)
    if rows:
        print_rows(rows, Format.table, title="what it is compared with")


def _as_json(record: Any) -> dict[str, Any]:
    data = record.to_json()
    keys = ("schema_version", "trial", "genotype", "metrics", "intervals", "n", "costs")
    return {key: data[key] for key in keys}


@app.command(cls=Verb, rich_help_panel=SEARCH)
def front(
    study: StudyArgument,
    storage: Storage = None,
    out: Out = REPORTS,
    format: FormatOption = Format.table,
) -> None:
    """Print the Pareto front, best by the first objective."""
    from gped_nas.api import open_study

    opened = open_study(study, storage=storage, out=out)
    records = opened.front_records()
    if format is Format.json:
        print_json([_as_json(record) for record in records])
    else:
        print_rows(_rows(records, opened), format)
    if format is Format.table:
        _print_references(opened)

    _warn_of_teacher(opened)
    if not records:
        say(f"the front is empty: {'; '.join(opened.explain_empty_front())}")


@app.command(cls=Verb, rich_help_panel=SEARCH)
def trials(
    study: StudyArgument,
    storage: Storage = None,
    out: Out = REPORTS,
    format: FormatOption = Format.table,
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

    rows = _rows(records, opened)
    for row, record in zip(rows, records, strict=True):
        row |= {"state": record.state, "reason": record.reason}
    print_rows(rows, format)


@app.command(cls=Verb, rich_help_panel=SEARCH)
def status(
    study: StudyArgument,
    storage: Storage = None,
    out: Out = REPORTS,
    format: FormatOption = Format.table,
) -> None:
    """Print how far a study is."""
    from collections import Counter

    from gped_nas.api import open_study
    from gped_nas.search.record import FINISHED

    opened = open_study(study, storage=storage, out=out)
    records, chosen = opened.records(), opened.chosen()
    counts = Counter(record.state for record in records)

    print_pairs(
        {
            "study": opened.name,
            "finished": sum(record.state in FINISHED for record in records),
            **{state: counts[state] for state in sorted(counts)},
            "on the front": len(opened.front_records()),
            "chosen": None if chosen is None else chosen.trial,
            "student seconds": round(sum(record.seconds for record in records), 1),
            "report": str(opened.path / "report.html"),
        },
        format,
    )


@app.command(cls=Verb, rich_help_panel=STUDENT)
def pick(
    study: StudyArgument,
    within: Annotated[
        list[str] | None,
        typer.Option("--within", metavar="NAME=BOUND", help="A budget: params=5000."),
    ] = None,
    storage: Storage = None,
    out: Out = REPORTS,
    format: FormatOption = Format.table,
) -> None:
    """Pick the best student within budgets.

    Without a budget, it is the student that the report chooses.
    """
    from gped_nas.api import open_study
    from gped_nas.errors import ConfigError, GateError

    opened = open_study(study, storage=storage, out=out)
    bounds = {}
    for text in within or ():
        name, _, value = text.partition("=")
        try:
            bounds[name.strip()] = float(value)
        except ValueError:
            raise ConfigError(
                f"--within {text}: expected NAME=BOUND, for example params=5000"
            ) from None

    record = opened.pick(bounds) if bounds else opened.chosen()
    if record is None:
        what, remedy = opened.explain_empty_front()
        raise GateError(f"study '{opened.name}': {what}, so none can be picked; {remedy}")

    if format is Format.json:
        print_json(_as_json(record))
    else:
        print_rows(_rows([record], opened), format)


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
    record = opened.record(trial)
    if format is Format.json:
        print_json(record.to_json())
        return

    summary = {
        **_rows([record], opened)[0],
        "state": record.state,
        "reason": record.reason,
        "seconds": record.seconds,
    }
    if format is Format.csv:
        print_pairs({**summary, **record.values}, format)
        return

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
        print_rows(record.layers, format, title="layers")


@app.command(cls=Verb, rich_help_panel=SEARCH)
def report(
    studies: Annotated[
        list[str], typer.Argument(metavar="STUDY...", help="A study's name or folder, or several.")
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
