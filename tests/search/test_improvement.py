"""Expected improvement of hypervolume against brute force: draws of values, exact volumes."""

import math

import numpy as np
import pytest

from gped_nas.search.goals import Objective
from gped_nas.search.pareto import hypervolume
from gped_nas.search.proposing.gaussian import GaussianProcess, Hyperparameters
from gped_nas.search.proposing.improvement import Axes, Improvement
from gped_nas.search.proposing.scales import Scale, chance_below

NLL = Scale.of(Objective("nll", "minimize", "metric", ""), 0.0, 0.5, 2.3)
ACCURACY = Scale.of(Objective("accuracy", "maximize", "metric", ""), 1.0, 0.6, 0.1)
LATENCY = Scale.of(Objective("latency_ms", "minimize", "cost", ""), 0.1, 10.0, 10.0)
PLAIN = Scale.plain(Objective("nll", "minimize", "metric", ""), [-1.0, 3.0])
NUM_DRAWS = 1500


def beliefs_at(means, sds):
    """Beliefs of these means and standard deviations, far from each other."""
    x = 1e6 * np.arange(1, len(means) + 1, dtype=float)[:, None]
    process = GaussianProcess(
        np.zeros((2, 1)), np.array([-1.0, 1.0]), Hyperparameters.of(np.zeros(3))
    )
    beliefs = process.at(x)
    beliefs.mean_C = np.array(means, float)
    beliefs._variance_C = np.array(sds, float) ** 2
    return beliefs


def share(scale, modelled):
    """How far from best (0) to corner (1) a modelled value lies on the scale that counts."""
    if scale.kind == "distance":
        span = max(abs(scale.ignorant - scale.best), abs(scale.corner - scale.best))
        return (np.exp(modelled) - 1e-3 * span) / abs(scale.corner - scale.best)
    start = scale.modelled(scale.best)
    return (modelled - start) / (scale.modelled_corner - start)


def brute_force(axes, front, costs, means, sds, seed=0):
    """The mean gain of the exact hypervolume over draws of a candidate's values."""
    generator = np.random.default_rng(seed)
    lows = np.array([low for low, _ in axes.costs])
    spans = np.array([high - low for low, high in axes.costs])

    def losses(costs, modelled):
        shares = [float(share(scale, y)) for scale, y in zip(axes.measured, modelled, strict=True)]
        return np.maximum([*((np.array(costs) - lows) / spans), *shares], 0.0)

    points = [losses(*point) for point in front]
    corner = np.ones(len(lows) + len(axes.measured))
    before = hypervolume(points, corner)
    gains = []
    for _ in range(NUM_DRAWS):
        drawn = generator.normal(means, sds)
        gains.append(hypervolume([*points, losses(costs, drawn)], corner) - before)
    return np.mean(gains), np.std(gains) / math.sqrt(NUM_DRAWS)


@pytest.mark.parametrize(
    ("num_costs", "measured"),
    [
        (2, [NLL]),
        (1, [NLL]),
        (0, [NLL]),
        (1, [LATENCY]),
        (1, [PLAIN]),
        (1, [ACCURACY, NLL]),
        (0, [LATENCY, NLL]),
    ],
)
def test_the_expected_gain_is_that_of_draws(num_costs, measured):
    axes = Axes([(2.0, 4.0), (3.0, 5.0)][:num_costs], measured)
    generator = np.random.default_rng(5)
    shares = np.array([[0.1, 0.8], [0.4, 0.3], [0.8, 0.1]])
    front = []
    for low, high in shares:
        costs = [start + high * (end - start) for start, end in axes.costs]
        front.append((costs, [float(scale.at(np.array(low))) for scale in measured]))

    improvement = Improvement(axes, 4096)
    for costs, modelled in front:
        improvement.add(np.array(costs), np.array(modelled))

    for _ in range(3):
        costs = [generator.uniform(*ends) for ends in axes.costs]
        middle = [float(scale.at(np.array(generator.uniform(0.1, 0.6)))) for scale in measured]
        sds = generator.uniform(0.1, 0.5, len(measured))
        expected, error = brute_force(axes, front, costs, middle, sds)

        beliefs = [beliefs_at([m], [s]) for m, s in zip(middle, sds, strict=True)]
        is_within = improvement.within(np.array([costs]).reshape(1, num_costs))
        (gain,) = improvement.expected(is_within, beliefs)
        # 4,096 places leave about one percent of an axis
        assert gain == pytest.approx(expected, abs=5 * error + 0.002 + 0.02 * expected)


def test_a_scale_ends_where_it_should():
    assert NLL.at(np.array(1.0)) == pytest.approx(NLL.modelled_corner)
    assert ACCURACY.modelled(0.9) < ACCURACY.modelled(0.8)
    assert LATENCY.modelled(1.0) == pytest.approx(0.0)
    assert NLL.modelled(50.0) == NLL.modelled(2.5) == NLL.modelled(1e300) > NLL.modelled(2.3)
    assert NLL.modelled(-1.0) == NLL.modelled(0.0)
    assert NLL.failed == NLL.modelled(2.3)


@pytest.mark.parametrize("scale", [NLL, LATENCY, PLAIN])
def test_a_gain_is_the_mean_of_what_passes_a_threshold(scale):
    generator = np.random.default_rng(2)
    threshold, mean, sd = float(scale.at(np.array(0.5))), float(scale.at(np.array(0.6))), 0.4
    drawn = generator.normal(mean, sd, 200_000)
    passed = np.maximum(share(scale, threshold) - share(scale, drawn), 0.0)
    gain = scale.gain(np.array(threshold), np.array(mean), np.array(sd))
    assert gain == pytest.approx(passed.mean(), abs=5 * passed.std() / math.sqrt(200_000))
    assert chance_below(threshold, np.array(mean), np.array(sd)) == pytest.approx(
        (drawn <= threshold).mean(), abs=0.01
    )


def test_what_is_dominated_or_too_dear_gains_nothing():
    axes = Axes([(2.0, 4.0)], [NLL])
    improvement = Improvement(axes)
    improvement.add(np.array([2.0]), np.array([NLL.modelled(0.1)]))
    costs = np.array([[2.5], [5.0], [2.5]])
    means = [NLL.modelled(0.2), NLL.modelled(0.05), NLL.modelled(0.05)]
    gains = improvement.expected(improvement.within(costs), [beliefs_at(means, [1e-3] * 3)])
    assert gains[0] < 1e-9 and gains[1] == 0.0
    # three quarters of the cost's axis, and .05 of the .5 that count
    assert gains[2] == pytest.approx(0.75 * 0.1, rel=0.02)
