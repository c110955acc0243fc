"""The report's data: plain, rounded, sorted, and right in its words."""

import json
import math
import subprocess
import sys

import pytest

from gped_nas.report import words
from gped_nas.report.data import data_of, find, plain
from gped_nas.search.snapshot import Comparison, Objective
from tests.report.example import make_snapshot


def test_data_is_json_and_equal_for_equal_snapshots():
    first, second = (json.dumps(data_of(make_snapshot()), allow_nan=False) for _ in range(2))
    assert first == second


def test_plain_rounds_sorts_and_drops_what_is_not_finite():
    found = plain({"b": 0.123456789, "a": (1, True, None), "c": math.inf, "d": 123456789, 3: math.nan})
    assert found == {"3": None, "a": [1, True, None], "b": 0.123457, "c": None, "d": 123456789}
    assert list(found) == sorted(found)


def test_every_trial_is_kept_and_states_add_up():
    data = data_of(make_snapshot())
    assert [record["trial"] for record in data["records"]] == list(range(48))
    assert sum(data["states"].values()) == 48
    assert set(data["states"]) == {"complete", "pruned", "infeasible", "duplicate", "failed", "running"}


def test_the_answer_compares_costs_and_quality_with_the_teacher():
    snapshot = make_snapshot()
    student, teacher = snapshot.record(snapshot.chosen), snapshot.references[0]
    answer = data_of(snapshot)["answer"]
    assert f"Trial {snapshot.chosen} " in answer["headline"]
    assert f"{teacher.costs['macs'] / student.costs['macs']:,.0f}× less than the teacher" in answer["headline"]
    kept = 100 * student.metrics["test_accuracy"] / teacher.metrics["test_accuracy"]
    assert f"keeps {kept:.1f} % of the teacher's accuracy" in answer["detail"]
    assert "measured on test, n = 360" in answer["detail"]


def test_a_dearer_student_is_said_to_be_dearer():
    assert words.factor(200, 100) == "2× more than"
    assert words.factor(100, 100) == "as much as"


@pytest.mark.parametrize(
    ("metric", "interval", "reading"),
    [
        ("nll", (-0.2, -0.1), "better: teacher average"),
        ("nll", (0.1, 0.2), "better: chosen student"),
        ("accuracy", (0.1, 0.2), "better: teacher average"),
        ("test_accuracy", (-0.2, -0.1), "better: chosen student"),
        ("unheard_of", (0.1, 0.2), "higher: teacher average"),
        ("nll", (-0.1, 0.2), "not told apart: the interval holds 0"),
    ],
)
def test_paired_differences_name_whoever_wins(metric, interval, reading):
    comparison = Comparison("teacher", "student", metric, "test", sum(interval) / 2, interval, 360)
    assert data_of(make_snapshot(comparisons=(comparison,)))["comparisons"][0]["reading"] == reading


def test_layers_that_pruning_removed_stay_visible():
    snapshot = make_snapshot()
    trial = snapshot.front[0]
    records = tuple(r.replace(layers=r.layers[1:]) if r.trial == trial else r for r in snapshot.records)
    layers = find(data_of(make_snapshot(records=records)), trial)["layers"]
    assert layers[0]["after"] is None
    assert layers[0]["before"]["outputs"] > 0


def test_find_refuses_a_trial_that_is_not_there():
    with pytest.raises(KeyError):
        find(data_of(make_snapshot()), 999)


def test_an_empty_study_has_data():
    data = data_of(make_snapshot(records=(), front=(), chosen=None, references=(), hypervolume=()))
    assert "No student was chosen: 0 of 0" in data["answer"]["headline"]


def test_objective_labels_win_over_the_known_ones():
    objective = Objective("nll", "minimize", "metric", "my NLL")
    data = data_of(make_snapshot(objectives=(objective,)))
    assert {"name": "nll", "label": "my NLL"} in data["metrics"]


def test_the_package_loads_no_drawing_library():
    code = (
        "import sys, gped_nas.report; print([m for m in ('plotly', 'jinja2', 'optuna_dashboard') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
