"""The task ``decision``: by hand, beside who asks nobody, and what is refused."""

import json
from typing import Any

import numpy as np
import pytest

import gped_nas as gn
from tests.cli.harness import Home, accepted, refused

COSTS = "right: 0\nwrong: 1\ndear: {classes: [3, 7], cost: 20}\n"


def asked(home: Home, what: object, *args: object) -> list[dict[str, Any]]:
    result = accepted("evaluate", what, "--out", home.out, "-f", "json", *args)
    rows: list[dict[str, Any]] = json.loads(result.out)
    return rows


def test_everybody_pays_for_his_own_actions(own: Home) -> None:
    path = own.root / "costs.yaml"
    path.write_text(COSTS)
    task = f"decision:{path}"
    rows = asked(own, own.study, "--tasks", task, "--subjects", "teacher,student")
    paid = {(row["predictor"], row["metric"]): row["value"] for row in rows}

    matrix = np.ones((10, 10)) + 19 * np.isin(np.arange(10), [3, 7])[:, None]
    np.fill_diagonal(matrix, 0)
    dataset = gn.load_dataset(gn.load_space(own.space))
    labels = dataset.labels("test")
    student = gn.open_study(own.study).load_student()
    prob = student.predict(dataset.raw("test"))["predictive"].double().numpy()
    costs = matrix[labels, (prob @ matrix).argmin(1)]
    name = f"trial {gn.open_study(own.study).find('chosen').trial}"
    assert paid[name, "true_cost"] == pytest.approx(costs.mean())
    assert paid[name, "true_cost_sum"] == pytest.approx(costs.sum())

    # one action whatever happens: by the training labels, and the cheapest by the labels asked
    share = np.bincount(dataset.labels("train"), minlength=10) / len(dataset.train)
    assert paid["nobody", "true_cost"] == matrix[labels, (share @ matrix).argmin()].mean()
    each = [matrix[labels, action].mean() for action in range(10)]
    best = f"always {dataset.class_names[int(np.argmin(each))]}"
    assert paid[best, "true_cost"] == min(each)
    assert {row["predictor"] for row in rows} == {"teacher", name, "nobody", best}
    assert all(row["low"] < row["value"] < row["high"] for row in rows)

    # another matrix in the same file is measured anew
    path.write_text(COSTS.replace("20", "5"))
    again = asked(own, own.study, "--tasks", task, "--subjects", "teacher,student")
    assert [row["value"] for row in again] != [row["value"] for row in rows]


def test_the_target_utility_brings_its_costs(home: Home) -> None:
    costs = (np.ones((10, 3)) * [0.2, 0.1, 0.3] + np.eye(10, 3)).tolist()
    targets = f"targets=[predictive, {{name: utility, costs: {costs}}}]"
    rows = asked(home, home.space, "--tasks", "decision", "--set", targets)
    paid = {(row["predictor"], row["metric"]): row["value"] for row in rows}
    labels = gn.load_dataset(gn.load_space(home.space)).labels("validation")
    each = [np.array(costs)[labels, action].mean() for action in range(3)]
    assert paid[f"always action {np.argmin(each)}", "true_cost"] == pytest.approx(min(each))


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("decision", ("found no costs", "decision:costs.yaml")),
        ("decision:none.yaml", ("none.yaml: no such file",)),
        ("decision:wrong.yaml", ("found 2 rows of 2 entries", "each of the 10 classes")),
    ],
)
def test_costs_that_are_not_there_or_of_other_classes_are_refused(
    home: Home, monkeypatch: pytest.MonkeyPatch, argument: str, says: tuple[str, ...]
) -> None:
    monkeypatch.chdir(home.root)
    (home.root / "wrong.yaml").write_text("costs: [[0, 1], [1, 0]]")
    refused(2, "evaluate", home.space, "--tasks", argument, says=says)
