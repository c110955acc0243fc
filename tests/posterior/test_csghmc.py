"""csghmc: cycles, exploration by descent, and momenta drawn afresh where the noise begins."""

import math

import pytest
import torch

from gped_nas import rng
from gped_nas.config import parse
from gped_nas.errors import ConfigError, DivergenceError
from gped_nas.posterior.csghmc import CsghmcConfig, csghmc
from tests.posterior.chains import assert_same_states, take, with_samples
from tests.scenarios import classifier, gaussian


def config(**changes):
    settings = {
        "name": "csghmc",
        "step_size": {"initial": 0.05, "length": 8},
        "batch_size": 5,
        "thinning": 2,
        "samples_per_cycle": 2,
    }
    return parse(CsghmcConfig, {**settings, **changes}, "here")


def steps(num, cfg, *, problem=None, state=None, seed=0):
    generator = rng.generator(seed, "posterior", 0)
    return take(csghmc(problem or classifier(), cfg, generator=generator, state=state), num)


def test_samples_are_the_ends_of_cycles_after_burn_in():
    chain = steps(12, config())
    assert [int(step.state["step"]) for step in with_samples(chain)] == [14, 16, 22, 24]


@pytest.mark.parametrize("stop", range(9))
@pytest.mark.parametrize("exploration", [0.0, 0.3])
def test_resuming_at_any_step_gives_the_same_bits(stop, exploration):
    cfg = config(exploration=exploration)
    whole = steps(10, cfg)
    rest = steps(9 - stop, cfg, state=whole[stop].state, seed=5)
    assert_same_states(whole[stop + 1 :], rest)


def test_exploration_is_descent_with_momentum():
    # a = 4, theta = 3, p = 0, h = 0.2, m = 1, gamma = 5 ln 2 so that c = 1/2:
    #   p = -2.4, theta = 3 - 0.24, p = -1.2, theta = 2.76 - 0.12 = 2.64
    cfg = config(
        step_size={"initial": 0.2, "length": 8},
        exploration=0.25,
        friction=5 * math.log(2),
        thinning=1,
    )
    chain = steps(3, cfg, problem=gaussian(5, precision=4.0, start=3.0))
    torch.testing.assert_close(chain[0].state["theta"], torch.full((5,), 2.64))
    torch.testing.assert_close(chain[0].state["momentum"], torch.full((5,), -1.2))
    assert chain[1].state["theta"].std() == 0
    assert chain[2].state["theta"].std() > 0


def test_the_momentum_is_drawn_afresh_where_the_noise_begins():
    # no gradient and next to no friction: the momentum of step 2 is a draw from N(0, m T) and
    # nothing else
    cfg = config(
        step_size={"initial": 1e-3, "length": 8},
        exploration=0.3,
        mass=4.0,
        temperature=0.25,
        friction=0.01,
    )
    chain = steps(2, cfg, problem=gaussian(20_000, precision=1e-6, start=1.0))
    assert float(chain[0].state["momentum"].abs().max()) < 1e-6
    variance = float(chain[1].state["momentum"].var())
    assert variance == pytest.approx(1.0, rel=4 * math.sqrt(2 / 20_000))


def test_a_step_size_outside_the_stable_range_is_refused():
    cfg = config(step_size={"initial": 1.0, "length": 8})
    message = r"step_size\.initial: found 1, expected less than 0.8944"
    with pytest.raises(ConfigError, match=message):
        steps(1, cfg, problem=gaussian(3, precision=5.0))


def test_divergence_is_an_error_that_names_the_step_size():
    problem = classifier()
    broken = type(problem)(
        shapes=problem.shapes,
        log_likelihood=lambda params, x, y: 1e6 * problem.log_likelihood(params, x, y),
        log_prior=lambda params: 1e6 * problem.log_prior(params).square(),
        initialize=problem.initialize,
        x=problem.x,
        y=problem.y,
    )
    with pytest.raises(DivergenceError, match=r"step_size\.initial"):
        steps(20, config(), problem=broken)


@pytest.mark.parametrize(
    "wrong", [{"friction": 0.0}, {"friction": 1e5}, {"mass": 0.0}, {"samples_per_cycle": 5}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"here: {next(iter(wrong))}"):
        config(**wrong)
