"""Targets: what is averaged over the posterior, and how a student learns and predicts it.

A target is a function of one posterior sample's predictive distribution at an input. There are
four kinds, a class each, which differ in how what the samples say is brought together:

* ``MeanTarget``: by their average. Its loss should be affine in the averaged quantity plus a term
  free of the student, so that training on single samples and training on their average have the
  same gradient on average.
* ``QuantileTarget``: by the loss itself. The pinball loss of single samples is least at their
  quantile; that of their average is least at the average.
* ``StatisticTarget``: by a function of what all stored samples say, such as their range. No single
  sample has such a number, so that it can only be learned once it is computed.
* ``DerivedTarget``: computed from other targets. It has no head and no loss of its own, so that a
  student's value of it can never contradict the heads it comes from.

This module is the contract and reads what files say of targets. ``layout`` lays out the heads of a
student, ``expectations`` averages over posterior samples, ``statistics`` has what is computed of
all samples, and the other modules hold the built-in targets.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from gped_nas.config import Config, parse
from gped_nas.data.base import Normalization
from gped_nas.errors import ConfigError, RegistryError, calling
from gped_nas.posterior.likelihoods import Prediction
from gped_nas.registry import Registry

Kind = Literal["mean", "derived", "quantile", "statistic"]

RawHeads = Mapping[str, Tensor]
"""Raw outputs of each head by the name of its target: (..., B, U)."""

Expectations = Mapping[str, Tensor]
"""What the teacher says of each target, on average or by one posterior sample an input: (B, G)."""


def _identity(average: Tensor) -> Tensor:
    return average


@dataclass(frozen=True, eq=False, kw_only=True)
class Target:
    """What every target states. Make one of the four kinds below.

    Two targets are equal when name and settings are.

    Attributes:
        name: the name it is registered under.
        label: for people, with the unit.
        requires: targets that must be listed before it, since it reads their heads or averages.
        prediction: what of a posterior sample it reads: log-probabilities of C classes, nats, or
            mean and variance of a real label.
        version: raised whenever the target comes to mean something else, so that averages that were
            cached before are not taken for its own.
        settings: its settings where it has any.
        build: settings to the target that has them.
        num_classes: the number of classes its settings are for; None where they fit any.
        shown: an average (..., G) in the form in which students predict it, where that is another.
        own_unit: its values as ``shown``, in the label's normalized unit, to those in its own; None
            where they do not depend on it.
        of_labels: makes it for labels of a normalization, where what it says depends on their unit.
    """

    kind: ClassVar[Kind]

    name: str
    label: str
    requires: tuple[str, ...] = ()
    prediction: Prediction = "log_prob"
    version: int = 1
    settings: Config | None = None
    build: Callable[[Any], "Target"] | None = None
    num_classes: int | None = None
    shown: Callable[[Tensor], Tensor] = _identity
    own_unit: Callable[[Tensor, Normalization], Tensor] | None = None
    of_labels: Callable[[Normalization], "Target"] | None = None

    def to_json(self) -> Any:
        """How it is written in a file: its name, or a mapping of ``name`` and settings."""
        if self.settings is None:
            return self.name
        return {"name": self.name, **self.settings.model_dump(mode="json")}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Target):
            return NotImplemented
        return (self.name, self.settings) == (other.name, other.settings)

    def __hash__(self) -> int:
        return hash(self.name)


@dataclass(frozen=True, eq=False, kw_only=True)
class LearnedTarget(Target):
    """A target with a loss of its own: what all kinds but ``DerivedTarget`` have in common.

    Attributes:
        values: what posterior samples predict (..., N, C) to what a sample says of the target,
            (..., N, G).
        num_outputs: number of classes to the number U of raw outputs its head needs; 0 where it
            reads the heads of others alone.
        predict: raw outputs (..., B, U) of its head, and those of all heads, to the student's own
            value (..., B, G), in the units of ``shown``.
        loss: raw outputs (..., B, U), all heads, and what the teacher says (B, G) to losses (...,
            B), nats or squared units.
    """

    values: Callable[[Tensor], Tensor]
    num_outputs: Callable[[int], int]
    predict: Callable[[Tensor, RawHeads], Tensor]
    loss: Callable[[Tensor, RawHeads, Tensor], Tensor]


def try_values(name: str, values: Callable[[Tensor], Tensor], predicted: Tensor) -> Tensor:
    """What a target's function makes of predictions (..., N, C), checked: (..., N, G).

    Raises:
        RegistryError: it raised something, or gave another shape or no tensor.
    """
    with calling(f"target '{name}'", "mend it"):
        result = values(predicted)

    if not isinstance(result, Tensor):
        raise RegistryError(
            f"target '{name}': found values of type {type(result).__name__}, expected a tensor; "
            "return one"
        )
    if result.dim() != predicted.dim() or result.shape[:-1] != predicted.shape[:-1]:
        raise RegistryError(
            f"target '{name}': found values {tuple(result.shape)} of predictions "
            f"{tuple(predicted.shape)}, expected all axes but the last as they were; one number an "
            "example is values.unsqueeze(-1)"
        )
    return result


@dataclass(frozen=True, eq=False, kw_only=True)
class MeanTarget(LearnedTarget):
    """A target that students learn from averages, or without bias from single samples."""

    kind: ClassVar[Kind] = "mean"


@dataclass(frozen=True, eq=False, kw_only=True)
class QuantileTarget(LearnedTarget):
    """A target that students can learn from single posterior samples alone.

    Attributes:
        of_samples: what all posterior samples say (S, N, G) and their weights (S,) to the quantiles
            of their average, (N, ...); by default those of the samples' own values.
    """

    kind: ClassVar[Kind] = "quantile"

    of_samples: Callable[[Tensor, Tensor], Tensor] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class StatisticTarget(LearnedTarget):
    """A target that students learn from a number of all stored samples: see ``statistics``.

    Attributes:
        of_samples: what all posterior samples say (S, N, G), their weights (S,) summing to 1, and
            what ``fit`` gave, to the statistic (N, G'). A sample of weight 0 counts for nothing.
        fit: what is to be known of other inputs to say it of one, such as how far each sample is
            along an axis that all inputs share: from what all samples say, some inputs at a time
            (S, n, G), and the weights. None where each input stands alone.
    """

    kind: ClassVar[Kind] = "statistic"

    of_samples: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    fit: Callable[[Iterable[Tensor], Tensor], Tensor] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class DerivedTarget(Target):
    """A target computed from others, the teacher's and the student's alike.

    Attributes:
        derive: values of the required targets by name, each (..., B, G') as students predict them,
            to its own, (..., B, G).
        from_heads: raw outputs of the student's heads to what ``derive`` makes of their
            predictions, for numbers in which rounding of those would be amplified.
    """

    kind: ClassVar[Kind] = "derived"

    derive: Callable[[Mapping[str, Tensor]], Tensor]
    from_heads: Callable[[RawHeads], Tensor] | None = None

    def of_student(self, heads: RawHeads, predicted: Mapping[str, Tensor]) -> Tensor:
        """What a student says of it, by its heads where it can be, or by what it predicts."""
        return self.derive(predicted) if self.from_heads is None else self.from_heads(heads)


TARGETS: Registry[Target] = Registry("target", "gped_nas.targets", Target)

MAIN_TARGET: dict[Prediction, str] = {"log_prob": "predictive", "normal": "predictive_normal"}
"""The target that every student of such a teacher has: the one that metrics judge."""

Targets = Sequence[str | Target]
"""Targets in the order of a student's heads; a name stands for a target's default settings."""


def resolve(targets: Iterable[str | Target]) -> tuple[Target, ...]:
    """The targets themselves, names looked up."""
    return tuple(TARGETS[target] if isinstance(target, str) else target for target in targets)


def for_labels(targets: Targets, label_normalization: Normalization | None) -> tuple[Target, ...]:
    """Targets whose values are of labels with this normalization; None of classes."""
    made = []
    for target in resolve(targets):
        if target.of_labels is not None and label_normalization is not None:
            target = target.of_labels(label_normalization)
        made.append(target)
    return tuple(made)


def parse_targets(written: Iterable[object], where: str) -> tuple[Target, ...]:
    """The targets that a file lists, checked.

    Args:
        written: for each target its name, or a mapping of ``name`` and settings.
        where: file and key of the list, for messages.

    Raises:
        RegistryError: an unknown name.
        ConfigError: a setting is wrong; or see ``check_targets``.
    """
    targets = tuple(_parse_target(entry, f"{where}[{i}]") for i, entry in enumerate(written))
    check_targets(targets, where)
    return targets


def _parse_target(written: object, where: str) -> Target:
    settings = dict(written) if isinstance(written, Mapping) else {"name": written}
    name = settings.pop("name", None)

    target = TARGETS.find(name, where)
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
    names = [target if isinstance(target, str) else target.name for target in targets]
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"{where}: found {names}, expected at least one target and none twice")
    for name in names:
        TARGETS.find(name, where)

    resolved = resolve(targets)
    for i, target in enumerate(resolved):
        for required in target.requires:
            if required not in names[:i]:
                verb = "is computed from" if target.kind == "derived" else "reads the head of"
                raise ConfigError(
                    f"{where}: '{target.name}' {verb} '{required}'; list '{required}' before it"
                )

    reference = resolved[0]
    for target in resolved:
        if target.prediction != reference.prediction:
            raise ConfigError(
                f"{where}: '{target.name}' and '{reference.name}' are for different kinds of "
                "label; remove one"
            )

    main = MAIN_TARGET[reference.prediction]
    if main not in names:
        raise ConfigError(f"{where}: found {names}, expected '{main}' among them")
