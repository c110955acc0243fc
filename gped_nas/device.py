"""The one place where device, threads and precision switches are decided."""

import contextlib
import os
import platform
from collections.abc import Iterator
from typing import Any

import torch

from gped_nas.errors import ConfigError, EnvironmentProblem

SHARED_MACS = 8_000_000
"""A product of fewer multiply-adds takes one core some 0.1 ms, and waking a second one costs more than it saves."""


def choose(name: str = "auto") -> torch.device:
    """The device called ``name``; ``auto`` takes CUDA where there is one, else the CPU.

    Raises:
        ConfigError: the name is not a device torch knows.
        EnvironmentProblem: the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"--device: found '{name}', expected auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise EnvironmentProblem(f"--device {name}: torch finds no CUDA device; use --device cpu")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"--device: found '{name}', expected auto, cpu, cuda or cuda:N")
    return device


def set_precision() -> None:
    """Full float32 products everywhere; called once by each process that trains or evaluates."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def usable_cores() -> int:
    """How many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def threads_for(macs: int) -> Iterator[None]:
    """Inside the block, one thread if the largest product of a step is too small to share out.

    Args:
        macs: multiply-adds of that product.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(before if macs >= SHARED_MACS else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fingerprint(device: torch.device) -> dict[str, Any]:
    """What a figure was measured on: processor or GPU, threads, versions. Plain data for provenance."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": device.type,
        "name": name,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
