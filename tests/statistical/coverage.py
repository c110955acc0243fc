"""How often 95 % intervals hold the truth, on populations whose truth is known.

Every case draws many data sets of n examples from one population, makes the package's own interval
of each, and counts how many hold the truth. The truth is exact, or a sum over a fine grid.

The populations are in ``populations`` and ``ranked``.

``printed`` is the share of data sets that have an interval at all; ``coverage`` is of these.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.statistical import ranked
from tests.statistical.populations import (
    Classes,
    Classifier,
    Draw,
    absolute_error,
    balanced_accuracy,
    brier,
    calibration_error,
    macro_f1,
    nll,
    paired_balanced_accuracy,
    paired_share,
    rare,
    regret,
    rejections,
    root_mean_square,
    score,
    share,
    temperature,
)

SIZES = (100, 359, 2000)
ERROR_RATES = (0.02, 0.05, 0.1, 0.2, 0.5)
SLOW = {
    "ece_debiased",
    "balanced_accuracy",
    "balanced_accuracy, paired",
    "macro_f1",
    *ranked.OF_WRONG,
    "ood_auroc",
    "ood_auroc, paired",
    "ood_aupr",
    "ood_aupr, paired",
}
"""Quantities whose data sets take a millisecond each, so that fewer are drawn."""
MOSTLY = 0.5
"""Coverage is told where at least this share of data sets have an interval."""


@dataclass(frozen=True)
class Case:
    """One population, and the intervals of one quantity on it."""

    quantity: str
    population: str
    draw: Draw

    def measure(self, n: int, repeats: int) -> dict[str, Any]:
        """A row: the share of data sets with an interval, and of these that with the truth."""
        generator = np.random.default_rng([n, sum(map(ord, self.quantity + self.population))])
        low, high, truth = self.draw(generator, n, repeats)
        has_interval = np.isfinite(low)
        num = int(has_interval.sum())

        # A bound of zero is reached exactly: rounding is no miss.
        is_below = has_interval & (np.asarray(high) < truth - 1e-12)
        is_above = has_interval & (np.asarray(low) > truth + 1e-12)
        num_missed = int((is_below | is_above).sum())
        coverage = 1 - num_missed / num if num >= MOSTLY * repeats else None
        return {
            "quantity": self.quantity,
            "population": self.population,
            "n": n,
            "repeats": repeats,
            "printed": num / repeats,
            "coverage": coverage,
            "too_low": int(is_below.sum()) / repeats,
            "too_high": int(is_above.sum()) / repeats,
        }


def cases() -> Iterator[Case]:
    """Every quantity on every population."""
    for rate in ERROR_RATES:
        yield Case("accuracy", f"error rate {rate}", share(rate))

    for first, second in (
        (0.002, 0.002), (0.005, 0.005), (0.01, 0.002), (0.02, 0.005),
        (0.02, 0.02), (0.05, 0.02), (0.1, 0.05), (0.3, 0.1),
    ):  # fmt: skip
        name = f"right alone: {first} and {second}"
        yield Case("accuracy, paired", name, paired_share(first, second))
        if first == second:
            yield Case("exact test of equal accuracies", name, rejections(first))

    for overconfidence in (1.0, 1.5):
        for rate in ERROR_RATES:
            classifier = Classifier(rate, overconfidence)
            name = f"error rate {rate}, logits times {overconfidence}"
            yield Case("nll", name, score(classifier, nll))
            yield Case("brier", name, score(classifier, brier))
            yield Case("ece_debiased", name, calibration_error(classifier))

    for rate in (0.05, 0.08, 0.2):
        yield Case("nll, paired", f"rare large losses at {rate}", rare(rate))
        yield Case("nll, paired", f"of either sign at {rate}", rare(rate, two_sided=True))
    for rate in (0.05, 0.1):
        yield Case("utility_regret", f"another action at {rate}", regret(rate))
    for spread in (0.3, 0.7):
        yield Case("mean absolute error", f"lognormal spread {spread}", absolute_error(spread))

    heavy = math.sqrt(5 / 3)
    yield Case("rmse", "normal", root_mean_square(lambda g, shape: g.normal(size=shape)))
    yield Case(
        "rmse", "t, 5 degrees", root_mean_square(lambda g, shape: g.standard_t(5, shape) / heavy)
    )

    skewed = (0.30, 0.22, 0.16, 0.12, 0.09, 0.07, 0.04)
    for name, recalls in (
        ("good", (0.97, 0.95, 0.95, 0.9, 0.9, 0.85, 0.8)),
        ("poor", (0.9, 0.8, 0.7, 0.6, 0.5, 0.3, 0.1)),
    ):
        classes = Classes(skewed, recalls)
        yield Case("balanced_accuracy", name, balanced_accuracy(classes))
        yield Case("macro_f1", name, macro_f1(classes))
        for drop in (0.02, 0.1):
            paired = paired_balanced_accuracy(classes, drop)
            yield Case("balanced_accuracy, paired", f"{name}, {drop} lost", paired)
    rare_class = Classes((0.95, 0.05), (0.98, 0.6))
    yield Case("balanced_accuracy", "a rare class", balanced_accuracy(rare_class))
    yield Case("macro_f1", "a rare class", macro_f1(rare_class))

    yield from ranked_cases()

    for chains in (2, 4, 8):
        for correlation in (0.5, 0.9, 0.97):
            name = f"{chains} chains, autocorrelation {correlation}"
            yield Case("configurational temperature", name, temperature(correlation, chains))


def ranked_cases() -> Iterator[Case]:
    """Metrics that rank examples, and scores of real labels."""
    for name in ranked.OF_WRONG:
        for rate in ERROR_RATES:
            draw = ranked.wrong_ones(name, Classifier(rate))
            yield Case(name, f"error rate {rate}", draw)

    for area in ("auroc", "aupr"):
        for outside in (0.1, 0.5):
            for auroc in (0.6, 0.8, 0.95, 0.99):
                draw = ranked.outside_ones(area, outside, auroc)
                yield Case(f"ood_{area}", f"{outside} outside, AUROC {auroc}", draw)

        for first, second in ((0.8, 0.8), (0.95, 0.9)):
            draw = ranked.paired_outside_ones(area, 0.3, first, second)
            yield Case(f"ood_{area}, paired", f"AUROC {first} and {second}", draw)

    for name in ("crps", "interval_score", "aurc_variance", "augrc_variance"):
        for miss in (1.0, 1.3):
            draw = ranked.real_labels(name, miss)
            yield Case(name, f"labels spread {miss} times as much", draw)


def summarize(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By quantity and size, the average and the least coverage of its populations."""
    groups: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        if row["coverage"] is not None:
            groups.setdefault((row["quantity"], row["n"]), []).append(row["coverage"])

    return [
        {
            "quantity": quantity,
            "n": n,
            "populations": len(coverages),
            "average": sum(coverages) / len(coverages),
            "least": min(coverages),
        }
        for (quantity, n), coverages in groups.items()
    ]
