"""``doctor``: whether this machine has what a search needs, and whether methods keep their laws."""

import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from gped_nas.cli.options import FormatOption
from gped_nas.cli.output import Format, print_json, print_rows
from gped_nas.cli.verbs import HOUSEKEEPING, Verb

app = typer.Typer()
NEEDED_BYTES = 2**30
Posterior = Annotated[
    bool,
    typer.Option(
        "--posterior", help="Try the posterior methods on known posteriors; exit 3 if one fails."
    ),
]


@app.command(cls=Verb, rich_help_panel=HOUSEKEEPING)
def doctor(format: FormatOption = Format.table, posterior: Posterior = False) -> None:
    """Check that this machine has what a search needs.

    It looks at Python, torch, the device, extras, folders and the disk, and exits with 5 if
    something that is needed is missing.
    """
    from gped_nas.errors import EnvironmentProblem

    if posterior:
        _try_methods(format)
        return
    checks = [*_software(), *_plugins(), *_folders()]
    print_json(checks) if format is Format.json else print_rows(checks, format)
    broken = [check["check"] for check in checks if check["verdict"] == "broken"]
    if broken:
        raise EnvironmentProblem(f"broken: {', '.join(broken)}; see the table for what to do")


def _try_methods(format: Format) -> None:
    from gped_nas.errors import GateError
    from gped_nas.posterior.selftest import selftest

    findings = selftest()
    rows = [
        {
            "method": found.method,
            "verdict": "not tried" if found.ok is None else "ok" if found.ok else "failed",
            "variance expected": found.expected,
            "variance found": found.found,
            "largest error of a mean": found.mean_error,
            "largest error of a variance": found.variance_error,
            "sees a variance off by": found.sees,
            "seconds": found.seconds,
            "note": found.note,
        }
        for found in findings
    ]
    title = "conjugate posterior; variances over the exact ones, errors over what passes"
    print_json(rows) if format is Format.json else print_rows(rows, format, title=title)
    if failed := [found.method for found in findings if found.ok is False]:
        raise GateError(
            f"not the law they should have: {', '.join(failed)}; do not trust samples of these "
            "methods"
        )


def _software() -> list[dict[str, Any]]:
    import sqlite3

    import torch

    from gped_nas import device

    about = device.fingerprint(device.choose())
    checks = [
        _check(
            "python",
            sys.version.split()[0],
            sys.version_info >= (3, 11),
            "install Python 3.11 or later",
        ),
        _check("torch", str(torch.__version__), True, ""),
        _check(
            "device", f"{about['device']}: {about['name']}, {about['threads']} threads", True, ""
        ),
        _check("sqlite", sqlite3.sqlite_version, True, ""),
    ]
    for name in (
        "torchvision",
        "optuna",
        "plotly",
        "pandas",
        "fvcore",
        "safetensors",
        "scikit-learn",
        "pydantic",
    ):
        found = _version(name)
        checks.append(_check(name, found or "missing", found is not None, f"pip install {name}"))
    dashboard = _version("optuna-dashboard")
    checks.append(
        {
            "check": "optuna-dashboard (extra)",
            "found": dashboard or "not installed",
            "verdict": "ok" if dashboard else "optional",
            "what to do": "" if dashboard else "pip install 'gped-nas[dashboard]'",
        }
    )
    return checks


def _plugins() -> list[dict[str, Any]]:
    """A row a plug-in, with what it registers; and one more where a plug-in cannot be loaded."""
    from gped_nas.errors import EnvironmentProblem
    from gped_nas.registry import installed_plugins, load_plugins

    problem = ""
    try:
        load_plugins()
    except EnvironmentProblem as error:
        problem = str(error)

    checks = [
        _check(f"plug-in {plugin}", ", ".join(names) or "registers nothing", True, "")
        for plugin, names in installed_plugins().items()
    ]
    if problem:
        checks.append(_check("plug-ins", problem, False, "mend or uninstall it"))
    return checks


def _folders() -> list[dict[str, Any]]:
    from gped_nas.api.session import cache_root
    from gped_nas.errors import EnvironmentProblem
    from gped_nas.io import make_dir

    root = cache_root()
    try:
        make_dir(root)
    except EnvironmentProblem as error:
        return [
            _check("cache", str(error), False, "set GPED_CACHE to a folder that can be written")
        ]
    free = shutil.disk_usage(root).free
    return [
        _check("cache", str(root), True, ""),
        _check(
            "free disk",
            f"{free / 2**30:.1f} GiB",
            free >= NEEDED_BYTES,
            "free at least 1 GiB, or set GPED_CACHE",
        ),
    ]


def _check(name: str, found: str, is_fine: bool, advice: str) -> dict[str, Any]:
    return {
        "check": name,
        "found": found,
        "verdict": "ok" if is_fine else "broken",
        "what to do": "" if is_fine else advice,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
