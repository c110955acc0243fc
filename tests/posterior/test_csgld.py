import itertools
import math

import pytest
import torch

from gped_nas import rng
from gped_nas.config import parse
from gped_nas.errors import ConfigError, DivergenceError
from gped_nas.posterior.csgld import CyclicConfig, csgld
from gped_nas.posterior.schedule import CosineCycles
from tests.scenarios import classifier, gaussian


def config(**changes):
    settings = {"name": "csgld", "step_size": {"initial": 0.02, "length": 8}, "batch_size": 5}
    return parse(
        CyclicConfig, {**settings, "thinning": 2, "samples_per_cycle": 2, **changes}, "here"
    )


def steps(num, cfg, *, problem=None, state=None, seed=0):
    generator = rng.generator(seed, "posterior", 0)
    return list(
        itertools.islice(csgld(problem or classifier(), cfg, generator=generator, state=state), num)
    )


def test_step_sizes_follow_half_a_cosine_in_every_cycle():
    # (1 + cos(pi k / 4)) / 2 for k = 0, 1, 2, 3
    schedule = CosineCycles(initial=0.8, length=4)
    quarter = math.sqrt(0.5)
    expected = [0.8, 0.4 * (1 + quarter), 0.4, 0.4 * (1 - quarter)]
    assert [schedule(k) for k in range(12)] == pytest.approx(3 * expected)


def test_samples_are_the_ends_of_cycles_after_burn_in():
    found = steps(12, config())
    after = [int(s.state["step"]) for s in found if s.sample is not None]
    assert after == [14, 16, 22, 24]
    early = steps(12, config(burn_in_cycles=0, samples_per_cycle=1))
    assert [int(s.state["step"]) for s in early if s.sample is not None] == [8, 16, 24]


def test_what_is_kept_changes_nothing_else():
    one, two = steps(12, config()), steps(12, config(burn_in_cycles=0, samples_per_cycle=1))
    assert all(
        torch.equal(a.state["theta"], b.state["theta"]) for a, b in zip(one, two, strict=True)
    )


def test_exploration_is_gradient_descent():
    # eta 0.2 then 0.2 * (1 + cos(pi / 8)) / 2: theta 3 -> 3 (1 - 0.4) -> times 1 - 0.1 (1 +
    # 0.92388) * 2
    cfg = config(step_size={"initial": 0.2, "length": 8}, exploration=0.25)
    found = steps(2, cfg, problem=gaussian(5, precision=4.0, start=3.0))
    torch.testing.assert_close(
        found[0].state["theta"], torch.full((5,), 3 * 0.6 * (1 - 0.1923880 * 2))
    )
    assert found[1].state["theta"].std() > 0


def test_divergence_is_an_error_that_names_the_step_size():
    with pytest.raises(DivergenceError, match=r"step_size\.initial"):
        steps(
            1000,
            config(step_size={"initial": 5.0, "length": 400}),
            problem=gaussian(3, precision=10.0, start=1.0),
        )


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
