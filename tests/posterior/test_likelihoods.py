"""Likelihoods against torch's distributions."""

import pytest
import torch
from torch.distributions import Categorical, Normal

from gped_nas.posterior.likelihoods import LIKELIHOODS, CategoricalLikelihood, GaussianLikelihood

GAUSSIAN = GaussianLikelihood(name="gaussian", noise_std=0.3)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_categorical_is_the_log_probability_of_the_class() -> None:
    outputs, y = draw(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    expected = Categorical(logits=outputs).log_prob(y)
    assert CategoricalLikelihood().log_density(outputs, y) == pytest.approx(expected)
    assert CategoricalLikelihood().predict(outputs).exp().sum(-1) == pytest.approx(torch.ones(6))


def test_gaussian_is_the_log_density_of_the_label() -> None:
    outputs, y = draw(6, 1), draw(7)[1:]
    assert GAUSSIAN.log_density(outputs, y) == pytest.approx(Normal(outputs[:, 0], 0.3).log_prob(y))
    mean, variance = GAUSSIAN.predict(outputs).unbind(-1)
    assert torch.equal(mean, outputs[:, 0]) and variance == pytest.approx(torch.full((6,), 0.09))


@pytest.mark.parametrize("name", sorted(LIKELIHOODS))
def test_predictions_have_the_promised_size(name: str) -> None:
    likelihood = LIKELIHOODS[name](name=name)
    num_outputs = 1 if likelihood.task == "regression" else 4
    num_predicted = likelihood.num_predicted(num_outputs)
    assert likelihood.predict(draw(3, 5, num_outputs)).shape == (3, 5, num_predicted)
