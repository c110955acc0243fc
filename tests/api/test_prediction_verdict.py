"""The verdict on a teacher's predictions: beside one network of its size, on validation."""

import json

import numpy as np
import pytest
import torch

from gped_nas.api import load_space
from gped_nas.api import prediction_verdict as judging
from gped_nas.api.map_network import tuned_map_network
from gped_nas.api.session import Session
from gped_nas.api.teacher import Teacher, build_teacher
from gped_nas.evaluate.teacher_calibration import LabeledAnswers, fit_temperature
from gped_nas.stream.calibration import RAW, Calibration
from tests.cli.harness import Home, accepted, contents


def teacher_of(home: Home) -> Teacher:
    settings = {"teacher.method.num_samples": 6, "baseline.precisions": [1.0e5, 1.0]}
    return build_teacher(load_space(home.space, settings), Session())


def answering(teacher: Teacher, right: float) -> torch.Tensor:
    """Log-probabilities that give every validation label so much."""
    labels = torch.from_numpy(teacher.dataset.labels("validation"))
    prob = torch.full((len(labels), 10), (1 - right) / 9)
    prob[torch.arange(len(labels)), labels] = right
    # a few are wrong: of none nobody knows how large the losses of wrong ones are
    prob[:9] = prob[:9].roll(1, dims=1)
    return prob.log()


def test_it_is_the_paired_difference_to_the_tuned_network(home: Home) -> None:
    teacher = teacher_of(home)
    verdict = judging.judge_predictions(teacher)

    best = tuned_map_network(teacher)
    raw, labels = teacher.dataset.raw("validation"), teacher.dataset.labels("validation")
    of_map_N = -best.forward(raw)[torch.arange(len(labels)), torch.from_numpy(labels)].numpy()
    of_teacher_N = -teacher.averaged("validation").log_score(labels)
    assert best.precision == 1.0
    assert verdict.nll == pytest.approx(of_teacher_N.mean())
    assert verdict.nll_of_map == pytest.approx(of_map_N.mean(), abs=1e-5)
    assert verdict.difference == pytest.approx((of_teacher_N - of_map_N).mean(), abs=1e-5)
    half = 1.96 * (of_teacher_N - of_map_N).std() / np.sqrt(len(labels))
    assert verdict.interval is not None
    assert np.ptp(verdict.interval) == pytest.approx(2 * half, rel=0.15)
    assert (verdict.level, verdict.n) == ("better", 288)
    assert (
        f"NLL {verdict.nll:.4f} against {verdict.nll_of_map:.4f} on validation" in verdict.sentence
    )


def test_each_level_says_what_follows(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = teacher_of(home)
    average, labels = teacher.averaged("validation"), teacher.dataset.labels("validation")
    # as much is gained on half of the examples as is lost on the others
    alike = average.log_prob_NC.copy()
    alike[np.arange(288), labels] += np.where(np.arange(288) % 2, 0.3, -0.3)
    said = {
        "worse": answering(teacher, 0.95),
        "better": answering(teacher, 0.02),
        "no better": torch.from_numpy(alike).log_softmax(1),
    }
    words = {"worse": "worse than one", "better": "better than one", "no better": "not told apart"}
    for number, (level, log_prob) in enumerate(said.items()):
        monkeypatch.setattr(judging, "_ask_map_networks", lambda teacher, x=log_prob: x)
        monkeypatch.setattr(judging, "_digest", lambda teacher, of=str(number): of)
        verdict = judging.judge_predictions(teacher)
        assert verdict.level == level
        assert words[level] in verdict.sentence
        assert ("distilling it makes sense" in verdict.sentence) == (level == "better")


def test_a_temperature_does_not_pass_for_a_posterior(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = teacher_of(home)
    # one network that is too sure by far, whose own average the teacher is
    said = (raw.predicted("validation")[0].double() * 3).log_softmax(1)
    monkeypatch.setattr(judging, "_ask_map_networks", lambda teacher: said)
    monkeypatch.setattr(judging, "_digest", lambda teacher: "too sure")

    sure = {"teacher.calibration": "temperature", "teacher.method.num_samples": 6}
    tempered = build_teacher(load_space(home.space, sure), Session())
    verdict = judging.judge_predictions(tempered)
    answers = LabeledAnswers(
        said[None], torch.ones(1), raw.dataset.labels("validation"), label_normalization=None
    )
    temperature = fit_temperature(answers)
    assert temperature > 1
    assert verdict.nll_of_map == pytest.approx(answers.nll(Calibration(temperature)), abs=1e-5)
    assert f"both calibrated there (the network at temperature {temperature:g})" in verdict.sentence
    assert "calibrated there" not in judging.judge_predictions(raw).sentence

    stacked = {"teacher.calibration": "stacking", "teacher.method.num_samples": 6}
    verdict = judging.judge_predictions(build_teacher(load_space(home.space, stacked), Session()))
    assert verdict.nll_of_map == pytest.approx(answers.nll(RAW), abs=1e-5)
    assert "where the teacher's weights were fitted, which favors it" in verdict.sentence


def test_the_network_is_trained_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted("teacher", "build", home.space)
    out = accepted("teacher", "info", home.space, "--format", "json").out
    before = contents(home.cache)
    monkeypatch.setattr(judging, "tuned_map_networks", lambda teacher: 1 / 0)

    assert accepted("teacher", "info", home.space, "--format", "json").out == out
    assert contents(home.cache) == before

    verdict = json.loads(out)["prediction_verdict"]
    assert set(verdict) == {
        *("level", "sentence", "nll", "nll_of_map", "difference", "interval", "n")
    }
    *_, predictions, posterior = accepted("teacher", "info", home.space).out.strip().splitlines()
    assert predictions == verdict["sentence"]
    assert posterior == json.loads(out)["verdict"]["sentence"]
    assert verdict["sentence"] in accepted("teacher", "info", home.space, "-f", "csv").out

    changed = ("--set", "baseline={steps: 200, precisions: [1.0]}")
    alone = accepted("teacher", "info", home.space, *changed, "--no-map", "-f", "json").out
    assert json.loads(alone)["prediction_verdict"] is None
    with pytest.raises(ZeroDivisionError):
        judging.judge_predictions(
            build_teacher(load_space(home.space, {"baseline.steps": 200}), Session())
        )
