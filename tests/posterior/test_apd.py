"""``apd`` offline and online on tiny networks, and what it refuses."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import pytest
import torch

from gped_nas import rng
from gped_nas.errors import ConfigError, DivergenceError
from gped_nas.models.base import num_params
from gped_nas.posterior.base import METHODS, PosteriorSample, Problem, State
from gped_nas.posterior.codecs.base import codec_of
from gped_nas.posterior.codecs.nets import three_layers
from gped_nas.testing.promises import same_bits
from tests.posterior.laws import (
    banana,
    code_of,
    config_of,
    energy_distance,
    problem_of,
    two_modes,
)

SMALL = {"width": 16, "latent": 4, "batch_size": 32, "critic_steps": 2}


def apd_draws(problem: Problem, **settings: object) -> torch.Tensor:
    """4,000 draws of the generator."""
    code = code_of(problem, config_of("apd", len(problem.samples), **settings))
    return codec_of("apd").draws(code, 4000, generator=rng.generator(0, "draws"))


def test_a_generator_has_the_published_size_and_its_code_nothing_else() -> None:
    # of a network 784-100-10, as much as 101.3 of them
    assert num_params(three_layers(32, 100, 79_510)) == 8_054_010

    problem = problem_of(banana(40, rng.generator(0, "points")))
    code = code_of(problem, config_of("apd", 40, iterations=50))
    assert set(code.tensors) == {"generator"}
    assert code.tensors["generator"].numel() == num_params(three_layers(32, 100, 2))


def test_offline_it_learns_where_samples_are() -> None:
    points_SW = two_modes(200, rng.generator(0, "points"))
    truth = two_modes(4000, rng.generator(0, "truth"))
    settings = {"width": 32, "latent": 4, "lr": 1e-3, "penalty": 0.1}
    drawn = apd_draws(problem_of(points_SW), iterations=300, **settings)
    # 200 points of the law have a distance of 0 with a standard deviation of .004; the normal law
    # of the same moments has .14, and a generator that begins .7
    assert energy_distance(drawn, truth) < 0.1


def test_online_with_all_samples_in_one_round_is_offline() -> None:
    problem = problem_of(banana(40, rng.generator(0, "points")))
    online = apd_draws(problem, online={"buffer": 40, "updates": 100}, **SMALL)
    assert torch.equal(online, apd_draws(problem, iterations=100, **SMALL))


class Remembered(Sequence):
    """Samples that remember which of them were read."""

    def __init__(self, samples: Sequence[PosteriorSample]) -> None:
        self.samples, self.read = samples, []

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        self.read.append(index)
        return self.samples[index]


def test_online_a_round_reads_its_own_samples_and_the_generator_goes_on() -> None:
    problem = problem_of(banana(50, rng.generator(0, "points")))
    remembered = Remembered(problem.samples)
    problem.__dict__["samples"] = remembered
    cfg = config_of("apd", 50, online={"buffer": 20, "updates": 50}, **SMALL)
    steps = METHODS["apd"](problem, cfg, generator=rng.generator(1, "chain"))
    states = [step.state for step in islice(steps, 3)]
    # the last round has as many as the others: the newest ones
    assert remembered.read == [slice(0, 20), slice(20, 40), slice(30, 50)]
    assert [int(state["iterations"]) for state in states] == [50, 100, 150]
    assert next(steps).sample is not None

    alone = problem_of(torch.stack([sample.theta_W for sample in remembered.samples[30:]]))
    fresh = code_of(alone, config_of("apd", 20, iterations=50, **SMALL))
    assert not torch.equal(fresh.tensors["generator"], states[-1]["generator"])


def test_stopped_in_any_round_it_goes_on_to_the_same_bits() -> None:
    problem = problem_of(banana(40, rng.generator(0, "points")))
    cfg = config_of("apd", 40, online={"buffer": 20, "updates": 100}, **SMALL)

    def steps(state: State | None, seed: int) -> list:
        run = METHODS["apd"](problem, cfg, generator=rng.generator(seed, "chain"), state=state)
        return list(islice(run, 6))

    whole = steps(None, 1)
    assert [step.sample is None for step in whole] == [True] * 4 + [False] * 2
    for stop in (0, 1, 3):
        rest = steps(whole[stop].state, 99)[: 5 - stop]
        for ours, theirs in zip(rest, whole[stop + 1 :], strict=True):
            assert all(same_bits(ours.state[name], value) for name, value in theirs.state.items())


def test_a_large_network_is_refused_before_anything_is_sampled() -> None:
    cfg = config_of("apd", 40)
    assert cfg.count({"weight": (40, 100)}) == 100
    message = r"max_weights: found a network of 4,001 parameters, expected at most 4,000: .*flow"
    with pytest.raises(ConfigError, match=message):
        cfg.count({"weight": (4001,)})

    problem = problem_of(banana(40, rng.generator(0, "points")))
    with pytest.raises(ConfigError, match=r"teacher\.method\.max_weights: found a network of 2 p"):
        code_of(problem, config_of("apd", 40, max_weights=1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"online": {"buffer": 41}}, "online.buffer: found 41, expected at most the 40 samples"),
        (
            {"online": {"buffer": 20}, "iterations": 100},
            "iterations: found 100 beside online, whose rounds",
        ),
        ({"online": {"buffer": 20, "updates": 30}}, "found 30, expected a multiple of 50"),
        ({"iterations": 30}, "found 30, expected a multiple of 50"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of("apd", 40, **settings)


def test_a_round_of_samples_that_weigh_nothing_is_refused() -> None:
    weight_S = torch.tensor([1.0, 1, 0, 0])
    problem = problem_of(banana(4, rng.generator(0, "points")), weight_S)
    cfg = config_of("apd", 4, online={"buffer": 2, "updates": 50}, **SMALL)
    with pytest.raises(ConfigError, match=r"online\.buffer: found 2 samples in a row that weigh n"):
        code_of(problem, cfg)


def test_a_training_that_diverges_says_what_to_lower() -> None:
    problem = problem_of(banana(40, rng.generator(0, "points")))
    with pytest.raises(
        DivergenceError, match=r"apd: generator and critic .* lower teacher\.method"
    ):
        code_of(problem, config_of("apd", 40, iterations=100, lr=1e30, **SMALL))


def test_a_draw_that_is_not_finite_is_never_given() -> None:
    problem = problem_of(banana(40, rng.generator(0, "points")))
    code = code_of(problem, config_of("apd", 40, iterations=50, **SMALL))
    broken = replace(code, tensors={"generator": code.tensors["generator"] * torch.inf})
    with pytest.raises(DivergenceError, match="apd: a draw is not finite; lower teacher"):
        codec_of("apd").draws(broken, 3, generator=rng.generator(0, "draws"))
