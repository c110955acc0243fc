"""The one place where device, threads and precision switches are decided."""

import contextlib
import functools
import os
import platform
import resource
import time
from collections.abc import Iterator
from typing import Any

import torch

from gped_nas.errors import ConfigError, EnvironmentProblem

_HALF_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # x86 AVX-512, x86 AMX, Arm
_VECTOR_FLAGS = ("sse4_2", "avx", "amx", "fma", "f16c", "asimd", "sve", "i8mm", "bf16")
_PROBE_S = 0.05
_ADDRESS_SPACE, _ADDRESS_SPACE_A_CORE = 7 * 2**29, 2**27
"""Bytes that a search needs: with two cores and 3.2 GiB it never came to an end."""
_cores_to_use: int | None = None
SHARED_MACS = 8_000_000
"""Multiply-adds below which a product takes one core: some 0.1 ms.

Waking a second core costs more than it saves there.
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


def check_address_space() -> None:
    """Refuse a limit of address space in which matrix products may wait for ever.

    OpenBLAS asks again without end for a buffer that it does not get.

    Raises:
        EnvironmentProblem: the limit is too small for this number of cores.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    cores = usable_cores()
    needed = _ADDRESS_SPACE + cores * _ADDRESS_SPACE_A_CORE
    if limit != resource.RLIM_INFINITY and limit < needed:
        raise EnvironmentProblem(
            f"memory: found a limit of {limit / 2**30:.2f} GiB of address space, expected at least "
            f"{needed / 2**30:.2f} GiB with {cores} cores; raise it, `ulimit -v {needed // 1024}`"
        )


def usable_cores() -> int:
    """How many cores this process may run on, and was told to use."""
    if hasattr(os, "sched_getaffinity"):
        num = len(os.sched_getaffinity(0))
    else:
        num = os.cpu_count() or 1
    return min(num, _cores_to_use or num)


def use_cores(num: int) -> None:
    """Use so many cores in this process from now on: others work beside it."""
    global _cores_to_use
    _cores_to_use = max(1, num)
    torch.set_num_threads(min(torch.get_num_threads(), _cores_to_use))


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
    """Whether bfloat16 products are faster than float32 ones by half.

    The instruction set decides first, then a probe of 50 ms. A processor that lacks the
    instructions imitates them, up to hundreds of times slower, so it is not even probed. The answer
    can differ between two runs on one machine; where that matters it is stored.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not _HALF_FLAGS & _processor_flags():
        return False

    with one_thread():
        full = _seconds_of_product(torch.float32)
        half = _seconds_of_product(torch.bfloat16)
    return full > 1.5 * half


def _seconds_of_product(dtype: torch.dtype) -> float:
    """Mean time of one product of a training step's size, measured for half the probe's time."""
    inputs = torch.ones((256, 784)).to(dtype)
    weight = torch.ones((784, 512)).to(dtype)
    inputs @ weight  # the first product of a kind sets itself up

    count = 0
    started = time.perf_counter()
    while time.perf_counter() - started < _PROBE_S / 2:
        inputs @ weight
        count += 1
    return (time.perf_counter() - started) / count


def _processor_flags() -> frozenset[str]:
    flags = _read_cpuinfo("flags", "Features")
    return frozenset() if flags is None else frozenset(flags.split())


def fingerprint(device: torch.device) -> dict[str, Any]:
    """What a figure was measured on, as plain data: processor or GPU, threads, versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "device": device.type,
        "name": name,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


def instruction_sets() -> tuple[str, ...]:
    """The processor's sets of vector instructions, those that decide how fast products are."""
    return tuple(sorted(flag for flag in _processor_flags() if flag.startswith(_VECTOR_FLAGS)))


def processor() -> str:
    """The model of the processor."""
    name = _read_cpuinfo("model name")
    if name is None:
        return platform.processor() or platform.machine()
    return name.strip()


def _read_cpuinfo(*keys: str) -> str | None:
    """What Linux says of the first processor under one of the keys; None where it says nothing."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith(keys):
                    return line.split(":", 1)[1]
    except OSError:
        pass
    return None
