"""SGLD with a frozen preconditioner against the law of its discretized chain, by coordinate.

Each of 320,000 coordinates is a chain of its own that ends burn-in with a D of its own. From then
on one step is theta <- (1 - eta D a / 2) theta + N(0, eta T D), with stationary variance T / (a (1
- eta D a / 4)). Divided by its own standard deviation every coordinate is standard normal, whatever
its D; the variance of those has a relative standard error of sqrt(2 / 320000) = 0.25 %, so four of
them see 1 %. An error below 1 % is not seen.
"""

import itertools

import pytest
import torch

from gped_nas import rng
from gped_nas.posterior.base import Problem
from gped_nas.posterior.psgld import PsgldConfig, psgld
from gped_nas.posterior.schedule import StepSize
from tests.statistical.test_sgld import NUM_CHAINS, STANDARD_ERRORS, misfit

ETA, BURN_IN, AFTER = 1.0, 60, 60
NUM_EXAMPLES = 50


def two_precisions() -> tuple[Problem, torch.Tensor]:
    """Half of the coordinates N(0, 1), half N(0, 1 / 16); fifty examples that say nothing."""
    precision = torch.ones(NUM_CHAINS)
    precision[::2] = 16.0
    problem = Problem(
        shapes={"theta": (NUM_CHAINS,)},
        log_likelihood=lambda params, x, y: torch.zeros(len(x)),
        log_prior=lambda params: -0.5 * (precision * params["theta"].square()).sum(),
        initialize=lambda generator: {
            "theta": torch.empty(NUM_CHAINS).normal_(generator=generator)
        },
        x=torch.zeros(NUM_EXAMPLES, 1),
        y=torch.zeros(NUM_EXAMPLES, dtype=torch.int64),
    )
    return problem, precision.double()


def run(temperature: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """States after ``AFTER`` steps with D frozen, with D / N and with precisions.

    D is N / (5 + root mean square of the gradient of U); the step size is ETA / N.
    """
    cfg = PsgldConfig(
        name="psgld",
        step_size=StepSize(initial=ETA / NUM_EXAMPLES),
        batch_size=1,
        burn_in=BURN_IN,
        thinning=BURN_IN,
        decay=0.9,
        damping=5.0 / NUM_EXAMPLES,
        temperature=temperature,
    )
    problem, precision = two_precisions()
    chain = psgld(problem, cfg, generator=rng.generator(1, "law", str(temperature)))
    tuned, last = itertools.islice(chain, 2)
    assert torch.equal(tuned.state["square"], last.state["square"])

    mean_square = last.state["square"].double() / (1 - 0.9**BURN_IN)
    metric = 1 / (5.0 / NUM_EXAMPLES + mean_square.sqrt())
    return last.sample.theta_W.double(), metric / NUM_EXAMPLES, precision


def standardized(temperature: float, *, law: float) -> torch.Tensor:
    theta, metric, precision = run(temperature)
    step = ETA * metric * precision
    assert float(((1 - step / 2).abs() ** (2 * AFTER)).max()) < 1e-3  # mixed in every coordinate
    return theta / (law / (precision * (1 - step / 4))).sqrt()


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_every_coordinate_has_the_variance_of_its_own_preconditioner(temperature):
    scaled = standardized(temperature, law=temperature)
    for part in (scaled, scaled[::2], scaled[1::2]):
        of_mean, of_variance = misfit(part, 0.0, 1.0)
        assert of_mean < STANDARD_ERRORS
        assert of_variance < STANDARD_ERRORS


def test_the_preconditioner_tells_the_coordinates_apart_and_the_correction_matters():
    _, metric, precision = run(1.0)
    # wide coordinates get larger steps than narrow ones, and D differs within each kind
    assert float(metric[1::2].mean() / metric[::2].mean()) > 1.3
    assert float(metric[::2].std() / metric[::2].mean()) > 0.05
    # the discretization inflates the variance of the narrow ones by more than the check can miss
    assert float((1 / (1 - ETA * metric * precision / 4))[::2].mean()) > 1.3


def test_the_check_sees_five_percent_in_the_noise():
    assert misfit(standardized(1.05, law=1.0), 0.0, 1.0)[1] > 2 * STANDARD_ERRORS
