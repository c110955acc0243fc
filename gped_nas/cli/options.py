"""Options that several verbs share."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from gped_nas.cli.completion import complete_space, complete_study, complete_trial
from gped_nas.cli.output import Format

Space = Annotated[
    str,
    typer.Argument(
        metavar="SPACE",
        help="A YAML search space, or the name of a shipped one.",
        autocompletion=complete_space,
    ),
]
StudyArgument = Annotated[
    str,
    typer.Argument(
        metavar="STUDY", help="A study's name or its folder.", autocompletion=complete_study
    ),
]
TrialArgument = Annotated[
    str,
    typer.Argument(
        metavar="TRIAL",
        help="A trial's number, 'chosen' or 'best'.",
        autocompletion=complete_trial,
    ),
]
Inputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="INPUTS...",
        help="Arrays (.npy, .npz) in the data's own range, or images (.png, .jpg).",
    ),
]
Wide = Annotated[bool, typer.Option("--wide", help="Print a table with all its columns.")]
Within = Annotated[
    list[str] | None,
    typer.Option(
        "--within", metavar="BOUNDS", help="What a student may cost: 100kB,2MFLOPs,params=5000."
    ),
]
FormatOption = Annotated[Format, typer.Option("--format", "-f", help="How to print the data.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: a.b=c.")
]
Seed = Annotated[int | None, typer.Option("--seed", help="Root of every seed.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
TeacherOption = Annotated[
    str | None,
    typer.Option(
        "--teacher", metavar="tuned", help="The teacher that `teacher tune` found, not the file's."
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(
        "--processes",
        help="Chains run side by side, a core each; decided by the work if not given.",
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        help="Who trains students: local, processes or ray; processes where there are several "
        "GPUs, else local.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        help="Populations trained at the same time, each by a process or an actor; one a GPU or "
        "core if not given.",
    ),
]
WorkerGpus = Annotated[
    float | None,
    typer.Option(
        "--worker-gpus", help="GPUs of each actor of --engine ray, such as 0.5; 1 with a GPU."
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="The Ray cluster: auto, or HOST:PORT; without one, this machine alone.",
    ),
]
REPORTS = Path("reports")
"""Where studies are by default."""
Out = Annotated[Path, typer.Option("--out", help="Folder of all studies.")]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        envvar=["GPED_STORAGE", "OPTUNA_STORAGE"],
        help="Optuna storage URL.",
        show_envvar=True,
    ),
]


def overrides(settings: Sequence[str] | None, seed: int | None = None) -> dict[str, Any]:
    """``--set`` and ``--seed`` as dotted keys to values.

    Raises:
        ConfigError: a ``--set`` without ``=``, or whose value is no YAML.
    """
    from gped_nas.config import parse_value
    from gped_nas.errors import ConfigError

    values: dict[str, Any] = {}
    for setting in settings or ():
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise ConfigError(
                f"--set {setting}: expected KEY=VALUE, for example search.n_trials=16"
            )
        values[key.strip()] = parse_value(text, f"--set {key}")

    if seed is not None:
        values["seed"] = seed
    return values


def seconds(text: str | None, option: str = "--timeout") -> float | None:
    """``"90"``, ``"30m"`` or ``"2h"`` in seconds.

    Args:
        text: what was given.
        option: with which option, for the message.

    Raises:
        ConfigError: it is none of these.
    """
    from gped_nas.errors import ConfigError

    if text is None:
        return None

    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match or float(match[1]) <= 0:
        raise ConfigError(f"{option}: found '{text}', expected a time such as 90, 90s, 30m or 2h")

    seconds_per_unit = {"": 1, "s": 1, "m": 60, "h": 3600}
    return float(match[1]) * seconds_per_unit[match[2]]


def read_space(space: str, settings: dict[str, Any], teacher: str | None) -> Any:
    """The search space of a verb with ``--teacher``.

    Raises:
        ConfigError: another teacher than ``tuned``, or there is no tuning of the space.
        GpedError: see ``load_space``.
    """
    from gped_nas.api import load_space
    from gped_nas.api.tuned import with_named_teacher

    return with_named_teacher(load_space(space, settings), teacher)
