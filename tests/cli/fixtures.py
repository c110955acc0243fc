"""Homes for tests: empty, finished and shared, finished and one's own."""

import shutil
from pathlib import Path

import pytest

from tests.cli.harness import Home, new_home, shared_home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A tiny space; nothing was run."""
    made = new_home(tmp_path / "home")
    monkeypatch.setenv("GPED_CACHE", str(made.cache))
    monkeypatch.chdir(made.root)
    return made


@pytest.fixture(scope="module")
def home_of_module(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The home behind ``sampled``."""
    return new_home(tmp_path_factory.mktemp("module"))


@pytest.fixture
def sampled(home_of_module: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A tiny space whose teachers are sampled once, for all tests of a module."""
    monkeypatch.setenv("GPED_CACHE", str(home_of_module.cache))
    return home_of_module


@pytest.fixture
def finished(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The tiny study, finished; shared by all tests, so only to be read."""
    shared = shared_home(tmp_path_factory.getbasetemp())
    monkeypatch.setenv("GPED_CACHE", str(shared.cache))
    return shared


@pytest.fixture
def own(finished: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A copy of the finished tiny study, to be changed."""
    root = tmp_path / "own"
    shutil.copytree(finished.root, root)
    monkeypatch.setenv("GPED_CACHE", str(root / "cache"))
    return Home(root)
