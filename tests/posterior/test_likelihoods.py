"""Likelihoods against torch's distributions."""

import pytest
import torch
from torch.distributions import Categorical, Normal

from gped_nas.posterior.likelihoods import (
    LIKELIHOODS,
    CategoricalLikelihood,
    GaussianLikelihood,
    HeteroscedasticLikelihood,
    LearnedGaussianLikelihood,
)

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


LEARNED = LearnedGaussianLikelihood(name="gaussian_learned", noise_std=0.3)
HETEROSCEDASTIC = HeteroscedasticLikelihood(name="heteroscedastic", noise_std=0.3, least_std=0.2)


@pytest.mark.parametrize(("likelihood", "least_std"), [(LEARNED, 0.0), (HETEROSCEDASTIC, 0.2)])
def test_a_learned_noise_is_that_of_the_second_output(
    likelihood: LearnedGaussianLikelihood | HeteroscedasticLikelihood, least_std: float
) -> None:
    outputs, y = draw(6, 2), draw(7)[1:]
    variance = least_std**2 + 0.09 * outputs[:, 1].exp()
    expected = Normal(outputs[:, 0], variance.sqrt()).log_prob(y)
    torch.testing.assert_close(likelihood.log_density(outputs, y), expected)

    torch.testing.assert_close(
        likelihood.predict(outputs), torch.stack([outputs[:, 0], variance], -1)
    )
    assert torch.equal(likelihood.answer(outputs), outputs[:, :1])


def test_a_given_noise_has_the_key_that_it_had() -> None:
    assert GAUSSIAN.to_json() == {"name": "gaussian", "noise_std": 0.3}


@pytest.mark.parametrize("name", sorted(LIKELIHOODS))
def test_predictions_have_the_promised_size(name: str) -> None:
    likelihood = LIKELIHOODS[name](name=name)
    num_outputs = 1 if likelihood.task == "regression" else 4
    num_predicted = likelihood.num_predicted(num_outputs)
    num_read = num_outputs if likelihood.is_concave else 2
    assert likelihood.predict(draw(3, 5, num_read)).shape == (3, 5, num_predicted)
