"""HMC: transitions by hand, the work of a sample, and the tuning of the step size."""

import dataclasses
import math

import pytest
import torch

from gped_nas import rng
from gped_nas.config import parse
from gped_nas.errors import ConfigError, DivergenceError
from gped_nas.posterior.hmc import DualAveraging, HmcConfig, hmc
from tests.posterior.chains import have_samples, take
from tests.scenarios import classifier, gaussian


def config(**changes):
    settings = {"name": "hmc", "step_size": 0.05, "leapfrog_steps": 3, "burn_in": 6, "thinning": 2}
    return parse(HmcConfig, {**settings, **changes}, "here")


def steps(num, cfg, *, problem=None, state=None, seed=0):
    generator = rng.generator(seed, "posterior", 0)
    return take(hmc(problem or classifier(), cfg, generator=generator, state=state), num)


def test_burn_in_yields_states_but_no_samples():
    chain = steps(6, config())
    assert have_samples(chain) == [False, False, False, True, True, True]
    assert all(torch.equal(s.sample.theta_W, s.state["theta"].float()) for s in chain[3:])


def test_one_transition_by_hand():
    # a = 4, theta = 3, e = 0.1, one leapfrog step: p - 0.05 * 12, theta + 0.1 p, p - 0.05 * 4 theta
    cfg = config(step_size=0.1, leapfrog_steps=1, burn_in=0, thinning=1, jitter=0.0)
    (step,) = steps(1, cfg, problem=gaussian(2, precision=4.0, start=3.0))

    generator = rng.generator(0, "posterior", 0)
    start = torch.empty(2, dtype=torch.float64).normal_(generator=generator)
    _, chance = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    half = start - 0.6
    theta = 3 + 0.1 * half
    end = half - 0.2 * theta
    energy_before = 2 * torch.tensor([9.0, 9.0]) + start**2 / 2
    energy_after = 2 * theta**2 + end**2 / 2
    change = float((energy_after - energy_before).sum())

    expected = theta if chance < math.exp(-max(change, 0)) else torch.full_like(theta, 3.0)
    torch.testing.assert_close(step.state["theta"], expected)


def test_the_work_of_a_sample_is_what_the_settings_say():
    calls = []
    problem = classifier()

    def count(params, x, y):
        calls.append(len(x))
        return problem.log_likelihood(params, x, y)

    watched = dataclasses.replace(problem, log_likelihood=count)
    cfg = config(burn_in=0)
    chain = hmc(watched, cfg, generator=rng.generator(0, "posterior", 0))

    # The first sample also takes the gradient where the chain starts.
    next(chain)
    calls.clear()
    next(chain)
    assert calls == [24] * (cfg.leapfrog_steps * cfg.thinning) == [24] * 6


def test_energies_are_float64():
    problem = classifier()
    dtypes = set()

    def watch(params, x, y):
        dtypes.add(x.dtype)
        dtypes.update(p.dtype for p in params.values())
        return problem.log_likelihood(params, x, y)

    watched = dataclasses.replace(problem, log_likelihood=watch)
    (step,) = steps(1, config(burn_in=0), problem=watched)
    assert dtypes == {torch.float64}
    assert step.state["theta"].dtype == torch.float64


def test_a_path_that_leaves_the_finite_numbers_is_rejected():
    # e^2 a = 400 > 4: every path blows up, so that the chain stays where it is
    cfg = config(step_size=10.0, leapfrog_steps=300, burn_in=0)
    (step,) = steps(1, cfg, problem=gaussian(2, precision=4.0, start=3.0))
    assert step.state["theta"].tolist() == [3.0, 3.0]
    assert int(step.state["accepted"]) == 0


def test_dual_averaging_by_hand():
    # Transition 1 with acceptance 0.3: error (0.8 - 0.3) / 11; next ln(10 e) - error / 0.05, and
    # the same is kept (weight 1).
    after_one = DualAveraging.start(0.1).after(0.3, 1, initial=0.1, target=0.8)
    assert after_one.error == pytest.approx(0.5 / 11)
    assert after_one.log_step == pytest.approx(math.log(1.0) - 0.5 / 11 / 0.05)
    assert after_one.log_kept == after_one.log_step

    # Transition 2 with acceptance 1: error (11/12) 0.5/11 - 0.2/12.
    after_two = after_one.after(1.0, 2, initial=0.1, target=0.8)
    error = 0.5 / 12 - 0.2 / 12
    weight = 2**-0.75
    log_kept = weight * after_two.log_step + (1 - weight) * after_one.log_kept
    assert after_two.error == pytest.approx(error)
    assert after_two.log_step == pytest.approx(-math.sqrt(2) / 0.05 * error)
    assert after_two.log_kept == pytest.approx(log_kept)


@pytest.mark.parametrize("start", [1e-3, 3.0])
def test_burn_in_tunes_the_step_size_to_the_acceptance_asked_for(start):
    cfg = config(
        step_size=start, leapfrog_steps=4, burn_in=300, thinning=300, target_acceptance=0.7
    )
    tuned, after = steps(2, cfg)
    accepted_by_tuned = int(tuned.state["accepted"])
    accepted_after = int(after.state["accepted"]) - accepted_by_tuned

    # 300 transitions: four standard errors are 0.11; the averaged step size is on the small side
    assert accepted_by_tuned / 300 == pytest.approx(0.7, abs=0.11)
    assert 0.6 < accepted_after / 300 < 0.9
    assert after.state["log_kept"] == tuned.state["log_kept"]


def test_without_burn_in_the_step_size_is_kept():
    (step,) = steps(1, config(burn_in=0, step_size=0.07))
    assert float(step.state["log_kept"]) == math.log(0.07)


def test_a_burn_in_that_accepts_nothing_is_an_error():
    cfg = config(step_size=1e6, burn_in=4)
    message = r"none of the 4 transitions .* lower teacher\.method\.step_size"
    with pytest.raises(DivergenceError, match=message):
        steps(8, cfg, problem=gaussian(2, precision=4.0, start=3.0))


def test_a_start_without_finite_energy_is_an_error():
    with pytest.raises(DivergenceError, match="potential is inf where the chain starts"):
        steps(1, config(), problem=gaussian(2, precision=4.0, start=float("inf")))


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 1.0},
        {"batch_size": 10},
        {"step_size": 0.0},
        {"leapfrog_steps": 0},
        {"jitter": 1.0},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"here: {next(iter(wrong))}"):
        config(**wrong)
