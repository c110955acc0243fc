"""Attacks as conditions of a study: objectives, references, and whom they cannot be asked for."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

import gped_nas as gn
from gped_nas import rng
from gped_nas.api import Study, load_dataset, load_space, load_student
from gped_nas.api.measuring import Conditions, ensemble
from gped_nas.api.references import average_of
from gped_nas.errors import ConfigError
from gped_nas.evaluate.attacks import named
from gped_nas.evaluate.base import METRICS, draw_resamples
from gped_nas.evaluate.measured import Key
from gped_nas.evaluate.predictions import Predictions
from gped_nas.evaluate.student import StudentPredictor
from tests.cli.harness import Home, call

QUICK = {"quick": {"name": "apgd", "epsilon": 0.1, "steps": 4, "targets": 1}}
ATTACKED: dict[str, Any] = {
    "conditions": QUICK,
    "objectives": ["nll", "accuracy@quick", "params"],
}


def run(home: Home, **overrides: Any) -> Study:
    return gn.run(load_space(home.space, {"search.n_trials": 3, **overrides}), out=home.out)


@pytest.mark.filterwarnings("ignore:.*on a plateau:gped_nas.errors.AttackWarning")
def test_an_attack_is_an_objective_and_is_made_once_for_everybody(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    hunts: Counter[tuple[int, int, str]] = Counter()
    asked: list[Any] = []  # held, so that no two have one id
    hunt = named.Attacked.hunt

    def counted(self: named.Attacked, settings: Any, name: str) -> Any:
        asked.append(self.predictor)
        hunts[id(self.predictor), len(self.raw), name] += 1
        return hunt(self, settings, name)

    monkeypatch.setattr(named.Attacked, "hunt", counted)
    study = run(home, **ATTACKED, ood=["fgsm-0.05"])

    assert set(hunts.values()) == {1}  # not once more for each objective
    space = load_space(home.space, ATTACKED)
    dataset = load_dataset(space)
    (quick,) = (condition for condition in space.conditions if condition.name == "quick")
    for record in study.front_records():
        student = load_student(study.path / "students" / str(record.trial))
        found = quick.apply(
            dataset.raw("validation"),
            predictor=StudentPredictor(student),
            labels=dataset.labels("validation"),
            generator=rng.generator(space.seed, "condition", "quick", "validation"),
            scale=dataset.scale,
        )
        answer = student.predict(found)["predictive"].argmax(1).numpy()
        accuracy = float((answer == dataset.labels("validation")).mean())
        assert record.metrics["accuracy@quick"] == pytest.approx(accuracy)
        assert accuracy < record.metrics["accuracy"]
        assert student.spec.scale == dataset.scale

    page = (study.path / "report.html").read_text()
    assert "epsilon 0.1 (of 0..16: 1.6)" in page
    assert "epsilon 0.05 (of 0..16: 0.8)" in page  # of the set of inputs from outside
    references = {reference.name: reference.measures for reference in study.snapshot().references}
    for name in ("teacher", "single_sample", "map", "unpruned"):
        attacked, clean = (references[name][Key("accuracy", c)] for c in ("quick", "clean"))
        assert attacked.value < clean.value, name
    guess = references["guess"]
    assert guess[Key("accuracy", "quick")].value == guess[Key("accuracy")].value


def test_of_a_teacher_of_predictions_alone_the_students_rows_stay(home: Home) -> None:
    dataset = load_dataset(load_space(home.space))
    raw = torch.cat([dataset.train.x, dataset.validation.x, dataset.test.x])
    prob = np.random.default_rng(0).dirichlet(np.ones(10), (3, len(raw)))
    np.savez("ensemble.npz", inputs=raw.numpy(), prob=prob)
    method = {"name": "import", "path": "ensemble.npz", "at_chance": True}

    study = run(home, conditions=["clean", "fgsm-0.1"], **{"teacher.method": method})

    references = {reference.name: reference for reference in study.snapshot().references}
    assert {key.condition for key in references["teacher"].measures} == {"clean"}
    for measures in (references["unpruned"].measures, study.front_records()[0].measures):
        assert Key("accuracy", "fgsm-0.1") in measures

    with pytest.raises(ConfigError, match="found a teacher of which no network is kept"):
        space = load_space(home.space, {"teacher.method": method})
        teacher = gn.build_teacher(space, gn.new_session())
        gn.attack(teacher, dataset.test.x[:3], dataset.test.y[:3], "fgsm", eps=0.1)


def test_a_teachers_average_is_attacked(home: Home) -> None:
    teacher = gn.build_teacher(load_space(home.space), gn.new_session())
    x, y = teacher.dataset.test.x[:40], teacher.dataset.test.y[:40]
    found = gn.attack(teacher, x, y, "apgd", eps=0.1, steps=5, targets=1)

    def accuracy(raw: torch.Tensor) -> float:
        return float((teacher.predict(raw)["predictive"].argmax(1) == y).double().mean())

    assert isinstance(found, torch.Tensor)
    assert (found - x).abs().max() <= 1.6 * (1 + 1e-5)
    assert accuracy(found) < accuracy(x)


def test_of_many_samples_twenty_are_attacked_and_the_note_says_it(home: Home) -> None:
    attack = {"name": "fgsm", "epsilon": 0.05}
    overrides: dict[str, Any] = {"teacher.method.num_samples": 22, "ood": ["fgsm-0.05"]}
    space = load_space(home.space, {**overrides, "conditions": {"quick": attack}})
    teacher = gn.build_teacher(space, gn.new_session("cpu"))
    average, conditions = average_of(teacher), Conditions(teacher)
    assert average.note.endswith(" Attacked are 20 of 22 posterior samples, evenly spaced.")
    assert average.predictor is not None

    chosen = [(2 * i + 1) * 22 // 40 for i in range(20)]
    few = ensemble(teacher, chosen, is_weighted=True)
    (outside,) = space.outside
    found = conditions.detect(average.predictor, "validation", outside).predictions
    expected = conditions.detect(few, "validation", outside).predictions
    assert isinstance(found, Predictions) and isinstance(expected, Predictions)
    assert np.array_equal(found.log_prob_NC, expected.log_prob_NC)

    resamples = draw_resamples(len(teacher.dataset.validation), root=0, part="validation")
    values = []
    for predictor in (average.predictor, few):
        measures = conditions.measure(predictor, "validation", resamples=resamples)
        values.append(measures[Key("nll", "quick")].value)
        pair, _ = conditions.predict(predictor, "validation", "quick")
        values.append(METRICS["nll"].value(pair, teacher.dataset.labels("validation")))
    assert values == pytest.approx([values[0]] * 4)


def test_attacks_are_refused_for_real_labels_before_any_work(home: Home) -> None:
    result = call("run", "diabetes_mlp", "--out", home.out, "--set", "conditions=[clean, fgsm-0.1]")
    assert result.code == 2
    assert "conditions: condition 'fgsm-0.1': found labels of a regression" in result.err
    assert not list(home.out.glob("*/study.db"))


@pytest.mark.parametrize(
    "condition", ["lower_model-0.1", "{calm: {name: sly, epsilon: 0.1, score: model}}"]
)
def test_a_model_uncertainty_that_students_say_nothing_of_is_refused_before_any_work(
    home: Home, condition: str
) -> None:
    asked = ("--set", f"conditions=[clean, {condition}]", "--set", "targets=[predictive]")
    result = call("run", home.space, "--out", home.out, *asked)
    assert result.code == 2
    assert "found targets without 'expected_entropy'" in result.err
    assert not list(home.out.glob("*/study.db"))

    both = ["predictive", "expected_entropy"]
    space = load_space(home.space, {"conditions": ["clean", "lower_model-0.1"], "targets": both})
    assert load_dataset(space).name == "digits"


@pytest.mark.parametrize("value", ["worst--0.1", "{hard: {name: pgd, epsilon: -0.5}}"])
def test_a_radius_below_zero_is_refused(home: Home, value: str) -> None:
    result = call(
        "run",
        home.space,
        "--out",
        home.out,
        "--set",
        f"conditions=[clean, '{value}']" if "{" not in value else f"conditions=[clean, {value}]",
    )
    assert result.code == 2 and "epsilon" in result.err and "0" in result.err
