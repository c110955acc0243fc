"""``subset``: what herding chooses and what weights are fitted, against slow ways to both."""

from itertools import chain, combinations, islice

import numpy as np
import pytest
import torch

from gped_nas import rng
from gped_nas.config import parse
from gped_nas.errors import ConfigError
from gped_nas.io import Array
from gped_nas.posterior.base import METHODS, PosteriorSample
from gped_nas.posterior.codecs.base import code_of_state, num_chains
from gped_nas.posterior.codecs.probes import prediction_features, probe_inputs
from gped_nas.posterior.codecs.subset import SubsetConfig, fit_weights, herd
from tests.posterior.codes import SGLD, all_samples, problem_with, settings_of


def herd_slowly(features_SF: Array, target_F: Array, num: int) -> list[int]:
    """Each next sample by trying all of them."""
    chosen: list[int] = []
    for _ in range(num):
        distances = {}
        for s in set(range(len(features_SF))) - set(chosen):
            average_F = features_SF[[*chosen, s]].mean(0)
            distances[s] = float(np.linalg.norm(target_F - average_F))
        chosen.append(min(distances, key=lambda s: distances[s]))
    return chosen


def fit_weights_slowly(features_JF: Array, target_F: Array) -> Array:
    """The best of all sets of weights that are not zero, each by its normal equations."""
    numbers = range(len(features_JF))
    best_J, least = np.zeros(len(features_JF)), np.inf
    for support in chain.from_iterable(combinations(numbers, n + 1) for n in numbers):
        part_JF = features_JF[list(support)]
        ones = np.ones((len(support), 1))
        # of least squares with sum 1: gradient and multiplier
        system = np.block([[part_JF @ part_JF.T, ones], [ones.T, np.zeros((1, 1))]])
        solved = np.linalg.solve(system, np.append(part_JF @ target_F, 1))[:-1]
        distance = float(np.linalg.norm(target_F - solved @ part_JF))
        if (solved >= 0).all() and distance < least:
            best_J, least = np.zeros(len(features_JF)), distance
            best_J[list(support)] = solved
    return best_J


@pytest.mark.parametrize("seed", range(5))
def test_herding_and_weights_are_those_of_trying_everything(seed: int) -> None:
    random = np.random.default_rng(seed)
    features_SF = random.dirichlet(np.ones(3), size=(9, 8)).reshape(9, -1)
    target_F = random.dirichlet(np.ones(9)) @ features_SF

    chosen = herd(features_SF, target_F, 5)
    assert chosen == herd_slowly(features_SF, target_F, 5)
    weight_J = fit_weights(features_SF[chosen], target_F)
    np.testing.assert_allclose(
        weight_J, fit_weights_slowly(features_SF[chosen], target_F), atol=1e-5
    )
    assert weight_J.sum() == pytest.approx(1, abs=1e-12)


def test_each_chain_has_its_share_and_sample_s_is_of_chain_s_mod_k() -> None:
    problem = problem_with(12)
    cfg = settings_of("subset", 12, num_samples=5, probes=16)
    samples, _ = all_samples(problem, cfg)
    thetas = [sample.theta_W for sample in problem.samples]
    picked = [next(i for i, t in enumerate(thetas) if torch.equal(t, s.theta_W)) for s in samples]
    assert len(set(picked)) == 5
    assert [pick % 2 for pick in picked] == [0, 1, 0, 1, 0]
    assert num_chains(cfg) == 2


def test_the_weighted_average_is_closer_than_the_plain_one_and_all_samples_are_exact() -> None:
    problem = problem_with(12)
    x_M = probe_inputs(problem, 16, generator=rng.generator(1, "chain"))
    weight_S = np.array([s.weight for s in problem.samples]) / sum(
        s.weight for s in problem.samples
    )
    thetas = torch.stack([s.theta_W for s in problem.samples])
    target_F = weight_S @ prediction_features(problem, x_M, thetas).numpy()

    def miss(samples: list[PosteriorSample], weights: list[float]) -> float:
        kept = torch.stack([s.theta_W for s in samples])
        average = np.array(weights) @ prediction_features(problem, x_M, kept).numpy()
        return float(np.linalg.norm(average - target_F))

    some, _ = all_samples(problem, settings_of("subset", 12, num_samples=4, probes=16))
    assert miss(some, [s.weight for s in some]) < 0.9 * miss(some, [0.25] * 4)
    everything, _ = all_samples(problem, settings_of("subset", 12, num_samples=12, probes=16))
    assert miss(everything, [s.weight for s in everything]) < 1e-3 * float(np.linalg.norm(target_F))


def test_its_code_is_in_its_last_state_and_takes_what_its_file_takes(tmp_path) -> None:
    problem = problem_with(12)
    cfg = settings_of("subset", 12, num_samples=4, probes=16)
    samples, state = all_samples(problem, cfg)
    code = code_of_state(cfg, state, problem.shapes)
    assert code is not None and code.codec == "subset"
    for index, sample in enumerate(samples):
        assert torch.equal(code.tensors["theta"][index], sample.theta_W)
        assert float(code.tensors["weight"][index]) == sample.weight
    path = tmp_path / "code.safetensors"
    path.write_bytes(code.to_bytes())
    num = len(samples[0].theta_W)
    assert code.bytes == path.stat().st_size
    assert 0 < code.bytes - 4 * (4 * num + 8) < 600  # header and metadata


@pytest.mark.parametrize(
    ("num", "message"),
    [
        (13, r"num_samples: found 13, expected at most 12, the samples of sgld that are read"),
        (1, r"num_samples: found 1, expected at least 2, one of each chain"),
    ],
)
def test_a_number_that_cannot_be_chosen_is_refused_where_settings_are_read(
    num: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        settings_of("subset", 12, num_samples=num)


def test_a_number_that_cannot_be_chosen_is_refused_where_samples_are_read() -> None:
    problem = problem_with(6)
    cfg = parse(SubsetConfig, {"name": "subset", "of": SGLD, "num_samples": 7}, "method")
    steps = METHODS["subset"](problem, cfg, generator=rng.generator(1, "chain"))
    with pytest.raises(ConfigError, match=r"teacher\.method\.num_samples: found 7, expected at m"):
        list(islice(steps, 1))
