"""The report's data: plain, rounded, sorted, and right in its words."""

import json
import math
import subprocess
import sys

import pytest

from gped_nas.evaluate.base import METRICS
from gped_nas.evaluate.measured import from_public
from gped_nas.report import words
from gped_nas.report.cards import classes
from gped_nas.report.data import data_of, find, plain
from gped_nas.report.page import numbers_of
from gped_nas.report.sentences import describe_price
from gped_nas.search.goals import MetricWords, Objective
from gped_nas.search.objectives import registered_words
from gped_nas.search.record import TrialRecord
from gped_nas.search.snapshot import PairedDifference, Reference
from tests.report.example import DIAGNOSIS, make_snapshot


def test_data_is_json_and_equal_for_equal_snapshots():
    first, second = (json.dumps(data_of(make_snapshot()), allow_nan=False) for _ in range(2))
    assert first == second


def test_plain_rounds_sorts_and_drops_what_is_not_finite():
    value = {"b": 0.123456789, "a": (1, True, None), "c": math.inf, "d": 123456789, 3: math.nan}
    data = plain(value)
    assert data == {"3": None, "a": [1, True, None], "b": 0.123457, "c": None, "d": 123456789}
    assert list(data) == sorted(data)


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
    ratio = teacher.costs["macs"] / student.costs["macs"]
    assert f"Trial {snapshot.chosen} " in answer["headline"]
    assert f"MACs ({ratio:,.0f} times less)" in answer["headline"]

    mine, theirs = (f"{100 * side.metrics['test_accuracy']:.2f} %" for side in (student, teacher))
    assert f"accuracy {mine} against {theirs}" in answer["detail"]
    assert "Measured on test, n = 360" in answer["detail"]


def test_no_student_of_a_teacher_that_guesses_heads_the_report():
    beside = {"nll": 0.1, "above": (0.01, -0.02, 0.04), "is_better": False, "n": 180}
    teacher = {**make_snapshot().teacher, "diagnosis": {**DIAGNOSIS, "guess": beside}}
    answer = data_of(make_snapshot(teacher=teacher))["answer"]
    assert answer["headline"] == "No student is to be used: the teacher is not better than a guess."
    assert "its NLL is 0.1100, that of a guess from the training labels 0.1000" in answer["detail"]
    assert "(paired difference +0.0100 [-0.0200, 0.0400], n = 180)" in answer["detail"]
    assert not answer["tiles"]

    better = {**beside, "above": (-2.0, -2.1, -1.9), "is_better": True}
    teacher = {**make_snapshot().teacher, "diagnosis": {**DIAGNOSIS, "guess": better}}
    assert data_of(make_snapshot(teacher=teacher))["answer"] == data_of(make_snapshot())["answer"]


def test_a_dearer_student_is_said_to_be_dearer():
    assert words.factor(200, 100) == "2× more than"
    assert words.factor(100, 100) == "as much as"


def test_a_time_has_digits_and_a_count_has_thousands():
    assert [words.count(value) for value in (1234567, 12.0, None)] == ["1,234,567", "12", "–"]
    assert [words.count(value) for value in (0.014971, 3.25, 1234.56, 12345.6)] == [
        "0.01497",
        "3.25",
        "1235",
        "12,346",
    ]


def test_a_price_has_the_time_of_a_call_where_it_is_known():
    student = TrialRecord(3, "complete", {}, costs={"macs": 3400, "latency_ms": 0.015})
    teacher = Reference("teacher", "teacher", {}, costs={"macs": 340_000, "latency_ms": 0.6})
    price = "costs 3.4 k MACs (100 times less) and 0.015 ms a call (40 times less)"
    assert describe_price(student, teacher) == price
    whole = TrialRecord(3, "complete", {}, costs={**student.costs, "storage_bytes": 1200})
    assert describe_price(whole, None) == "costs 3.4 k MACs, 1.2 kB and 0.015 ms a call"


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
    middle = sum(interval) / 2
    paired = PairedDifference("teacher", "student", metric, "test", middle, interval, 360)
    (row,) = data_of(make_snapshot(paired_differences=(paired,)))["comparisons"]
    assert row["reading"] == reading


def test_the_exact_test_decides_where_there_is_one():
    def reading(p_value):
        paired = PairedDifference(
            "teacher", "student", "accuracy", "test", 0.02, (0.001, 0.05), 360, "", p_value
        )
        (row,) = data_of(make_snapshot(paired_differences=(paired,)))["comparisons"]
        return row["reading"]

    assert reading(0.0651) == "not told apart: exact test, p = 0.065"
    assert reading(0.04) == "better: teacher average"


def test_layers_that_pruning_removed_stay_visible():
    snapshot = make_snapshot()
    trial = snapshot.front[0]
    records = tuple(
        r.replace(layers=r.layers[1:]) if r.trial == trial else r for r in snapshot.records
    )
    layers = data_of(make_snapshot(records=records))["cards"][0]["layers"]
    assert layers[0]["after"] is None
    assert layers[0]["before"]["outputs"] > 0


def test_what_is_lost_is_said_with_its_interval_where_nothing_was_paired():
    snapshot = make_snapshot()

    def answer(value, interval):
        name = "test_nll_above_teacher"
        loss = from_public({name: value}, {name: interval})
        records = list(snapshot.records)
        chosen = records[snapshot.chosen]
        records[snapshot.chosen] = chosen.replace(measures={**chosen.measures, **loss})
        changed = make_snapshot(records=tuple(records), paired_differences=())
        return data_of(changed)["answer"]

    lost = answer(0.02, (0.01, 0.03))
    assert "0.0200 nats lost [0.0100, 0.0300]" in lost["detail"]
    assert "loses 0.0200 nats of NLL" in lost["headline"]
    assert "cannot be told from its teacher" in answer(0.02, (-0.01, 0.05))["headline"]
    gained = answer(-0.02, (-0.03, -0.01))
    assert "is better than its teacher" in gained["headline"]
    assert "0.0200 nats gained [0.0100, 0.0300]" in gained["detail"]


def test_the_table_holds_every_number_of_every_record():
    snapshot = make_snapshot()
    data = data_of(snapshot)
    table = numbers_of(data)["table"]
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    assert len(set(table["columns"])) == len(table["columns"])

    for row, record in zip(rows, data["records"], strict=True):
        for name in ("trial", "state", "reason"):
            assert row[name] == record[name]
        for name, value in {**record["metrics"], **record["costs"], **record["settings"]}.items():
            assert row[name] == value
        for name, bounds in record["intervals"].items():
            assert [row[name + "_low"], row[name + "_high"]] == bounds
        assert row["n"] == record["n"].get("nll") and row["test_n"] == record["n"].get("test_nll")


def test_a_setting_never_hides_a_number():
    genotype = {"family": "mlp", "nll": 7, "state": "x"}
    record = TrialRecord(0, "complete", genotype, measures=from_public({"nll": 0.5}))
    snapshot = make_snapshot(records=(record,), front=(), chosen=None, knee=None)
    table = numbers_of(data_of(snapshot))["table"]
    assert dict(zip(table["columns"], table["rows"][0], strict=True))["nll"] == 0.5
    assert table["settings"] == ["family"]


def test_the_layer_behind_the_front_is_the_front_without_it():
    snapshot = make_snapshot()
    names = ("nll", "flops", "storage_bytes")
    points = {}
    for record in snapshot.records:
        if record.state == "complete" and record.trial not in snapshot.front:
            points[record.trial] = [record.value(name) for name in names]

    def is_beaten(point):
        return any(
            other != point and all(a <= b for a, b in zip(other, point, strict=True))
            for other in points.values()
        )

    near = [trial for trial, point in points.items() if not is_beaten(point)]
    assert data_of(snapshot)["near"] == near


def test_a_temperature_without_an_interval_is_not_told():
    nothing = {"value": 0.9, "low": None, "high": None, "degrees_of_freedom": 0}
    teacher = {"diagnosis": DIAGNOSIS | {"kinetic": nothing}}
    rows = data_of(make_snapshot(teacher=teacher))["teacher"]["diagnosis"]
    values = {row["what"]: row["value"] for row in rows}
    assert values["kinetic temperature found"] == words.NONE
    assert values["configurational temperature found"] == "0.9 [0.8, 1.1]"


def test_the_saving_is_that_of_a_teacher_for_each_student():
    """The teacher takes 84.2 s once, two students take 3 s and 4 s.

    Sampled anew for each it would be 175.4 s; 91.2 s were paid, so 84.2 s are saved.
    """
    measures = from_public({"nll": 0.5})
    records = (
        TrialRecord(0, "complete", {}, measures=measures, seconds=3.0),
        TrialRecord(1, "complete", {}, measures=measures, seconds=4.0),
        TrialRecord(2, "duplicate", {}, measures=measures),
    )
    snapshot = make_snapshot(records=records, front=(), chosen=None, knee=None)
    saved = data_of(snapshot)["savings"]
    assert (saved["num"], saved["anew"], saved["saved"]) == (2, 175.4, 84.2)
    assert saved["share"] == pytest.approx(84.2 / 175.4, abs=1e-6)
    assert data_of(make_snapshot(teacher={}))["savings"] is None


def test_reasons_are_counted_most_frequent_first():
    failures = data_of(make_snapshot())["failures"]
    counts = [row["num"] for row in failures]
    assert counts == sorted(counts, reverse=True)
    reason = "nll is not finite"
    assert {"state": "failed", "reason": reason, "trials": [0, 24], "num": 2} in failures


def test_confusions_add_up_and_name_the_classes():
    evidence = {0: {"confusion": [[0, 0, 5], [0, 2, 1], [2, 2, 3]], "examples": []}}
    record = make_snapshot().record(1).replace(trial=0)
    changes = {"records": (record,), "front": (0,), "chosen": 0, "knee": 0, "evidence": evidence}
    card = data_of(make_snapshot(**changes, class_names=("cat", "dog", "x" * 99)))["cards"][0]
    confusion = card["confusion"]
    counts = [[cell["count"] for cell in line] for line in confusion["matrix"]]
    assert counts == [[5, 0, 1], [0, 0, 0], [0, 0, 3]]
    assert (confusion["n"], confusion["num_wrong"]) == (9, 1)
    assert confusion["wrong"] == [{"label": "cat", "found": "x" * 39 + "…", "count": 1}]

    many = tuple(str(i) for i in range(40))
    (card,) = data_of(make_snapshot(**changes, class_names=many))["cards"]
    assert card["confusion"]["matrix"] is None


def test_find_refuses_a_trial_that_is_not_there():
    with pytest.raises(KeyError):
        find(data_of(make_snapshot()), 999)


def test_an_empty_study_has_data():
    data = data_of(make_snapshot(records=(), front=(), chosen=None, references=(), hypervolume=()))
    assert "No student was chosen: no trial has finished" in data["answer"]["headline"]


def test_objective_labels_win_over_the_known_ones():
    objective = Objective("nll", "minimize", "metric", "my NLL")
    data = data_of(make_snapshot(objectives=(objective,)))
    assert data["metrics"][0] == {"name": "nll", "test": "test_nll", "label": "my NLL"}
    assert data["axes"][0]["label"] == "my NLL"


def test_the_package_loads_no_drawing_library():
    code = (
        "import sys, gped_nas.report\n"
        "print([m for m in ('plotly', 'jinja2', 'optuna_dashboard') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def with_measures(**changes):
    """A snapshot whose records have some more metrics, all .5."""
    more = from_public(dict.fromkeys(("entropy_excess", "bill", "nll@permuted"), 0.5))
    records = []
    for record in make_snapshot(**changes).records:
        if record.measures:
            record = record.replace(measures={**record.measures, **more})
        records.append(record)
    return make_snapshot(records=tuple(records), **changes)


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
            assert axes[name]["direction"] == metric.direction
            assert axes[name]["label"] == metric.label


def test_a_metric_that_nobody_knows_has_its_name_and_no_direction():
    data = data_of(with_measures(metrics={}))
    axes = {axis["name"]: axis for axis in data["axes"]}
    assert axes["bill"]["direction"] is None and axes["bill"]["label"] == "bill"
    assert axes["nll"]["direction"] == "minimize", "it is an objective"


def test_metrics_under_conditions_follow_the_clean_ones():
    names = [metric["name"] for metric in data_of(with_measures())["metrics"]]
    assert names[0] == "nll" and names[-1] == "nll@permuted"
    assert names[1:-1] == sorted(names[1:-1])


def test_every_class_has_its_recall_by_name():
    """Of 10 cats 9 are found and of 4 dogs one; 10 answers are cat... and one is right of 2."""
    rows = [[0, 0, 9], [0, 1, 1], [1, 0, 3], [1, 1, 1]]
    cat, dog = classes(rows, ("cat", "dog"))
    assert (cat["name"], cat["n"], cat["recall"]) == ("cat", 10, 0.9)
    assert (cat["precision"], dog["precision"]) == (0.75, 0.5)
    assert dog["interval"] == pytest.approx([0.0456, 0.6994], abs=1e-4)  # Wilson's, of 1 of 4
    data = data_of(make_snapshot())
    assert [row["name"] for row in data["cards"][0]["classes"]] == data["class_names"]
    assert numbers_of(data)["by_class"][str(data["front"][0])] == data["cards"][0]["classes"]
