"""Steps of ragged populations as walks over a table of tiles, in Triton.

``tiles.py`` makes the tables, ``programs.py`` walks them on a device, ``launch.py`` launches that,
``bundle.py`` is the bundle that trains by them, and ``update.py`` an optimizer's update in one
launch.
"""

import functools
import importlib.util

import torch


def has_phases(device: torch.device) -> bool:
    """Whether a device can walk: a GPU, where Triton is installed."""
    return device.type == "cuda" and _has_triton()


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
