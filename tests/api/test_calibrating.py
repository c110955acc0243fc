"""A calibrated teacher is one teacher: whoever asks hears the same, and its stream stays."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import gped_nas as gn
from gped_nas.api.diagnosis import diagnose
from gped_nas.api.identity import identity
from gped_nas.api.lessons import distillation_set, validation_set
from gped_nas.api.measuring import ensemble
from gped_nas.api.online import online_feed
from gped_nas.api.references import average_of
from gped_nas.api.sampling import stream_key
from gped_nas.api.session import Session
from gped_nas.api.teacher import Teacher, build_teacher, load_teacher, sample_teacher
from gped_nas.errors import ConfigError
from gped_nas.evaluate.predictions import Predictions
from gped_nas.evaluate.teacher_calibration import CalibrationFit
from gped_nas.search.space import SearchSpace
from gped_nas.search.space_file import load_space
from gped_nas.search.teacher_words import describe_calibration
from tests.cli.harness import Home, contents


def space(home: Home, kind: str, **settings: Any) -> SearchSpace:
    return load_space(home.space, {"teacher.calibration": kind, **settings})


def probabilities(teacher: Teacher) -> np.ndarray:
    average = teacher.averaged("validation")
    assert isinstance(average, Predictions)
    return np.exp(average.log_prob_NC)


@pytest.fixture
def raw(own: Home) -> Teacher:
    return build_teacher(load_space(own.space), Session())


@pytest.mark.parametrize("kind", ["temperature", "stacking"])
def test_whoever_asks_hears_the_same_teacher(own: Home, raw: Teacher, kind: str) -> None:
    before = contents(raw.stream.folder / "segments")
    teacher = build_teacher(space(own, kind), Session())
    assert teacher.calibration is not None and teacher.calibration.kind == kind
    assert teacher.calibration.nll < teacher.calibration.nll_raw

    # by hand, from the raw samples
    prob = raw.predicted("validation").double().exp()
    power = prob ** (1 / teacher.calibration.calibration.temperature)
    tempered = power / power.sum(-1, keepdim=True)
    weights = torch.tensor(teacher.calibration.calibration.weights or (0.5, 0.5)).double()
    expected = torch.einsum("s,snc->nc", weights.repeat(2) / 2, tempered).numpy()
    assert np.abs(expected - probabilities(raw)).max() > 1e-3

    dataset = teacher.dataset
    inputs = dataset.raw("validation")
    said = {
        "average": probabilities(teacher),
        "reference": np.exp(average_of(teacher).predictions["validation"].log_prob_NC),
        "asked anew": np.exp(ensemble(teacher).predict(inputs).log_prob_NC),
        "predict": load_teacher(teacher.space).predict(inputs)["predictive"].numpy(),
        "rungs": validation_set(teacher, teacher.space.layout(10)).expectations["predictive"],
    }
    for who, prob_NC in said.items():
        np.testing.assert_allclose(prob_NC, expected, atol=1e-5, err_msg=who)

    # students learn the same from averages and from single samples
    averages = distillation_set(teacher).expectations["predictive"]
    newest = replace(teacher.space, recipe=replace_update(teacher.space, "newest"))
    samples = distillation_set(sample_teacher(newest, Session())).samples
    assert samples is not None
    index = torch.arange(20)
    of_samples = torch.stack([samples.at(torch.full((20,), s), index) for s in range(4)])
    mean = torch.einsum("s,snc->nc", samples.weight_S, of_samples.double().exp())
    np.testing.assert_allclose(mean, averages[:20], atol=1e-5)

    assert contents(raw.stream.folder / "segments") == before


def replace_update(space: SearchSpace, update: str) -> Any:
    return space.recipe.model_copy(update={"update": update})


def test_diagnostics_are_of_the_posterior_as_it_was_sampled(own: Home, raw: Teacher) -> None:
    teacher = sample_teacher(space(own, "temperature"), Session())
    assert diagnose(teacher).to_json() | {"guess": 0} == diagnose(raw).to_json() | {"guess": 0}


def test_online_students_meet_tempered_states(own: Home, raw: Teacher) -> None:
    online = {"recipe.mode": "online", "recipe.steps": 3}
    batches = {}
    for kind in ("none", "temperature"):
        teacher = sample_teacher(space(own, kind, **online), Session())
        inputs = teacher.dataset.inputs("train")
        batches[kind] = next(online_feed(teacher, inputs))[1]["predictive"]

    fit = teacher.calibration
    assert fit is not None and fit.calibration.temperature != 1
    power = batches["none"].double() ** (1 / fit.calibration.temperature)
    expected = power / power.sum(-1, keepdim=True)
    torch.testing.assert_close(batches["temperature"].double(), expected, atol=1e-5, rtol=0)


def test_imported_members_are_read_as_calibrated_too(home: Home) -> None:
    dataset = gn.load_dataset(load_space(home.space))
    raw = torch.cat([dataset.raw("validation"), dataset.raw("train")])
    labels = torch.cat([dataset.validation.y, dataset.train.y])
    prob = np.full((2, len(raw), 10), 0.02)
    prob[0, np.arange(len(raw)), labels] = 0.82  # the second member knows nothing
    prob[1] = 0.1
    np.savez("two.npz", inputs=raw.numpy(), prob=prob)

    given = {"teacher": {"predictions": "two.npz", "calibration": "stacking"}}
    teacher = sample_teacher(load_space(home.space, given), Session())
    assert teacher.calibration is not None
    assert teacher.calibration.calibration.weights == (1.0, 0.0)
    answers = distillation_set(teacher).expectations["predictive"]
    np.testing.assert_allclose(answers, prob[0, len(dataset.validation) :], atol=1e-6)

    given["teacher"]["calibration"] = "temperature"
    teacher = sample_teacher(load_space(home.space, given), Session())
    assert teacher.calibration is not None
    power = prob ** (1 / teacher.calibration.calibration.temperature)
    tempered = (power / power.sum(-1, keepdims=True)).mean(0)
    answers = distillation_set(teacher).expectations["predictive"]
    np.testing.assert_allclose(answers, tempered[len(dataset.validation) :], atol=1e-6)

    np.savez("one.npz", inputs=raw.numpy(), prob=prob[:1])
    given["teacher"] = {"predictions": "one.npz", "calibration": "stacking"}
    with pytest.raises(ConfigError, match=r"found stacking with one member.*temperature or none"):
        sample_teacher(load_space(home.space, given), Session())


def test_the_noise_of_real_labels_is_scaled(home: Home) -> None:
    regression = load_space("diabetes_mlp", {"teacher.method.num_samples": 4})
    raw = sample_teacher(regression, Session())
    teacher = sample_teacher(replace(regression, calibration="temperature"), Session())
    assert teacher.calibration is not None
    temperature = teacher.calibration.calibration.temperature
    assert temperature != 1

    mean, variance = raw.predicted("validation").unbind(-1)
    expected = torch.stack([mean, temperature * variance], -1)
    torch.testing.assert_close(teacher.predicted("validation"), expected)


def test_a_calibration_is_part_of_the_study_and_none_is_as_before(own: Home) -> None:
    plain = load_space(own.space)
    key = stream_key(plain, gn.load_dataset(plain)).digest
    part = "teacher and dataset (the stream)"
    digests = {kind: identity(space(own, kind), key) for kind in ("none", "temperature")}
    assert digests["none"] == identity(plain, key)
    differ = {
        name for name, digest in digests["temperature"].items() if digests["none"][name] != digest
    }
    assert differ == {part}


@pytest.mark.parametrize("stream", ["stored", "none"])
def test_a_calibration_part_is_what_it_is_fitted_on(own: Home, stream: str) -> None:
    online = {"recipe.mode": "online", "recipe.stream": "none"} if stream == "none" else {}
    kind = "none" if stream == "none" else "temperature"
    settings = {"data.calibration_share": 0.5, **online}
    teacher = build_teacher(space(own, kind, **settings), Session())
    part = teacher.dataset.split("calibration")
    average = teacher.averaged("calibration")
    assert isinstance(average, Predictions) and len(average) == len(part) > 0
    if kind == "none":
        assert np.isfinite(average.log_prob_NC).all()
        return

    fit = teacher.calibration
    assert fit is not None and fit.part == "calibration" and fit.n == len(part)
    assert fit.nll == pytest.approx(-average.log_score(part.y.numpy()).mean(), abs=1e-5)
    assert CalibrationFit.from_json(fit.to_json()) == fit
    told = describe_calibration(fit.to_json())
    assert "calibrated on the calibration part (temperature" in told and "Neither" in told


def test_students_of_imported_members_meet_no_calibration_input(home: Home) -> None:
    dataset = gn.load_dataset(load_space(home.space))
    raw = torch.cat([dataset.raw("validation"), dataset.raw("train")])
    prob = np.full((2, len(raw), 10), 0.02)
    prob[0, np.arange(len(raw)), torch.cat([dataset.validation.y, dataset.train.y])] = 0.82
    prob[1] = prob[0]
    np.savez("two.npz", inputs=raw.numpy(), prob=prob)

    given = {"teacher": {"predictions": "two.npz"}, "data.calibration_share": 0.5}
    teacher = sample_teacher(load_space(home.space, given), Session())
    assert len(teacher.averaged("calibration")) == len(teacher.dataset.split("calibration"))
    # each of the training inputs once for every view
    answers = distillation_set(teacher).expectations["predictive"]
    assert len(answers) == len(dataset.train) * len(teacher.space.views)
