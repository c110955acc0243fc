"""What a front is about, and what is said of metrics: plain data, without their functions."""

from dataclasses import dataclass
from typing import Literal

from gped_nas.evaluate.measured import CLEAN, Direction
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


@dataclass(frozen=True)
class MetricWords:
    """What a report says of a metric.

    Attributes:
        label, direction, unit: as in ``Metric``.
    """

    label: str
    direction: Direction
    unit: str = ""


def label_under(label: str, condition: str) -> str:
    """The label of a metric under a condition: ``"NLL (nats), permuted"``."""
    return label if condition == CLEAN else f"{label}, {condition}"
