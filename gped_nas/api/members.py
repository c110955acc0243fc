"""The members of a live ensemble: torch modules or callables that answer with log-probabilities.

What they answer is looked at, and mistakes that are usual are named: logits or probabilities in
place of log-probabilities, another number of classes, dropout that is still on.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gped_nas.errors import ConfigError, DataError
from gped_nas.io import Array

Model = Callable[[Tensor], Tensor]
"""Inputs (B, ...) to log-probabilities (B, C), nats."""
_SLACK = 1e-3
_SAME = 1e-3
"""How far answers to the same question may be apart: parallel sums are rounded differently."""
_REMEDY = "return model(x).log_softmax(-1)"


def as_models(models: object) -> list[Model]:
    """The members as a list; one model is an ensemble of one.

    Raises:
        ConfigError: there is none, one cannot be called, or one is in training mode.
    """
    is_several = isinstance(models, nn.ModuleList | Iterable) and not _is_network(models)
    listed: list[Any] = list(models) if is_several else [models]  # type: ignore[call-overload]
    if not listed:
        raise ConfigError("models: found none, expected at least one; give a list of models")

    for i, model in enumerate(listed):
        if not callable(model):
            raise ConfigError(
                f"models[{i}]: found {type(model).__name__}, expected a torch module or a callable "
                "that returns log-probabilities; wrap it in a function"
            )
        if isinstance(model, nn.Module):
            _refuse_training(model, f"models[{i}]")
    return listed


def _is_network(models: object) -> bool:
    """Whether it is one network, not several: an ``nn.Sequential`` has modules and is called."""
    return isinstance(models, nn.Module) and not isinstance(models, nn.ModuleList)


def _refuse_training(model: nn.Module, where: str) -> None:
    in_training = [name for name, module in model.named_modules() if module.training]
    if in_training:
        part = f" ({in_training[0]})" if in_training[0] else ""
        raise ConfigError(
            f"{where}: found {type(model).__name__} in training mode{part}, expected evaluation "
            "mode, without dropout and with stored batch statistics; call model.eval()"
        )


@dataclass(eq=False)
class Members:
    """A live ensemble, asked batch by batch; every answer is checked.

    Attributes:
        models: see ``as_models``.
        prepare: what makes of raw inputs what the models take; None where they take raw inputs.
        num_classes: that each must answer for; None until the first answer says so.
    """

    models: Sequence[Model]
    prepare: Callable[[Tensor], Tensor] | None = None
    num_classes: int | None = None
    _was_asked: bool = False

    @torch.no_grad()
    def log_prob(self, raw: Tensor) -> Array:
        """Log-probabilities (S, B, C) of raw inputs, float32, each row normalized.

        Raises:
            DataError: an answer is not what it must be, see the module, or there is none.
        """
        x = raw if self.prepare is None else _prepared(self.prepare, raw)
        answers = []
        for i, model in enumerate(self.models):
            answer = self._checked(_ask(model, x, f"models[{i}]"), len(raw), f"models[{i}]")
            if not self._was_asked:
                again = self._checked(_ask(model, x, f"models[{i}]"), len(raw), f"models[{i}]")
                _refuse_chance(answer, again, f"models[{i}]")
            answers.append(answer)
        self._was_asked = True
        return torch.stack(answers).numpy()

    def _checked(self, output: object, num_inputs: int, where: str) -> Tensor:
        output = torch.from_numpy(output) if isinstance(output, np.ndarray) else output
        if not isinstance(output, Tensor):
            raise DataError(
                f"{where}: found an answer of type {type(output).__name__}, expected a tensor of "
                "log-probabilities; wrap the model in a function that returns one"
            )
        shape = tuple(output.shape)
        if len(shape) != 2 or shape[0] != num_inputs or shape[1] < 2:
            raise DataError(
                f"{where}: found an answer of shape {shape} to {num_inputs} inputs, expected "
                f"({num_inputs}, classes)"
            )
        if self.num_classes is None:
            self.num_classes = shape[1]
        if shape[1] != self.num_classes:
            raise DataError(
                f"{where}: found answers for {shape[1]} classes, expected {self.num_classes}; "
                "all members answer for the classes of the data, in the order of their labels"
            )
        return normalized(output, where)


def _prepared(prepare: Callable[[Tensor], Tensor], raw: Tensor) -> Tensor:
    """What the models take, of raw inputs."""
    try:
        x = prepare(raw)
    except Exception as error:
        raise DataError(
            f"prepare: {_first_line(error)}, at inputs of {_kind(raw)}; change what it does"
        ) from error
    if not isinstance(x, Tensor):
        raise DataError(
            f"prepare: found {type(x).__name__}, expected a tensor; return what the models take"
        )
    return x


def _ask(model: Model, x: Tensor, where: str) -> object:
    """What a model answers."""
    try:
        return model(_beside(model, x))
    except DataError as error:  # of a member of ours, which says what to do
        raise DataError(f"{where}: {error}") from None
    except Exception as error:
        raise DataError(
            f"{where}: {_first_line(error)}, at inputs of {_kind(x)}; give 'prepare', which makes "
            "of inputs what the models take"
        ) from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _kind(x: Tensor) -> str:
    return f"shape {tuple(x.shape)} and {x.dtype}"


def _beside(model: Model, x: Tensor) -> Tensor:
    """Inputs on the device that a module's parameters are on."""
    if not isinstance(model, nn.Module):
        return x
    parameter = next(model.parameters(), None)
    return x if parameter is None else x.to(parameter.device)


def normalized(output: Tensor, where: str) -> Tensor:
    """Log-probabilities (B, C) float32 on the processor, rounding taken out of their sums.

    Args:
        output: what a model answered.
        where: which model, for messages.

    Raises:
        DataError: these are no log-probabilities; the message says what they look like.
    """
    eps = torch.finfo(output.dtype).eps if output.is_floating_point() else 0.0
    log_prob = output.detach().cpu().double()
    if bool(log_prob.isnan().any()) or bool((log_prob == float("inf")).any()):
        raise DataError(f"{where}: found answers that are not finite; check its weights and inputs")

    total_B1 = log_prob.logsumexp(-1, keepdim=True)
    if bool((total_B1.abs() <= max(_SLACK, 8 * eps)).all()):
        return (log_prob - total_B1).float()

    sums = log_prob.sum(-1)
    is_between = bool((log_prob >= 0).all()) and bool((log_prob <= 1 + _SLACK).all())
    if is_between and bool(((sums - 1).abs() <= max(_SLACK, 8 * eps)).all()):
        raise DataError(
            f"{where}: found probabilities, expected log-probabilities; return model(x).log(), or "
            "log_softmax in place of softmax"
        )
    if bool((log_prob > 0).any()):
        low, high = float(log_prob.min()), float(log_prob.max())
        raise DataError(
            f"{where}: found logits (numbers from {low:.3g} to {high:.3g}), expected "
            f"log-probabilities; {_REMEDY}"
        )
    total = total_B1.exp()
    raise DataError(
        f"{where}: found log-probabilities that are not normalized: over the classes "
        f"probabilities sum to {float(total.min()):.3g} up to {float(total.max()):.3g}, expected "
        f"1; {_REMEDY}"
    )


def _refuse_chance(first: Tensor, second: Tensor, where: str) -> None:
    """Refuse a model that answers the same question in two ways."""
    difference = float((first.exp() - second.exp()).abs().max())
    if difference > _SAME:
        raise DataError(
            f"{where}: asked twice, it gave probabilities that differ by up to {difference:.2g}, "
            "expected one answer; turn dropout off with model.eval(), or fix its draws: each "
            "member is one function"
        )
