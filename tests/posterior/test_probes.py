"""Probe inputs, and predictions as numbers that mixing averages."""

import pytest
import torch

from gped_nas import rng
from gped_nas.errors import ConfigError
from gped_nas.models.base import Genotype
from gped_nas.posterior.base import posterior_of, unflatten
from gped_nas.posterior.codecs.probes import prediction_features, probe_inputs
from gped_nas.posterior.likelihoods import GaussianLikelihood
from gped_nas.posterior.priors import GaussianPrior
from tests.posterior.codes import problem_with
from tests.scenarios import unstructured


def test_half_are_training_inputs_and_half_are_noise_of_their_size() -> None:
    problem = problem_with(4)
    problem.__dict__["x"] = 5 + 2 * torch.randn(4000, 4, generator=rng.generator(0, "x"))
    inputs = probe_inputs(problem, 3000, generator=rng.generator(1, "probes"))
    rows = {tuple(row) for row in problem.x.tolist()}
    drawn = [tuple(row) for row in inputs[:3000].tolist()]
    assert len(inputs) == 6000 and len(set(drawn)) == 3000 and set(drawn) <= rows

    noise = inputs[3000:]
    assert not {tuple(row) for row in noise.tolist()} & rows
    assert float(noise.mean()) == pytest.approx(5, abs=4 * 2 / 12_000**0.5 + 0.1)
    assert float(noise.std()) == pytest.approx(2, rel=0.05)


def test_more_inputs_than_there_are_are_all_of_them() -> None:
    problem = problem_with(4)
    inputs = probe_inputs(problem, 999, generator=rng.generator(1, "probes"))
    assert len(inputs) == 2 * len(problem.x)
    assert torch.equal(inputs[: len(problem.x)].sort(0).values, problem.x.sort(0).values)


def test_of_classes_probabilities_are_averaged() -> None:
    problem = problem_with(4)
    assert problem.samples is not None and problem.network is not None
    theta_SW = torch.stack([sample.theta_W for sample in problem.samples])
    features_SF = prediction_features(problem, problem.x, theta_SW)
    outputs = problem.network.forward(unflatten(theta_SW[2], problem.shapes), problem.x)
    torch.testing.assert_close(features_SF[2].view(24, 3), outputs.double().softmax(-1))


def test_of_real_labels_first_and_second_moments_are_averaged() -> None:
    x = torch.linspace(-1, 1, 6)[:, None]
    problem = posterior_of(
        Genotype("mlp", depth=1, width=3),
        x,
        x[:, 0],
        num_outputs=1,
        prior=GaussianPrior(precision=1.0),
        likelihood=GaussianLikelihood(name="gaussian", noise_std=0.5),
        device=torch.device("cpu"),
    )
    theta_SW = torch.randn(2, 10, generator=rng.generator(0, "theta"))
    features_SF = prediction_features(problem, x, theta_SW)
    assert problem.network is not None
    mean_M = problem.network.forward(unflatten(theta_SW[1], problem.shapes), x)[:, 0].double()
    torch.testing.assert_close(features_SF[1].view(6, 2)[:, 0], mean_M)
    torch.testing.assert_close(features_SF[1].view(6, 2)[:, 1], mean_M.square() + 0.25)


def test_a_teacher_without_known_predictions_is_refused() -> None:
    problem = unstructured(problem_with(4))
    with pytest.raises(ConfigError, match="compares predictions.*choose quantized or low_rank"):
        prediction_features(problem, problem.x, torch.zeros(1, 43))
