"""Conditions: what is done to raw inputs before predictors are measured at them.

A condition is a function from raw inputs to raw inputs. It is given the predictor that is judged,
the labels and a generator, so that it may be a shift, which ignores the predictor, or an attack,
which asks it for gradients::

    @add_condition("faded", "inputs with less contrast", takes_value=True)
    def faded(raw, *, value):
        return raw * value

One with more than one setting has a model of them, and names its main one::

    class ShiftSettings(Config):
        pixels: int = Field(ge=1)
        fill: float = 0.0

    @add_condition("shifted", "inputs moved to the right", settings=ShiftSettings, main="pixels")
    def shifted(raw, *, settings):
        moved = raw.roll(settings.pixels, dims=-1)
        moved[..., : settings.pixels] = settings.fill
        return moved

``condition_names`` reads how a space calls them: ``permuted``, ``faded-0.5``, ``shifted-3``, or by
a name of the user's. A metric under one is ``nll@faded-0.5``.
"""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from gped_nas import rng
from gped_nas.config import Config
from gped_nas.data.base import Dataset, Task
from gped_nas.data.scale import Scale, scale_of
from gped_nas.errors import ConfigError, DataError, GpedError, RegistryError, calling, nearest
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


ANY_LABELS: tuple[Task, ...] = ("classification", "regression")

Change = Callable[..., Tensor]
"""``change(raw, *, predictor, labels, generator, scale) -> raw``, and ``value`` or ``settings``
where it has some. It is given those of them that it names, or all if it takes any."""
Check = Callable[[Any, tuple[int, ...]], None]
"""``check(settings, input_shape)`` raises a ``ConfigError`` where such inputs cannot be changed so;
its text says what was found, what was expected and what to do."""


_NUM_TRIED = 20
"""Training inputs that a condition is tried with before a search."""


def _fits_all(settings: Config | None, input_shape: tuple[int, ...]) -> None:
    """What ``Condition.check`` is where inputs of any shape can be changed."""


class ConditionValue(Config):
    """The settings of a condition with ``takes_value``."""

    value: float


@dataclass(frozen=True)
class Condition:
    """What is done to inputs.

    Attributes:
        name: as in a space: ``permuted``, ``faded-0.5``, or the user's own name for it.
        label: for people.
        change: what is done.
        settings: the model of its settings; None if it has none.
        main: the setting that ``name-VALUE`` sets.
        kind: the name that it is registered under; empty of one that nobody has parsed.
        chosen: its settings, read from a space; None before that, or if it has none.
        check: refuses inputs of a shape that it cannot change.
        kinds: the labels of whose predictors it can be asked for.
    """

    name: str
    label: str
    change: Change
    settings: type[Config] | None = None
    main: str = ""
    kind: str = ""
    chosen: Config | None = None
    check: Check = _fits_all
    kinds: tuple[Task, ...] = ANY_LABELS

    @property
    def has_severities(self) -> bool:
        """Whether a space may ask for it by severity: ``noise-s1`` to ``noise-s5``."""
        return self.settings is not None and "severity" in self.settings.model_fields

    @property
    def needs_value(self) -> bool:
        """Whether its name alone says too little, so that a number or a severity must follow."""
        if self.settings is None or not self.main:
            return False
        field = self.settings.model_fields[self.main]
        return field.is_required() or (self.has_severities and field.default is None)

    def to_json(self) -> str | dict[str, Any]:
        """As a space lists it: its text, or its settings under the user's name for it."""
        if self.name.partition("-")[0] == self.kind:
            return self.name
        chosen = {} if self.chosen is None else self.chosen.model_dump(mode="json")
        return {self.name: {"name": self.kind, **chosen}}

    def _arguments(self) -> dict[str, Any]:
        """What the function is given of the settings."""
        if isinstance(self.chosen, ConditionValue):
            return {"value": self.chosen.value}
        return {} if self.chosen is None else {"settings": self.chosen}

    def check_shape(self, input_shape: tuple[int, ...], where: str = "") -> None:
        """Refuse inputs of a shape that it cannot change.

        Args:
            input_shape: of a raw input.
            where: file and key that list it, for messages; none in Python.

        Raises:
            ConfigError: they are such.
        """
        try:
            with calling(f"condition '{self.name}'", "mend check="):
                self.check(self.chosen, input_shape)
        except ConfigError as error:
            place = f"{where}: " if where else ""
            raise ConfigError(f"{place}condition '{self.name}': {error}") from None

    def describe(self, scale: Scale) -> str:
        """What it does in the unit of the data, where its settings say it: the radius of an attack.

        Empty of others.
        """
        describe = getattr(self.chosen, "describe", None)
        return "" if describe is None else f"{self.label}, {describe(scale)}"

    def check_task(self, task: Task, where: str = "") -> None:
        """Refuse labels that it cannot be asked for. Raises ``ConfigError``."""
        if task not in self.kinds:
            place = f"{where}: " if where else ""
            raise ConfigError(
                f"{place}condition '{self.name}': found labels of a {task}, expected a "
                f"{' or '.join(self.kinds)}; remove it"
            )

    def check_targets(self, targets: Collection[str], where: str) -> None:
        """Refuse students that say nothing of what it asks. Raises ``ConfigError``."""
        needed = getattr(self.chosen, "needs_target", "")
        if needed and needed not in targets:
            raise ConfigError(
                f"{where}: condition '{self.name}': found targets without '{needed}', which it "
                "asks students for; add it to targets"
            )

    def apply(
        self,
        raw: Tensor,
        *,
        predictor: Predictor,
        labels: Labels,
        generator: Generator,
        scale: Scale | None = None,
    ) -> Tensor:
        """The changed inputs, float32.

        The condition is given a copy in float32, also of images in bytes: networks read float32,
        and an attack has gradients of nothing else. It may write into it.

        Args:
            raw: raw inputs (N, *input_shape) in the dataset's own range, of any dtype.
            predictor: who will be judged at them.
            labels: labels of the inputs, (N,).
            generator: of what it draws.
            scale: what a radius is a share of; what the inputs show by default.

        Raises:
            ConfigError: inputs of this shape cannot be changed so.
            RegistryError: the function raised something.
            DataError: what came out is no tensor, has another shape or dtype, or is not finite.
        """
        self.check_shape(tuple(raw.shape[1:]))
        offered: dict[str, Any] = {"predictor": predictor, "labels": labels}
        offered |= {"generator": generator, "scale": scale or scale_of(raw)}
        offered |= self._arguments()

        copy = raw.to(torch.float32, copy=True)
        with calling(f"condition '{self.name}'", "mend it"):
            changed = self.change(copy, **self._named(offered))

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

    def _named(self, offered: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the offered arguments that the function takes.

        Raises:
            RegistryError: it needs another one.
        """
        try:
            _, *parameters = inspect.signature(self.change).parameters.values()
        except (TypeError, ValueError):  # of a function that is not Python's, or takes no inputs
            return dict(offered)

        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return dict(offered)
        for parameter in parameters:
            if parameter.name not in offered and parameter.default is parameter.empty:
                raise RegistryError(
                    f"condition '{self.name}': its function takes '{parameter.name}', which it is "
                    f"not given{nearest(parameter.name, offered)}"
                )
        names = [parameter.name for parameter in parameters]
        return {name: value for name, value in offered.items() if name in names}


class _AskedTooEarlyError(GpedError):
    """Somebody asked a predictor that is not there yet."""


class _NobodyYet:
    """Stands for a predictor before there is one; whatever it is asked ends the trial."""

    def __getattr__(self, name: str) -> Any:
        raise _AskedTooEarlyError(name)


def try_out(condition: Condition, dataset: Dataset, where: str) -> None:
    """Refuse a condition that cannot change the inputs of a dataset, before any work.

    A few training inputs are changed. An attack is believed as soon as it asks a predictor.

    Args:
        condition: of a space.
        dataset: whose inputs will be changed.
        where: file and key that list it, for messages.

    Raises:
        ConfigError, DataError, RegistryError: see ``Condition.apply``.
    """
    condition.check_shape(dataset.raw_shape, where)
    condition.check_task(dataset.task, where)

    nobody: Any = _NobodyYet()
    try:
        condition.apply(
            dataset.train.x[:_NUM_TRIED],
            predictor=nobody,
            labels=dataset.labels("train")[:_NUM_TRIED],
            generator=rng.generator(0, "condition", condition.name, "tried"),
            scale=dataset.scale,
        )
    except _AskedTooEarlyError:
        return
    except (ConfigError, DataError, RegistryError) as error:
        raise type(error)(f"{where}: {error}") from error


CONDITIONS: Registry[Condition] = Registry("condition", "gped_nas.evaluate")


def add_condition(
    name: str,
    label: str,
    *,
    takes_value: bool = False,
    settings: type[Config] | None = None,
    main: str = "",
    check: Check = _fits_all,
    kinds: tuple[Task, ...] = ANY_LABELS,
) -> Callable[[Change], Change]:
    """Register the decorated function as a condition.

    Args:
        name: without ``-`` and ``@``: they separate it from its value and its metric.
        label: for people.
        takes_value: whether it has one setting, a number that follows its name; ``value``.
        settings: the model of its settings, if it has other ones; ``settings``. One with a field
            ``severity`` can be asked for as ``name-s3``.
        main: the number among them that follows its name; none if it is empty.
        check: refuses inputs of a shape that it cannot change, before any work, see ``Check``.
        kinds: the labels of whose predictors it can be asked for.

    Raises:
        RegistryError: the name holds one of these marks, or the settings have no such field.
    """
    if not name or set("-@") & set(name):
        raise RegistryError(f"condition '{name}': expected a name without '-' and '@'")
    if takes_value and settings is not None:
        raise RegistryError(
            f"condition '{name}': found takes_value and settings, expected one of them"
        )
    if main and (settings is None or main not in settings.model_fields):
        raise RegistryError(
            f"condition '{name}': found main='{main}', expected a field of settings"
        )
    if takes_value:
        settings, main = ConditionValue, "value"

    def add(change: Change) -> Change:
        condition = Condition(name, label, change, settings, main, check=check, kinds=kinds)
        CONDITIONS.register(name)(condition)
        return change

    return add


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
