"""Cost matrices (C, A): what each action costs under each true class, as a file says it.

A file is YAML in one of two forms. The first has all entries, a row a class and a column an action;
actions are named as the classes where there are as many and nobody names them::

    costs: [[0, 1], [20, 2]]
    actions: [send home, examine]

The second is about telling the class: what a right answer and a wrong one cost, and what a wrong
one costs where the true class is a dear one::

    right: 0
    wrong: 0.1
    dear: {classes: [3, 7], cost: 100}
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, FiniteFloat, model_validator

from gped_nas.config import Config, load_yaml, parse
from gped_nas.errors import ConfigError, nearest
from gped_nas.evaluate.predictions import Floats
from gped_nas.io import environment

URSABENCH = "ursabench"
"""A matrix by name."""
_URSABENCH_DEAR: dict[str, tuple[tuple[int, ...], float]] = {
    "cifar10": ((0, 1, 8, 9), 1.0),
    "cifar100": ((58, 69, 85), 1.0),
}
_URSABENCH_DIGITS: tuple[tuple[int, ...], float] = ((3, 7), 100.0)

Costs = Annotated[tuple[FiniteFloat, ...], Field(strict=False)]


class DearConfig(Config):
    """Settings of ``dear``."""

    classes: Annotated[tuple[int | str, ...], Field(strict=False, min_length=1)] = Field(
        description="the classes that are dear to miss, by name or number"
    )
    cost: FiniteFloat = Field(description="of a wrong answer where one of them is true")


class CostFile(Config):
    """Settings of a cost matrix."""

    costs: Annotated[tuple[Costs, ...] | None, Field(strict=False)] = Field(
        None, description="a row a class: the cost of each action"
    )
    actions: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        (), description="names of the actions; those of the classes where there are as many"
    )
    right: FiniteFloat = Field(0.0, description="cost of a right answer")
    wrong: FiniteFloat = Field(1.0, description="cost of a wrong answer")
    dear: DearConfig | None = Field(None, description="classes that are dear to miss")

    @model_validator(mode="after")
    def _is_of_one_form(self) -> "CostFile":
        short = {"right", "wrong", "dear"} & self.model_fields_set
        if self.costs is not None and short:
            raise ValueError(
                f"found costs beside {', '.join(sorted(short))}, expected one of the two forms"
            )
        if self.costs is None and self.actions:
            raise ValueError("found actions without costs: answers are the classes")
        if self.costs is None and not short:
            raise ValueError("found nothing, expected costs, or right, wrong and dear")
        return self


@dataclass(frozen=True, eq=False)
class CostMatrix:
    """What actions cost.

    Attributes:
        costs_CA: a row a class, a column an action.
        actions: their names.
    """

    costs_CA: Floats
    actions: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"costs": self.costs_CA.tolist(), "actions": list(self.actions)}


def read_costs(path: Path, class_names: Sequence[str], where: str) -> CostMatrix:
    """The matrix in a file.

    Args:
        path: of the YAML file.
        class_names: of the dataset.
        where: who asks for it, for messages.

    Raises:
        ConfigError: it is missing, or describes no matrix for these classes.
        EnvironmentProblem: it cannot be read.
    """
    if not path.is_file():
        raise ConfigError(
            f"{where}: {path}: no such file; expected a YAML file with costs, or {URSABENCH}"
        )
    with environment("read", path):
        text = path.read_text(encoding="utf-8", errors="replace")
    file = parse(CostFile, load_yaml(text, str(path)), str(path))
    if file.costs is None:
        dear = file.dear
        classes = () if dear is None else dear.classes
        return _of_answers(
            class_names,
            right=file.right,
            wrong=file.wrong,
            dear=[_number(name, class_names, f"{path}: dear.classes") for name in classes],
            cost=0.0 if dear is None else dear.cost,
        )
    return matrix_of(file.costs, class_names, str(path), file.actions)


def matrix_of(
    costs: Sequence[Sequence[float]],
    class_names: Sequence[str],
    where: str,
    actions: Sequence[str] = (),
) -> CostMatrix:
    """A matrix whose entries are known.

    Raises:
        ConfigError: it has not a row a class and as many entries in each, or its actions have other
            names than there are.
    """
    lengths = sorted({len(row) for row in costs})
    if len(costs) != len(class_names) or len(lengths) != 1 or not lengths[0]:
        entries = " or ".join(map(str, lengths)) or "0"
        raise ConfigError(
            f"{where}: costs: found {len(costs)} rows of {entries} entries, expected a row for "
            f"each of the {len(class_names)} classes and a column for each action"
        )

    num_actions = lengths[0]
    if not actions:
        numbered = [f"action {i}" for i in range(num_actions)]
        actions = class_names if num_actions == len(class_names) else numbered
    if len(actions) != num_actions:
        raise ConfigError(
            f"{where}: actions: found {len(actions)} names, expected {num_actions}, one a column"
        )
    return CostMatrix(np.array(costs, np.float64), tuple(actions))


def ursabench_costs(dataset: str, class_names: Sequence[str], where: str) -> CostMatrix:
    """URSABench's matrix: 0 for right answers, .1 for wrong ones, more where the class is dear.

    Args:
        dataset: its name; those but CIFAR's have MNIST's classes 3 and 7, of 100.
        class_names: of the dataset.
        where: who asks for it, for messages.

    Raises:
        ConfigError: there are too few classes.

    Source: Vadera et al. 2022, URSABench, MLSys.
    """
    dear, cost = _URSABENCH_DEAR.get(dataset, _URSABENCH_DIGITS)
    if max(dear) >= len(class_names):
        raise ConfigError(
            f"{where}: found {URSABENCH}, whose class {max(dear)} is dear, and {len(class_names)} "
            "classes; expected a YAML file with costs"
        )
    return _of_answers(class_names, right=0.0, wrong=0.1, dear=dear, cost=cost)


def _of_answers(
    class_names: Sequence[str], *, right: float, wrong: float, dear: Sequence[int], cost: float
) -> CostMatrix:
    num = len(class_names)
    costs_CC = np.full((num, num), wrong)
    costs_CC[list(dear)] = cost
    np.fill_diagonal(costs_CC, right)
    return CostMatrix(costs_CC, tuple(class_names))


def _number(name: int | str, class_names: Sequence[str], where: str) -> int:
    """The number of a class.

    Raises:
        ConfigError: there is none such.
    """
    names = list(class_names)
    if isinstance(name, str):
        if name not in names:
            raise ConfigError(f"{where}: found '{name}'{nearest(name, names)}")
        return names.index(name)
    if not 0 <= name < len(names):
        raise ConfigError(f"{where}: found {name}, expected 0 to {len(names) - 1}, or a name")
    return name
