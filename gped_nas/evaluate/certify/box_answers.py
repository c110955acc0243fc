"""What is known of a network, or of the weighted samples of a teacher, in a box of the user's own.

With samples of weights w, the probability that all answers over the set T lie in the region S is

    sum of w over certified samples  <=  P(safe)  <=  1 - sum of w over broken samples

These are sums over the samples that are stored: no statistics.

Source: Wicker, Laurenti, Patane & Kwiatkowska 2020, arXiv:2004.10281, definition 1, whose P_safe it
is under the stored samples' own law.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Generator, Tensor

from gped_nas.errors import ConfigError
from gped_nas.evaluate.certify.asked import (
    Asked,
    bounds_of,
    quantity_bounds,
    quantity_values,
    values_of,
)
from gped_nas.evaluate.certify.box_file import BoxQuestion
from gped_nas.evaluate.certify.region import QUANTITIES, Quantity, Region
from gped_nas.evaluate.certify.splitting import (
    Bounds,
    Enclosure,
    Judged,
    enclose,
    judge_boxes,
)
from gped_nas.evaluate.certify.verdict import Verdict


@dataclass(frozen=True, eq=False)
class BoxAnswer:
    """What is known of who is asked.

    Attributes:
        judged: whether all answers are safe; None where nothing was said of that.
        intervals: where a real label's quantities lie; none of classes.
    """

    judged: Judged | None
    intervals: Mapping[Quantity, Enclosure]


def check_middle(question: BoxQuestion, where: str) -> None:
    """Refuse a classifier's question that says no safe answer, and has no one middle that does.

    Raises:
        ConfigError: it is one of several choices of categories.
    """
    if question.region is None and len(question.boxes) > 1:
        raise ConfigError(
            f"{where}: found no safe answers, and several choices of categories, which have no "
            "middle, expected safe; write 'safe: class is NAME', for example"
        )


def answer_box(
    asked: Asked,
    question: BoxQuestion,
    region: Region | None,
    *,
    generator: Generator,
    between: Callable[[], None] = lambda: None,
) -> BoxAnswer:
    """What is known of a network, or of an average.

    Args:
        asked: who is asked.
        question: the boxes, and how many parts they are split into.
        region: the safe answers; None where nothing is asked but where answers lie.
        generator: of the inputs that are tried.
        between: called before parts are bounded; it may raise.
    """

    def stoppable(bounds: Bounds) -> Bounds:
        def stopping(low: Tensor, high: Tensor) -> Tensor:
            between()
            return bounds(low, high)

        return stopping

    judged = None
    if region is not None:
        judged = judge_boxes(
            question.boxes,
            stoppable(bounds_of(asked, region)),
            values_of(asked, region),
            region.clearance,
            generator=generator,
            most_parts=question.most_parts,
        )

    intervals: dict[Quantity, Enclosure] = {}
    for quantity in QUANTITIES if asked.unit is not None else ():
        intervals[quantity] = enclose(
            question.boxes,
            stoppable(quantity_bounds(asked, quantity)),
            quantity_values(asked, quantity),
            generator=generator,
            most_parts=question.most_parts,
        )
    return BoxAnswer(judged, intervals)


def share_of(verdict: Verdict, weights: Sequence[float], verdicts: Sequence[Verdict]) -> float:
    """The weight of the samples with a verdict, of all."""
    hits = [weight for weight, each in zip(weights, verdicts, strict=True) if each == verdict]
    return math.fsum(hits) / math.fsum(weights)


def safe_probability(weights: Sequence[float], verdicts: Sequence[Verdict]) -> tuple[float, float]:
    """Lower and upper bound of P(safe), see the module.

    Args:
        weights: of the samples, on any scale.
        verdicts: one a sample.
    """
    certified = share_of("certified", weights, verdicts)
    broken = share_of("broken", weights, verdicts)
    return certified, 1 - broken


def widest(intervals: Sequence[Enclosure]) -> Enclosure:
    """The interval that holds all of several."""
    return Enclosure(
        min(each.low for each in intervals),
        min(each.reached_low for each in intervals),
        max(each.reached_high for each in intervals),
        max(each.high for each in intervals),
    )
