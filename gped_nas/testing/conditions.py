"""What every condition promises: raw inputs of the same kind, drawn from the generator alone."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.data.scale import scale_of
from gped_nas.errors import ConfigError
from gped_nas.evaluate.condition_names import named_condition, parse_condition
from gped_nas.evaluate.conditions import CONDITIONS, Condition, Forward
from gped_nas.evaluate.predictions import AnyPredictions, Labels, Predictions
from gped_nas.testing.promises import require, run_all

_SHAPES = ((6,), (2, 5, 4))
_NUM_INPUTS, _NUM_CLASSES = 20, 3
_USER_NAME = "tried"


class LinearPredictor:
    """A softmax of random sums of an input's numbers: a predictor that can be differentiated."""

    def networks(self) -> Iterator[tuple[float, Forward]]:
        """The one network."""
        yield 1.0, self._forward

    def predict(self, raw: Tensor) -> AnyPredictions:
        """What it says, probabilities of three classes."""
        return Predictions(self._forward(raw).double().numpy())

    def _forward(self, raw: Tensor) -> Tensor:
        rows = raw.flatten(1).float()
        weight = torch.randn((rows.shape[1], _NUM_CLASSES), generator=rng.generator(0, "predictor"))
        return (rows @ weight).log_softmax(-1)


@dataclass(frozen=True)
class ConditionCase:
    """A condition, with the value of its main setting, or with all settings, where it has some."""

    name: str
    value: float | None = None
    settings: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        return f"condition '{self.name if self.settings else self.written}'"

    @property
    def written(self) -> str:
        """As a search space has it."""
        if self.settings is not None:
            return _USER_NAME
        return self.name if self.value is None else f"{self.name}-{self.value:g}"

    @property
    def condition(self) -> Condition:
        """The condition itself."""
        if self.settings is not None:
            settings = {"name": self.name, **self.settings}
            return named_condition(_USER_NAME, settings, f"condition '{self.name}'")
        return parse_condition(self.written, str(self))

    def apply(self, raw: Tensor, labels: Labels, seed: int = 0) -> Tensor:
        """What it makes of inputs."""
        return self.condition.apply(
            raw,
            predictor=LinearPredictor(),
            labels=labels,
            generator=rng.generator(seed, "contract"),
            scale=scale_of(raw),
        )


def check_condition(
    name: str, value: float | None = None, settings: Mapping[str, Any] | None = None
) -> None:
    """Try a registered condition.

    Args:
        name: of the condition.
        value: of its main setting, where its name is followed by one.
        settings: all of them, in place of the value.

    Raises:
        AssertionError: it breaks a promise; the message says which.
    """
    run_all(CONDITION_CHECKS, [ConditionCase(name, value, settings)])


def it_says_what_it_is(case: ConditionCase) -> None:
    """It has a label, and is read from a search space under its name."""
    require(bool(CONDITIONS[case.name].label), f"{case}: found no label, expected one for people")
    condition = CONDITIONS[case.name]
    takes = bool(condition.main)
    is_right = takes if case.value is not None else not condition.needs_value
    require(
        is_right or case.settings is not None,
        f"{case}: the value it is tried with is {case.value}, but its name takes "
        f"{'one' if takes else 'none'}",
    )
    require(case.condition.name == case.written, f"{case}: calls itself '{case.condition.name}'")


def some_inputs_can_be_changed(case: ConditionCase) -> None:
    """It refuses tables, or pictures, but not both."""
    require(
        bool(_fitting_shapes(case)),
        f"{case}: refuses inputs of all the shapes {_SHAPES}; correct check=",
    )


def inputs_stay_of_their_kind(case: ConditionCase) -> None:
    """Inputs of the same shape come out, as float32 as they went in, also those of bytes."""
    for raw, labels in _examples(case):
        changed = case.apply(raw, labels)
        require(not changed.requires_grad, f"{case}: its inputs carry a gradient; detach them")


def the_generator_decides(case: ConditionCase) -> None:
    """The same generator gives the same inputs, to the bit."""
    for raw, labels in _examples(case):
        state = torch.get_rng_state()
        first, again = case.apply(raw, labels), case.apply(raw, labels)
        require(
            torch.equal(first, again) and torch.equal(state, torch.get_rng_state()),
            f"{case}: the same generator gives other inputs; draw from the generator alone",
        )


CONDITION_CHECKS = (
    it_says_what_it_is,
    some_inputs_can_be_changed,
    inputs_stay_of_their_kind,
    the_generator_decides,
)
"""Every promise of a condition: functions of a ``ConditionCase``."""


def _examples(case: ConditionCase) -> Iterator[tuple[Tensor, Labels]]:
    """Raw inputs of two shapes with their labels: real numbers, and bytes as pictures have them.

    Those that the condition refuses are left out.
    """
    labels = np.arange(_NUM_INPUTS) % _NUM_CLASSES
    for shape in _fitting_shapes(case):
        generator = rng.generator(0, "contract inputs", *shape)
        raw = torch.rand((_NUM_INPUTS, *shape), generator=generator)
        yield raw, labels
        yield (255 * raw).to(torch.uint8), labels


def _fitting_shapes(case: ConditionCase) -> list[tuple[int, ...]]:
    fitting: list[tuple[int, ...]] = []
    for shape in _SHAPES:
        with contextlib.suppress(ConfigError):
            case.condition.check_shape(shape)
            fitting.append(shape)
    return fitting
