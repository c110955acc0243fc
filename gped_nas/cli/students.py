"""Verbs about one student: take it home, ask it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from gped_nas.cli.answers import flat
from gped_nas.cli.completion import complete_trial
from gped_nas.cli.options import (
    REPORTS,
    FormatOption,
    Inputs,
    Out,
    Set,
    Storage,
    StudyArgument,
    TrialArgument,
    overrides,
)
from gped_nas.cli.output import Format, print_rows
from gped_nas.cli.progress import progress, say
from gped_nas.cli.signals import stoppable
from gped_nas.cli.verbs import STUDENT, Verb

app = typer.Typer()


@app.command(cls=Verb, rich_help_panel=STUDENT)
def export(
    study: StudyArgument,
    trial: TrialArgument = "chosen",
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            metavar="FORMAT",
            help="safetensors (the default), pt2 or onnx; may be given again.",
        ),
    ] = None,
    inputs: Annotated[
        str,
        typer.Option(
            "--inputs",
            help="float32, or bytes: onnx and pt2 take pictures as uint8, channels last.",
        ),
    ] = "float32",
    compute: Annotated[
        str,
        typer.Option(
            "--compute",
            help="float32, or int8: onnx computes a student of int8 weights in int8.",
        ),
    ] = "float32",
    post_hoc: Annotated[
        bool,
        typer.Option(
            "--post-hoc",
            help="Fit a temperature and conformal sets on held-out labels, for predict.",
        ),
    ] = False,
    posterior: Annotated[
        str | None,
        typer.Option(
            "--posterior",
            metavar="CODEC",
            help="Take the teacher's posterior home instead, in few bytes: low_rank:rank=8. STUDY "
            "may be a SPACE then.",
        ),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option("--into", help="Folder to write; <study>-<trial>[-<format>] by default."),
    ] = None,
    set_: Set = None,
    storage: Storage = None,
    out: Out = REPORTS,
) -> None:
    """Take the chosen student home, or another one.

    Its files can be read by others. Each format is checked against the live student; spec.json and
    a model card lie beside it.
    """
    if posterior is not None:
        given = {
            "TRIAL": trial != "chosen",
            "--to": bool(to),
            "--inputs": inputs != "float32",
            "--compute": compute != "float32",
            "--post-hoc": post_hoc,
        }
        _export_posterior(study, posterior, into, given, set_, storage, out)
        return

    if set_:
        _refuse("--set: found without --posterior, of a study, which has its own settings")

    from gped_nas.api import export_student

    export = export_student(
        study,
        trial,
        into,
        to=to or "safetensors",
        inputs=inputs,  # type: ignore[arg-type]  # checked there
        post_hoc=post_hoc,
        compute=compute,  # type: ignore[arg-type]  # likewise
        storage=storage,
        out=out,
    )
    for name, file in export.files.items():
        parity = file["parity"]
        largest_difference = max(parity["difference"].values())
        say(
            f"{name}: {file['bytes']:,} bytes, {file['weights_bytes']:,} of weights and "
            f"{file['overhead_bytes']:,} of container; differs from the live student by at most "
            f"{largest_difference:.2g} on {parity['inputs']:,} inputs"
        )
        if "compute" in file:
            _say_int8(name, file)

    print(export.folder)


def _export_posterior(
    what: str,
    codec: str,
    into: Path | None,
    given: Mapping[str, bool],
    set_: list[str] | None,
    storage: str | None,
    out: Path,
) -> None:
    """Take a teacher's posterior home."""
    for option, is_given in given.items():
        if is_given:
            _refuse(f"{option}: found with --posterior, which takes no student home")

    from gped_nas.api import export_posterior, new_session

    with stoppable() as should_stop, progress() as teller:
        session = new_session(progress=teller.report, should_stop=should_stop)
        export = export_posterior(
            *(what, codec, into),
            overrides=overrides(set_),
            storage=storage,
            out=out,
            session=session,
        )
    say(
        f"posterior.safetensors: {export.bytes:,} bytes by {export.codec}, of "
        f"{export.networks_bytes:,} of the networks that it read; what load_posterior.py answers "
        f"differs by at most {export.difference:.2g}"
    )
    print(export.folder)


def _refuse(what: str) -> None:
    """Refuse an option.

    Raises:
        ConfigError: always.
    """
    from gped_nas.errors import ConfigError

    raise ConfigError(f"{what}; leave it out")


def _say_int8(name: str, file: Mapping[str, Any]) -> None:
    """What computing in int8 costs and gains: answers, metrics and time."""
    parity, validation = file["parity"], file["validation"]
    average = max(parity["average"].values())
    say(
        f"{name}: computes in int8; its answers differ by {average:.2g} on average over the "
        f"validation inputs, {parity['tolerance']:g} at most are allowed"
    )
    for metric, value in validation["int8"].items():
        before = validation["float32"][metric]
        say(
            f"{name}: {metric} {_number(value)} on {validation['n']:,} validation inputs, "
            f"{_number(before)} in float32"
        )
    for batch in (1, 256):
        times = file["latency"][f"batch_{batch}"]
        mine, before = (times[kind]["latency_ms"] for kind in ("int8", "float32"))
        say(f"{name}: {mine:.3g} ms a call of batch {batch}, {before:.3g} ms in float32")


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


@app.command(cls=Verb, rich_help_panel=STUDENT)
def predict(
    student: Annotated[
        Path,
        typer.Argument(
            metavar="STUDENT",
            help="A student's folder, or an export of one, or a study, whose chosen one is asked.",
        ),
    ],
    inputs: Inputs,
    trial: Annotated[
        str | None,
        typer.Option(
            "--trial",
            help="Which student of a study: a number, 'chosen' or 'best'.",
            autocompletion=complete_trial,
        ),
    ] = None,
    calibrated: Annotated[
        bool,
        typer.Option("--calibrated", help="Answer at the temperature that the export fitted."),
    ] = False,
    set_level: Annotated[
        float | None,
        typer.Option(
            "--set-level",
            metavar="P",
            help="Add the set of classes, or the interval, that holds the label with P.",
        ),
    ] = None,
    set_rule: Annotated[
        str, typer.Option("--set-rule", metavar="RULE", help="Which sets of classes: split or aps.")
    ] = "split",
    storage: Storage = None,
    out: Out = REPORTS,
    format: FormatOption = Format.table,
) -> None:
    """Ask a student about inputs, one row an input.

    A row holds the probability of each class, how uncertain the student is and its other targets.
    """
    from gped_nas.api import predict_files
    from gped_nas.api.picking import student_folder

    folder = student_folder(student, trial, storage=storage, out=out)
    rows = predict_files(
        folder, inputs, calibrated=calibrated, set_level=set_level, set_rule=set_rule
    )
    print_rows(rows if format is Format.json else [flat(row) for row in rows], format)
