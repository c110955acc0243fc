"""What ``make dist`` built works away from the checkout: the wheel's content, a search, and types.

These tests are slow and need ``dist/``, so the suite leaves them out; ``make dist`` runs them.
"""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """\
import gped_nas as gn

reveal_type(gn.run("digits_mlp").chosen())
"""


@pytest.fixture(scope="module")
def wheel() -> Path:
    """The wheel in ``dist/``."""
    (path,) = (ROOT / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed in it, and nothing else."""
    folder = tmp_path_factory.mktemp("site")
    _run("-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, wheel)
    return folder


def _run(*args: object, cwd: Path = ROOT, **env: str) -> str:
    """Stdout of a Python that must end well."""
    done = subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _tracked(*patterns: str) -> set[str]:
    """Files of the checkout by glob patterns."""
    paths = [path for pattern in patterns for path in ROOT.glob(pattern)]
    return {str(path.relative_to(ROOT)) for path in paths if path.is_file()}


def test_the_wheel_holds_the_package_its_marker_its_grids_and_its_spaces(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())

    package = _tracked("gped_nas/**/*.py", "gped_nas/report/templates/*", "gped_nas/py.typed")
    grids = _tracked("gped_nas/suite/grids/*.yaml")
    spaces = {f"gped_nas/{name}" for name in _tracked("search_spaces/*.yaml")}
    assert package | grids | spaces <= names
    assert "gped_nas/py.typed" in package and len(spaces) >= 9 and len(grids) >= 3
    assert {name.split("/")[0] for name in names - package - grids - spaces} == {
        wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"
    }


def test_the_sdist_holds_what_a_contributor_needs() -> None:
    (path,) = (ROOT / "dist").glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    pages = _tracked("*.md", "docs/*.md", "CITATION.cff", "LICENSE", "Makefile", ".ci/run")
    assert pages | _tracked("tests/**/*.py", "reports/reference/*.json") <= names


def test_a_search_runs_from_the_wheel_alone(site: Path, tmp_path: Path) -> None:
    home = {"PYTHONPATH": str(site), "GPED_CACHE": str(tmp_path / "cache")}
    where = _run("-c", "import gped_nas; print(gped_nas.__file__)", cwd=tmp_path, **home)
    assert where.startswith(str(site))

    told = _run(
        site / "bin/gped-search",
        "run",
        "digits_mlp",
        "--n-trials",
        "2",
        "--set",
        "search.keep={}",
        cwd=tmp_path,
        **home,
    )
    assert "report: reports/digits_mlp/report.html" in told
    assert (tmp_path / "reports/digits_mlp/report.html").stat().st_size > 100_000


def test_a_users_type_checker_sees_the_types(site: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    told = _run("-m", "mypy", "script.py", cwd=tmp_path, PYTHONPATH=str(site))
    assert 'Revealed type is "gped_nas.search.record.TrialRecord | None"' in told
