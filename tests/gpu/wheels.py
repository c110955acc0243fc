"""Whether a machine without a network has all packages: those that it brings, and wheels for it."""

import importlib.metadata
import tomllib
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

BROUGHT = frozenset(
    """
    annotated-doc anyio click colorama filelock fsspec hypothesis iniconfig jinja2 joblib
    markdown-it-py markupsafe mdurl mpmath narwhals networkx numpy packaging pandas pillow pluggy
    portalocker pygments pytest pytest-xdist python-dateutil pytz pyyaml rich safetensors
    scikit-learn scipy setuptools shellingham six sortedcontainers sympy tabulate threadpoolctl
    torch torchvision tqdm triton typer typing-extensions tzdata
    """.split()
)
"""What a machine with a GPU brings: torch's builds for CUDA and the usual company."""
GATHERED = frozenset(
    """
    alembic annotated-types colorlog fvcore greenlet iopath mako optuna platformdirs plotly pydantic
    pydantic-core sqlalchemy termcolor typing-inspection yacs
    """.split()
)
"""What wheels are gathered for, where there are none to look at."""


def missing_packages(pyproject: Path, wheels: Path) -> list[str]:
    """One line for each package that neither the machine nor the wheels would have.

    Args:
        pyproject: whose core dependencies are needed.
        wheels: the folder of wheels; those of ``GATHERED`` stand for one that is not there.
    """
    needs = requirements_of_wheels(wheels) or requirements_of_installed()
    there = BROUGHT | set(needs)
    project = tomllib.loads(pyproject.read_text())["project"]

    lines = []
    for source, requirements in {"gped-nas": project["dependencies"], **needs}.items():
        for text in requirements:
            requirement = Requirement(text)
            name = canonicalize_name(requirement.name)
            is_asked = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if is_asked and name not in there:
                lines.append(f"{name}: needed by {source}; neither brought nor among the wheels")
    return lines


def requirements_of_wheels(folder: Path) -> dict[str, list[str]]:
    """What each wheel of a folder requires, by its package."""
    requirements = {}
    for path in sorted(folder.glob("*.whl")):
        name = parse_wheel_filename(path.name)[0]
        with zipfile.ZipFile(path) as archive:
            (metadata,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
            fields = HeaderParser().parsestr(archive.read(metadata).decode())
        requirements[str(name)] = fields.get_all("Requires-Dist", [])
    return requirements


def requirements_of_installed() -> dict[str, list[str]]:
    """What each package of ``GATHERED`` requires, as it is installed here."""
    return {name: importlib.metadata.requires(name) or [] for name in sorted(GATHERED)}


def versions() -> dict[str, Any]:
    """What is installed of what the project needs, and what does not fit."""
    installed = dict(_installed())
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    unfit = []
    for text in tomllib.loads(pyproject.read_text())["project"]["dependencies"]:
        requirement = Requirement(text)
        version = installed.get(canonicalize_name(requirement.name))
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            unfit.append(f"found {version}, expected {text}")
    names = (*sorted(BROUGHT | GATHERED), "pytest-xdist")
    return {
        "versions": {name: installed[name] for name in names if name in installed},
        "unfit": unfit,
    }


def _installed() -> Iterator[tuple[str, str]]:
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            yield canonicalize_name(name), distribution.version
