"""The loop that stochastic gradient chains share stops at a number that is not finite."""

import math

import pytest

from gped_nas import rng
from gped_nas.errors import DivergenceError
from gped_nas.posterior.chain import run_chain
from tests.scenarios import gaussian, sgld_config


@pytest.mark.parametrize("planted", [math.nan, math.inf, -math.inf])
def test_one_number_that_is_not_finite_is_divergence(planted):
    def update(buffers, grad_W, step, draw):
        if step == 3:
            buffers["theta"][17] = planted

    chain = run_chain(
        gaussian(50, precision=1.0, start=1.0),
        sgld_config(burn_in=0, thinning=2),
        update,
        generator=rng.generator(0, "planted"),
        state=None,
    )
    assert next(chain).sample is not None
    with pytest.raises(DivergenceError, match="not finite after 4 steps"):
        next(chain)
