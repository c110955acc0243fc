"""The installed command: its version, its help, how loud it is and the shape of its errors."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from gped_nas import __version__
from gped_nas.cli.program import app
from tests.cli.harness import PROGRAM, Home, Result, assert_one_message, call, installed, new_home

NARROW = {"COLUMNS": "80", "GPED_DEBUG": ""}
PANELS = ["Search", "Student", "Teacher", "Housekeeping"]


def _paths(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every group and every verb."""
    yield words
    for name, below in getattr(command, "commands", {}).items():
        yield from _paths(below, (*words, name))


EVERYWHERE = list(_paths(typer.main.get_command(app)))


def test_the_installed_command_tells_its_version() -> None:
    assert installed("--version") == Result(0, f"gped-search {__version__}\n", "")


def test_the_installed_command_lists_its_verbs_in_panels_and_cuts_none_short() -> None:
    result = installed("-h", **NARROW)
    assert result.code == 0 and result.err == ""
    assert re.findall(r"^(\w+):$", result.out, re.MULTILINE) == ["Options", *PANELS]
    assert "..." not in result.out.partition("Search:")[2]


@pytest.mark.parametrize("words", EVERYWHERE, ids=" ".join)
def test_short_help_is_the_long_one(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    short, long = call(*words, "-h"), call(*words, "--help")
    assert short == long and short.code == 0
    assert all(option in short.out for option in ("-q, --quiet", "-v, --verbose", "-h, --help"))
    assert max(map(len, short.out.splitlines())) <= 80


def test_a_group_without_a_verb_shows_its_help() -> None:
    for words in ((), ("teacher",)):
        result = call(*words)
        assert (result.code, result.out) == (2, "")
        assert result.err == call(*words, "-h").out


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (("fron",), "no such command 'fron'", "did you mean 'front'?"),
        (("run",), "missing argument 'SPACE'", "see `gped-search run --help`"),
        (
            ("teacher", "info", "digits_mlp", "--strange"),
            "no such option: --strange",
            "see `gped-search teacher info --help`",
        ),
        (
            ("front", "x", "-f", "yaml"),
            "invalid value for '--format' / '-f': 'yaml' is not one of 'table', 'json', 'csv'",
            "see `gped-search front --help`",
        ),
        (
            ("run", "digits_mlp", "--set", "teacher.famly=mlp", "--dry-run"),
            "search_spaces/digits_mlp.yaml: teacher.famly: unknown key",
            "did you mean 'family'?",
        ),
        (
            ("run", "digits_mlp", "--n-trials", "0"),
            "--n-trials: found 0, expected at least 1",
            "",
        ),
        (
            ("gc", "--delete"),
            "--delete: nothing was chosen; expected --building, --derived, --views or digests",
            "",
        ),
    ],
)
def test_every_error_has_one_style(words: tuple[str, ...], error: str, hint: str) -> None:
    result = installed(*words, **NARROW)
    assert (result.code, result.out) == (2, "")

    message, *advice = result.err.splitlines()
    assert message.startswith("gped-search: error: ") and message.endswith(error)
    assert advice == ([f"hint: {hint}"] if hint else [])


def test_choices_are_listed_in_the_help() -> None:
    assert "--format <table|json|csv>" in call("front", "-h").out


def test_a_quiet_run_prints_data_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = _home(tmp_path, monkeypatch)
    loud = call("run", home.space, "--out", home.root / "loud")
    quiet = call("run", home.space, "--out", home.root / "quiet", "--quiet")
    assert loud.code == quiet.code == 0
    assert "trial 3:" in loud.err and quiet.err == ""
    assert quiet.out == loud.out.replace(str(home.root / "loud"), str(home.root / "quiet"))
    assert call("-q", "run", home.space, "--out", home.root / "quiet").err == ""
    assert "students tested" in call("run", home.space, "--out", home.root / "loud").err


def test_a_verbose_build_tells_how_long_each_stage_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = _home(tmp_path, monkeypatch)
    progress = call("teacher", "build", home.space, "-v").err
    stages = re.findall(r"^(.+): all (\d+) in \d+\.\d\d s$", progress, re.MULTILINE)
    assert stages[0] == ("teacher", "4")  # then a stage a view, whose names are digests
    assert len(stages) == 3


def test_only_a_verbose_command_shows_where_an_error_arose(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> dict[str, Any]:
        raise ZeroDivisionError("by design")

    monkeypatch.setattr("gped_nas.search.shipped.shipped_spaces", fail)
    plain, verbose = call("space"), call("space", "-v")
    assert plain.code == verbose.code == 1
    assert plain.err.splitlines() == [
        "gped-search: error: internal error: ZeroDivisionError: by design",
        "hint: this is a bug: please report it with the traceback that --verbose shows",
    ]
    assert verbose.err.startswith("Traceback") and verbose.err.endswith(plain.err)


def _home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("GPED_CACHE", str(folder / "cache"))
    return new_home(folder / "home")


def test_a_limit_too_small_for_the_libraries_is_told(home: Home) -> None:
    command = f"ulimit -v 600000; exec {PROGRAM} run tiny.yaml"
    process = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert process.returncode == 5, process.stderr
    assert_one_message(process.stderr, ("out of memory", "hint: raise the limit"))
