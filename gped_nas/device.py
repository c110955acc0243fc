"""The one place where device, threads and precision switches are decided."""

import contextlib
import functools
import os
import platform
import time
from collections.abc import Iterator
from typing import Any

import torch

from gped_nas.errors import ConfigError, EnvironmentProblem

_HALF_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # x86 AVX-512, x86 AMX, Arm
_PROBE_S = 0.05
SHARED_MACS = 8_000_000
"""A product of fewer multiply-adds takes one core some 0.1 ms, and waking a second one costs more
than it saves.
"""


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
    if macs >= SHARED_MACS:
        yield
        return
    with one_thread():
        yield


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Inside the block, and in threads that it starts, torch computes on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@functools.cache
def half_is_fast(device: torch.device) -> bool:
    """Whether bfloat16 products are faster than float32 ones by half: by the instruction set, then
        by a probe of 50 ms.

    A processor that lacks the instructions imitates them, up to hundreds of times slower, so that
    it is not even probed. The answer can differ between two runs on one machine; where that matters
    it is kept.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not _HALF_FLAGS & _processor_flags():
        return False
    left, right = torch.ones((256, 784)), torch.ones((784, 512))
    seconds = {}
    with one_thread():
        for dtype in (torch.float32, torch.bfloat16):
            a, b = left.to(dtype), right.to(dtype)
            a @ b  # the first product of a kind sets itself up
            started, count = time.perf_counter(), 0
            while time.perf_counter() - started < _PROBE_S / 2:
                a @ b
                count += 1
            seconds[dtype] = (time.perf_counter() - started) / count
    return seconds[torch.float32] > 1.5 * seconds[torch.bfloat16]


def _processor_flags() -> frozenset[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith(("flags", "Features")):
                    return frozenset(line.split(":", 1)[1].split())
    except OSError:
        pass
    return frozenset()


def fingerprint(device: torch.device) -> dict[str, Any]:
    """What a figure was measured on: processor or GPU, threads, versions. Plain data for
    provenance.
    """
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
