"""Conditions: what is done to raw inputs before predictors are measured at them.

A condition is a function from raw inputs to raw inputs. It is given the predictor that is judged,
the labels and a generator, so that it may be a shift, which ignores the predictor, or an attack,
which asks it for gradients::

    @add_condition("faded", "inputs with less contrast", takes_value=True)
    def faded(raw, *, predictor, labels, generator, value):
        return raw * value

A space lists it under ``conditions`` by its name, ``permuted``, or by its name and the value of its
one setting, ``faded-0.5``. A metric under it is ``nll@faded-0.5``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite, nan
from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from gped_nas.errors import ConfigError, DataError, RegistryError, calling
from gped_nas.evaluate.measured import CLEAN
from gped_nas.evaluate.predictions import AnyPredictions, Labels
from gped_nas.registry import Registry

Forward = Callable[[Tensor], Tensor]
"""Raw inputs (B, *input_shape) to what one network predicts, (B, G): log-probabilities of classes,
nats, or mean and variance of a real label in its normalized unit. It can be differentiated."""


class Predictor(Protocol):
    """Whoever is judged, as a condition and its measurement may ask it."""

    def networks(self) -> Iterator[tuple[float, Forward]]:
        """Weight and forward pass of each of its networks; the weights sum to 1.

        A student has one network, a teacher one a posterior sample.
        """

    def predict(self, raw: Tensor) -> AnyPredictions:
        """What it says at raw inputs (N, *input_shape)."""


Change = Callable[..., Tensor]
"""``change(raw, *, predictor, labels, generator) -> raw``, and ``value`` if it takes one."""


@dataclass(frozen=True)
class Condition:
    """What is done to inputs.

    Attributes:
        name: as in a space: ``permuted``, ``faded-0.5``.
        label: for people.
        change: what is done.
        takes_value: whether its name is followed by a value, and ``change`` takes that.
    """

    name: str
    label: str
    change: Change
    takes_value: bool = False

    def apply(
        self, raw: Tensor, *, predictor: Predictor, labels: Labels, generator: Generator
    ) -> Tensor:
        """The changed inputs, float32.

        The condition is given a copy in float32, also of images in bytes: networks read float32,
        and an attack has gradients of nothing else. It may write into it.

        Args:
            raw: raw inputs (N, *input_shape) in the dataset's own range, of any dtype.
            predictor: who will be judged at them.
            labels: labels of the inputs, (N,).
            generator: of what it draws.

        Raises:
            RegistryError: the function raised something.
            DataError: what came out is no tensor, has another shape or dtype, or is not finite.
        """
        copy = raw.to(torch.float32, copy=True)
        with calling(f"condition '{self.name}'", "mend it"):
            changed = self.change(copy, predictor=predictor, labels=labels, generator=generator)

        if not isinstance(changed, Tensor):
            raise DataError(
                f"condition '{self.name}': found {type(changed).__name__}, expected a tensor of "
                "inputs; return one"
            )
        if changed.shape != raw.shape or changed.dtype != torch.float32:
            raise DataError(
                f"condition '{self.name}': found inputs {tuple(changed.shape)} of {changed.dtype}, "
                f"expected {tuple(raw.shape)} of {torch.float32} as they were"
            )
        # numbers that were missing may be anywhere, and be no more than before
        num_missing = int(changed.isnan().sum())
        if bool(changed.isinf().any()) or num_missing > int(raw.isnan().sum()):
            raise DataError(f"condition '{self.name}': found inputs that are not finite")
        return changed.detach()  # an attack may leave gradients on them


CONDITIONS: Registry[Condition] = Registry("condition", "gped_nas.evaluate")


def add_condition(
    name: str, label: str, *, takes_value: bool = False
) -> Callable[[Change], Change]:
    """Register the decorated function as a condition.

    Args:
        name: without ``-`` and ``@``: they separate it from its value and its metric.
        label: for people.
        takes_value: whether it has a setting, a number that follows its name.

    Raises:
        RegistryError: the name holds one of these marks.
    """
    if not name or set("-@") & set(name):
        raise RegistryError(f"condition '{name}': expected a name without '-' and '@'")

    def add(change: Change) -> Change:
        CONDITIONS.register(name)(Condition(name, label, change, takes_value))
        return change

    return add


def parse_condition(text: object, where: str) -> Condition:
    """The condition that a space calls ``name`` or ``name-VALUE``.

    Raises:
        RegistryError: an unknown name.
        ConfigError: no text, or a value that is missing, not wanted or no number.
    """
    if not isinstance(text, str):
        raise ConfigError(f"{where}: found {text!r}, expected the name of a condition")

    name, _, value = text.partition("-")
    condition = CONDITIONS.find(name, where)
    if not condition.takes_value:
        if text != name:
            raise ConfigError(f"{where}: condition '{name}' takes no value; found '{text}'")
        return condition

    number = _number(value)
    if not isfinite(number):
        raise ConfigError(
            f"{where}: found '{text}', expected a number after '{name}-', for example '{name}-0.1'"
        )
    change = partial(condition.change, value=number)
    return Condition(text, f"{condition.label}, {value}", change, takes_value=True)


def _number(value: str) -> float:
    """The number that a text says; NaN where it says none."""
    try:
        return float(value)
    except ValueError:
        return nan


def parse_conditions(names: Sequence[str], where: str) -> tuple[Condition, ...]:
    """The conditions that a space lists. Raises as ``parse_condition``.

    Raises:
        ConfigError: one twice, or the clean one is not among them.
    """
    if len(set(names)) != len(names) or CLEAN not in names:
        raise ConfigError(
            f"{where}: found {list(names)}, expected none twice and '{CLEAN}' among them"
        )
    conditions = tuple(parse_condition(name, f"{where}[{i}]") for i, name in enumerate(names))

    # One condition has one name: blur-3 and blur-3.0 would be measured twice.
    meanings: dict[tuple[str, float | None], str] = {}
    for text in names:
        name, _, value = text.partition("-")
        meaning = (name, _number(value) if value else None)
        if meaning in meanings:
            raise ConfigError(
                f"{where}: '{text}' and '{meanings[meaning]}' are one condition; remove one"
            )
        meanings[meaning] = text
    return conditions


@add_condition(CLEAN, "inputs as they are")
def clean(raw: Tensor, **_: Any) -> Tensor:
    """The inputs themselves."""
    return raw


@add_condition("permuted", "inputs with their numbers rearranged")
def permuted(raw: Tensor, *, generator: Generator, **_: Any) -> Tensor:
    """The inputs (N, *input_shape) with their numbers rearranged, in one way for all of them.

    Every input keeps its own numbers, so that neither its mean nor its contrast gives it away: a
    model should be unsure about it.
    """
    flat = raw.flatten(1)
    order = torch.randperm(flat.shape[1], generator=generator).to(raw.device)
    return flat[:, order].view_as(raw)
