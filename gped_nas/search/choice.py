"""Which student of a front to take when nobody gave a budget."""

from collections.abc import Sequence

from pydantic import ConfigDict, NonNegativeFloat
from pydantic.dataclasses import dataclass

from gped_nas.search.goals import Objective
from gped_nas.search.pareto import KNEE_RULE, Floats, knee
from gped_nas.search.record import TrialRecord

_Z95 = 1.96
_STORED = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, config=_STORED)
class StudentDifference:
    """One student of a front less its best one, on the same validation examples.

    Attributes:
        trial: the student's.
        difference: in the unit of the metric.
        error: standard error of the difference.
    """

    trial: int
    difference: float
    error: NonNegativeFloat


@dataclass(frozen=True, config=_STORED)
class FrontDifferences:
    """How far the students of a front are from its best one; part of a study's document.

    Attributes:
        metric: the first objective.
        best: trial of the front's best student by it.
        n: number of validation examples.
        students: the other students of the front.
    """

    metric: str
    best: int
    n: int
    students: tuple[StudentDifference, ...] = ()


def choose(
    front: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    box: Floats,
    differences: FrontDifferences | None = None,
    over_seeds: FrontDifferences | None = None,
) -> tuple[int | None, str]:
    """Index of the student picked from a front, and the rule in one sentence or two.

    The one-standard-error rule of Breiman et al. 1984 (section 3.4.3): among the students whose
    quality the validation examples can hardly tell from the best one's, the cheapest. Here the
    standard error is that of the paired difference to the best one: all students answer the same
    examples. Without a quality objective that has an interval, or without a cost, the front's knee.

    Args:
        front: its records, best by the first objective first.
        objectives: in order.
        box: objectives of the records as losses in [0, 1], shape (N, M).
        differences: what was written of the front when it was concluded. Where it is none or of
            another front, the standard error is that of the best one's own value, as it was before
            differences were written.
        over_seeds: of those on the front by the means over fresh seeds, see ``search.finalists``,
            which then decide; None where there are no finalists. Where it is of another front it
            says nothing.

    Returns:
        None for an empty front.
    """
    if not front:
        return None, "The front is empty."

    best, quality = front[0], objectives[0]
    costs = [i for i, axis in enumerate(objectives) if axis.kind == "cost"]
    if quality.kind != "metric" or not costs:
        return knee(box), KNEE_RULE

    names = " and ".join(objectives[i].name for i in costs)
    # The box has costs on a log scale, so the mean weighs ratios.
    price = box[:, costs].mean(axis=1)
    picked_by_means = _pick_by_means(front, quality, price, names, over_seeds)
    if picked_by_means is not None:
        return picked_by_means

    rows = _rows_of(front, quality, differences)
    if rows is None:
        rows = _rows_by_value(front, quality)
        words = (
            " Paired differences to the best one are not written of this front, so the standard "
            "error is that of its own value; a run that ends writes them."
        )
    else:
        words = " The standard error is that of the paired difference on the same examples."
    if rows is None:
        return knee(box), KNEE_RULE

    sign = 1 if quality.direction == "minimize" else -1
    near = [i for i, (difference, error) in enumerate(rows) if sign * difference <= error]

    # The better student wins a tie.
    picked = min(near, key=lambda i: (price[i], i))

    difference, error = rows[picked]
    rule = (
        f"The cheapest by {names}, on a log scale, of the students on the front whose validation "
        f"{quality.name} is within one standard error of the best one's "
        f"({best.value(quality.name):.4g}): {len(near)} of {len(front)}."
    )
    if picked:
        rule += f" It is {abs(difference):.3g} worse, with a standard error of {error:.3g}."
    return picked, rule + words


def _pick_by_means(
    front: Sequence[TrialRecord],
    quality: Objective,
    price: Floats,
    names: str,
    over_seeds: FrontDifferences | None,
) -> tuple[int, str] | None:
    """As ``choose``, by the means over fresh seeds; None where they are of another front."""
    places = {record.trial: i for i, record in enumerate(front)}
    if over_seeds is None or over_seeds.metric != quality.name or over_seeds.best not in places:
        return None

    rows = {over_seeds.best: (0.0, 0.0)}
    for row in over_seeds.students:
        rows[row.trial] = (row.difference, row.error)
    if not rows.keys() <= places.keys():
        return None

    sign = 1 if quality.direction == "minimize" else -1
    near = [trial for trial, (difference, error) in rows.items() if sign * difference <= error]
    picked = min(near, key=lambda trial: (price[places[trial]], sign * rows[trial][0]))
    others = sorted(trial for trial in near if trial != picked)
    tied = f" Trials that tie with it: {', '.join(map(str, others))}." if others else ""
    difference, error = rows[picked]
    rule = (
        f"The cheapest by {names}, on a log scale, of the students on the front whose genotype's "
        f"validation {quality.name}, its mean over fresh seeds, is within one standard error of "
        f"the best one's (trial {over_seeds.best}): {len(near)} of {len(front)}.{tied}"
    )
    if picked != over_seeds.best:
        rule += f" It is {abs(difference):.3g} worse, with a standard error of {error:.3g}."
    return places[picked], rule + " The standard error is over seeds and examples, paired in both."


def _rows_of(
    front: Sequence[TrialRecord], quality: Objective, differences: FrontDifferences | None
) -> list[tuple[float, float]] | None:
    """Paired difference to the best one, and its standard error, of each student of a front.

    None where that of one of them is not written.
    """
    best = front[0].trial
    if differences is None or (differences.metric, differences.best) != (quality.name, best):
        return None

    by_trial = {row.trial: (row.difference, row.error) for row in differences.students}
    by_trial[best] = (0.0, 0.0)
    if any(record.trial not in by_trial for record in front):
        return None
    return [by_trial[record.trial] for record in front]


def _rows_by_value(
    front: Sequence[TrialRecord], quality: Objective
) -> list[tuple[float, float]] | None:
    """As ``_rows_of``, with the standard error of the best one's value; None without an interval.

    It is the rule of studies that were concluded before paired differences were written.
    """
    measured = front[0].measured(quality.name)
    interval = None if measured is None else measured.interval
    if interval is None:
        return None

    low, high = interval
    error = (high - low) / (2 * _Z95)
    best = front[0].value(quality.name)
    return [(record.value(quality.name) - best, error) for record in front]
