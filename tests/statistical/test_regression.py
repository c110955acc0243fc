"""Regression end to end where the posterior is known: samples, their average, its student.

Seen once: noise variance left out of the samples' predictions moves the student's variance by over
50 %; a posterior covariance 10 % too large moves the stream's variance by 4.5 standard errors
(1,000 samples see 9 %).
"""

import pytest
import torch

from gped_nas.api.lessons import distillation_set
from gped_nas.api.session import Session
from gped_nas.api.teacher import Teacher, build_teacher
from gped_nas.data.synthetic import exact_posterior
from gped_nas.distill.kernel import distill
from gped_nas.distill.recipe import Recipe
from gped_nas.models.base import FAMILIES, Genotype
from gped_nas.search.space_file import parse_space

NOISE, PRECISION, SAMPLES = 0.5, 1.0, 1000
SPACE = {
    "name": "conjugate",
    "dataset": {
        "name": "linear_gaussian",
        "num_inputs": 1,
        "num_examples": 60,
        "num_unlabeled": 2000,
    },
    "teacher": {
        "family": "mlp",
        "genotype": {"depth": 0},
        "likelihood": {"name": "gaussian", "noise_std": NOISE},
        "prior": {"precision": PRECISION},
        "method": {"name": "laplace", "num_samples": SAMPLES, "steps": 500},
    },
    "views": [{"policy": "clean"}],
    "students": [{"family": "mlp", "genotype": {"depth": {"int": [1, 2]}, "width": 8}}],
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    session = Session(streams=tmp_path_factory.mktemp("streams"))
    return build_teacher(parse_space(SPACE, "here"), session)


def moments(teacher: Teacher) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of the stream's average, test inputs, by the law of total variance."""
    mean_SN, variance_SN = teacher.predicted("test").double().unbind(-1)
    return mean_SN.mean(0), variance_SN.mean(0) + mean_SN.var(0, unbiased=False)


def test_the_stream_is_within_four_standard_errors_of_the_exact_predictive(
    teacher: Teacher,
) -> None:
    dataset = teacher.dataset
    exact = exact_posterior(
        dataset.inputs("train"),
        dataset.normalized_labels("train"),
        precision=PRECISION,
        noise_std=NOISE,
    )
    exact_mean, exact_variance = exact.predictive(dataset.inputs("test"))
    mean, variance = moments(teacher)

    # A normal variable's mean has the variance v / S, its variance 2 v^2 / S.
    of_weights = exact_variance - NOISE**2
    assert ((mean - exact_mean).abs() < 4 * (of_weights / SAMPLES).sqrt()).all()
    assert ((variance - exact_variance).abs() < 4 * of_weights * (2 / SAMPLES) ** 0.5).all()


def test_the_average_is_given_in_the_labels_own_unit(teacher: Teacher) -> None:
    mean, variance = moments(teacher)
    unit = teacher.dataset.label_normalization
    assert unit is not None
    averaged = teacher.averaged("test")
    assert torch.allclose(torch.from_numpy(averaged.mean_N), mean * unit.std + unit.mean)
    assert torch.allclose(torch.from_numpy(averaged.variance_N), variance * unit.std**2)


def test_a_student_reaches_mean_and_variance_of_its_stream(
    teacher: Teacher,
) -> None:
    """To 1 % of the predictive standard deviation, and of the variance, at every held-out input."""
    mean, variance = moments(teacher)
    data = distillation_set(teacher)
    recipe = Recipe(steps=6000, lr=5e-3, beta2=0.999)
    genotype = Genotype("mlp", depth=1, width=64)
    (student,) = distill([genotype], data, recipe, seed=0, device=torch.device("cpu")).students

    raw = FAMILIES["mlp"].forward(student.params, teacher.dataset.inputs("test"))
    student_mean, student_variance = (
        data.layout.predict(raw)["predictive_normal"].double().unbind(-1)
    )
    assert ((student_mean - mean).abs() < 0.01 * variance.sqrt()).all()
    assert ((student_variance / variance - 1).abs() < 0.01).all()
