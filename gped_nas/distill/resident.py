"""Distillation sets on devices, where one population after the other finds them."""

from dataclasses import replace
from weakref import WeakKeyDictionary

import torch

from gped_nas.distill.feed import DistillationSet

_On = dict[tuple[torch.device, torch.dtype], DistillationSet]
_THERE: WeakKeyDictionary[DistillationSet, _On] = WeakKeyDictionary()
"""Where distillation sets lie beside the processor, by device and dtype of the inputs."""


def moved(data: DistillationSet, device: torch.device, dtype: torch.dtype) -> DistillationSet:
    """The data on a device, their inputs in a dtype.

    On any device but the processor they are kept for as long as the data are there, so that the
    next population finds them; ``leave_devices`` lets them go.
    """
    there = _THERE.setdefault(data, {}) if device.type != "cpu" else {}
    if (device, dtype) not in there:
        on_device = data.to(device)
        # rounded once, not in every batch
        there[device, dtype] = replace(on_device, inputs=on_device.inputs.to(dtype))
    return there[device, dtype]


def leave_devices() -> None:
    """Let go of what ``moved`` keeps."""
    _THERE.clear()
