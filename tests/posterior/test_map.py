"""MAP: Adam finds the mode, yields one sample at the end, and resumes to the bit."""

import pytest
import torch

from gped_nas import rng
from gped_nas.config import parse
from gped_nas.errors import ConfigError, DivergenceError
from gped_nas.posterior.base import Problem, flatten
from gped_nas.posterior.map import MapConfig, map_estimate
from tests.posterior.chains import assert_same_states, have_samples
from tests.scenarios import classifier


def run(problem, *, state=None, seed=0, **settings):
    cfg = MapConfig(name="map", **settings)
    return list(
        map_estimate(problem, cfg, generator=rng.generator(seed, "posterior", 0), state=state)
    )


def regression() -> Problem:
    """Observations 1, 2, 3 of unit variance, prior N(0, 1 / 3): the mode is 6 / (3 + 3) = 1."""
    return Problem(
        shapes={"mean": (1,)},
        log_likelihood=lambda params, x, y: -0.5 * (x[:, 0] - params["mean"]).square(),
        log_prior=lambda params: -0.5 * 3.0 * params["mean"].square().sum(),
        initialize=lambda generator: {"mean": torch.zeros(1)},
        x=torch.tensor([[1.0], [2.0], [3.0]]),
        y=torch.zeros(3, dtype=torch.int64),
    )


def test_it_finds_the_mode():
    last = run(regression(), steps=2000, batch_size=64, lr=0.01)[-1]
    # the step size goes to zero, so what is left is the minibatch noise of the last updates
    assert float(last.sample.theta_W) == pytest.approx(1.0, abs=0.02)


def test_one_sample_at_the_end_and_states_before():
    chain = run(classifier(), steps=300, batch_size=4)
    assert have_samples(chain) == [False, False, True]
    assert torch.equal(chain[-1].sample.theta_W, chain[-1].state["theta"])
    assert chain[-1].sample.weight == 1.0


def test_resuming_at_any_step_gives_the_same_bits():
    settings = {"steps": 400, "batch_size": 4, "lr": 0.01}
    whole = run(classifier(), **settings)
    for stop in range(3):
        rest = run(classifier(), state=whole[stop].state, seed=7, **settings)
        assert len(rest) == 3 - stop
        assert_same_states(whole[stop + 1 :], rest)
    assert run(classifier(), state=whole[-1].state, steps=400, batch_size=4) == []


def test_it_is_torchs_adam_on_the_potential_over_n():
    problem = classifier()
    (step,) = run(problem, steps=100, batch_size=6, lr=0.01)

    generator = rng.generator(0, "posterior", 0)
    params = {n: p.requires_grad_() for n, p in problem.initialize(generator).items()}
    optimizer = torch.optim.Adam(params.values(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
    for _ in range(100):
        index = torch.randint(problem.num_examples, (6,), generator=generator)
        optimizer.zero_grad()
        (problem.potential(params, index) / problem.num_examples).backward()
        optimizer.step()
        schedule.step()

    torch.testing.assert_close(step.sample.theta_W, flatten(params), rtol=1e-4, atol=1e-5)


def test_divergence_is_an_error():
    problem = classifier()
    broken = Problem(
        shapes=problem.shapes,
        log_likelihood=lambda params, x, y: problem.log_likelihood(params, x, y) * float("inf"),
        log_prior=problem.log_prior,
        initialize=problem.initialize,
        x=problem.x,
        y=problem.y,
    )
    with pytest.raises(DivergenceError, match=r"teacher\.method\.lr"):
        run(broken, steps=100, batch_size=4)


def test_steps_are_whole_checks():
    with pytest.raises(ConfigError, match="multiple of 100"):
        parse(MapConfig, {"name": "map", "steps": 150}, "here")
