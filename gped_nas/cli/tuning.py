"""The verb that tunes a teacher: ``teacher tune``."""

import shlex
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gped_nas.cli.options import (
    Device,
    FormatOption,
    Processes,
    Seed,
    Set,
    Space,
    overrides,
    seconds,
)
from gped_nas.cli.output import Format, print_json, print_pairs, print_rows, print_text
from gped_nas.cli.progress import progress, say
from gped_nas.cli.signals import stoppable
from gped_nas.cli.teachers import app
from gped_nas.cli.verbs import Verb

if TYPE_CHECKING:
    from gped_nas.api.tuning_answer import TeacherTuning
    from gped_nas.api.tuning_record import Tried

Budget = Annotated[
    str | None,
    typer.Option("--budget", help="About how long it may take: 90, 5m (the default), 2h."),
]
__all__ = ["app"]

NumTrials = Annotated[
    int | None,
    typer.Option("--n-trials", help="Candidates in all, earlier runs included, beside MAP."),
]
TunedMethods = Annotated[
    str | None,
    typer.Option("--methods", metavar="A,B,...", help="Methods to choose from."),
]


@app.command(cls=Verb)
def tune(
    space: Space,
    budget: Budget = None,
    n_trials: NumTrials = None,
    methods: TunedMethods = None,
    format: FormatOption = Format.table,
    set_: Set = None,
    seed: Seed = None,
    device: Device = "auto",
    processes: Processes = None,
) -> None:
    """Find the teacher that predicts best, beside MAP.

    Candidates are compared on training data that is held out; the best one is built on all of it
    and compared with MAP networks on validation. It prints the teacher's block, which
    `run --teacher tuned` takes. The same command goes on.
    """
    began, limit = time.monotonic(), seconds(budget, "--budget")
    again = _again(space, budget, n_trials, methods, set_, seed)
    with progress() as teller:
        from gped_nas.api import load_space, new_session, tune_teacher

        search_space = load_space(space, overrides(set_, seed))
        with stoppable(again) as should_stop:
            session = new_session(
                device, progress=teller.report, should_stop=should_stop, processes=processes
            )
            tuning = tune_teacher(
                search_space,
                budget=limit,
                n_trials=n_trials,
                methods=None if methods is None else [m.strip() for m in methods.split(",")],
                session=session,
                told=_tell,
                began=began,
            )

    if format is Format.json:
        print_json(tuning.to_json())
    elif format is Format.csv:
        print_rows(_rows(tuning), format)
    else:
        _print(tuning)


def _tell(tried: "Tried", number: int) -> None:
    """A line of a candidate that ended."""
    what = tried.label or "drawn"
    loss = f", NLL {tried.values[-1]:.4f}" if tried.values else ""
    reason = f" ({tried.reason})" if tried.reason else ""
    say(
        f"candidate {number}: {tried.name}, {what}: {tried.state}{loss}{reason}, "
        f"{tried.seconds:.1f} s"
    )


def _print(tuning: "TeacherTuning") -> None:
    """Everything for people: the candidates, what was found, and the block."""
    answer = tuning.answer
    title = "the best candidates of each method, NLL on held-out training data"
    print_rows(_best_rows(tuning), Format.table, title=title)
    held_out, validation, costs = answer["held_out"], answer["validation"], answer["costs"]
    print_pairs(
        {
            "held out": held_out["what"],
            "NLL held out, teacher": held_out["nll"],
            "NLL held out, MAP": held_out["nll_of_map"],
            "NLL on validation, teacher": validation["nll"],
            "NLL on validation, MAP": validation["nll_of_map"],
            "bytes of the teacher": costs["storage_bytes"],
            "seconds to sample it": costs["sampling_seconds"],
            "seconds of all candidates": costs["tuning_seconds"],
        },
        Format.table,
    )
    print_text(answer["verdict"]["sentence"])
    print_text(tuning.sentence)
    print(tuning.yaml, end="")


def _best_rows(tuning: "TeacherTuning") -> list[dict[str, Any]]:
    """The best candidate of each method that came to its end, best first."""
    best: dict[str, Tried] = {}
    for tried in tuning.tried:
        if tried.state != "complete":
            continue
        if tried.name not in best or tried.value < best[tried.name].value:
            best[tried.name] = tried

    rows = []
    for name, tried in sorted(best.items(), key=lambda pair: pair[1].value):
        rows.append(
            {
                "method": name,
                "NLL": tried.value,
                "prior": _prior_text(tried),
                "temperature": tried.method.get("temperature"),
                "tried": sum(other.name == name for other in tuning.tried),
                "posterior": tried.verdict,
                "seconds": tried.seconds,
            }
        )
    return rows


def _prior_text(tried: "Tried") -> str:
    settings = {key: value for key, value in tried.prior.items() if key != "name"}
    return ", ".join(f"{key} {value:g}" for key, value in settings.items())


def _rows(tuning: "TeacherTuning") -> list[dict[str, Any]]:
    """All candidates, for CSV."""
    rows = []
    for candidate in tuning.to_json()["candidates"]:
        method = {f"method.{key}": value for key, value in candidate.pop("method").items()}
        prior = {f"prior.{key}": value for key, value in candidate.pop("prior").items()}
        rows.append({**candidate, **method, **prior})
    return rows


def _again(
    space: str, budget: str | None, n_trials: int | None, methods: str | None, set_: Any, seed: Any
) -> str:
    """The command that goes on."""
    words = ["gped-search", "teacher", "tune", space]
    options = {"--budget": budget, "--n-trials": n_trials, "--methods": methods, "--seed": seed}
    for option, value in options.items():
        if value is not None:
            words += [option, str(value)]
    for setting in set_ or ():
        words += ["--set", setting]
    return shlex.join(words)
