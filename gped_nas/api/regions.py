"""The region of interest of a study: made when teacher and guess are measured, see there."""

import math
from collections.abc import Mapping

from gped_nas.api.teacher import Teacher
from gped_nas.errors import ConfigError
from gped_nas.evaluate.base import METRICS
from gped_nas.evaluate.measured import parse_name
from gped_nas.search.ledger import Ledger
from gped_nas.search.objectives import task_of
from gped_nas.search.region import SKILL_METRIC, Region, make_region
from gped_nas.search.region_words import describe_bound, number
from gped_nas.search.snapshot import Reference
from gped_nas.search.space import SearchSpace


def region_of(teacher: Teacher, guess: Reference, worst: Mapping[str, float]) -> Region:
    """The region that a space asks for.

    Args:
        teacher: with its predictions on validation.
        guess: who knows the training labels alone, on validation.
        worst: by metric, the worst value that it declares. Where the guess has no finite value, it
            is said to be worth that.

    Raises:
        ConfigError: no student can be inside.
    """
    space = teacher.space
    know_nothing = {}
    for name in _names(space):
        value = guess.metrics.get(name, worst.get(name))
        if value is not None:
            know_nothing[name] = float(value)

    region = make_region(
        space.search.keep,
        space.objectives,
        know_nothing=know_nothing,
        teacher=_values_of(teacher, space),
    )
    check_skill(region, space)
    return region


def _names(space: SearchSpace) -> list[str]:
    """The metrics that a region follows from: those of skill and of the quality objectives."""
    qualities = [goal.name for goal in space.objectives if goal.kind == "metric"]
    clean = [parse_name(name).metric for name in qualities]
    return list(dict.fromkeys([SKILL_METRIC, *qualities, *clean]))


def _values_of(teacher: Teacher, space: SearchSpace) -> Mapping[str, float]:
    """What the teacher is worth at inputs as they are, where that is finite."""
    average, labels = teacher.averaged("validation"), teacher.dataset.labels("validation")
    values = {}
    for name in _names(space):
        metric = METRICS[name] if name in METRICS else None
        if metric is None or metric.task != "prediction" or not metric.applies(average, average):
            continue
        value = metric.value(average, labels, average)
        if math.isfinite(value):
            values[name] = float(value)
    return values


def check_skill(region: Region, space: SearchSpace) -> None:
    """Refuse a share of skill that no student can keep, however good it is.

    Raises:
        ConfigError: its bound is beyond what the metric can be.
    """
    bound, keep = region.bound(SKILL_METRIC), region.keep
    limit = METRICS[SKILL_METRIC].bounds.get(task_of(space.targets))
    if keep is None or bound is None or limit is None or bound.value >= limit:
        return

    ignorant, taught = region.know_nothing[SKILL_METRIC], region.teacher[SKILL_METRIC]
    most = math.floor(1000 * (ignorant - limit) / (ignorant - taught)) / 1000
    raise ConfigError(
        f"{space.source}: search.keep: found {keep:g}, which asks students for "
        f"{describe_bound(bound)}, but the best value there is is {number(limit)} (the teacher has "
        f"{number(taught)}); expected at most {most:g}"
    )


def check_sizes(space: SearchSpace, input_shape: tuple[int, ...], num_outputs: int) -> None:
    """Refuse bounds that even the smallest network is outside of.

    Args:
        space: what is searched.
        input_shape, num_outputs: of the dataset.

    Raises:
        ConfigError: a bound of a cost is not above that of the smallest network.
    """
    bounds = space.search.keep if isinstance(space.search.keep, dict) else {}
    smallest = space.smallest_cost(input_shape, num_outputs)
    for name, bound in bounds.items():
        if name in smallest and smallest[name] >= bound:
            raise ConfigError(
                f"{space.source}: search.keep.{name}: found {bound:g}, and the smallest network of "
                f"this space has {name} {smallest[name]:g}; raise the bound or widen the ranges"
            )


def with_what_is_asked(ledger: Ledger, space: SearchSpace) -> None:
    """Give a study that goes on the region that its space asks for now.

    A study that was begun before there were regions keeps the rule that it had.

    Raises:
        ConfigError: no student can be inside.
    """
    region = ledger.document.region
    if region is None or region.asked == space.search.keep:
        return
    region = region.asking(space.search.keep, space.objectives)
    check_skill(region, space)
    ledger.change(region=region)
