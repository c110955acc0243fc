"""Rows that ``evaluate`` measured: tables, axes of the front, curves of cards."""

import json
import re

import pytest

from gped_nas.api.dashboard import trial_note
from gped_nas.distill.student import load_student
from gped_nas.evaluate.measured import CLEAN
from gped_nas.export.card import card
from gped_nas.models.base import Genotype
from gped_nas.report.charts import figure
from gped_nas.report.comparison import comparison_data, comparison_page
from gped_nas.report.data import data_of, find
from gped_nas.report.page import numbers_of, page
from gped_nas.search.task_rows import shown_rows
from tests.export.students import make_student
from tests.report.example import make_snapshot

SNAPSHOT = make_snapshot()
CHOSEN = SNAPSHOT.chosen
OTHER = next(trial for trial in SNAPSHOT.front if trial != CHOSEN)


def row(predictor, task, metric, value, *, condition=CLEAN, part="test", spread=0.1, n=360, **more):
    bounds = {"low": None, "high": None, "why": "none was made"}
    if spread:
        bounds = {"low": value - spread, "high": value + spread}
    return {
        "predictor": predictor,
        "task": task,
        "metric": metric,
        "condition": condition,
        "part": part,
        "value": value,
        "n": n,
        "limit": None,
        "seed": 0,
        **bounds,
        **more,
    }


def attacked(predictor, values, **more):
    """Accuracy by radius."""
    table = []
    for radius, value in values.items():
        attack = f"pgd-{radius}"
        table.append(
            row(predictor, f"attack:{attack}", "accuracy", value, condition=attack, **more)
        )
    return table


HISTOGRAM = {"edges": [0, 1, 2], "inside": [30, 10], "outside": [5, 15]}
ROWS = (
    *attacked("teacher", {0.1: 0.8, 0.01: 0.95}),
    *attacked(f"trial {CHOSEN}", {0.1: 0.5, 0.01: 0.9}),
    *attacked(f"trial {OTHER}", {0.1: 0.4}),
    row(f"trial {CHOSEN}", "prediction", "nll", 0.3),
    row(f"trial {CHOSEN}", "temperature", "nll", 0.123),
    row(f"trial {CHOSEN}", "misclassification", "misclassification_auroc_total", 0.9),
    row(
        f"trial {CHOSEN}",
        "ood:permuted",
        "ood_auroc_energy",
        0.6,
        condition="permuted",
        curve={"edges": [0, 1], "inside": [1], "outside": [1]},
    ),
    row(f"trial {CHOSEN}", "latency:onnx-1", "latency_ms", 0.25, spread=0, n=30, note="one note"),
    row("teacher", "latency:onnx-1", "latency_ms", 5.0, spread=0, n=30),
    row(
        f"trial {CHOSEN}",
        "ood:permuted",
        "ood_auroc_total",
        0.7,
        condition="permuted",
        curve=HISTOGRAM,
    ),
    row(
        f"trial {CHOSEN}",
        "selective",
        "aurc_total",
        0.1,
        curve={"coverage": [0.5, 1.0], "risk": [0.0, 0.1]},
    ),
)


@pytest.fixture(scope="module")
def data():
    return data_of(make_snapshot(evaluations=ROWS))


def test_a_task_is_a_table_of_its_predictors(data):
    by_task = {table["task"]: table for table in data["tasks"]}
    # a record has what the task prediction measures
    assert set(by_task) == {
        *("attack", "latency", "ood", "selective", "temperature", "misclassification")
    }

    attack = by_task["attack"]
    assert attack["part"] == "test"
    students = sorted([CHOSEN, OTHER])
    assert attack["predictors"] == ["teacher", *(f"trial {trial}" for trial in students)]
    cells = {line["name"]: line["cells"] for line in attack["rows"]}
    of_other = cells["test_accuracy@pgd-0.1"][1 + students.index(OTHER)]
    assert (of_other["value"], of_other["interval"]) == (0.4, [0.3, 0.5])
    assert cells["test_accuracy@pgd-0.01"][1 + students.index(OTHER)] is None
    assert attack["n"] == 360

    latency = by_task["latency"]
    assert latency["rows"][0]["label"] == "latency (ms), onnx-1"
    assert latency["rows"][0]["cells"][0]["interval"] is None
    assert latency["notes"] == ["one note"]


def test_a_value_of_other_examples_says_how_many_they_are():
    few = row("teacher", "ood:noise", "ood_auroc_total", 0.7, condition="noise", n=40)
    many = [
        row(f"trial {CHOSEN}", "selective", "aurc_total", 0.1),
        row("teacher", "ood:permuted", "ood_auroc_total", 0.8, condition="permuted"),
        row(f"trial {CHOSEN}", "ood:permuted", "ood_auroc_total", 0.9, condition="permuted"),
    ]
    text = page(data_of(make_snapshot(evaluations=(few, *many))))
    assert "ood, on test, n 360</caption>" in text
    assert text.count('<span class="interval">n 40</span>') == 1
    assert '<span class="interval">n 360</span>' not in text


def test_what_a_task_was_asked_with_tells_its_rows_apart():
    rows = [
        row("teacher", f"active:{name}", "accuracy", value, condition="20-labels")
        for name, value in (("random", 0.5), ("bald", 0.75))
    ]
    (table,) = data_of(make_snapshot(evaluations=rows))["tasks"]
    values = {line["name"]: line["cells"][0]["value"] for line in table["rows"]}
    assert values == {
        "test_accuracy@random 20-labels": 0.5,
        "test_accuracy@bald 20-labels": 0.75,
    }


def test_what_is_known_of_students_is_an_axis_of_the_front(data):
    axes = {axis["name"]: axis for axis in data["axes"]}
    assert axes["test_accuracy@pgd-0.1"]["direction"] == "maximize"
    assert axes["test_latency_ms@onnx-1"]["log"]
    record = find(data, CHOSEN)
    assert record["metrics"]["test_accuracy@pgd-0.1"] == 0.5
    assert record["intervals"]["test_accuracy@pgd-0.1"] == [0.4, 0.6]
    (teacher,) = [entry for entry in data["references"] if entry["name"] == "teacher"]
    assert teacher["metrics"]["test_accuracy@pgd-0.1"] == 0.8

    # what a task measured under a recorded name is another number
    recorded = SNAPSHOT.record(CHOSEN).metrics["test_nll"]
    assert record["metrics"]["test_nll"] == pytest.approx(recorded, abs=1e-5)
    assert record["metrics"]["test_nll@temperature"] == 0.123
    assert record["metrics"]["test_misclassification_auroc_total"] == 0.9

    drawn = figure(data, "front", x="test_accuracy@pgd-0.1", y="nll")
    xs = [x for trace in drawn.data if trace.x is not None for x in trace.x]
    assert {0.5, 0.4, 0.8} <= set(xs)

    table = numbers_of(data)["table"]
    place = table["columns"].index("test_accuracy@pgd-0.1")
    values = {cells[0]: cells[place] for cells in table["rows"]}
    assert (values[CHOSEN], values[OTHER]) == (0.5, 0.4)
    assert len(set(table["columns"])) == len(table["columns"])
    # what is recorded of every trial is as it was
    plain = numbers_of(data_of(SNAPSHOT))["table"]
    assert [name for name in table["columns"] if name in plain["columns"]] == plain["columns"]


def test_the_measure_of_most_examples_is_shown():
    of_few = row(f"trial {CHOSEN}", "selective", "aurc", 0.9, n=20)
    of_all = row(f"trial {CHOSEN}", "selective", "aurc", 0.2, n=360)
    for rows in ((of_few, of_all), (of_all, of_few)):
        (shown,) = shown_rows(make_snapshot(evaluations=rows))
        assert shown["value"] == 0.2


def test_curves_stand_on_the_card(data):
    (card,) = [card for card in data["cards"] if card["trial"] == CHOSEN]
    attack, selective, scores = card["task_curves"]
    clean = SNAPSHOT.record(CHOSEN).metrics["test_accuracy"]
    assert attack["lines"]["student"] == [
        [0.0, pytest.approx(clean, abs=1e-5)],
        [0.01, 0.9],
        [0.1, 0.5],
    ]
    assert [point[0] for point in attack["lines"]["teacher"]][-2:] == [0.01, 0.1]
    assert selective["lines"] == {"student": [[0.5, 0.0], [1.0, 0.1]]}
    assert (selective["across"], selective["up"]) == ("coverage", "risk")
    assert scores["lines"]["outside"] == [
        [0, 0], [0, 0.25], [1, 0.25], [1, 0.75], [2, 0.75], [2, 0],
    ]  # fmt: skip
    assert "permuted" in scores["title"]

    (other,) = [card for card in data["cards"] if card["trial"] == OTHER]
    assert other["task_curves"] == [], "one radius is no curve"


def test_a_curve_is_of_the_same_examples():
    who = f"trial {CHOSEN}"
    few = {"n": 40, "limit": 40}
    rows = [
        *attacked(who, {0.1: 0.5, 0.01: 0.9}),
        *attacked(who, {0.05: 0.7, 0.2: 0.4}, **few),
        *attacked(who, {0.1: 0.6, 0.01: 0.8}, part="validation", n=20),
        *attacked("teacher", {0.05: 0.75}, **few),
        *attacked("teacher", {0.01: 0.95}, part="validation"),
        row(who, "selective", "aurc_total", 0.1, curve={"coverage": [1.0], "risk": [0.1]}),
        row(who, "another", "aurc_model", 0.1, curve={"coverage": [1.0], "other": [0.1]}),
        row(
            "teacher",
            "selective",
            "aurc_total",
            0.2,
            curve={"coverage": [1.0], "risk": [0.2]},
            **few,
        ),
    ]
    (card,) = [
        card
        for card in data_of(make_snapshot(evaluations=rows))["cards"]
        if card["trial"] == CHOSEN
    ]
    of_all, of_few, of_validation, selective = card["task_curves"]
    assert [point[0] for point in of_all["lines"]["student"]] == [0.0, 0.01, 0.1]
    # what is known without an attack is of all examples
    assert of_few["lines"] == {"student": [[0.05, 0.7], [0.2, 0.4]], "teacher": [[0.05, 0.75]]}
    assert of_few["title"] == "Accuracy under pgd, on test, n 40"
    assert of_validation["lines"]["student"][-1] == [0.1, 0.6]
    assert selective["lines"] == {"student": [[1.0, 0.1]]}


def certified(predictor, by_radius, bounds="crown", **more):
    """The shares that are certified and broken, by radius."""
    table = []
    for radius, shares in by_radius.items():
        for metric, value in zip(("certified", "broken"), shares, strict=True):
            condition = f"linf-{radius}-{bounds}"
            about = {"condition": condition, "epsilon": radius, "bounds": bounds}
            task = f"certify:linf-{radius}"
            table.append(row(predictor, task, metric, value, **about, **more))
    return table


def test_certified_shares_stand_beside_what_an_attack_left(data):
    who = f"trial {CHOSEN}"
    rows = [
        *certified(who, {0.1: (0.2, 0.5), 0.01: (0.75, 0.125)}),
        *certified(who, {0.1: (0.0, 0.5), 0.01: (0.25, 0.125)}, "ibp"),
        *certified("teacher", {0.1: (0.1, 0.6)}),
        *certified(f"trial {OTHER}", {0.1: (0.0, 0.5), 0.01: (0.25, 0.125)}, "ibp"),
    ]
    shown = data_of(make_snapshot(evaluations=rows))
    curves = {card["trial"]: card["task_curves"] for card in shown["cards"]}
    (crown,) = curves[CHOSEN]
    clean = pytest.approx(SNAPSHOT.record(CHOSEN).metrics["test_accuracy"], abs=1e-5)
    assert crown["title"] == "Certified by crown, and attacked, on test, n 360"
    assert crown["lines"]["student"] == [[0.0, clean], [0.01, 0.75], [0.1, 0.2]]
    assert crown["lines"]["student attacked"] == [[0.0, clean], [0.01, 0.875], [0.1, 0.5]]
    assert crown["lines"]["teacher"][-1] == [0.1, 0.1]
    assert crown["lines"]["teacher attacked"][-1] == [0.1, 0.4]
    # intervals alone are drawn where nobody asked for more
    assert [curve["title"][:17] for curve in curves[OTHER]] == ["Certified by ibp,"]

    text = page(shown)
    assert text.count('class="line teacher attacked"') == 1
    assert text.count('class="line student attacked"') == 2
    assert "line student attacked" not in page(data)


def test_the_page_has_tables_and_curves_and_obeys_no_text(data):
    text = page(data)
    assert 'id="tasks"' in text and 'href="#tasks"' in text
    assert "Accuracy under pgd" in text and "latency (ms), onnx-1" in text

    # a study may have hundreds of axes: those of a task stand together
    (across,) = re.findall(r'<select name="axis-x">(.*?)</select>', text, re.DOTALL)
    groups = dict(re.findall(r'<optgroup label="(\w+)">(.*?)</optgroup>', across, re.DOTALL))
    assert list(groups) == [
        *("attack", "latency", "misclassification", "ood", "selective", "temperature")
    ]
    assert re.findall('value="(.*?)"', groups["latency"]) == ["test_latency_ms@onnx-1"]
    names = re.findall('value="(.*?)"', across)
    assert sorted(names) == sorted(axis["name"] for axis in data["axes"])
    body = text[text.index('id="tasks"') :]
    assert re.search(r"50\.00 %\s*<span class=\"interval\">\[40\.00, 60\.00\]", body)

    hostile = row(f"trial {CHOSEN}", "ood:<img src=x>", "<b>", 0.1, note="<script>x</script>")
    attacked_page = page(data_of(make_snapshot(evaluations=(hostile,))))
    assert "<img src=x>" not in attacked_page and "<script>x" not in attacked_page
    assert "&lt;img src=x&gt;" in attacked_page


def test_a_page_without_rows_is_what_it_was():
    text = page(data_of(SNAPSHOT))
    assert 'id="tasks"' not in text and "#tasks" not in text


def test_studies_are_compared_by_what_their_chosen_students_were_asked():
    first = make_snapshot(evaluations=ROWS)
    second = make_snapshot(name="b", evaluations=attacked(f"trial {CHOSEN}", {0.1: 0.7}))
    data = comparison_data([first, second])
    rows = {row["label"]: row["cells"] for row in data["tasks"]}
    both = rows["accuracy (share), pgd-0.1, test"]
    assert [cell["value"] for cell in both] == [0.5, 0.7]
    one, none = rows["latency (ms), onnx-1, test"]
    assert (one["value"], none) == (0.25, None)

    text = comparison_page(data)
    assert re.search(r"50\.00 %\s*<span class=\"interval\">\[40\.00, 60\.00\]", text)
    assert 'id="tasks"' not in comparison_page(comparison_data([SNAPSHOT, make_snapshot(name="b")]))


def test_a_model_card_has_them_beside_the_teacher(tmp_path):
    spec = load_student(make_student(tmp_path / "s", Genotype("mlp", depth=0))).spec
    snapshot = make_snapshot(evaluations=ROWS)
    text = card(spec, snapshot.record(CHOSEN), snapshot)
    assert "## What else it was asked" in text
    assert r"| accuracy \(share\), pgd\-0\.1, test | 0.5 | 0.4 to 0.6 | 0.8 | 360 |" in text
    assert r"| latency \(ms\), onnx\-1, test | 0.25 |  | 5 | 30 |" in text
    assert "asked" not in card(spec, SNAPSHOT.record(CHOSEN), SNAPSHOT)

    # a teacher that was asked about all examples does not stand beside a student of a few
    few = row(f"trial {CHOSEN}", "selective", "aurc_total", 0.2, n=40, limit=40)
    other = make_snapshot(evaluations=(few, row("teacher", "selective", "aurc_total", 0.125)))
    assert "0.125" not in card(spec, other.record(CHOSEN), other)

    hostile = make_snapshot(evaluations=[row(f"trial {CHOSEN}", "t:a|b\nc", "<b>", 0.1)])
    assert "<b>" not in card(spec, hostile.record(CHOSEN), hostile)


def test_a_note_of_the_dashboard_has_them(tmp_path):
    snapshot = make_snapshot(evaluations=ROWS)
    text = trial_note(snapshot.record(CHOSEN), snapshot, {})
    assert r"| accuracy \(share\), pgd\-0\.1, test | 0.5 | 0.4 to 0.6 | 0.8 |" in text
    assert "asked by evaluate" not in trial_note(SNAPSHOT.record(CHOSEN), SNAPSHOT, {})


def test_data_with_rows_is_json(data):
    assert json.loads(json.dumps(data, allow_nan=False)) == data
