"""pSGLD: updates by hand, and a preconditioner that adapts in burn-in and is frozen after it."""

import pytest
import torch

from gped_nas import rng
from gped_nas.config import parse
from gped_nas.errors import ConfigError, DivergenceError
from gped_nas.posterior.base import flatten, unflatten
from gped_nas.posterior.psgld import PsgldConfig, psgld
from tests.posterior.chains import have_samples, take
from tests.scenarios import classifier, gaussian


def config(**changes):
    settings = {
        "name": "psgld",
        "step_size": {"initial": 0.002, "halve_at": [3, 9]},
        "batch_size": 5,
    }
    return parse(PsgldConfig, {**settings, "burn_in": 6, "thinning": 2, **changes}, "here")


def steps(num, cfg, *, problem=None, state=None, seed=0):
    generator = rng.generator(seed, "posterior", 0)
    return take(psgld(problem or classifier(), cfg, generator=generator, state=state), num)


def test_burn_in_yields_states_but_no_samples():
    chain = steps(6, config())
    assert have_samples(chain) == [False, False, False, True, True, True]
    assert [int(s.state["step"]) for s in chain] == [2, 4, 6, 8, 10, 12]


def test_the_preconditioner_adapts_in_burn_in_and_is_frozen_after_it():
    squares = [step.state["square"] for step in steps(6, config())]
    assert not torch.equal(squares[0], squares[1])
    assert not torch.equal(squares[1], squares[2])
    assert all(torch.equal(squares[2], later) for later in squares[3:])


def test_two_updates_by_hand():
    # U = a theta^2 / 2 with a = 4 and N = 1, theta = 3, damping 1, decay 0.75, eta = 0.1, T = 0.25.
    # g = 12, V = 0.25 * 144 = 36, V / (1 - 0.75) = 144, D = 1 / 13:
    #   3 - 0.05 * 12 / 13 + sqrt(0.025 / 13) z = 2.9538462 + 0.0438529 z
    cfg = config(
        step_size={"initial": 0.1}, batch_size=1, burn_in=1, thinning=1, decay=0.75, damping=1.0
    )
    cfg = cfg.model_copy(update={"temperature": 0.25})
    chain = steps(2, cfg, problem=gaussian(6, precision=4.0, start=3.0))
    theta_1, theta_2 = (step.state["theta"] for step in chain)
    generator = rng.generator(0, "posterior", 0)

    torch.randint(1, (1,), generator=generator)
    noise = torch.empty(6).normal_(generator=generator)
    torch.testing.assert_close(theta_1, 2.9538462 + 0.0438529 * noise)

    # burn-in is over: D is still 1 / 13
    torch.randint(1, (1,), generator=generator)
    noise.normal_(generator=generator)
    torch.testing.assert_close(theta_2, theta_1 - 0.05 * 4 * theta_1 / 13 + 0.0438529 * noise)


def test_the_scale_of_the_gradient_is_that_of_u_over_n():
    (step,) = steps(1, config(burn_in=2, decay=0.0))
    problem = classifier()
    generator = rng.generator(0, "posterior", 0)
    theta = flatten(problem.initialize(generator))

    for _ in range(2):
        index = torch.randint(24, (5,), generator=generator)
        leaf = theta.requires_grad_()
        (problem.potential(unflatten(leaf, problem.shapes), index) / 24).backward()
        grad = leaf.grad

        # With no decay the metric is that of this gradient alone.
        square = grad.square()
        metric = 1 / (square.sqrt() + 1e-5)
        noise = torch.empty(square.shape).normal_(generator=generator)
        theta = theta.detach() - 0.001 * metric * (24 * grad) + (0.002 * metric).sqrt() * noise

    torch.testing.assert_close(step.state["square"], square, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(step.state["theta"], theta, rtol=1e-3, atol=1e-4)


def test_divergence_is_an_error_that_names_the_step_size():
    cfg = config(step_size={"initial": 1.0}, burn_in=1, thinning=1, decay=0.0, damping=1.0)
    # The start has no gradient, so that D = 1, and eta D a = 10 > 4 multiplies theta by 4 in size
    # each step.
    with pytest.raises(DivergenceError, match=r"step_size\.initial"):
        steps(1000, cfg, problem=gaussian(3, precision=10.0, start=0.0))


@pytest.mark.parametrize(
    "wrong",
    [{"burn_in": 0}, {"decay": 1.0}, {"damping": 0.0}, {"temperature": -1.0}, {"batch_size": 0}],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"here: {next(iter(wrong))}"):
        config(**wrong)


def test_burn_in_off_the_grid_of_thinning_is_refused():
    with pytest.raises(ConfigError, match="multiple of thinning"):
        config(burn_in=5)
