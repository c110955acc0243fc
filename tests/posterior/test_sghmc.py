"""SGHMC: an update by hand, momenta at the temperature, and the range of stable step sizes."""

import dataclasses
import math

import pytest
import torch

from gped_nas import rng
from gped_nas.config import parse
from gped_nas.errors import ConfigError, DivergenceError
from gped_nas.posterior.sghmc import SghmcConfig, sghmc, step
from tests.posterior.chains import have_samples, take
from tests.scenarios import classifier, gaussian


def config(**changes):
    settings = {
        "name": "sghmc",
        "step_size": {"initial": 0.05, "halve_at": [3, 9]},
        "batch_size": 5,
    }
    return parse(SghmcConfig, {**settings, "burn_in": 6, "thinning": 2, **changes}, "here")


def steps(num, cfg, *, problem=None, state=None, seed=0):
    generator = rng.generator(seed, "posterior", 0)
    return take(sghmc(problem or classifier(), cfg, generator=generator, state=state), num)


def test_burn_in_yields_states_but_no_samples():
    chain = steps(6, config())
    assert have_samples(chain) == [False, False, False, True, True, True]
    assert all(torch.equal(s.sample.theta_W, s.state["theta"]) for s in chain[3:])


def test_one_update_by_hand():
    # a = 4, theta = 3, h = 0.1, m = 2, gamma = ln(2) / 0.1 so that c = 1/2, T = 0.25; p ~ N(0, 0.5)
    #   B p - 0.1 * 12, A theta + 0.025 p, O p / 2 + sqrt(0.75 * 0.5) z, A theta + 0.025 p
    cfg = config(
        step_size={"initial": 0.1},
        batch_size=1,
        burn_in=0,
        thinning=1,
        friction=math.log(2) / 0.1,
        mass=2.0,
    )
    cfg = cfg.model_copy(update={"temperature": 0.25})
    (update,) = steps(1, cfg, problem=gaussian(6, precision=4.0, start=3.0))

    generator = rng.generator(0, "posterior", 0)
    momentum = torch.empty(6).normal_(generator=generator) * math.sqrt(0.5)
    torch.randint(1, (1,), generator=generator)
    noise = torch.empty(6).normal_(generator=generator)

    momentum = momentum - 1.2
    theta = 3 + 0.025 * momentum
    momentum = momentum / 2 + 0.6123724 * noise
    torch.testing.assert_close(update.state["momentum"], momentum)
    torch.testing.assert_close(update.sample.theta_W, theta + 0.025 * momentum)


def test_the_momentum_starts_at_the_temperature():
    cfg = config(
        step_size={"initial": 1e-6}, friction=1.0, mass=4.0, burn_in=0, thinning=1, temperature=0.5
    )
    (update,) = steps(1, cfg, problem=gaussian(20_000, precision=1.0))
    variance = float(update.state["momentum"].var())
    assert variance == pytest.approx(2.0, rel=4 * math.sqrt(2 / 20_000))


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("h_squared_a", [0.1, 2.0, 3.99, 4.01, 5.0])
def test_the_stable_range_is_below_four_whatever_the_friction(decay, h_squared_a):
    friction = -math.log(decay) if decay else 1000.0
    settings = {"step_size": 1.0, "friction": friction, "mass": 1.0, "temperature": 0.0}

    # the columns of one step's linear map, at T = 0, m = 1, h = 1
    columns = []
    for start in ((1.0, 0.0), (0.0, 1.0)):
        theta, momentum = (torch.tensor([v], dtype=torch.float64) for v in start)
        step(theta, momentum, h_squared_a * theta.clone(), torch.zeros(1), **settings)
        columns.append(torch.cat([theta, momentum]))

    radius = float(torch.linalg.eigvals(torch.stack(columns, 1)).abs().max())
    assert (radius < 1) == (h_squared_a < 4)


@pytest.mark.parametrize(("mass", "limit"), [(1.0, 2 / math.sqrt(5)), (4.0, 4 / math.sqrt(5))])
def test_a_step_size_outside_the_stable_range_is_refused(mass, limit):
    problem = gaussian(3, precision=5.0, start=1.0)
    common = {"batch_size": 1, "burn_in": 0, "thinning": 300, "mass": mass}
    message = rf"step_size\.initial: found .*, expected less than {limit:g}"
    with pytest.raises(ConfigError, match=message):
        steps(1, config(step_size={"initial": 1.01 * limit}, **common), problem=problem)

    (update,) = steps(1, config(step_size={"initial": 0.9 * limit}, **common), problem=problem)
    assert update.sample.theta_W.abs().max() < 10


def test_divergence_is_an_error_that_names_the_step_size():
    # curvature of the likelihood is not known beforehand: 100 here, so that h^2 a = 9 > 4
    def steep(params, x, y):
        return -50 * params["theta"].square().sum() * torch.ones(len(x))

    problem = dataclasses.replace(gaussian(3, precision=1.0, start=1.0), log_likelihood=steep)
    with pytest.raises(DivergenceError, match=r"step_size\.initial"):
        steps(100, config(step_size={"initial": 0.3}, burn_in=0, thinning=100), problem=problem)


@pytest.mark.parametrize("friction", [1e-8, 1e4])
def test_a_friction_that_cannot_act_is_refused(friction):
    message = "here: friction: found .*, expected 2e-05 to 600 at step size 0.05"
    with pytest.raises(ConfigError, match=message):
        config(friction=friction)


@pytest.mark.parametrize(
    "wrong",
    [{"friction": 0.0}, {"mass": 0.0}, {"temperature": -1.0}, {"batch_size": 0}, {"momentum": 0.9}],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"here: {next(iter(wrong))}"):
        config(**wrong)
