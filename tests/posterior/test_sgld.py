"""SGLD: an update by hand, burn-in and thinning, and the errors of its settings."""

import pytest
import torch

from gped_nas import rng
from gped_nas.config import parse
from gped_nas.errors import ConfigError, DivergenceError
from gped_nas.posterior.schedule import StepSize
from gped_nas.posterior.sgld import SgldConfig, sgld
from tests.posterior.chains import assert_same_states, have_samples, take
from tests.scenarios import classifier, gaussian, sgld_config


def steps(num, cfg, *, problem=None, state=None, seed=0):
    generator = rng.generator(seed, "posterior", 0)
    return take(sgld(problem or classifier(), cfg, generator=generator, state=state), num)


def test_burn_in_yields_states_but_no_samples():
    chain = steps(6, sgld_config(burn_in=6, thinning=2))
    assert have_samples(chain) == [False, False, False, True, True, True]
    assert [int(s.state["step"]) for s in chain] == [2, 4, 6, 8, 10, 12]
    assert all(torch.equal(s.sample.theta_W, s.state["theta"]) for s in chain[3:])


def test_without_burn_in_the_first_step_is_a_sample():
    assert steps(1, sgld_config(burn_in=0))[0].sample is not None


def test_thinning_only_chooses_what_is_kept():
    every = steps(12, sgld_config(burn_in=0, thinning=1))
    third = steps(4, sgld_config(burn_in=0, thinning=3))
    for step, same in zip(third, every[2::3], strict=True):
        assert torch.equal(step.sample.theta_W, same.sample.theta_W)


def test_burn_in_only_chooses_what_is_kept():
    early = steps(8, sgld_config(burn_in=0, thinning=2))
    late = steps(8, sgld_config(burn_in=6, thinning=2))
    assert_same_states(early, late)


def test_one_update_by_hand():
    # U = a theta^2 / 2 with a = 4, theta = 3, eta = 0.1:
    # 3 - 0.05 * 12 + sqrt(0.1 * 0.25) * z = 2.4 + 0.1581 z
    cfg = SgldConfig(
        name="sgld",
        step_size=StepSize(initial=0.1),
        batch_size=1,
        burn_in=0,
        thinning=1,
        temperature=0.25,
    )
    (step,) = steps(1, cfg, problem=gaussian(6, precision=4.0, start=3.0))
    generator = rng.generator(0, "posterior", 0)
    torch.randint(1, (1,), generator=generator)
    noise = torch.empty(6).normal_(generator=generator)
    torch.testing.assert_close(step.sample.theta_W, 2.4 + 0.1581139 * noise)


@pytest.mark.parametrize("eta", [1.0, 50.0])
def test_divergence_is_an_error_that_names_the_step_size(eta):
    # eta a > 4 multiplies theta by more than 1 in size each step
    cfg = SgldConfig(
        name="sgld",
        step_size=StepSize(initial=eta),
        batch_size=1,
        burn_in=0,
        thinning=300,
        temperature=1.0,
    )
    with pytest.raises(DivergenceError, match=r"step_size\.initial"):
        steps(1000, cfg, problem=gaussian(3, precision=10.0, start=1.0))


def test_chains_of_other_generators_differ():
    cfg = sgld_config()
    assert not torch.equal(steps(1, cfg)[0].state["theta"], steps(1, cfg, seed=1)[0].state["theta"])


def test_burn_in_off_the_grid_of_thinning_is_refused():
    settings = {"name": "sgld", "step_size": {"initial": 0.1}, "burn_in": 5, "thinning": 2}
    with pytest.raises(ConfigError, match="multiple of thinning"):
        parse(SgldConfig, settings, "here")


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"batch_size": 0},
        {"thinning": 0},
        {"chains": 0},
        {"num_samples": 0},
        {"step_size": {"initial": 0.0}},
        {"step_size": {"initial": "1e-3"}},
        {"step_size": {"inital": 0.1}},
    ],
)
def test_impossible_settings_are_refused(wrong):
    settings = {"name": "sgld", "step_size": {"initial": 0.1}, "burn_in": 4, "thinning": 2, **wrong}
    with pytest.raises(ConfigError, match=f"here: {next(iter(wrong))}"):
        parse(SgldConfig, settings, "here")


def test_step_size_halves_at_absolute_steps():
    step_size = StepSize(initial=0.8, halve_at=(2, 5))
    assert [step_size(s) for s in range(7)] == [0.8, 0.8, 0.4, 0.4, 0.4, 0.2, 0.2]
