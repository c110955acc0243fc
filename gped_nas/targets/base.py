"""Targets: what is averaged over the posterior, the head that predicts it, and the loss between the
two.

A target is a function of one posterior sample's predictive distribution at an input. Its kind says
how what the samples say is brought together:

* ``mean``: by their average. Its loss should be affine in the averaged quantity plus a term free of
  the student, so that training on single samples and training on their average have the same
  gradient on average.
* ``derived``: computed from the averages of other targets; it has no head and no loss of its own,
  so that a student's value of it can never contradict the heads it comes from.
* ``quantile``: by the loss itself. The pinball loss of single samples is least at their quantile;
  that of their average is least at the average.

This module is the contract; ``mean``, ``derived`` and ``quantile`` hold the
built-in ones.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gped_nas.config import Config, parse
from gped_nas.errors import ConfigError, RegistryError, nearest
from gped_nas.posterior.likelihoods import Prediction
from gped_nas.registry import Registry
from gped_nas.stream.reader import Stream

Kind = Literal["mean", "derived", "quantile"]
Heads = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Target:
    """A posterior expectation that students can be distilled for.

    Two targets are equal when name and settings are.

    Attributes:
        name: its registered name.
        kind: see the module docstring.
        values: what posterior samples predict (..., N, C) to what a sample says of the target,
            (..., N, G).
        num_outputs: number of classes to the number U of raw outputs its head needs; 0 without a
            head.
        predict: raw outputs (..., B, U) of its head and the raw outputs of all heads, by name, to
            the student's own value (..., B, G), in the units of ``values`` or of ``shown``.
        loss: raw outputs (..., B, U), all heads, and what the teacher says (B, G) to losses (...,
            B), nats or squared units. Never called for kind ``derived``.
        label: for people, with the unit.
        requires: targets that must be distilled for before it, since it reads their heads or
            averages.
        derive: for kind ``derived``: averages of the required targets by name to its own value
            (..., B, G).
        settings: its settings where it has any.
        build: settings to the target that has them.
        prediction: what of a posterior sample ``values`` takes: log-probabilities of C classes,
            nats, or mean and variance of a real label.
        shown: an average (..., G) in the form in which students predict it, where that is another.
        num_classes: the number of classes its settings are for; None where they fit any.
    """

    name: str
    kind: Kind
    values: Callable[[Tensor], Tensor]
    num_outputs: Callable[[int], int]
    predict: Callable[[Tensor, Heads], Tensor]
    loss: Callable[[Tensor, Heads, Tensor], Tensor]
    label: str
    requires: tuple[str, ...] = ()
    prediction: Prediction = "log_prob"
    derive: Callable[[Heads], Tensor] | None = None
    settings: Config | None = None
    build: Callable[[Any], "Target"] | None = None
    shown: Callable[[Tensor], Tensor] = lambda average: average
    num_classes: int | None = None

    def to_json(self) -> Any:
        """How it is written in a file: its name, or a mapping of ``name`` and settings."""
        return (
            self.name
            if self.settings is None
            else {"name": self.name, **self.settings.model_dump(mode="json")}
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Target) and (self.name, self.settings) == (
            other.name,
            other.settings,
        )

    def __hash__(self) -> int:
        return hash(self.name)


TARGETS: Registry[Target] = Registry("target", "gped_nas.targets")
MAIN_TARGET: dict[Prediction, str] = {"log_prob": "predictive", "normal": "predictive_normal"}
"""The target that every student of such a teacher has: the one that metrics judge."""

Targets = Sequence[str | Target]
"""Targets in the order of a student's heads; a name stands for the registered target with its
default settings.
"""


def resolve(targets: Iterable[str | Target]) -> tuple[Target, ...]:
    """The targets themselves, names looked up."""
    return tuple(TARGETS[one] if isinstance(one, str) else one for one in targets)


def parse_targets(written: Iterable[object], where: str) -> tuple[Target, ...]:
    """The targets that a file lists, checked.

    Args:
        written: for each target its name, or a mapping of ``name`` and settings.
        where: file and key of the list, for messages.

    Raises:
        RegistryError: an unknown name.
        ConfigError: a setting is wrong; or see ``check_targets``.
    """
    targets = tuple(_parse_target(one, f"{where}[{i}]") for i, one in enumerate(written))
    check_targets(targets, where)
    return targets


def _parse_target(written: object, where: str) -> Target:
    settings = dict(written) if isinstance(written, Mapping) else {"name": written}
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"{where}: found {written!r}, expected a name{nearest(name, TARGETS)}")
    if name not in TARGETS:
        raise RegistryError(f"{where}: unknown target '{name}'{nearest(name, TARGETS)}")
    target = TARGETS[name]
    if not settings:
        return target
    if target.settings is None or target.build is None:
        raise ConfigError(
            f"{where}: target '{name}' takes no settings; found {', '.join(settings)}"
        )
    return target.build(parse(type(target.settings), settings, f"{where}: {name}"))


def check_targets(targets: Targets, where: str) -> None:
    """Refuse unknown, repeated or incomplete target lists.

    Raises:
        RegistryError: an unknown name.
        ConfigError: a target twice, none at all, one that requires another which is not there
            before it, or one for another kind of label than the first.
    """
    names = [one if isinstance(one, str) else one.name for one in targets]
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"{where}: found {names}, expected at least one target and none twice")
    for name in names:
        if name not in TARGETS:
            raise RegistryError(f"{where}: unknown target '{name}'{nearest(name, TARGETS)}")
    for i, target in enumerate(resolve(targets)):
        for required in target.requires:
            if required not in names[:i]:
                verb = "is computed from" if target.kind == "derived" else "reads the head of"
                raise ConfigError(
                    f"{where}: '{target.name}' {verb} '{required}'; list '{required}' before it"
                )
    first = resolve(targets)[0]
    for target in resolve(targets):
        if target.prediction != first.prediction:
            raise ConfigError(
                f"{where}: '{target.name}' and '{first.name}' are for different kinds of label; "
                "remove one"
            )
    if MAIN_TARGET[first.prediction] not in names:
        raise ConfigError(
            f"{where}: found {names}, expected '{MAIN_TARGET[first.prediction]}' among them"
        )


def expect(target: Target, log_prob_SBC: Tensor, weight_S: Tensor) -> Tensor:
    """What posterior samples say of a target on average.

    Args:
        target: of kind ``mean``: applied to each posterior sample on its own, then averaged; of
            kind ``derived``: computed from the averages of the targets it requires.
        log_prob_SBC: teacher log-probabilities, nats.
        weight_S: non-negative weights on any scale; normalised here.

    Returns:
        ``target_BG`` on the device and in the dtype of ``log_prob_SBC``, in the units of
        ``target``.

    Raises:
        ConfigError: the target is of kind ``quantile``, or the weights sum to zero.

    Source: Vadera, Jalaian & Marlin 2020, arXiv:2005.08110, equation 2.
    """
    _refuse_quantiles(target)
    if target.derive is not None:
        return target.derive(
            {name: expect(TARGETS[name], log_prob_SBC, weight_S) for name in target.requires}
        )
    total = weight_S.sum()
    if not bool(total > 0):
        raise ConfigError(
            f"weights of posterior samples: found a sum of {float(total)}, expected more than 0"
        )
    weight = (weight_S / total).to(log_prob_SBC.dtype)
    return torch.einsum("s,sbg->bg", weight, target.values(log_prob_SBC))


def stream_expectation(stream: Stream, target: str | Target, view: str) -> Tensor:
    """``expect`` over a stream's predictions at a view, by blocks in float64; averages are cached
    beside the stream.

    Raises:
        ConfigError: the target is of kind ``quantile``.
    """
    (target,) = resolve([target])
    _refuse_quantiles(target)
    if target.derive is not None:
        return target.derive(
            {name: stream_expectation(stream, name, view) for name in target.requires}
        )
    return stream.average(target.name, view, target.values)


def _refuse_quantiles(target: Target) -> None:
    if target.kind == "quantile":
        raise ConfigError(
            f"target '{target.name}' is of kind quantile; averaging its samples would be wrong: it "
            "would give the mean"
        )


def sample_values(targets: Targets, log_prob_BC: Tensor) -> dict[str, Tensor]:
    """What single posterior samples say, one an input: ``{target: (B, G)}`` of each target with a
    loss of its own.
    """
    return {
        target.name: target.values(log_prob_BC)
        for target in resolve(targets)
        if target.kind != "derived"
    }


def head_slices(targets: Targets, num_classes: int) -> dict[str, slice]:
    """Which raw outputs of the last layer belong to which target's head.

    Raises:
        ConfigError: a target's settings are for another number of classes.
    """
    slices, start = {}, 0
    for target in resolve(targets):
        if target.num_classes not in (None, num_classes):
            raise ConfigError(
                f"target '{target.name}': its settings are for {target.num_classes} classes, "
                f"expected {num_classes}"
            )
        stop = start + target.num_outputs(num_classes)
        slices[target.name] = slice(start, stop)
        start = stop
    return slices


def num_raw_outputs(targets: Targets, num_classes: int) -> int:
    """Raw outputs of a student with all these heads. Raises as ``head_slices``."""
    return sum(cut.stop - cut.start for cut in head_slices(targets, num_classes).values())


def split_heads(raw: Tensor, targets: Targets, num_classes: int) -> dict[str, Tensor]:
    """Raw outputs (..., B, U) cut into the heads' parts."""
    return {name: raw[..., cut] for name, cut in head_slices(targets, num_classes).items()}


def predictions(raw: Tensor, targets: Targets, num_classes: int) -> dict[str, Tensor]:
    """Everything a student predicts: raw outputs (..., B, U) to ``{target: (..., B, G)}``."""
    heads = split_heads(raw, targets, num_classes)
    return {target.name: target.predict(heads[target.name], heads) for target in resolve(targets)}


def loss(
    raw: Tensor,
    targets: Targets,
    weights: Mapping[str, float],
    expectations: Heads,
    num_classes: int,
) -> Tensor:
    """The distillation loss: the weighted sum of the targets' losses, averaged over the batch.

    Args:
        raw: raw outputs (..., B, U).
        targets: the student's targets in order; derived ones have no loss.
        weights: weight of each target; 1 where not given.
        expectations: what the teacher says, on average or by one posterior sample an input:
            ``{target: (B, G)}``.
        num_classes: C.

    Returns:
        One scalar for each leading index.
    """
    heads = split_heads(raw, targets, num_classes)
    total = raw.new_zeros(raw.shape[:-2])
    for target in resolve(targets):
        if target.kind != "derived":
            part = target.loss(heads[target.name], heads, expectations[target.name]).mean(-1)
            total = total + weights.get(target.name, 1.0) * part
    return total


@functools.cache
def constant(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers of a target's settings as a tensor, made once: to bring them to a GPU at each step
    would wait for it.
    """
    return torch.tensor(values, dtype=dtype, device=device)


def log_softmax(raw: Tensor) -> Tensor:
    """Log-probabilities of raw outputs (..., B, C), nats.

    Computed across rows of a batch: along a last axis of ten numbers no vector instruction has
    anything to do, and the loss of a step would take five times as long.
    """
    return F.log_softmax(raw.mT, -2).mT


def entropy(log_prob: Tensor) -> Tensor:
    """Entropy over the last axis, nats; a class of probability zero adds nothing."""
    return -(log_prob.exp() * log_prob.clamp_min(torch.finfo(log_prob.dtype).min)).sum(-1)
