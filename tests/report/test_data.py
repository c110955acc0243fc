"""The report's data: plain, rounded, sorted, and right in its words."""

import json
import math
import subprocess
import sys

import pytest

from gped_nas.evaluate import METRICS
from gped_nas.evaluate.measured import from_public
from gped_nas.report import words
from gped_nas.report.data import data_of, find, plain
from gped_nas.report.page import numbers_of
from gped_nas.search.objectives import MetricWords, Objective, registered_words
from gped_nas.search.record import TrialRecord
from gped_nas.search.snapshot import PairedDifference
from tests.report.example import make_snapshot


def test_data_is_json_and_equal_for_equal_snapshots():
    first, second = (json.dumps(data_of(make_snapshot()), allow_nan=False) for _ in range(2))
    assert first == second


def test_plain_rounds_sorts_and_drops_what_is_not_finite():
    found = plain(
        {"b": 0.123456789, "a": (1, True, None), "c": math.inf, "d": 123456789, 3: math.nan}
    )
    assert found == {"3": None, "a": [1, True, None], "b": 0.123457, "c": None, "d": 123456789}
    assert list(found) == sorted(found)


def test_every_trial_is_kept_and_states_add_up():
    data = data_of(make_snapshot())
    assert [record["trial"] for record in data["records"]] == list(range(48))
    assert sum(data["states"].values()) == 48
    assert set(data["states"]) == {
        "complete",
        "pruned",
        "infeasible",
        "duplicate",
        "failed",
        "running",
    }


def test_the_answer_compares_costs_and_quality_with_the_teacher():
    snapshot = make_snapshot()
    student, teacher = snapshot.record(snapshot.chosen), snapshot.references[0]
    answer = data_of(snapshot)["answer"]
    assert f"Trial {snapshot.chosen} " in answer["headline"]
    assert (
        f"{teacher.costs['macs'] / student.costs['macs']:,.0f}× less than the teacher"
        in answer["headline"]
    )
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
    paired = PairedDifference(
        "teacher", "student", metric, "test", sum(interval) / 2, interval, 360
    )
    assert (
        data_of(make_snapshot(paired_differences=(paired,)))["comparisons"][0]["reading"] == reading
    )


def test_layers_that_pruning_removed_stay_visible():
    snapshot = make_snapshot()
    trial = snapshot.front[0]
    records = tuple(
        r.replace(layers=r.layers[1:]) if r.trial == trial else r for r in snapshot.records
    )
    layers = data_of(make_snapshot(records=records))["cards"][0]["layers"]
    assert layers[0]["after"] is None
    assert layers[0]["before"]["outputs"] > 0


def test_what_is_lost_is_said_with_its_interval():
    snapshot = make_snapshot()

    def lost(value, interval):
        records = [
            r.replace(
                measures={
                    **r.measures,
                    **from_public(
                        {"test_nll_above_teacher": value}, {"test_nll_above_teacher": interval}
                    ),
                },
            )
            if r.trial == snapshot.chosen
            else r
            for r in snapshot.records
        ]
        return data_of(make_snapshot(records=tuple(records)))["answer"]["detail"]

    assert "What is lost is likelihood: +0.0200 nats a prediction [0.0100, 0.0300]" in lost(
        0.02, (0.01, 0.03)
    )
    assert "cannot be told from nothing: +0.0200" in lost(0.02, (-0.01, 0.05))
    assert "Nothing is lost" in lost(-0.02, (-0.03, -0.01))


def test_the_table_holds_every_number_of_every_record():
    snapshot = make_snapshot()
    data = data_of(snapshot)
    found = numbers_of(data)["table"]
    rows = [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
    assert len(set(found["columns"])) == len(found["columns"])
    for row, record in zip(rows, data["records"], strict=True):
        assert (row["trial"], row["state"], row["reason"]) == (
            record["trial"],
            record["state"],
            record["reason"],
        )
        for name, value in {**record["metrics"], **record["costs"], **record["settings"]}.items():
            assert row[name] == value
        for name, bounds in record["intervals"].items():
            assert [row[name + "_low"], row[name + "_high"]] == bounds
        assert row["n"] == record["n"].get("nll") and row["test_n"] == record["n"].get("test_nll")


def test_a_setting_never_hides_a_number():
    records = (
        TrialRecord(
            0,
            "complete",
            {"family": "mlp", "nll": 7, "state": "x"},
            measures=from_public({"nll": 0.5}),
        ),
    )
    found = numbers_of(data_of(make_snapshot(records=records, front=(), chosen=None, knee=None)))[
        "table"
    ]
    assert dict(zip(found["columns"], found["rows"][0], strict=True))["nll"] == 0.5
    assert found["settings"] == ["family"]


def test_the_layer_behind_the_front_is_the_front_without_it():
    snapshot = make_snapshot()
    names = ("nll", "flops", "storage_bytes")
    left = {
        r.trial: [r.value(name) for name in names]
        for r in snapshot.records
        if r.state == "complete" and r.trial not in snapshot.front
    }
    best = [
        trial
        for trial, p in left.items()
        if not any(q != p and all(a <= b for a, b in zip(q, p, strict=True)) for q in left.values())
    ]
    assert data_of(snapshot)["near"] == best


def test_the_saving_is_that_of_a_teacher_for_each_student():
    """Teacher 84.2 s once; with 2 students of 3 s and 4 s: anew 175.4 s, paid 91.2 s, saved 84.2 s."""
    metrics = {"nll": 0.5}
    records = [
        TrialRecord(i, "complete", {}, measures=from_public(metrics), seconds=3.0 + i)
        for i in range(2)
    ]
    records.append(TrialRecord(2, "duplicate", {}, measures=from_public(metrics)))
    saved = data_of(make_snapshot(records=tuple(records), front=(), chosen=None, knee=None))[
        "savings"
    ]
    assert (saved["num"], saved["anew"], saved["saved"]) == (2, 175.4, 84.2)
    assert saved["share"] == pytest.approx(84.2 / 175.4, abs=1e-6)
    assert data_of(make_snapshot(teacher={}))["savings"] is None


def test_reasons_are_counted_most_frequent_first():
    failures = data_of(make_snapshot())["failures"]
    assert [row["num"] for row in failures] == sorted(
        (row["num"] for row in failures), reverse=True
    )
    assert {
        "state": "failed",
        "reason": "nll is not finite",
        "trials": [0, 24],
        "num": 2,
    } in failures


def test_confusions_add_up_and_name_the_classes():
    evidence = {0: {"confusion": [[0, 0, 5], [0, 2, 1], [2, 2, 3]], "examples": []}}
    record = make_snapshot().record(1).replace(trial=0)
    changes = {"records": (record,), "front": (0,), "chosen": 0, "knee": 0, "evidence": evidence}
    card = data_of(make_snapshot(**changes, class_names=("cat", "dog", "x" * 99)))["cards"][0]
    confusion = card["confusion"]
    assert [[cell["count"] for cell in line] for line in confusion["matrix"]] == [
        [5, 0, 1],
        [0, 0, 0],
        [0, 0, 3],
    ]
    assert (confusion["n"], confusion["num_wrong"]) == (9, 1)
    assert confusion["wrong"] == [{"label": "cat", "found": "x" * 39 + "…", "count": 1}]
    many = tuple(str(i) for i in range(40))
    assert (
        data_of(make_snapshot(**changes, class_names=many))["cards"][0]["confusion"]["matrix"]
        is None
    )


def test_find_refuses_a_trial_that_is_not_there():
    with pytest.raises(KeyError):
        find(data_of(make_snapshot()), 999)


def test_an_empty_study_has_data():
    data = data_of(make_snapshot(records=(), front=(), chosen=None, references=(), hypervolume=()))
    assert "No student was chosen: 0 of 0" in data["answer"]["headline"]


def test_objective_labels_win_over_the_known_ones():
    objective = Objective("nll", "minimize", "metric", "my NLL")
    data = data_of(make_snapshot(objectives=(objective,)))
    assert data["metrics"][0] == {"name": "nll", "test": "test_nll", "label": "my NLL"}
    assert data["axes"][0]["label"] == "my NLL"


def test_the_package_loads_no_drawing_library():
    code = "import sys, gped_nas.report; print([m for m in ('plotly', 'jinja2', 'optuna_dashboard') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def with_measures(**changes):
    """A snapshot whose records have some more metrics, all .5."""
    more = from_public(dict.fromkeys(("entropy_excess", "bill", "nll@permuted"), 0.5))
    snapshot = make_snapshot(**changes)
    records = tuple(
        r.replace(measures={**r.measures, **more}) if r.measures else r for r in snapshot.records
    )
    return make_snapshot(records=records, **changes)


def test_direction_and_label_of_every_metric_come_with_the_snapshot():
    words = registered_words() | {"bill": MetricWords("bill (euro)", "minimize", "euro")}
    data = data_of(with_measures(metrics=words))
    axes = {axis["name"]: axis for axis in data["axes"]}
    assert axes["bill"]["direction"] == "minimize" and axes["bill"]["label"] == "bill (euro)"
    assert axes["entropy_excess"]["direction"] == "minimize"
    assert axes["agreement"]["direction"] == "maximize"
    assert axes["nll@permuted"]["direction"] == "minimize"
    assert axes["nll@permuted"]["label"] == "NLL (nats), permuted"
    for name, metric in METRICS.items():
        if name in axes and name != "nll":  # an objective has a label of its own
            assert (axes[name]["direction"], axes[name]["label"]) == (
                metric.direction,
                metric.label,
            )


def test_a_metric_that_nobody_knows_has_its_name_and_no_direction():
    data = data_of(with_measures(metrics={}))
    axes = {axis["name"]: axis for axis in data["axes"]}
    assert axes["bill"]["direction"] is None and axes["bill"]["label"] == "bill"
    assert axes["nll"]["direction"] == "minimize", "it is an objective"


def test_metrics_under_conditions_follow_the_clean_ones():
    names = [metric["name"] for metric in data_of(with_measures())["metrics"]]
    assert names[0] == "nll" and names[-1] == "nll@permuted"
    assert names[1:-1] == sorted(names[1:-1])
