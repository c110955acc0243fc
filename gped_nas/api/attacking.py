"""Attacks on whatever answers: a student, a teacher, an ensemble, a torch module of yours."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gped_nas import rng
from gped_nas.api.ensemble import EnsembleMember
from gped_nas.api.measuring import ensemble
from gped_nas.api.teacher import Teacher
from gped_nas.data.inputs import as_inputs
from gped_nas.data.scale import Scale, ValueRange
from gped_nas.distill.student import Student
from gped_nas.errors import ConfigError, DataError
from gped_nas.evaluate.attacks.settings import AttackSettings
from gped_nas.evaluate.condition_names import named_condition, parse_condition
from gped_nas.evaluate.conditions import CONDITIONS, Condition, Forward, Predictor
from gped_nas.evaluate.predictions import AnyPredictions, Predictions
from gped_nas.evaluate.student import StudentPredictor

Attackable = Student | Teacher | Predictor | nn.Module | Sequence[nn.Module]
_WHERE = "attack"
_NAME = "settings"


def attack(
    predictor: Attackable,
    x: Tensor | NDArray[Any],
    y: Tensor | NDArray[Any] | Sequence[int],
    name: str = "worst",
    *,
    eps: float | None = None,
    scale: Scale | tuple[float, float] | None = None,
    seed: int = 0,
    **settings: Any,
) -> Tensor | NDArray[Any]:
    """The inputs within a radius at which a predictor answers worst.

    What makes an attack weaker than it looks is told as an ``AttackWarning``.

    Args:
        predictor: a student; a teacher, whose average is attacked; a module of raw outputs (N, C)
            or log-probabilities; or several, whose average is attacked.
        x: raw inputs (N, *input_shape) in the data's own range, a tensor or a numpy array.
        y: their classes, (N,).
        name: of the attack: ``worst``, ``apgd``, ``pgd``, ...; or with its radius, ``apgd-0.1``.
        eps: the radius, a share of ``scale``.
        scale: what a share of 1 is: the smallest and the largest value of a picture, for example
            ``(0, 255)``, or the ``scale`` of a dataset. A student and a teacher have it.
        seed: of what the attack draws.
        settings: further ones of the attack: ``norm="l2"``, ``steps=20``, ``restarts=5``.

    Returns:
        Inputs like ``x``, float32, on the processor; numpy where ``x`` is.

    Raises:
        ConfigError: a setting is impossible, the scale is not known, the attack is none, the module
            is in training mode, or predictions alone are known of the teacher.
        DataError: inputs, labels and predictor do not fit each other, or it draws while it answers.
        RegistryError: an unknown name.
    """
    condition = _condition(name, eps, settings)
    known = known_scale(predictor, scale)

    raw = as_raw(predictor, x)
    labels = as_labels(y, len(raw))

    changed = condition.apply(
        raw,
        predictor=_as_predictor(predictor),
        labels=labels,
        generator=rng.generator(seed, _WHERE, name),
        scale=known,
    )

    return changed.numpy() if isinstance(x, np.ndarray) else changed


@dataclass(frozen=True, eq=False)
class Modules:
    """Torch modules as one predictor: their average, alike weighted."""

    members: tuple[EnsembleMember, ...]

    def networks(self) -> Iterator[tuple[float, Forward]]:
        """See ``conditions.Predictor``."""
        for member in self.members:
            yield 1 / len(self.members), member

    @torch.no_grad()
    def predict(self, raw: Tensor) -> AnyPredictions:
        """What they say on average at raw inputs (N, *input_shape)."""
        stacked = torch.stack([member(raw).double() for member in self.members])
        mean = stacked.logsumexp(0) - np.log(len(self.members))
        return Predictions(mean.cpu().numpy())


def _condition(name: str, eps: float | None, settings: dict[str, Any]) -> Condition:
    """The attack of this name."""
    kind = name.partition("-")[0] if eps is None else name
    registered = CONDITIONS.find(kind, _WHERE)
    if not _is_attack(registered):
        attacks = [each for each, other in CONDITIONS.items() if _is_attack(other)]
        raise ConfigError(
            f"{_WHERE}: found '{name}', expected one of: {', '.join(sorted(attacks))}"
        )

    if "epsilon" in settings:
        raise ConfigError(f"{_WHERE}: found epsilon, expected the radius as eps; rename it")
    if eps is None and not settings:
        return parse_condition(name, _WHERE)
    if eps is None:
        raise ConfigError(f"{_WHERE}: found {name!r} beside {sorted(settings)}; give eps")
    return named_condition(_NAME, {"name": name, "epsilon": float(eps), **settings}, _WHERE)


def _is_attack(condition: Condition) -> bool:
    return condition.settings is not None and issubclass(condition.settings, AttackSettings)


def known_scale(
    predictor: Attackable, scale: Scale | tuple[float, float] | None, where: str = _WHERE
) -> Scale:
    """What a radius is a share of: what is given, or else what the predictor knows.

    Raises:
        ConfigError: nobody knows, or it is no range.
    """
    if isinstance(scale, tuple):
        low, high = scale
        if not low < high:
            raise ConfigError(f"{where}: scale: found {scale}, expected the smaller value first")
        return ValueRange(float(low), float(high))
    if scale is not None:
        return scale

    known = None
    if isinstance(predictor, Teacher):
        known = predictor.dataset.scale
    elif isinstance(predictor, Student):
        known = predictor.spec.scale
    elif isinstance(predictor, StudentPredictor):
        known = predictor.student.spec.scale
    if known is None:
        raise ConfigError(
            f"{where}: found a predictor that does not say what values its inputs can have, "
            "expected scale; give the smallest and the largest value, for example scale=(0, 255), "
            "or the scale of its dataset"
        )
    return known


def as_raw(predictor: Attackable, x: Tensor | NDArray[Any], where: str = _WHERE) -> Tensor:
    """Inputs of the predictor's shape. Raises ``DataError``."""
    if isinstance(predictor, Student):
        raw = as_inputs(x, predictor.spec.input_shape)
    elif isinstance(predictor, Teacher):
        raw = as_inputs(x, predictor.dataset.raw_shape)
    else:
        raw = torch.as_tensor(x)

    if not len(raw):
        raise DataError(f"{where}: found no inputs, expected at least 1")
    if not torch.isfinite(raw).all():
        raise DataError(
            f"{where}: found inputs that are not finite, which have no gradient; leave them out"
        )
    return raw


def as_labels(
    y: Tensor | NDArray[Any] | Sequence[int], num_inputs: int, where: str = _WHERE
) -> NDArray[Any]:
    """One label an input. Raises ``DataError``."""
    labels = y.cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    if labels.shape != (num_inputs,):
        raise DataError(
            f"{where}: found labels of shape {labels.shape} for {num_inputs} inputs, expected one "
            "each"
        )
    return labels


def _as_predictor(predictor: Attackable) -> Predictor:
    """Whoever answers, as an attack asks it.

    Raises:
        ConfigError: it cannot be asked.
    """
    if isinstance(predictor, Student):
        return StudentPredictor(predictor)
    if isinstance(predictor, Teacher):
        if not predictor.stream.has_weights or not predictor.stream.is_stored:
            raise ConfigError(
                f"{_WHERE}: found a teacher of which no network is kept, expected one with "
                "weights: its answers elsewhere are not known; attack its student"
            )
        return ensemble(predictor)

    members = [predictor] if isinstance(predictor, nn.Module) else predictor
    if not isinstance(members, Sequence):
        return members
    if not members or not all(isinstance(member, nn.Module) for member in members):
        raise ConfigError(f"{_WHERE}: found no torch module, expected one or a list of them")
    if any(member.training for member in members):
        raise ConfigError(
            f"{_WHERE}: found a module in training mode, expected evaluation mode, in which it is "
            "served; call .eval() first"
        )
    return Modules(tuple(_member(member) for member in members))


def _member(module: nn.Module) -> EnsembleMember:
    return module if isinstance(module, EnsembleMember) else EnsembleMember(module).eval()
