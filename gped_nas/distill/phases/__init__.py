"""Steps of ragged populations as walks over a table of tiles, in Triton.

``tiles.py`` makes the tables, ``programs.py`` walks them on a device, ``launch.py`` launches that,
``bundle.py`` is the bundle that trains by them. ``update.py`` has what is done to a whole flat
buffer in one launch, by ``update_programs.py``: optimizers' updates, and the proximal step.
``chains.py`` is a teacher's chains, ``fits.py`` networks that are trained instead, ``runs.py`` what
both have in common; ``chain_walk.py`` is a step of theirs, ``rules.py`` what methods make of it,
``chain_programs.py`` the device programs around its walks, and ``departures.py`` the way of states
to the host.
"""

import functools
import importlib.util

import torch

from gped_nas.distill.recipe import Kernel
from gped_nas.errors import ConfigError
from gped_nas.models.activations import RELU


def has_phases(device: torch.device) -> bool:
    """Whether a device can walk: a GPU, where Triton is installed."""
    return device.type == "cuda" and _has_triton()


def takes_phases(kernel: Kernel, device: torch.device) -> bool:
    """Whether students are trained by Triton's programs: wherever they run, but for ``graph``."""
    return kernel != "graph" and has_phases(device)


def has_walk(activation: str) -> bool:
    """Whether tiles of this activation are walked over; those of any other go to the graph."""
    return activation == RELU


def check_kernel(kernel: Kernel, device: torch.device, where: str) -> None:
    """Refuse phases where they cannot run; ``auto`` takes the graph there.

    Args:
        kernel: what the recipe says.
        device: where students are trained.
        where: file and key of the recipe, for messages.

    Raises:
        ConfigError: phases were asked for, and there is no GPU or no Triton.
    """
    if kernel != "phases" or has_phases(device):
        return

    missing = "without Triton" if device.type == "cuda" else f"on the device {device}"
    raise ConfigError(
        f"{where}.kernel: found phases {missing}, expected a CUDA device with Triton; use auto, "
        "which takes phases where they run and changes nothing else in a study"
    )


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
