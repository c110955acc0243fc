"""Objectives and constraints by name: what is better, and how far away the worst counted point lies."""

import math
from collections.abc import Mapping

from gped_nas.errors import ConfigError, RegistryError, nearest
from gped_nas.evaluate.base import METRICS
from gped_nas.models.costs import COSTS
from gped_nas.search.snapshot import Direction, Objective


def objective(name: str, where: str) -> Objective:
    """The objective called ``name``: a registered metric or a cost.

    Raises:
        RegistryError: neither.
    """
    if name in COSTS:
        return Objective(name, "minimize", "cost", COSTS[name])
    if name in METRICS:
        metric = METRICS[name]
        direction: Direction = "maximize" if metric.direction == "maximize" else "minimize"
        return Objective(name, direction, "metric", metric.label)
    raise RegistryError(f"{where}: unknown metric or cost '{name}'{nearest(name, [*METRICS, *COSTS])}")


def check_available(names: tuple[str, ...], targets: tuple[str, ...], where: str) -> None:
    """Refuse an objective or constraint on a metric that these targets cannot give.

    Raises:
        ConfigError: the metric needs the entropy head and ``expected_entropy`` is not distilled.
    """
    for name in names:
        if name in METRICS and METRICS[name].needs_entropy and "expected_entropy" not in targets:
            raise ConfigError(f"{where}: '{name}' needs 'expected_entropy' among the targets")


def violations(values: Mapping[str, float], constraints: Mapping[str, float]) -> dict[str, float]:
    """By how much each constraint is broken; at most 0 where it holds.

    Args:
        values: metrics and costs by name.
        constraints: bounds by name: at most, and at least for a metric that is maximised.
    """
    return {
        name: (bound - values[name]) if _is_maximised(name) else (values[name] - bound)
        for name, bound in constraints.items()
    }


def describe_constraint(name: str, bound: float) -> str:
    """``"storage_bytes <= 200000"``."""
    return f"{name} {'>=' if _is_maximised(name) else '<='} {bound:g}"


def _is_maximised(name: str) -> bool:
    return name in METRICS and METRICS[name].direction == "maximize"


def worst_value(one: Objective, num_classes: int, largest: Mapping[str, float]) -> float:
    """The reference value of an objective: what a point must beat to count in the hypervolume.

    A metric's is what a predictor that knows nothing pays: log C nats, all labels wrong; a cost's is that of
    the space's largest genotype.
    """
    if one.kind == "cost":
        return float(largest[one.name])
    if one.direction == "maximize":
        return 0.0
    return {"brier": 2.0, "ece": 1.0, "entropy_excess": 1.0}.get(one.name, math.log(num_classes))
