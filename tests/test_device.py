"""Device names, and how many threads a piece of work gets."""

import resource
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from gped_nas import device
from gped_nas.errors import ConfigError, EnvironmentProblem


def test_auto_is_a_device_that_is_there() -> None:
    assert device.choose("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "", "meta", "cpu:x"])
def test_a_name_torch_cannot_compute_on_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="expected auto, cpu, cuda"):
        device.choose(name)


def test_a_device_that_is_not_there_is_an_environment_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EnvironmentProblem, match="use device_name cpu"):
        device.choose("cuda")


@pytest.mark.parametrize(
    ("macs", "threads"), [(device.SHARED_MACS - 1, 1), (device.SHARED_MACS, 3)]
)
def test_small_products_get_one_thread_and_the_number_is_restored(macs: int, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with pytest.raises(KeyError), device.threads_for(macs):
            assert torch.get_num_threads() == threads
            raise KeyError
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_threads_that_start_inside_have_one_thread_of_torch_s() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with device.one_thread(), ThreadPoolExecutor(1) as pool:
            assert (torch.get_num_threads(), pool.submit(torch.get_num_threads).result()) == (1, 1)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


# -- whether bfloat16 is fast: by made-up processors, whose products take what a test says


class Matrix:
    """Products with it take ``seconds`` of its type on a clock of its own."""

    clock = 0.0
    seconds = {torch.float32: 1e-3, torch.bfloat16: 1e-3}

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype

    def to(self, dtype: torch.dtype) -> "Matrix":
        return Matrix(dtype)

    def __matmul__(self, other: "Matrix") -> "Matrix":
        assert self.dtype == other.dtype
        Matrix.clock += Matrix.seconds[self.dtype]
        return self


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., bool]]:
    """A processor with these flags and times a product: what the probe says of it."""

    def probe(flags: set[str], full_s: float = 1e-3, half_s: float = 1e-3) -> bool:
        device.half_is_fast.cache_clear()
        Matrix.clock = 0.0
        Matrix.seconds = {torch.float32: full_s, torch.bfloat16: half_s}
        monkeypatch.setattr(device, "_processor_flags", lambda: frozenset(flags))
        monkeypatch.setattr(torch, "ones", lambda shape: Matrix())
        monkeypatch.setattr(device.time, "perf_counter", lambda: Matrix.clock)
        return device.half_is_fast(torch.device("cpu"))

    yield probe
    device.half_is_fast.cache_clear()


def test_a_processor_without_the_instructions_is_never_probed(
    processor: Callable[..., bool],
) -> None:
    assert not processor({"avx2", "avx512f", "fma"}, half_s=1e-6)
    assert Matrix.clock == 0


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16", "bf16"])
@pytest.mark.parametrize(
    ("half_s", "is_fast"), [(1e-4, True), (6e-4, True), (7e-4, False), (1e-3, False), (0.3, False)]
)
def test_a_processor_with_them_is_judged_by_its_products(
    processor: Callable[..., bool], flag: str, half_s: float, is_fast: bool
) -> None:
    """Faster by half is 1 / 1.5 = 0.67 ms for 1 ms."""
    assert processor({"avx2", flag}, half_s=half_s) == is_fast
    # the probe takes 50 ms, and at most a product of each kind beyond
    assert Matrix.clock < 0.06 + 2 * half_s


def test_a_device_that_is_no_processor_is_not_probed(processor: Callable[..., bool]) -> None:
    processor({"bf16"})
    before = Matrix.clock
    assert not device.half_is_fast(torch.device("meta"))
    assert Matrix.clock == before


def test_flags_are_those_of_this_processor() -> None:
    flags = device._processor_flags()
    assert isinstance(flags, frozenset)
    assert all(flag and not flag.isspace() for flag in flags)

    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and "flags" in cpuinfo.read_text():
        assert flags


@pytest.mark.parametrize(
    ("limit", "is_enough"), [(resource.RLIM_INFINITY, True), (2**32, True), (3 * 2**30, False)]
)
def test_a_small_address_space_is_refused(
    monkeypatch: pytest.MonkeyPatch, limit: int, is_enough: bool
) -> None:
    monkeypatch.setattr(device, "usable_cores", lambda: 2)
    monkeypatch.setattr(device.resource, "getrlimit", lambda what: (limit, limit))
    if is_enough:
        device.check_address_space()
        return
    message = r"found a limit of 3\.00 GiB .* at least 3\.75 GiB with 2 cores; .* -v 3932160"
    with pytest.raises(EnvironmentProblem, match=message):
        device.check_address_space()
