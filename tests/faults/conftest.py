"""What the fault tests share: how many kills, a process to fork, an undisturbed search."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults.checks import assert_finished, sealed, write_space
from tests.faults.forks import Ended, Forks

SOAK = bool(os.environ.get("GPED_SOAK"))
STEP_S = 0.06
"""How far the clock moves with an update of the teacher: a chunk every 20, burn-in included."""


def soak_or(full: int, small: int) -> int:
    """``full`` under ``make soak``, else ``small``."""
    return full if SOAK else small


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """A warm process whose forks run ``gped-search``."""
    forks = Forks(tmp_path_factory.mktemp("forks"))
    yield forks
    forks.close()


@dataclass(frozen=True)
class Undisturbed:
    """A teacher build and a search that nobody disturbed.

    Attributes:
        space: the space's file.
        cache: where the stream lies.
        build, search: how the two commands went.
        sealed: digests of what is sealed after the build and after the search.
        complete: the search's complete records by genotype.
    """

    space: Path
    cache: Path
    build: Ended
    search: Ended
    sealed: tuple[dict[str, str], dict[str, str]]
    complete: dict[str, Any]


@pytest.fixture(scope="session")
def undisturbed(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The build and the search that disturbed ones are compared with; its chunks are short."""
    folder = tmp_path_factory.mktemp("undisturbed")
    space = write_space(folder)
    cache = folder / "cache"

    build = forks.run("teacher", "build", str(space), cache=cache, step_s=STEP_S)
    assert build.code == 0, build.stderr
    built = sealed(cache)

    # The first search makes the test view too; the second one passes the instants of a search.
    forks.run("run", str(space), "--out", str(folder / "first"), cache=cache)
    search = forks.run("run", str(space), "--out", str(folder / "reports"), cache=cache)
    assert search.code == 0, search.stderr

    complete = assert_finished(folder / "reports" / "tiny", 4)
    return Undisturbed(space, cache, build, search, (built, sealed(cache)), complete)
