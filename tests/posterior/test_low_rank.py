"""``low_rank``: its law against the covariance matrix, and its draws against the law."""

import numpy as np
import pytest
import torch

from gped_nas import rng
from gped_nas.errors import ConfigError
from gped_nas.posterior.base import METHODS, PosteriorSample
from gped_nas.posterior.codecs.base import codec_of
from gped_nas.posterior.codecs.low_rank import _BLOCK
from tests.posterior.codes import code_of, problem_weighing, problem_with, settings_of


def law_slowly(samples: list[PosteriorSample], rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the law of one chain, from its covariance matrix."""
    theta_SW = torch.stack([sample.theta_W for sample in samples]).double().numpy()
    weights = [sample.weight for sample in samples]
    mean_W = np.average(theta_SW, 0, weights)
    covariance = np.cov(theta_SW.T, aweights=weights)

    values, vectors = np.linalg.eigh(covariance)
    leading = np.zeros_like(covariance)
    for j in range(1, rank + 1):
        leading += values[-j] * np.outer(vectors[:, -j], vectors[:, -j])
    return mean_W, leading + np.diag(np.diag(covariance - leading))


@pytest.mark.parametrize(("rank", "variance"), [(0, 1.0), (2, 1.0), (5, 1.0), (2, 0.25)])
def test_each_chain_has_the_law_of_its_covariance_matrix(rank: int, variance: float) -> None:
    problem = problem_with(12)
    code = code_of(problem, settings_of("low_rank", 12, rank=rank, variance=variance))
    assert problem.samples is not None
    for chain in range(2):
        mean_W, covariance = law_slowly(list(problem.samples[chain::2]), rank)
        factor = code.tensors["factor"][chain].double().numpy()
        std = code.tensors["std"][chain].double().numpy()
        np.testing.assert_allclose(code.tensors["mean"][chain].numpy(), mean_W, atol=1e-5)
        of_law = factor.T @ factor + np.diag(std**2)
        np.testing.assert_allclose(of_law, variance * covariance, atol=1e-4)
    # weights 1, 2, 3, 1, ...: each chain has two of each
    assert code.tensors["share"].tolist() == pytest.approx([0.5, 0.5])


def test_draws_have_the_law_and_are_of_chains_by_weight() -> None:
    problem = problem_weighing([1.0, 3.0] * 6)
    code = code_of(problem, settings_of("low_rank", 12, rank=3, variance=1.0))
    codec = codec_of("low_rank")
    assert codec is not None
    theta_SW = codec.draws(code, 4000, generator=rng.generator(2, "draws")).double().numpy()

    # chains lie around 0 and around 3
    is_second = theta_SW.mean(1) > 1.5
    assert is_second.mean() == pytest.approx(0.75, abs=4 * (0.75 * 0.25 / 4000) ** 0.5)
    for chain, drawn in enumerate((theta_SW[~is_second], theta_SW[is_second])):
        mean_W, covariance = law_slowly(list((problem.samples or ())[chain::2]), 3)
        variance = np.diag(covariance)
        error = (drawn.mean(0) - mean_W) / (variance / len(drawn)) ** 0.5
        assert np.abs(error).max() < 5  # of 43 weights
        spread = np.abs(np.cov(drawn.T) - covariance)
        limit = (np.outer(variance, variance) + covariance**2) ** 0.5 * 6 / len(drawn) ** 0.5
        assert (spread < limit).all()


def test_many_weights_are_worked_on_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, cfg = problem_with(12), settings_of("low_rank", 12, rank=3)
    whole = code_of(problem, cfg)
    assert len(whole.tensors["mean"][0]) < _BLOCK
    monkeypatch.setattr("gped_nas.posterior.codecs.low_rank._BLOCK", 5)
    blocks = code_of(problem, cfg)
    for name in ("mean", "std"):
        torch.testing.assert_close(blocks.tensors[name], whole.tensors[name])
    products = [code.tensors["factor"].mT @ code.tensors["factor"] for code in (whole, blocks)]
    torch.testing.assert_close(*products)


def test_its_file_takes_what_its_code_says(tmp_path) -> None:
    problem = problem_with(12)
    code = code_of(problem, settings_of("low_rank", 12, rank=3))
    path = tmp_path / "code.safetensors"
    path.write_bytes(code.to_bytes())
    num_weights = code.tensors["mean"].shape[1]
    assert code.bytes == path.stat().st_size
    assert 0 < code.bytes - 2 * (4 * num_weights * (3 + 2) + 8) < 800  # header and metadata


@pytest.mark.parametrize(
    ("num_samples", "rank", "message"),
    [
        (12, 6, r"rank: found 6, expected at most 5: 6 samples a chain vary in no more"),
        (2, 0, r"of\.num_samples: found 1 samples a chain, expected at least 2"),
    ],
)
def test_more_directions_than_samples_are_refused(
    num_samples: int, rank: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        settings_of("low_rank", num_samples, rank=rank)


def test_more_directions_than_samples_are_refused_where_they_are_read() -> None:
    cfg = settings_of("low_rank", 20, rank=9)
    with pytest.raises(ConfigError, match=r"teacher\.method\.rank: found 9, expected at most 5"):
        code_of(problem_with(12), cfg)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 1, 1, 0, 1, 0, 1, 0], r"found 3 of 4 samples .* weigh nothing, .*found 1 samples a"),
        ([1, 0] * 4, r"found 4 of 4 samples of a chain that weigh nothing"),
        ([1, 1, 1, 1e-20, 1, 1, 1, 1], r"rank: found 3, expected at most 2"),
    ],
)
def test_samples_that_weigh_nothing_say_nothing_of_a_law(
    weights: list[float], message: str
) -> None:
    cfg = settings_of("low_rank", 8, rank=3)
    with pytest.raises(ConfigError, match=r"teacher\.method\.of: " + ".*" + message):
        code_of(problem_weighing(weights), cfg)


def test_draws_follow_the_generator_of_the_chain() -> None:
    problem, cfg = problem_with(12), settings_of("low_rank", 12, rank=3)
    code, codec = code_of(problem, cfg), codec_of("low_rank")
    assert codec is not None
    drawn = []
    for seed in (1, 2):
        generator = rng.generator(seed, "chain")
        step = next(METHODS["low_rank"](problem, cfg, generator=generator))
        assert step.sample is not None
        (expected_W,) = codec.draws(code, 1, generator=rng.generator(seed, "chain"))
        assert torch.equal(step.sample.theta_W, expected_W)
        drawn.append(expected_W)
    assert not torch.equal(*drawn)
