"""The tasks of ``gped-search evaluate``: their rows against what was computed otherwise."""

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score, roc_auc_score
from torch import Tensor

import gped_nas as gn
from gped_nas.api.measuring import Ensemble, ensemble
from gped_nas.api.radii import radii
from gped_nas.api.tasks import bench
from gped_nas.api.teacher import Teacher
from gped_nas.config import Config
from gped_nas.errors import Interrupted
from gped_nas.evaluate.conditions import CONDITIONS, add_condition
from tests.cli.harness import Home, accepted, refused
from tests.cli.test_evaluation import asked


def test_inputs_that_a_condition_made_are_saved_and_give_the_rows(own: Home) -> None:
    path = own.root / "inputs.npz"
    rows = asked(
        own,
        *("--tasks", "shift:permuted", "--metrics", "accuracy", "--subjects", "teacher,student"),
        *("--limit", 60, "--save-inputs", path),
    )
    study = gn.open_study(own.study)
    name = rows[-1]["predictor"]
    with np.load(path) as saved:
        assert set(saved) == {"x", "y", "index", "teacher@permuted", f"{name}@permuted"}
        made, labels, index = saved[f"{name}@permuted"], saved["y"], saved["index"]
    dataset = gn.load_dataset(gn.load_space(own.space))
    assert np.array_equal(labels, dataset.labels("test")[index])
    assert np.array_equal(
        np.sort(made.reshape(60, -1)), np.sort(dataset.raw("test")[index].flatten(1))
    )

    answer = study.load_student().predict(made)["predictive"].argmax(1).numpy()
    assert [row["metric"] for row in rows] == ["accuracy", "accuracy"]
    assert rows[-1]["value"] == pytest.approx((answer == labels).mean())
    assert rows[-1]["condition"] == "permuted" and rows[-1]["n"] == 60

    refused(
        *(5, "evaluate", own.study, "--tasks", "prediction"),
        *("--save-inputs", own.root / "no folder" / "x.npz"),
        says=("--save-inputs", "no folder"),
    )


def test_severities_are_rows_and_their_mean(own: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CONDITIONS, "_items", dict(CONDITIONS))

    class Settings(Config):
        severity: int = 1

    @add_condition("fading", "less contrast", settings=Settings, main="severity")
    def fading(raw: Tensor, *, settings: Settings) -> Tensor:
        return raw * (1 - settings.severity / 6)

    rows = asked(own, "--tasks", "shift:fading", "--subjects", "student", "--metrics", "nll,ece")
    conditions = [f"fading-s{i}" for i in range(1, 6)]
    by_metric = {name: [row for row in rows if row["metric"] == name] for name in ("nll", "ece")}
    for of_metric in by_metric.values():
        assert [row["condition"] for row in of_metric] == [*conditions, "fading"]
        *each, mean = of_metric
        assert mean["value"] == pytest.approx(np.mean([row["value"] for row in each]))
    assert by_metric["nll"][-1]["low"] < by_metric["nll"][-1]["value"]
    assert by_metric["ece"][-1]["low"] is None and by_metric["ece"][-1]["why"]

    # the teacher is asked once at each severity, and not again for the next subject
    asked_teachers: list[Teacher] = []

    def counted(teacher: Teacher) -> Ensemble:
        asked_teachers.append(teacher)
        return ensemble(teacher)

    monkeypatch.setattr(bench, "ensemble", counted)
    who = ("--subjects", "map,student", "--metrics", "nll", "--seed", 5)
    both = asked(own, "--tasks", "shift:fading", *who)
    assert len(both) == 2 * 6 and len(asked_teachers) == 5


def test_attacked_inputs_are_within_the_radius_and_give_the_rows(own: Home) -> None:
    path = own.root / "attacked.npz"
    rows = asked(
        own,
        *("--tasks", "attack:pgd-0.02..0.1", "--subjects", "student", "--metrics", "accuracy"),
        *("--limit", 40, "--save-inputs", path),
    )
    student = gn.open_study(own.study).load_student()
    assert [row["epsilon"] for row in rows] == [0.02, 0.05, 0.1]
    assert rows[-1]["radius"] == "epsilon 0.1 (of 0..16: 1.6)"
    with np.load(path) as saved:
        for row in rows:
            made = saved[f"{row['predictor']}@{row['condition']}"]
            assert np.abs(made - saved["x"]).max() <= 16 * row["epsilon"] + 1e-4
            assert made.min() >= 0 and made.max() <= 16
            answer = student.predict(made)["predictive"].argmax(1).numpy()
            assert row["value"] == pytest.approx((answer == saved["y"]).mean())
    values = [row["value"] for row in rows]
    assert values == sorted(values, reverse=True) and values[0] > values[-1]


@pytest.mark.parametrize("subject", ["student", "map"])
def test_an_attack_on_one_network_stops_between_its_passes(own: Home, subject: str) -> None:
    num_asked = 0

    def should_stop() -> bool:
        nonlocal num_asked
        num_asked += 1
        return num_asked > 12  # far fewer are asked around the attack

    session = gn.new_session("cpu", should_stop=should_stop)
    study = gn.open_study(own.study)
    with pytest.raises(Interrupted):
        study.evaluate("attack:pgd-0.1", subjects=[subject], limit=20, session=session)
    assert study.evaluations() == []


def test_everybody_is_asked_at_the_inputs_of_each(own: Home) -> None:
    args = ("--subjects", "map,student", "--metrics", "accuracy", "--limit", 40)
    matrix = asked(own, "--tasks", "transfer:fgsm-0.1", *args)
    alone = asked(own, "--tasks", "attack:fgsm-0.1", *args)
    names = [row["predictor"] for row in alone]
    assert [(row["inputs_of"], row["predictor"]) for row in matrix] == [
        (source, victim) for source in names for victim in names
    ]
    own_inputs = [row["value"] for row in matrix if row["inputs_of"] == row["predictor"]]
    assert own_inputs == [row["value"] for row in alone]
    assert all("overstates robustness" in row["note"] for row in alone)
    assert matrix[1]["condition"] == "fgsm-0.1 of map"


def test_inputs_from_outside_are_told_apart_as_scikit_learn_says(own: Home) -> None:
    path = own.root / "outside.npz"
    rows = asked(
        own,
        *("--tasks", "ood:rotated,ood:fgsm-0.1", "--subjects", "student", "--limit", 50),
        *("--save-inputs", path),
    )
    student = gn.open_study(own.study).load_student()
    with np.load(path) as saved:
        x, outside = (
            saved["x"],
            {name: saved[f"{rows[0]['predictor']}@{name}"] for name in ("rotated", "fgsm-0.1")},
        )
    for name, made in outside.items():
        prob = np.concatenate(
            [student.predict(x)["predictive"], student.predict(made)["predictive"]]
        )
        entropy = -(prob * np.log(prob)).sum(1)
        is_outside = np.repeat([0, 1], 50)
        (row,) = [r for r in rows if r["metric"] == "ood_auroc_total" and r["condition"] == name]
        assert row["value"] == pytest.approx(roc_auc_score(is_outside, entropy), abs=1e-6)
        assert row["n"] == 100
        assert sum(row["curve"]["inside"]) == sum(row["curve"]["outside"]) == 50
        below = np.searchsorted(np.sort(entropy[50:]), row["curve"]["edges"][10], side="left")
        assert sum(row["curve"]["outside"][:10]) == pytest.approx(below, abs=1)

    assert {r["condition"] for r in rows} == {"rotated", "fgsm-0.1"}


def test_examples_are_ranked_as_scikit_learn_says(own: Home) -> None:
    rows = asked(
        own, "--tasks", "ranking:7", "--subjects", "teacher,student", "--part", "validation"
    )
    study = gn.open_study(own.study)
    space = gn.load_space(own.space)
    teacher = gn.build_teacher(space, gn.new_session("cpu")).averaged("validation")
    answers = study.load_student().predict(gn.load_dataset(space).raw("validation"))

    expected = ndcg_score(
        teacher.expectations["expected_entropy"].T, answers["expected_entropy"].numpy().T, k=7
    )
    by_metric = {row["metric"]: row for row in rows}
    assert by_metric["ndcg7_expected"]["value"] == pytest.approx(expected, abs=1e-5)
    assert {row["predictor"] for row in rows} == {f"trial {study.find('chosen').trial}"}


def test_who_rejects_what_it_is_unsure_of_has_a_curve(own: Home) -> None:
    rows = asked(own, "--tasks", "selective", "--subjects", "student", "--limit", 200)
    by_metric = {row["metric"]: row for row in rows}
    curve = by_metric["aurc_confidence"]["curve"]
    assert curve["coverage"][-1] == 1 and len(curve["risk"]) <= 101
    accuracy = asked(
        own,
        "--tasks",
        "prediction",
        "--subjects",
        "student",
        "--limit",
        200,
        "--metrics",
        "accuracy",
    )[0]["value"]
    assert curve["risk"][-1] == pytest.approx(1 - accuracy)
    at_half = curve["risk"][int(np.searchsorted(curve["coverage"], 0.5))]
    assert by_metric["accuracy_rejecting50_confidence"]["value"] == pytest.approx(
        1 - at_half, abs=0.02
    )


def test_of_many_samples_twenty_are_attacked_and_it_is_said(home: Home) -> None:
    path = home.root / "attacked.npz"
    args = ("--set", "teacher.method.num_samples=22", "--limit", 30, "--subjects", "teacher")
    rows = json.loads(
        accepted(
            *("evaluate", home.space, "--tasks", "attack:fgsm-0.05", "--metrics", "nll", *args),
            *("--save-inputs", path, "-f", "json"),
        ).out
    )
    assert rows[0]["note"].startswith("20 of 22 posterior samples, evenly spaced")

    space = gn.load_space(home.space, {"teacher.method.num_samples": 22})
    stream = gn.build_teacher(space, gn.new_session("cpu")).stream
    with np.load(path) as saved:
        x = gn.load_dataset(space).normalization(torch.from_numpy(saved["teacher@fgsm-0.05"]))
        labels = torch.from_numpy(saved["y"])
    places = [(2 * i + 1) * 22 // 40 for i in range(20)]
    prob = [space.family.forward(stream.params(i), x).softmax(-1) for i in places]
    nll = -torch.stack(prob).mean(0).log().gather(1, labels[:, None]).mean()
    assert rows[0]["value"] == pytest.approx(float(nll), rel=1e-4)


def test_a_curve_is_its_ends_and_one_two_five_between() -> None:
    assert radii(0.01, 0.3) == [0.01, 0.02, 0.05, 0.1, 0.2, 0.3]
    assert radii(0.03, 0.04) == [0.03, 0.04]
