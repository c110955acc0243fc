"""``flow`` against laws that are known, and what it says of chains that it cannot read."""

import re
from dataclasses import replace
from itertools import islice

import pytest
import torch

from gped_nas import rng
from gped_nas.errors import ConfigError, DivergenceError
from gped_nas.models.base import num_params
from gped_nas.posterior.base import METHODS, State, unflatten
from gped_nas.posterior.codecs.base import ChainSamples, codec_of
from gped_nas.posterior.codecs.flow import follow, network_shapes, velocity, ways_to
from gped_nas.posterior.codecs.held_out import Kept, is_held_out
from gped_nas.posterior.codecs.learned import padded, principal_coordinates
from gped_nas.posterior.codecs.low_rank import principal
from gped_nas.testing.promises import same_bits
from tests.posterior.laws import (
    Law,
    banana,
    code_of,
    config_of,
    energy_distance,
    problem_of,
    two_modes,
)


def test_a_way_goes_from_normal_numbers_to_the_sample_at_its_velocity() -> None:
    x_BJ = torch.linspace(-3, 3, 12).view(6, 2)
    ways = ways_to(x_BJ, generator=rng.generator(0, "ways"))
    cos_B1, sin_B1 = ways.angle_B1.cos(), ways.angle_B1.sin()
    turned_BJ = ways.velocity_BJ * (2 / torch.pi)
    # x_t and its derivative in a are z and x, turned by a
    torch.testing.assert_close(sin_B1 * ways.x_BJ + cos_B1 * turned_BJ, x_BJ)
    normal_BJ = torch.randn(x_BJ.shape, generator=rng.generator(0, "ways"))
    torch.testing.assert_close(cos_B1 * ways.x_BJ - sin_B1 * turned_BJ, normal_BJ)


def test_a_constant_velocity_moves_by_itself_and_none_moves_nothing() -> None:
    normal_MJ = torch.tensor([[0.0, 1.0], [2.0, -3.0]])
    params = {name: torch.zeros(shape) for name, shape in network_shapes(2, 4).items()}
    assert torch.equal(follow(params, normal_MJ), normal_MJ)
    params["bias_3"] = torch.tensor([1.0, -0.5])
    torch.testing.assert_close(follow(params, normal_MJ), normal_MJ + params["bias_3"])


# Energy distances to 4,000 fresh points: of the normal law with the same moments .047 and .144, of
# 400 other points of the law itself 0 with a standard deviation of .001 and .003. That is the
# sampling error of what the flow learns from; the flow has .003 and .008.
@pytest.mark.parametrize(("law", "tolerance"), [(banana, 0.01), (two_modes, 0.02)])
def test_a_law_that_is_not_normal_is_recovered(law: Law, tolerance: float) -> None:
    points_SW = law(400, rng.generator(0, "points"))
    cfg = config_of("flow", 400, components=2, width=32, steps=800, batch_size=128)
    code = code_of(problem_of(points_SW), cfg)

    drawn = codec_of("flow").draws(code, 4000, generator=rng.generator(0, "draws"))
    truth = law(4000, rng.generator(0, "truth"))
    assert energy_distance(drawn, truth) < tolerance

    normal = replace(code, tensors={n: t for n, t in code.tensors.items() if n != "network"})
    normal_MW = codec_of("flow").draws(normal, 4000, generator=rng.generator(0, "draws"))
    assert energy_distance(normal_MW, truth) > 4 * tolerance


def test_of_normal_samples_the_normal_law_is_kept_and_no_network_stored() -> None:
    points_SW = torch.randn(60, 30, generator=rng.generator(0, "normal"))
    cfg = config_of("flow", 60, components=20, steps=400, width=32)
    code = code_of(problem_of(points_SW), cfg)
    assert set(code.tensors) == {"share", "mean", "factor", "std"}
    # 22 networks and what the file says of itself
    assert 0 < code.bytes - 4 * 22 * 30 < 700


def test_beyond_the_bent_directions_the_law_stays_normal() -> None:
    generator = rng.generator(0, "bent")
    normal_SW = 0.3 * torch.randn(200, 6, generator=generator)
    theta_SW = torch.cat([banana(200, generator) * torch.tensor([2.0, 2.0]), normal_SW], 1)
    cfg = config_of("flow", 200, components=5, bent=2, width=16, steps=200)
    code = code_of(problem_of(theta_SW), cfg)

    # what is stored moves five coordinates: two as learned, whatever the others are
    params = unflatten(code.tensors["network"][0], network_shapes(5, 16))
    normal_MJ = torch.randn(50, 5, generator=generator)
    moved_MJ = follow(params, normal_MJ)
    assert torch.equal(moved_MJ[:, 2:], normal_MJ[:, 2:])
    assert float((moved_MJ[:, :2] - normal_MJ[:, :2]).abs().max()) > 0.1
    other_MJ = torch.cat([normal_MJ[:, :2], 9 * normal_MJ[:, 2:]], 1)
    torch.testing.assert_close(follow(params, other_MJ)[:, :2], moved_MJ[:, :2])


def test_padded_networks_say_the_same() -> None:
    generator = rng.generator(0, "padded")
    shapes = network_shapes(2, 8)
    small = unflatten(torch.randn(num_params(shapes), generator=generator), shapes)
    large = unflatten(padded(small, network_shapes(4, 8), 2), network_shapes(4, 8))
    x_BJ, angle_B1 = torch.randn(6, 4, generator=generator), torch.rand(6, 1, generator=generator)
    expected_BJ = velocity(small, x_BJ[:, :2], angle_B1)
    torch.testing.assert_close(velocity(large, x_BJ, angle_B1)[:, :2], expected_BJ)
    assert not velocity(large, x_BJ, angle_B1)[:, 2:].any()


def test_each_chain_has_a_law_of_its_own_of_its_weight() -> None:
    generator = rng.generator(0, "chains")
    near_SW, far_SW = banana(60, generator), banana(60, generator) + 100
    interleaved_SW = torch.stack([near_SW, far_SW], 1).flatten(0, 1)
    weight_S = torch.tensor([1.0, 3.0]).repeat(60)
    cfg = config_of("flow", 120, chains=2, components=2, width=8, steps=200)
    code = code_of(problem_of(interleaved_SW, weight_S), cfg)

    drawn = codec_of("flow").draws(code, 4000, generator=rng.generator(0, "draws"))
    is_far = drawn[:, 0] > 50
    # four standard errors of a share of 3/4 are .027
    assert float(is_far.float().mean()) == pytest.approx(0.75, abs=0.027)
    assert not ((drawn[:, 0] > 20) & (drawn[:, 0] < 80)).any()


def test_stopped_in_any_chain_it_goes_on_to_the_same_bits() -> None:
    problem = problem_of(banana(160, rng.generator(0, "points")))
    cfg = config_of("flow", 160, chains=2, components=2, width=64, steps=300, lr=0.02)

    def steps(state: State | None, seed: int) -> list:
        run = METHODS["flow"](problem, cfg, generator=rng.generator(seed, "chain"), state=state)
        return list(islice(run, 8))

    whole = steps(None, 1)
    assert [step.sample is None for step in whole] == [True] * 6 + [False] * 2
    # a network is kept that is not the newest, so that states must hold both
    fits = [step.state for step in whole[:6]]
    assert bool(fits[-1]["networks"].any(1).all())
    kept = [torch.equal(fit["networks"][int(fit["chain"])], fit["theta"]) for fit in fits]
    assert set(kept) == {True, False}
    for stop in (0, 2, 3, 6):
        rest = steps(whole[stop].state, 99)[: 7 - stop]
        for ours, theirs in zip(rest, whole[stop + 1 :], strict=True):
            assert all(same_bits(ours.state[name], value) for name, value in theirs.state.items())


def test_stretches_are_held_out_and_a_fifth_of_the_samples() -> None:
    assert is_held_out(100).nonzero().flatten().tolist() == [
        *range(10, 15), *range(35, 40), *range(60, 65), *range(85, 90),
    ]  # fmt: skip
    assert is_held_out(10).nonzero().flatten().tolist() == [2, 7]


def test_a_law_is_kept_that_gains_more_than_its_standard_error() -> None:
    kept, weight_M = Kept(torch.zeros(1)), torch.ones(4)
    # mean 1, standard deviation 8 / sqrt 3, of which the standard error is half: 2.3
    kept.offer(torch.ones(1), torch.tensor([5.0, -3, 5, -3]), weight_M)
    assert float(kept.theta) == 0
    kept.offer(2 * torch.ones(1), torch.tensor([1.0, 1.1, 0.9, 1.0]), weight_M)
    assert float(kept.theta) == 2 and kept.gain == pytest.approx(1)
    kept.offer(3 * torch.ones(1), torch.tensor([0.9, 0.9, 0.9, 0.9]), weight_M)
    assert float(kept.theta) == 2
    # of one sample nothing says how sure its gain is
    kept.offer(4 * torch.ones(1), torch.tensor([9.0]), torch.ones(1))
    kept.offer(4 * torch.ones(1), torch.tensor([9.0, 9.0]), torch.tensor([1.0, 0.0]))
    assert float(kept.theta) == 2


@pytest.mark.parametrize("name", ["flow", "gan"])
def test_a_chain_too_short_to_hold_out_any_is_normal(name: str) -> None:
    length = {"flow": {"steps": 100}, "gan": {"iterations": 50}}[name]
    cfg = config_of(name, 4, chains=2, components=1, width=4, **length)
    code = code_of(problem_of(banana(4, rng.generator(0, "points"))), cfg)
    assert set(code.tensors) == {"share", "mean", "factor", "std"}


def test_coordinates_say_where_samples_are_and_have_variance_one() -> None:
    generator = rng.generator(0, "coordinates")
    theta_SW = torch.randn(6, 9, generator=generator) @ torch.randn(9, 9, generator=generator) + 5
    weight_S = torch.ones(6, dtype=torch.float64)
    law = principal(ChainSamples(theta_SW, weight_S), 5)
    x_SJ = principal_coordinates(theta_SW, law)
    # with all five directions nothing is lost
    torch.testing.assert_close(law.mean_W + x_SJ @ law.factor_JW, theta_SW, atol=1e-4, rtol=0)
    torch.testing.assert_close(x_SJ.mT.cov(), torch.eye(5), atol=1e-4, rtol=0)

    theta_SW[3:] = theta_SW[2]
    stuck = principal(ChainSamples(theta_SW, weight_S), 3)
    with pytest.raises(ConfigError, match=r"components: found 3, but the 6 samples .* span 2 dir"):
        principal_coordinates(theta_SW, stuck)


def test_more_components_than_a_chain_spans_are_refused_where_settings_are_read() -> None:
    message = "components: found 10, expected at most 9: 10 samples a chain vary in no more direct"
    with pytest.raises(ConfigError, match=message):
        config_of("flow", 20, chains=2, components=10)
    config_of("flow", 20, chains=2, components=9)


def test_more_components_than_the_samples_that_are_read_are_refused() -> None:
    cfg = config_of("flow", 20, components=5)
    problem = problem_of(banana(5, rng.generator(0, "points")))
    with pytest.raises(ConfigError, match=re.escape("teacher.method.components: found 5, expect")):
        code_of(problem, cfg)


def test_a_training_that_diverges_says_what_to_lower() -> None:
    problem = problem_of(banana(40, rng.generator(0, "points")))
    cfg = config_of("flow", 40, components=2, width=8, steps=200, lr=1e30)
    with pytest.raises(DivergenceError, match=r"flow: parameters are not finite.* teacher\.method"):
        code_of(problem, cfg)


def test_a_draw_that_is_not_finite_is_never_given() -> None:
    cfg = config_of("flow", 40, components=2, width=8, steps=100)
    code = code_of(problem_of(banana(40, rng.generator(0, "points"))), cfg)
    broken = replace(code, tensors={**code.tensors, "mean": code.tensors["mean"] * torch.inf})
    with pytest.raises(DivergenceError, match="flow: a draw is not finite; lower teacher"):
        codec_of("flow").draws(broken, 3, generator=rng.generator(0, "draws"))
