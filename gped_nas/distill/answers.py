"""What a student answers: its raw outputs as expectations by name, alive and exported alike."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gped_nas.targets.base import TARGETS, DerivedTarget

if TYPE_CHECKING:
    from gped_nas.distill.student import StudentSpec

_FOLLOWING = ("mutual_information", "intersection")
"""Derived targets that are answered wherever what they are computed from is among the targets."""


def output_names(spec: "StudentSpec") -> tuple[str, ...]:
    """The answers in order: the student's targets, then what follows from them.

    That is mutual information, and the intersection probability of intervals.
    """
    names = [target.name for target in spec.targets]
    for name in _FOLLOWING:
        if name not in names and set(TARGETS[name].requires) <= set(names):
            names.append(name)
    return tuple(names)


def answers(spec: "StudentSpec", raw: Tensor) -> dict[str, Tensor]:
    """Every answer by name, in order: raw outputs (N, U) to ``{target: (N, G)}``.

    Real labels are in their own unit.
    """
    heads = spec.layout.split(raw)
    predicted = spec.layout.predict_heads(heads)

    labels = spec.label_normalization
    if labels:
        # A label far from zero has more digits than float32.
        normal = predicted["predictive_normal"]
        mean, variance = (normal.double() if labels.is_far else normal).unbind(-1)
        moments = [mean * labels.std + labels.mean, variance * labels.std**2]
        predicted["predictive_normal"] = torch.stack(moments, -1)
        for target in spec.targets:
            if target.own_unit is not None:
                value = predicted[target.name]
                value = value.double() if labels.is_far else value
                predicted[target.name] = target.own_unit(value, labels)

    for name in output_names(spec):
        if name not in predicted:
            following = TARGETS[name]
            assert isinstance(following, DerivedTarget)
            predicted[name] = following.of_student(heads, predicted)
    return {name: predicted[name] for name in output_names(spec)}
