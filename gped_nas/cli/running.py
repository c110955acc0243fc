"""The verb that searches: ``run``."""

import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from gped_nas.cli.completion import complete_study
from gped_nas.cli.listing import OUTSIDE, print_students, warn_of_outside, warn_of_teacher
from gped_nas.cli.options import (
    REPORTS,
    Address,
    Device,
    Engine,
    Out,
    Processes,
    Seed,
    Set,
    Space,
    Storage,
    TeacherOption,
    Wide,
    Within,
    WorkerGpus,
    Workers,
    overrides,
    read_space,
    seconds,
)
from gped_nas.cli.output import Format, print_pairs, print_text
from gped_nas.cli.progress import progress, say
from gped_nas.cli.signals import stoppable
from gped_nas.cli.verbs import SEARCH, Verb
from gped_nas.errors import ConfigError, GateError

app = typer.Typer()


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
        str | None, typer.Option("--timeout", help="End at about this time: 90, 30m, 2h.")
    ] = None,
    stop_when_flat: Annotated[
        int | None,
        typer.Option(
            "--stop-when-flat",
            min=0,
            help="End when the front's hypervolume has gained no more than its noise in so many "
            "trials; 0 goes on to --n-trials.",
        ),
    ] = None,
    teacher: TeacherOption = None,
    within: Within = None,
    storage: Storage = None,
    set_: Set = None,
    seed: Seed = None,
    device: Device = "auto",
    processes: Processes = None,
    engine: Engine = None,
    workers: Workers = None,
    worker_gpus: WorkerGpus = None,
    address: Address = None,
    out: Out = REPORTS,
    wide: Wide = False,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Take the study over from the folder it belongs to.")
    ] = False,
    from_study: Annotated[
        str | None,
        typer.Option(
            "--from-study",
            metavar="STUDY",
            help="Tell the sampler of a new study what students of another one came to.",
            autocompletion=complete_study,
        ),
    ] = None,
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
    began, limit = time.monotonic(), seconds(timeout)
    if n_trials is not None and n_trials < 1:
        raise ConfigError(f"--n-trials: found {n_trials}, expected at least 1")
    settings = overrides(set_, seed)
    if stop_when_flat is not None:
        settings["search.stop_when_flat"] = stop_when_flat
    if print_config or dry_run:
        search_space = read_space(space, settings, teacher)
        _show_plan(search_space, device, n_trials, is_short=print_config)
        return

    again = _again(
        space, study_name, storage, set_, seed, out, n_trials, stop_when_flat, within, teacher
    )
    again += f" --from-study {shlex.quote(from_study)}" if from_study else ""
    again += _again_with(engine, workers, worker_gpus, address)
    # The bar is there before anything is imported, which takes seconds.
    with progress(study_name or Path(space).stem) as teller:
        from gped_nas.api import new_session
        from gped_nas.api import run as run_study

        search_space = read_space(space, settings, teacher)
        num_wanted = n_trials or search_space.search.n_trials
        ended: list[int] = []
        bounds = _bounds(within, search_space)
        with stoppable(again) as should_stop:
            session = new_session(
                device,
                progress=teller.report,
                follow=teller.follow,
                should_stop=should_stop,
                processes=processes,
                engine=engine,
                workers=workers,
                worker_gpus=worker_gpus,
                address=address,
            )
            study = run_study(
                search_space,
                out=out,
                study_name=study_name,
                storage=storage,
                n_trials=n_trials,
                timeout_s=None if limit is None else limit - (time.monotonic() - began),
                adopt=adopt,
                from_study=from_study,
                session=session,
                told=_told(num_wanted, ended),
            )

    picked, refusal = study.chosen(), None
    if bounds:
        try:
            picked = study.pick(bounds)
        except GateError as error:
            picked, refusal = None, error
    _print_front(study, picked, wide=wide)
    warn_of_teacher(study)
    warn_of_outside(study)
    for note in study.training_notes():
        say(note)
    if study.idle_share is not None and ended:
        share = f"{100 * study.idle_share:.1f} %"
        say(f"workers: {study.num_workers}, which had nothing to do for {share} of their time")
    num_tested = study.num_test_evaluations
    say(f"students tested so far: {num_tested}, each once and only when on the front")
    num_finished = _num_finished(study)
    if not ended and num_finished >= num_wanted:
        say(
            f"no trial was added: {num_finished} are finished, and {num_wanted} in all were asked "
            f"for; --n-trials {2 * num_finished} searches further"
        )
    if study.end is not None and study.end.reason == "flat":
        say(f"{study.end.sentence} --stop-when-flat 0 searches further")
    print(f"report: {study.path / 'report.html'}")
    print_text(study.verdict(within=bounds).sentence)
    if study.population_s is not None:
        _say_time_is_over(study, again)
    if refusal is not None:
        raise refusal


def _num_finished(study: Any) -> int:
    """How many trials of a study count."""
    return sum(record.is_counted for record in study.records())


def _say_time_is_over(study: Any, again: str) -> None:
    """The last lines of a run that ended at its time limit: what was done, and how to go on."""
    finished = _num_finished(study)
    say(
        f"the time limit ended the search: {finished} trials are finished, students on the front "
        f"are not tested and references are not made yet; go on with: {again}"
    )
    if study.population_s:
        say(
            f"a population took {study.population_s:.3g} s; it is trained whole, so none was begun "
            "that would not have ended in time, and a shorter --timeout ends after one"
        )
    say(f"to end it with what is there, give the same command --n-trials {finished}")


def _show_plan(search_space: Any, device: str, n_trials: int | None, *, is_short: bool) -> None:
    """Print the resolved space, or what a run would do."""
    from gped_nas.api import new_session
    from gped_nas.api.plan import plan
    from gped_nas.config import dump_yaml

    if is_short:
        print(dump_yaml(search_space.resolved), end="")
    else:
        print_pairs(plan(search_space, new_session(device), n_trials), Format.table)


def _told(num_trials: int, ended: list[int]) -> Callable[[Any, int], None]:
    """What says a line of each trial that ended, and notes its number in ``ended``."""

    def tell(record: Any, finished: int) -> None:
        ended.append(record.trial)
        what = record.reason
        if record.costs:
            what = f"nll {record.metrics['nll']:.4f}, {record.costs['params']:,} parameters"
            what += f", {OUTSIDE}" if record.is_outside else ""
            what += f", {record.origin}" if record.origin else ""
        say(
            f"trial {record.trial}: {record.state}, {what} ({finished} of {num_trials})",
            "trial",
            trial=record.trial,
            state=record.state,
            reason=record.reason or record.origin,
            genotype=record.genotype,
            metrics=record.metrics,
            costs=record.costs,
            outside=record.is_outside,
            finished=finished,
            wanted=num_trials,
        )

    return tell


def _again_with(
    engine: str | None, workers: int | None, worker_gpus: float | None, address: str | None
) -> str:
    """What the command that resumes a run says of who trains."""
    words = []
    for option, value in (
        ("--engine", engine),
        ("--workers", workers),
        ("--worker-gpus", worker_gpus),
        ("--address", address),
    ):
        if value is not None:
            words += [option, shlex.quote(str(value))]
    return "".join(f" {word}" for word in words)


def _bounds(within: Sequence[str] | None, space: Any) -> dict[str, float]:
    """What the chosen student may cost; bounds that no student of the space has are refused."""
    from gped_nas.search.bounds import parse_bounds
    from gped_nas.search.objectives import check_available, objective

    bounds = parse_bounds(within, "--within") if within else {}
    for name in bounds:
        objective(name, "--within")
    conditions = [condition.name for condition in space.conditions]
    outside = [each.name for each in space.outside]
    check_available([*bounds], space.targets, "--within", conditions, outside, space.radii)
    return bounds


def _print_front(study: Any, chosen: Any, *, wide: bool) -> None:
    """The front as a table, with the one that was chosen marked."""
    print_students(
        study.front_records(),
        study,
        Format.table,
        wide=wide,
        chosen=None if chosen is None else chosen.trial,
        title=f"front of {study.name}: best by {study.objectives[0].name} first",
    )


def _again(
    space: str,
    name: str | None,
    storage: str | None,
    set_: Any,
    seed: Any,
    out: Path,
    n_trials: Any,
    stop_when_flat: int | None,
    within: Any,
    teacher: str | None,
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
    if stop_when_flat is not None:
        words += ["--stop-when-flat", str(stop_when_flat)]
    if teacher is not None:
        words += ["--teacher", teacher]
    for bounds in within or ():
        words += ["--within", bounds]
    if out != REPORTS:
        words += ["--out", str(out)]

    return " ".join(word if word.startswith("$") else shlex.quote(word) for word in words)
