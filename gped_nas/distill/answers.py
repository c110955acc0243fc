"""What a student answers: its raw outputs as expectations by name, alive and exported alike."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gped_nas.targets.base import TARGETS, DerivedTarget

if TYPE_CHECKING:
    from gped_nas.distill.student import StudentSpec

_INFORMATION = "mutual_information"


def output_names(spec: "StudentSpec") -> tuple[str, ...]:
    """The answers in order: the student's targets, and mutual information where it can be derived.

    It can be wherever its two parts are among the targets.
    """
    names = tuple(target.name for target in spec.targets)
    has_parts = set(TARGETS[_INFORMATION].requires) <= set(names)
    if has_parts and _INFORMATION not in names:
        return (*names, _INFORMATION)
    return names


def answers(spec: "StudentSpec", raw: Tensor) -> dict[str, Tensor]:
    """Every answer by name, in order: raw outputs (N, U) to ``{target: (N, G)}``.

    Real labels are in their own unit.
    """
    predicted = spec.layout.predict(raw)

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

    information = TARGETS[_INFORMATION]
    assert isinstance(information, DerivedTarget)
    if _INFORMATION in output_names(spec) and _INFORMATION not in predicted:
        predicted[_INFORMATION] = information.derive(predicted)
    return {name: predicted[name] for name in output_names(spec)}
