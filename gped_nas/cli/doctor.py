"""``doctor``: whether this machine has what a search needs, and whether methods keep their laws."""

import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from gped_nas.cli.options import FormatOption
from gped_nas.cli.output import Format, print_rows
from gped_nas.cli.verbs import HOUSEKEEPING, Verb

app = typer.Typer()
NEEDED_BYTES = 2**30
_PACKAGES = (
    "torchvision",
    "optuna",
    "plotly",
    "pandas",
    "fvcore",
    "safetensors",
    "scikit-learn",
    "pydantic",
)
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
    print_rows(checks, format)

    broken = [check["check"] for check in checks if check["verdict"] == "broken"]
    if broken:
        raise EnvironmentProblem(f"broken: {', '.join(broken)}; see the table for what to do")


def _try_methods(format: Format) -> None:
    from gped_nas.errors import GateError
    from gped_nas.posterior.selftest import selftest

    findings = selftest()
    verdicts = {None: "not tried", True: "ok", False: "failed"}
    rows = [
        {
            "method": finding.method,
            "case": finding.case,
            "verdict": verdicts[finding.ok],
            "variance expected": finding.expected,
            "variance found": finding.found,
            "largest error of a mean": finding.mean_error,
            "largest error of a variance": finding.variance_error,
            "sees variances off by": finding.sees,
            "seconds": finding.seconds,
            "note": finding.note,
        }
        for finding in findings
    ]

    title = "known posterior; variances over the exact ones, errors over what passes"
    print_rows(rows, format, title=title)

    failed = dict.fromkeys(finding.method for finding in findings if finding.ok is False)
    if failed:
        raise GateError(
            f"not the law they should have: {', '.join(failed)}; do not trust samples of these "
            "methods"
        )


def _software() -> list[dict[str, Any]]:
    import sqlite3

    import torch

    from gped_nas import device

    python, is_new = sys.version.split()[0], sys.version_info >= (3, 11)
    machine = device.fingerprint(device.choose())
    processor = f"{machine['device']}: {machine['name']}, {machine['threads']} threads"
    checks = [
        _check("python", python, is_new, "install Python 3.11 or later"),
        _check("torch", str(torch.__version__), True, ""),
        _check("device", processor, True, ""),
        _check("sqlite", sqlite3.sqlite_version, True, ""),
    ]

    for name in _PACKAGES:
        installed = _version(name)
        advice = f"pip install {name}"
        checks.append(_check(name, installed or "missing", installed is not None, advice))

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
    """A row a plug-in, with what it registers, or why it cannot be loaded."""
    from gped_nas.registry import installed_plugins, load_plugins

    problems = load_plugins()
    checks = []
    for plugin, names in installed_plugins().items():
        finding = problems.get(plugin) or ", ".join(names) or "registers nothing"
        advice = "mend or uninstall it" if plugin in problems else ""
        checks.append(_check(f"plug-in {plugin}", finding, plugin not in problems, advice))
    return checks


def _folders() -> list[dict[str, Any]]:
    from gped_nas.api.session import cache_root
    from gped_nas.errors import EnvironmentProblem
    from gped_nas.io import make_dir

    root = cache_root()
    try:
        make_dir(root)
    except EnvironmentProblem as error:
        advice = "set GPED_CACHE to a folder that can be written"
        return [_check("cache", str(error), False, advice)]

    free = shutil.disk_usage(root).free
    size, is_enough = f"{free / 2**30:.1f} GiB", free >= NEEDED_BYTES
    return [
        _check("cache", str(root), True, ""),
        _check("free disk", size, is_enough, "free at least 1 GiB, or set GPED_CACHE"),
    ]


def _check(name: str, finding: str, is_fine: bool, advice: str) -> dict[str, Any]:
    return {
        "check": name,
        "found": finding,
        "verdict": "ok" if is_fine else "broken",
        "what to do": "" if is_fine else advice,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
