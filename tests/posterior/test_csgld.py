"""csgld: step sizes in cycles, samples at their ends, exploration without noise."""

import math

import pytest
import torch

from gped_nas import rng
from gped_nas.config import parse
from gped_nas.errors import ConfigError, DivergenceError
from gped_nas.posterior.csgld import CyclicConfig, csgld
from gped_nas.posterior.schedule import CosineCycles
from tests.posterior.chains import assert_same_states, take, with_samples
from tests.scenarios import classifier, gaussian


def config(**changes):
    settings = {
        "name": "csgld",
        "step_size": {"initial": 0.02, "length": 8},
        "batch_size": 5,
        "thinning": 2,
        "samples_per_cycle": 2,
    }
    return parse(CyclicConfig, {**settings, **changes}, "here")


def steps(num, cfg, *, problem=None, state=None, seed=0):
    generator = rng.generator(seed, "posterior", 0)
    return take(csgld(problem or classifier(), cfg, generator=generator, state=state), num)


def test_step_sizes_follow_half_a_cosine_in_every_cycle():
    # (1 + cos(pi k / 4)) / 2 for k = 0, 1, 2, 3
    schedule = CosineCycles(initial=0.8, length=4)
    quarter = math.sqrt(0.5)
    expected = [0.8, 0.4 * (1 + quarter), 0.4, 0.4 * (1 - quarter)]
    assert [schedule(k) for k in range(12)] == pytest.approx(3 * expected)


def test_samples_are_the_ends_of_cycles_after_burn_in():
    chain = steps(12, config())
    assert [int(step.state["step"]) for step in with_samples(chain)] == [14, 16, 22, 24]

    early = steps(12, config(burn_in_cycles=0, samples_per_cycle=1))
    assert [int(step.state["step"]) for step in with_samples(early)] == [8, 16, 24]


def test_what_is_kept_changes_nothing_else():
    assert_same_states(
        steps(12, config()), steps(12, config(burn_in_cycles=0, samples_per_cycle=1))
    )


def test_exploration_is_gradient_descent():
    # eta is 0.2, then 0.2 * (1 + cos(pi / 8)) / 2:
    # theta 3 -> 3 (1 - 0.4) -> times 1 - 0.1 (1 + 0.92388) * 2
    cfg = config(step_size={"initial": 0.2, "length": 8}, exploration=0.25)
    chain = steps(2, cfg, problem=gaussian(5, precision=4.0, start=3.0))
    expected = torch.full((5,), 3 * 0.6 * (1 - 0.1923880 * 2))
    torch.testing.assert_close(chain[0].state["theta"], expected)
    assert chain[1].state["theta"].std() > 0


def test_divergence_is_an_error_that_names_the_step_size():
    cfg = config(step_size={"initial": 5.0, "length": 400})
    with pytest.raises(DivergenceError, match=r"step_size\.initial"):
        steps(1000, cfg, problem=gaussian(3, precision=10.0, start=1.0))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"step_size": {"initial": 0.1, "length": 9}},
            r"step_size\.length: found 9, expected a multiple of thinning",
        ),
        (
            {"samples_per_cycle": 5},
            "samples_per_cycle: found 5, 2 steps apart, expected at most 4 in the 8 noisy",
        ),
        (
            {"exploration": 0.75},
            "samples_per_cycle: found 2, 2 steps apart, expected at most 1 in the 2 noisy",
        ),
        ({"exploration": 1.0}, "exploration"),
        ({"temperature": -1.0}, "temperature"),
        ({"burn_in": 10}, "burn_in: unknown key"),
    ],
)
def test_impossible_settings_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=f"here: {message}"):
        config(**wrong)
