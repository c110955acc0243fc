"""``card.sh`` without a card: its parts, its limits, and what it says of packages."""

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from tests.gpu import card
from tests.gpu.card import Part, run_parts
from tests.gpu.wheels import missing_packages

ROOT = Path(__file__).parents[2]


def python(code):
    return (sys.executable, "-c", code)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run parts; their states, and what ``card.json`` says."""
    monkeypatch.setattr(card, "LEAST_S", 0.0)

    def run_all(parts, seconds=60.0):
        ends = time.time() + seconds
        run_parts(parts, tmp_path, tmp_path, facts={"is_dry": True}, ends=ends)
        told = json.loads((tmp_path / "card.json").read_text())
        return {part["name"]: part for part in told["parts"]}

    return run_all


def test_a_part_that_fails_or_hangs_stops_no_other(run, tmp_path):
    told = run(
        [
            Part("fails", python("print('here'); raise SystemExit(3)"), 30),
            Part("after it", python("pass"), 30, needs="fails"),
            Part("hangs", python("import time; time.sleep(60)"), 0.5),
            Part("lacks", python("pass"), 30, missing="there is no data"),
            Part(
                "writes", python(f"open(r'{tmp_path}/a.json', 'w').write('[1]')"), 30, ("a.json",)
            ),
        ]
    )
    states = {name: part["state"] for name, part in told.items()}
    assert states == {
        "fails": "failed",
        "after it": "skipped",
        "hangs": "timeout",
        "lacks": "skipped",
        "writes": "ok",
    }
    assert told["fails"]["reason"] == "exit code 3; see card.log"
    assert told["lacks"]["reason"] == "there is no data"
    assert told["writes"]["results"]["a.json"] == [1]
    assert "here" in (tmp_path / "card.log").read_text()
    assert "after it         skipped" in (tmp_path / "table.txt").read_text()


def test_results_are_there_before_the_next_part(run, tmp_path):
    look = f"import json; print(len(json.load(open(r'{tmp_path}/card.json'))['parts']))"
    told = run([Part("first", python("pass"), 30), Part("second", python(look), 30)])
    assert told["second"]["results"]["last lines"][-1].split()[-1] == "1"


def test_nothing_is_begun_when_the_time_is_over(run):
    told = run([Part("late", python("pass"), 30)], seconds=-1.0)
    assert told["late"]["reason"] == "no time was left"


def test_what_a_search_says_is_kept_where_its_limit_ended_it(run):
    says = python("print('{\"finished\": 7}')")
    told = run([Part("search", python("import time; time.sleep(60)"), 0.2, then=says)])
    assert told["search"]["state"] == "timeout"
    assert told["search"]["results"]["status"] == {"finished": 7}


def test_a_machine_with_a_card_has_every_package(tmp_path):
    """Those of ``GATHERED`` have all that they require, too."""
    assert missing_packages(ROOT / "pyproject.toml", tmp_path) == []


def test_a_package_that_nothing_brings_is_named(tmp_path):
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text('[project]\ndependencies = ["torch", "Left.Pad>=1", "optuna"]\n')
    (line,) = missing_packages(pyproject, tmp_path)
    assert line.startswith("left-pad: needed by gped-nas")


def test_wheels_that_were_gathered_are_looked_into(tmp_path):
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text('[project]\ndependencies = ["optuna", "plotly"]\n')
    wheel = tmp_path / "optuna-5.0.0-py3-none-any.whl"
    needs = "Requires-Dist: alembic\nRequires-Dist: numpy\nRequires-Dist: boto3; extra == 'all'\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("optuna-5.0.0.dist-info/METADATA", f"Name: optuna\n{needs}\n")
    names = [line.partition(":")[0] for line in missing_packages(pyproject, tmp_path)]
    assert names == ["plotly", "alembic"]


def dry_run(out, *more):
    command = ["bash", str(ROOT / "tests/gpu/card.sh"), str(out), "--dry-run", *more]
    env = {**os.environ, "PYTHON": sys.executable}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, cwd=out.parent, env=env
    )


def test_the_script_runs_a_part(tmp_path):
    out = tmp_path / "results"
    ended = dry_run(out, "--only", "machine")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert sorted(path.name for path in out.iterdir()) == ["card.json", "card.log", "table.txt"]
    told = json.loads((out / "card.json").read_text())
    assert [part["state"] for part in told["parts"]] == ["ok"]
    assert told["versions"]["torch"] and told["missing packages"] == []


@pytest.mark.soak
def test_the_whole_script_runs_dry(tmp_path):
    out = tmp_path / "results"
    ended = dry_run(out)
    assert ended.returncode == 0, ended.stdout + (out / "card.log").read_text()
    told = json.loads((out / "card.json").read_text())
    assert {part["state"] for part in told["parts"]} == {"ok"}
    (search,) = (part for part in told["parts"] if part["name"] == "digits search")
    assert search["results"]["status"]["finished"] == 4


def test_some_of_it_can_be_chosen(tmp_path):
    choice = card.Choice(tests=("tests/gpu/test_fits.py",), cases=("mlp 32", "cnn 8"))
    parts = {part.name: part for part in card.parts_of(tmp_path, is_dry=False, choice=choice)}
    assert "tests/gpu/test_fits.py" in parts["tests"].command
    assert "tests/gpu" not in parts["tests"].command
    assert parts["kernel"].command[-3:] == ("--cases", "mlp 32", "cnn 8")


def test_who_takes_the_time_is_told_where_it_is_asked_for(tmp_path):
    (part,) = (p for p in card.parts_of(tmp_path, is_dry=True) if p.name == card.PROFILE)
    told = subprocess.run(
        [*card.PROFILED, "--version"], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert part.command[: len(card.PROFILED)] == card.PROFILED
    assert "Ordered by: cumulative time" in told.stdout and "Ordered by: internal" in told.stdout
