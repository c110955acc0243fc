"""What the program prints: data on stdout, everything else on stderr, in the format asked for."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from gped_nas.api import open_study
from gped_nas.cli.output import Format, print_pairs, print_rows
from gped_nas.cli.program import app
from tests.cli.harness import N_TRIALS, PROGRAM, Home, accepted, call, contents, installed

COLOR = re.compile(r"\x1b\[[0-9;]*[34]\d")


STUDY = "STUDY"
"""Stands for the study that the fixture has."""


def _rows(text: str) -> list[dict[str, str]]:
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows and all(None not in row and None not in row.values() for row in rows), text
    return rows


# --- help -------------------------------------------------------------------------------------


def _verbs() -> list[tuple[str, ...]]:
    """The words of each verb; a group's verbs have two."""
    verbs: list[tuple[str, ...]] = []
    commands: dict[str, Any] = vars(typer.main.get_command(app))["commands"]
    for name, command in commands.items():
        below = vars(command).get("commands", {})
        verbs += [(name, inner) for inner in below] or [(name,)]
    return verbs


def test_there_are_verbs_for_a_whole_session() -> None:
    expected = {
        "init",
        "space",
        "run",
        "status",
        "trials",
        "front",
        "pick",
        "show",
        "report",
        "export",
        "predict",
        "dashboard",
    }
    assert expected | {"doctor", "teacher"} <= {verb[0] for verb in _verbs()}


@pytest.mark.parametrize("verb", _verbs(), ids=" ".join)
def test_every_verb_explains_itself_and_its_options(verb: tuple[str, ...]) -> None:
    text = accepted(*verb, "--help").out
    usage, *rest = text.strip().splitlines()
    assert usage.startswith(f"Usage: gped-search {' '.join(verb)}")
    description = next(line.strip() for line in rest if line.strip())
    assert len(description) > 20 and description[0].isupper(), text
    assert "--help" in text


def test_no_verb_at_all_shows_the_help() -> None:
    result = call()
    assert "Usage: gped-search" in result.out + result.err and "Traceback" not in result.err


LOADED = """\
import json, sys
sys.argv = ["gped-search", *{args!r}]
{work}
print("\\n" + json.dumps(sorted(name for name in sys.modules if "." not in name)))
"""
HELP = """\
from gped_nas.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""
HEAVY = {
    "torch",
    "torchvision",
    "optuna",
    "plotly",
    "pandas",
    "numpy",
    "sklearn",
    "scipy",
    "sqlalchemy",
}


def _modules(work: str, *args: str) -> set[str]:
    code = LOADED.format(args=args, work=work)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("args", [("--help",), ("run", "--help"), ("teacher", "build", "--help")])
def test_help_loads_nothing_heavy(args: tuple[str, ...]) -> None:
    loaded = _modules(HELP, *args)
    assert "gped_nas" in loaded and not loaded & HEAVY


def test_the_package_loads_nothing_heavy() -> None:
    loaded = _modules("import gped_nas; dir(gped_nas)")
    assert "gped_nas" in loaded and not loaded & HEAVY


READ_WITHOUT_TORCH: dict[str, tuple[str, ...]] = {
    "status": ("status", "{study}"),
    "trials": ("trials", "{study}"),
    "front": ("front", "{study}"),
    "show": ("show", "{study}", "0"),
    "report": ("report", "{study}", "--to", "{here}/report.html"),
    "spaces": ("space",),
    "version": ("--version",),
}


CALLS_IN_TURN = """
import json, sys
from gped_nas.cli import main

for verb, words in json.loads(sys.argv[1]).items():
    sys.argv = ["gped-search", *words]
    try:
        main()
    except SystemExit as end:
        assert not end.code, verb
    loaded = {"torch", "pandas", "sklearn", "scipy"} & set(sys.modules)
    assert not loaded, (verb, loaded)
assert "gped_nas.cli.program" in sys.modules
"""


def test_what_reads_a_study_loads_no_torch(finished: Home, tmp_path: Path) -> None:
    calls = {}
    for verb, words in READ_WITHOUT_TORCH.items():
        calls[verb] = [word.format(study=finished.study, here=tmp_path) for word in words]
    command = [sys.executable, "-c", CALLS_IN_TURN, json.dumps(calls)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- data and formats -------------------------------------------------------------------------

READS: dict[str, tuple[str, ...]] = {
    "status": ("status", "{study}"),
    "trials": ("trials", "{study}"),
    "front": ("front", "{study}"),
    "pick": ("pick", "{study}"),
    "show": ("show", "{study}", "0"),
    "space": ("space", "{space}"),
    "spaces": ("space",),
    "teacher info": ("teacher", "info", "{space}"),
    "doctor": ("doctor",),
}


def _words(verb: str, home: Home) -> list[str]:
    return [word.format(study=home.study, space=home.space) for word in READS[verb]]


@pytest.mark.parametrize("verb", READS)
def test_json_is_one_document_and_nothing_else(finished: Home, verb: str) -> None:
    result = accepted(*_words(verb, finished), "--format", "json")
    assert json.loads(result.out) and result.err == ""


@pytest.mark.parametrize("verb", READS)
def test_csv_is_one_table(finished: Home, verb: str) -> None:
    result = accepted(*_words(verb, finished), "--format", "csv")
    assert _rows(result.out) and result.err == ""


@pytest.mark.parametrize("verb", READS)
def test_a_table_is_plain_where_nobody_watches(finished: Home, verb: str) -> None:
    result = accepted(*_words(verb, finished))
    assert result.out.strip() and "\x1b" not in result.out and result.err == ""


def test_an_unknown_format_is_refused(finished: Home) -> None:
    result = call("front", finished.study, "--format", "xml")
    assert result.code == 2 and "xml" in result.err and "json" in result.err and result.out == ""


@pytest.mark.parametrize(
    "verb",
    [
        ("front", STUDY),
        ("trials", STUDY),
        ("status", STUDY),
        ("show", STUDY, "0"),
        ("pick", STUDY),
        ("space",),
        ("space", "digits_mlp"),
        ("gc",),
        ("doctor",),
    ],
    ids=" ".join,
)
def test_every_json_begins_with_its_version(finished: Home, verb: tuple[str, ...]) -> None:
    words = [finished.study if word is STUDY else word for word in verb]
    value = json.loads(accepted(*words, "--format", "json").out)
    for element in value if isinstance(value, list) else [value]:
        assert next(iter(element)) == "schema_version"
        assert element["schema_version"] == 1


def _front(home: Home) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(accepted("front", home.study, "--format", "json").out)
    return rows


def test_the_front_has_the_documented_keys_in_order(finished: Home) -> None:
    front = _front(finished)
    for row in front:
        keys = ["schema_version", "trial", "genotype", "metrics", "intervals", "n", "costs"]
        assert list(row) == keys
        assert {"family", "depth", "width", "storage_dtype"} <= set(row["genotype"])
        assert {"accuracy", "nll", "test_accuracy", "test_nll"} <= set(row["metrics"])
        assert set(row["n"]) == set(row["metrics"])
        without = {"ece", "worst_recall", "macro_f1"}
        without |= {f"test_{name}" for name in without}
        assert set(row["metrics"]) - set(row["intervals"]) <= without
        for name, (low, high) in row["intervals"].items():
            assert low <= row["metrics"][name] <= high
        assert {"macs", "flops", "params", "storage_bytes"} <= set(row["costs"])
        assert row["costs"]["flops"] == 2 * row["costs"]["macs"]
        assert row["n"]["nll"] == 288 and row["n"]["test_nll"] == 359


def test_the_front_is_not_dominated_and_best_by_the_first_objective_first(finished: Home) -> None:
    front = _front(finished)
    trials = json.loads(accepted("trials", finished.study, "--format", "json").out)

    def losses(row: dict[str, Any]) -> tuple[float, ...]:
        return row["metrics"]["nll"], row["costs"]["flops"], row["costs"]["storage_bytes"]

    complete = [row for row in trials if row["state"] == "complete"]
    points = {row["trial"]: losses(row) for row in complete}
    assert len(points) > 1 and not any(row["outside"] for row in trials)

    def is_beaten(point: tuple[float, ...]) -> bool:
        return any(
            other != point and all(a <= b for a, b in zip(other, point, strict=True))
            for other in points.values()
        )

    expected = [trial for trial, point in points.items() if not is_beaten(point)]
    assert sorted(row["trial"] for row in front) == sorted(expected)
    nlls = [row["metrics"]["nll"] for row in front]
    assert nlls == sorted(nlls)


def test_trials_tell_state_and_reason_of_every_one(finished: Home) -> None:
    trials = json.loads(accepted("trials", finished.study, "--format", "json").out)
    assert [row["trial"] for row in trials] == list(range(N_TRIALS))
    states = {"complete", "pruned", "infeasible", "duplicate", "failed", "running"}
    for row in trials:
        assert row["state"] in states
        assert bool(row["reason"]) == (row["state"] != "complete")


def test_a_study_is_named_by_its_name_or_its_folder(
    finished: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_folder = accepted("front", finished.study, "--format", "csv").out
    monkeypatch.chdir(finished.root)
    assert accepted("front", "tiny", "--format", "csv").out == by_folder
    assert accepted("front", "reports/tiny/", "--format", "csv").out == by_folder


def test_reading_changes_nothing(finished: Home) -> None:
    before = contents(finished.root)
    for verb in READS:
        accepted(*_words(verb, finished))
    assert contents(finished.root) == before


def test_cells_that_a_spreadsheet_would_run_are_quoted(
    capsys: pytest.CaptureFixture[str], home: Home
) -> None:
    texts = ["=1+1", "+1", "-1", "@A1", "\t=1", "\r=1", "plain"]
    print_rows([{"text": text, "number": -1.5} for text in texts], Format.csv)
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out, newline="")))
    assert [row["text"] for row in rows] == [*(f"'{text}" for text in texts[:-1]), "plain"]
    assert {row["number"] for row in rows} == {"-1.5"}

    named = accepted("space", home.space, "--set", "name='=cmd()'", "--format", "csv").out
    assert "'=cmd()" in named and ",=cmd()" not in named


def test_a_text_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b[31mred\u202etxt\x07"
    print_rows([{"[bold]name[/]": evil, "n": 1}], Format.table)
    print_pairs({"study": evil}, Format.table)
    printed = capsys.readouterr().out
    assert not any(character in printed for character in "\x1b\u202e\x07")
    assert printed.count("<U+001B>[31mred<U+202E>txt<U+0007>") == 2
    assert "[bold]name[/]" in printed


# --- terminals --------------------------------------------------------------------------------


def test_a_terminal_gets_no_color_when_it_wants_none(
    own: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    command = ("run", own.space, "--out", own.out, "--n-trials", str(N_TRIALS + 1))
    result = call(*command, terminal=True)
    assert result.code == 0
    assert not COLOR.search(result.out) and not COLOR.search(result.err)


def test_progress_is_on_stderr_alone(home: Home) -> None:
    result = home.run("--n-trials", "2")
    assert "trial 0: complete" in result.err and "(2 of 2)" in result.err
    assert "(2 of 2)" not in result.out
    assert result.out.splitlines()[-2] == f"report: {home.study / 'report.html'}"
    assert result.out.splitlines()[-1] == open_study(home.study).verdict().sentence


def test_a_dry_run_and_a_printed_configuration_do_nothing(home: Home) -> None:
    plan = home.run("--dry-run").out
    assert "to be sampled" in plan and "4 posterior samples" in plan
    printed = home.run("--print-config", "--set", "search.n_trials=7", "--seed", "5").out
    assert "n_trials: 7" in printed and "seed: 5" in printed
    assert not home.out.exists() and not home.cache.exists()
    Path("printed.yaml").write_text(printed)
    assert accepted("run", "printed.yaml", "--print-config").out == printed


def test_a_flag_beats_set_beats_the_environment(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "seed: 5" in home.run("--print-config", "--set", "seed=4", "--seed", "5").out

    monkeypatch.setenv("OPTUNA_STORAGE", f"sqlite:///{home.root}/optuna.db")
    monkeypatch.setenv("GPED_STORAGE", f"sqlite:///{home.root}/gped.db")
    home.run("--n-trials", "1")
    assert (home.root / "gped.db").exists()
    flagged = f"sqlite:///{home.root}/flag.db"
    home.run("--n-trials", "1", "--study-name", "flagged", "--storage", flagged)
    assert (home.root / "flag.db").exists() and not (home.root / "optuna.db").exists()
    assert not (home.study / "study.db").exists()
    assert json.loads(accepted("status", home.study, "--format", "json").out)["finished"] == 1


def test_a_reader_that_leaves_early_meets_no_traceback(finished: Home) -> None:
    command = f"'{PROGRAM}' trials '{finished.study}' --format json | head -c 10"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=os.environ)
    assert "Traceback" not in done.stderr and len(done.stdout) == 10


def test_the_installed_command_prints_the_same(finished: Home) -> None:
    result = installed("front", finished.study, "--format", "json")
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.out) == _front(finished)


def test_the_installed_command_ends_with_the_code_of_its_error(finished: Home) -> None:
    result = installed("front", "tinny", "--out", finished.out)
    assert (result.code, result.out) == (4, "")
    assert result.err.startswith("gped-search: error: tinny: no such study")


def test_doctor_tells_of_a_cache_that_cannot_be_written(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPED_CACHE", str(home.space / "cache"))
    result = call("doctor", "--format", "json")
    assert result.code == 5 and "broken: cache" in result.err
    (cache,) = (check for check in json.loads(result.out) if check["check"] == "cache")
    assert cache["verdict"] == "broken" and "GPED_CACHE" in cache["what to do"]
