"""Genotypes and the families that build them.

A family is a blueprint of pure functions over named parameters; a genotype is a family with frozen values.
Families keep no parameters of their own, so teachers, students, populations and pruned networks share one
forward.
"""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from gped_nas.errors import ConfigError
from gped_nas.registry import Registry

Params = dict[str, Tensor]
"""Parameters by name, in the order of the family's ``shapes``."""
Shapes = dict[str, tuple[int, ...]]
Value = int | float | str | tuple[int, ...]

STORAGE_DTYPES = ("float32", "float16", "int8")
COMMON_VALUES = ("group_penalty", "storage_dtype")


@dataclass(frozen=True)
class Group:
    """Parameters that live and die together: the incoming weights of one layer's units.

    Attributes:
        layer: name of the layer whose output units are the groups.
        weight: its weight; one group a row.
        bias: its bias; not penalised, since a dead unit's constant can be folded forward exactly.
        reader: weight of the layer that reads the units, one column (block) a unit.
        reader_bias: bias of that layer, which takes up the constants of removed units.
    """

    layer: str
    weight: str
    bias: str
    reader: str
    reader_bias: str


class Family(Protocol):
    """A network blueprint that can be built at many sizes."""

    def canonical(self, values: Mapping[str, object]) -> dict[str, Value]:
        """Architecture values checked, completed and with inactive ones dropped.

        Raises:
            ConfigError: a value is unknown, missing or impossible; the message starts with its name.
        """
        ...

    def shapes(self, values: Mapping[str, Any], input_shape: tuple[int, ...], num_outputs: int) -> Shapes:
        """Parameter shapes of the network, from input to raw outputs."""
        ...

    def forward(self, params: Params, x: Tensor) -> Tensor:
        """Raw outputs (B, num_outputs) for normalised inputs (B, *input_shape); any widths, pruned too."""
        ...

    def groups(self, shapes: Shapes) -> list[Group]:
        """The prunable groups, from input to output."""
        ...

    def macs(self, shapes: Shapes, input_shape: tuple[int, ...]) -> dict[str, int]:
        """Multiply-adds of one example by operator name, analytically."""
        ...

    def describe(self, shapes: Shapes) -> list[dict[str, Any]]:
        """One row a layer for people: ``{"layer", "kind", "inputs", "outputs", "params"}``."""
        ...


FAMILIES: Registry[Family] = Registry("family", "gped_nas.models")


@dataclass(frozen=True, init=False)
class Genotype:
    """A family and the frozen values a study drew: architecture, pruning and storage.

    Values that are inactive (the width of a layer that is not there) are dropped and defaults filled in, so
    two genotypes are equal exactly when they describe the same training.
    """

    family: str
    values: tuple[tuple[str, Value], ...]

    def __init__(self, family: str, /, **values: object) -> None:
        penalty = values.pop("group_penalty", 0.0)
        if isinstance(penalty, bool) or not isinstance(penalty, int | float) or not 0 <= penalty <= sys.float_info.max:
            raise ConfigError(f"group_penalty: found {penalty!r}, expected a finite number of at least 0")
        dtype = values.pop("storage_dtype", "float32")
        if dtype not in STORAGE_DTYPES:
            raise ConfigError(f"storage_dtype: found {dtype!r}, expected one of {', '.join(STORAGE_DTYPES)}")
        full: dict[str, Value] = FAMILIES[family].canonical(values)
        full |= {"group_penalty": float(penalty), "storage_dtype": str(dtype)}
        object.__setattr__(self, "family", family)
        object.__setattr__(self, "values", tuple(sorted(full.items())))

    def __getitem__(self, name: str) -> Any:
        return dict(self.values)[name]

    def architecture(self) -> dict[str, Value]:
        """The values that fix the network's shape: neither pruning nor storage."""
        return {k: v for k, v in self.values if k not in COMMON_VALUES}

    def replace(self, **values: object) -> "Genotype":
        """A copy with some values changed."""
        return Genotype(self.family, **{**dict(self.values), **values})

    def shapes(self, input_shape: tuple[int, ...], num_outputs: int) -> Shapes:
        """Parameter shapes of the unpruned network."""
        return FAMILIES[self.family].shapes(dict(self.values), input_shape, num_outputs)

    def to_json(self) -> dict[str, Any]:
        """Plain data: ``{"family": ..., value name: value, ...}``."""
        return {"family": self.family, **{k: list(v) if isinstance(v, tuple) else v for k, v in self.values}}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Genotype":
        """The genotype that ``to_json`` wrote."""
        values = dict(data)
        return Genotype(values.pop("family"), **values)

    def __str__(self) -> str:
        shown = {k: v for k, v in self.values if not (k == "group_penalty" and v == 0.0)}
        parts = (f"{k}={_show(v)}" for k, v in shown.items())
        return f"{self.family}({', '.join(parts)})"


def _show(value: Value) -> str:
    if isinstance(value, tuple):
        return "-".join(map(str, value)) or "none"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def initialise(shapes: Shapes, *, generator: torch.Generator) -> Params:
    """Fresh parameters: weights N(0, 2 / fan-in), biases zero (He et al. 2015, arXiv:1502.01852)."""
    params: Params = {}
    for name, shape in shapes.items():
        if len(shape) > 1:
            std = math.sqrt(2.0 / math.prod(shape[1:]))
            params[name] = torch.randn(shape, generator=generator) * std
        else:
            params[name] = torch.zeros(shape)
    return params


def num_params(shapes: Shapes) -> int:
    """How many numbers the parameters hold."""
    return sum(math.prod(shape) for shape in shapes.values())
