"""Objectives and constraints by name: what is better, and how far away the worst counted point
lies.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gped_nas.errors import ConfigError, RegistryError, nearest
from gped_nas.evaluate.base import METRICS
from gped_nas.evaluate.measured import Direction
from gped_nas.models.costs import COSTS
from gped_nas.search.pareto import Scale


@dataclass(frozen=True)
class Objective:
    """One axis of the front.

    Attributes:
        name: a metric's or a cost's name.
        direction: what is better.
        kind: ``metric`` (quality, measured on validation, has an interval) or ``cost`` (exact).
        label: for axes and tables, with the unit: ``"NLL (nats)"``, ``"storage (bytes)"``.
    """

    name: str
    direction: Direction
    kind: Literal["metric", "cost"]
    label: str

    @property
    def scale(self) -> Scale:
        """How its axis is drawn and measured: costs span orders of magnitude."""
        return "log10" if self.kind == "cost" else "linear"


def objective(name: str, where: str) -> Objective:
    """The objective called ``name``: a registered metric or a cost.

    Raises:
        RegistryError: neither.
    """
    if name in COSTS:
        return Objective(name, "minimize", "cost", COSTS[name])
    if name in METRICS:
        metric = METRICS[name]
        return Objective(name, metric.direction, "metric", metric.label)
    raise RegistryError(
        f"{where}: unknown metric or cost '{name}'{nearest(name, [*METRICS, *COSTS])}"
    )


def check_available(names: tuple[str, ...], targets: tuple[str, ...], where: str) -> None:
    """Refuse an objective or constraint on a metric that these targets cannot give.

    Raises:
        ConfigError: the metric judges labels of another kind, or needs the entropy head and
            ``expected_entropy`` is not distilled.
    """
    task = "classification" if "predictive" in targets else "regression"
    for name in names:
        if name in METRICS and task not in METRICS[name].tasks:
            fitting = ", ".join(other for other, metric in METRICS.items() if task in metric.tasks)
            raise ConfigError(
                f"{where}: '{name}' is not defined for {task}; there are {fitting}, and costs"
            )
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


def worst_value(
    one: Objective, num_classes: int, label_std: float | None, largest: Mapping[str, float]
) -> float:
    """The reference value of an objective: what a point must beat to count in the hypervolume.

    A metric's is what a predictor that knows nothing pays: log C nats, all labels wrong; for real
    labels, what their mean and standard deviation alone give. A cost's is that of the space's
    largest genotype.

    Args:
        one: the objective.
        num_classes: C.
        label_std: standard deviation of real labels; None for classes.
        largest: costs of the space's largest genotype.
    """
    if one.kind == "cost":
        return float(largest[one.name])
    if one.direction == "maximize":
        return 0.0
    if label_std is not None:
        return {"nll": _normal_entropy(label_std), "rmse": label_std}.get(one.name, 1.0)
    return {"brier": 2.0, "ece": 1.0, "entropy_excess": 1.0}.get(one.name, math.log(num_classes))


def best_value(one: Objective, label_std: float | None, smallest: Mapping[str, float]) -> float:
    """The other end of an objective's axis: perfection, or the space's smallest cost.

    The log-density of a real label has no best value; a noise of a hundredth of the labels' spread
    stands for it.
    """
    if one.kind == "cost":
        return smallest[one.name]
    if label_std is not None and one.name == "nll":
        return _normal_entropy(label_std / 100)
    return float(one.direction == "maximize")


def _normal_entropy(std: float) -> float:
    return 0.5 * math.log(2 * math.pi * math.e) + math.log(std)
