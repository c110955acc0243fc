"""A package from outside with a piece of each kind goes through every verb, in fresh processes."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MAIN = "from gped_nas.cli import main; main()"
SPACE = str(HERE / "space.yaml")

SUITES = """
from gped_nas.testing import *
check_dataset("gears_moons")
check_policy("gears_scale")
check_target("gears_margin")
check_metric("gears_bill")
check_condition("gears_drift", 0.5)
check_method("gears_metropolis")
check_family("gears_tanh")
"""


class Home:
    """A folder to work in, with the package installed on the path of whatever runs there."""

    def __init__(self, root: Path, site: Path) -> None:
        self.root = root
        paths = os.pathsep.join([str(site), str(ROOT)])
        self.env = {
            **os.environ,
            "PYTHONPATH": paths,
            "GPED_CACHE": str(root / "cache"),
            "COLUMNS": "200",
        }

    def start(self, *args: object) -> "subprocess.Popen[str]":
        """A Python that runs here."""
        return subprocess.Popen(
            [sys.executable, *map(str, args)],
            cwd=self.root,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def python(self, *args: object) -> tuple[str, str]:
        """Stdout and stderr of a Python that must end well."""
        process = self.start(*args)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, out + err
        return out, err

    def search(self, *words: object) -> tuple[str, str]:
        """``gped-search`` with these words."""
        return self.python("-c", MAIN, *words)

    def read(self, *words: object) -> Any:
        """What ``gped-search`` prints as JSON."""
        return json.loads(self.search(*words, "--format", "json")[0])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The wheel built and installed without a network, and a study of its pieces run."""
    root = tmp_path_factory.mktemp("plugin")
    wheels, site = root / "wheels", root / "site"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index"]
    build = ["wheel", *offline, "--no-build-isolation", "--wheel-dir", str(wheels)]
    subprocess.run([*pip, *build, str(HERE / "package")], check=True, cwd=root)

    (wheel,) = wheels.glob("*.whl")
    install = ["install", *offline, "--target", str(site), str(wheel)]
    subprocess.run([*pip, *install], check=True, cwd=root)

    home = Home(root, site)
    home.search("run", SPACE, "--processes", 2)
    return home


@pytest.fixture(scope="module")
def best(home: Home) -> int:
    """The trial with the smallest bill."""
    front = home.read("front", "gears")
    return int(min(front, key=lambda row: row["metrics"]["gears_bill"])["trial"])


def test_doctor_tells_what_it_registers(home: Home) -> None:
    rows = {row["check"]: row for row in home.read("doctor")}
    registered = rows["plug-in 'gears' (gears)"]["found"]
    for piece in (
        "condition gears_drift",
        "dataset gears_moons",
        "family gears_tanh",
        "method gears_metropolis",
        "metric gears_bill",
        "policy gears_scale",
        "target gears_margin",
    ):
        assert piece in registered


def test_its_author_can_run_the_contract_suites(home: Home) -> None:
    home.python("-c", SUITES)


def test_its_metric_is_an_objective_with_a_hypervolume(home: Home, best: int) -> None:
    script = """
import json
import gped_nas as gn
snapshot = gn.open_study("gears").snapshot()
print(json.dumps([o.__dict__ for o in snapshot.objectives] + [list(snapshot.hypervolume)]))
"""
    bill, params, history = json.loads(home.python("-c", script)[0])
    assert (bill["name"], bill["direction"]) == ("gears_bill", "minimize")
    assert bill["label"] == "bill of wrong and of reviewed answers (euro)"
    assert params["name"] == "params"
    assert history[-1] > 0 and history == sorted(history)


def test_front_and_trials_hold_its_measures_under_its_condition(home: Home) -> None:
    for row in home.read("trials", "gears"):
        measures = row["metrics"]
        assert {"gears_bill", "gears_bill@gears_drift-0.5"} <= set(measures)
        assert row["genotype"]["family"] == "gears_tanh"

        # where too few answers are wrong, their price has no interval and says so
        low, high = row["intervals"].get("gears_bill") or (0.0, 60.0)
        assert low <= measures["gears_bill"] <= high
        assert ("gears_bill" in row["intervals"]) != ("gears_bill" in row.get("why", {}))


def test_tables_show_it_where_it_is_an_objective(home: Home) -> None:
    heads = {
        verb: home.search(verb, "gears", "--format", "csv")[0].partition("\n")[0].split(",")
        for verb in ("front", "trials", "pick")
    }
    for head in heads.values():
        assert head[head.index("genotype") + 1] == "gears_bill"
        assert head.count("params") == 1


def test_the_report_knows_its_direction_and_label(home: Home) -> None:
    home.search("report", "gears")
    page = (home.root / "reports" / "gears" / "report.html").read_text()
    assert "bill of wrong and of reviewed answers (euro)" in page
    assert not re.search(r">\s*gears bill\s*<", page)  # a name made up from the identifier

    # under the condition it is no objective, and its direction is that of the metric all the same
    script = """
import gped_nas as gn
from gped_nas.report.data import direction_of
snapshot = gn.open_study("gears").snapshot()
for name in ("gears_bill", "gears_bill@gears_drift-0.5", "test_gears_bill"):
    print(direction_of(name, snapshot))
"""
    assert home.python("-c", script)[0].split() == ["minimize"] * 3


def test_the_dashboard_serves_it(home: Home) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    process = home.start("-c", MAIN, "dashboard", "gears", "--port", port)
    try:
        assert process.stderr is not None
        assert f"127.0.0.1:{port}" in process.stderr.readline()
        url = f"http://127.0.0.1:{port}"
        with urllib.request.urlopen(f"{url}/dashboard", timeout=20) as answer:
            assert b"<html" in answer.read().lower()
        with urllib.request.urlopen(f"{url}/api/studies/1", timeout=20) as answer:
            study = json.load(answer)
        assert study["objective_names"] == ["params", "gears_bill"]  # what it costs lies across
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert "Traceback" not in err


def test_methods_are_compared_with_it_among_them(home: Home) -> None:
    out, err = home.search(
        "teacher",
        "compare",
        SPACE,
        "--methods",
        "gears_metropolis,map",
        "--reference",
        "gears_metropolis",
        "--format",
        "json",
    )
    assert [row["method"] for row in json.loads(out)] == ["gears_metropolis", "map"]


def test_studies_of_it_are_compared(home: Home) -> None:
    home.search("run", SPACE, "--study-name", "again", "--set", "seed=1", "--n-trials", 3)
    script = """
import gped_nas as gn
print(gn.compare_studies([gn.open_study("gears"), gn.open_study("again")], "comparison.html"))
"""
    home.python("-c", script)
    page = (home.root / "comparison.html").read_text()
    assert "bill of wrong and of reviewed answers (euro)" in page and "again" in page


def test_a_student_of_it_is_exported_and_predicts(home: Home, best: int) -> None:
    np.save(home.root / "points.npy", np.array([[0.0, 1.0], [1.0, -0.5]], np.float32))
    student = f"reports/gears/students/{best}"
    rows = home.read("predict", student, "points.npy")
    assert len(rows) == 2 and set(rows[0]["probabilities"]) == {"up", "down"}
    assert all(0 <= row["gears_margin"] <= 1 for row in rows)

    home.search("export", "gears", best, "--to", "safetensors", "--into", "exported")
    again = home.read("predict", "exported", "points.npy")
    assert [row["gears_margin"] for row in again] == [row["gears_margin"] for row in rows]
