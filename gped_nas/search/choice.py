"""Which student of a front to take when nobody gave a budget."""

from collections.abc import Sequence

from gped_nas.search.objectives import Objective
from gped_nas.search.pareto import KNEE_RULE, Floats, knee
from gped_nas.search.record import TrialRecord

_Z95 = 1.96


def choose(
    front: Sequence[TrialRecord], objectives: Sequence[Objective], box: Floats
) -> tuple[int | None, str]:
    """Index of the student picked from a front, and the rule in one sentence.

    The one-standard-error rule of Breiman et al. 1984 (section 3.4.3): among the students whose
    quality the validation examples can hardly tell from the best one's, the cheapest. Without a
    quality objective that has an interval, or without a cost, the front's knee.

    Args:
        front: its records, best by the first objective first.
        objectives: in order.
        box: objectives of the records as losses in [0, 1], shape (N, M).

    Returns:
        None for an empty front.
    """
    if not front:
        return None, "The front is empty."

    best = front[0]
    quality = objectives[0]
    costs = [i for i, axis in enumerate(objectives) if axis.kind == "cost"]
    measured = best.measured(quality.name)
    interval = None if measured is None else measured.interval
    if quality.kind != "metric" or not costs or interval is None:
        return knee(box), KNEE_RULE

    low, high = interval
    error = (high - low) / (2 * _Z95)
    sign = 1 if quality.direction == "minimize" else -1
    limit = sign * best.value(quality.name) + error
    near = [i for i, record in enumerate(front) if sign * record.value(quality.name) <= limit]

    # The box has costs on a log scale, so the mean weighs ratios. The better student wins a tie.
    price = box[:, costs].mean(axis=1)
    picked = min(near, key=lambda i: (price[i], i))

    names = " and ".join(objectives[i].name for i in costs)
    best_value = best.value(quality.name)
    rule = (
        f"The cheapest by {names}, on a log scale, of the students on the front whose validation "
        f"{quality.name} is within one standard error ({error:.3g}) of the best one's "
        f"({best_value:.4g}): {len(near)} of {len(front)}."
    )
    return picked, rule
