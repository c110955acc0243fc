"""What a step of the kernel costs, beside what a user would write instead, in one run.

    python tests/bench/bench_kernel.py --out reports/bench

Sides take turns, round by round; each is shown at its best thread setting. Sides: the kernel; a
loop over students in float32 and in bfloat16 (autocast, bfloat16 inputs); each loop shared out over
two processes of one thread; ``vmap`` of padded stacks. The roofline is the FLOPs of the products
over the measured peak of a large product, in the kernel's own precision, plus 28 bytes a parameter
for Adam over the measured memory bandwidth. Prints one JSON line a population.
"""

import argparse
import contextlib
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from gped_nas import device as devices
from gped_nas.distill.feed import DistillationSet
from gped_nas.distill.kernel import LOG_EVERY, distill
from gped_nas.distill.recipe import Recipe
from gped_nas.io import make_dir, write_json
from gped_nas.models.base import Genotype
from tests.bench.populations import Loop, Stacked, cnns, count_params, mlps, noise, step_flops

CPU = torch.device("cpu")
ADAM_BYTES = 28
Side = Callable[[int], float]
"""A number of steps to the seconds a step took."""


def timed(step: Callable[[], None], num_threads: int) -> Side:
    """A side that steps by itself."""

    def run(num_steps: int) -> float:
        torch.set_num_threads(num_threads)
        step()
        started = time.perf_counter()
        for _ in range(num_steps):
            step()
        return (time.perf_counter() - started) / num_steps

    return run


def kernel(genotypes: Sequence[Genotype], data: DistillationSet, batch_size: int) -> Side:
    """The kernel itself, from one report of progress to the next.

    Gathering, layout and bookkeeping are included.
    """

    def run(num_steps: int) -> float:
        del num_steps  # it reports every LOG_EVERY steps
        torch.set_num_threads(devices.usable_cores())
        times: list[float] = []
        recipe = Recipe(steps=3 * LOG_EVERY, batch_size=batch_size, warmup=0, prune_at=0.99)
        distill(
            genotypes,
            data,
            recipe,
            seed=0,
            device=CPU,
            progress=lambda *_: times.append(time.perf_counter()),
        )
        return (times[1] - times[0]) / LOG_EVERY

    return run


def _worker(
    genotypes: Sequence[Genotype],
    shape: tuple[int, ...],
    batch_size: int,
    dtype: torch.dtype,
    pipe: Any,
) -> None:
    torch.set_num_threads(1)
    loop = Loop(genotypes, noise(4096, shape), batch_size=batch_size, dtype=dtype)
    loop.step()
    pipe.send(0.0)
    with contextlib.suppress(EOFError):  # the bench has ended
        while num_steps := pipe.recv():
            started = time.perf_counter()
            for _ in range(num_steps):
                loop.step()
            pipe.send((time.perf_counter() - started) / num_steps)


def processes(
    genotypes: Sequence[Genotype], data: DistillationSet, batch_size: int, dtype: torch.dtype
) -> Side:
    """The loop over two processes of one thread, students shared out by their FLOPs.

    The slower process counts.
    """
    parts: list[list[Genotype]] = [[], []]
    loads = [0, 0]
    for genotype in sorted(genotypes, key=lambda g: -step_flops(g, data, batch_size)):
        worker = loads.index(min(loads))
        parts[worker].append(genotype)
        loads[worker] += step_flops(genotype, data, batch_size)

    context = multiprocessing.get_context("spawn")
    shape = tuple(data.inputs.shape[1:])
    pipes = []
    for part in parts:
        here, there = context.Pipe()
        arguments = (part, shape, batch_size, dtype, there)
        context.Process(target=_worker, args=arguments, daemon=True).start()
        pipes.append(here)
    for pipe in pipes:
        pipe.recv()

    def run(num_steps: int) -> float:
        for pipe in pipes:
            pipe.send(num_steps)
        seconds: list[float] = [pipe.recv() for pipe in pipes]
        return max(seconds)

    return run


def roofline(
    genotypes: Sequence[Genotype], data: DistillationSet, batch_size: int, dtype: torch.dtype
) -> dict[str, float]:
    """Measured peaks and the least seconds a step could take."""
    torch.set_num_threads(devices.usable_cores())
    square = torch.randn((2048, 2048)).to(dtype)
    big, other = torch.zeros(2**26), torch.ones(2**26)

    products, copies = [], []
    for _ in range(7):
        started = time.perf_counter()
        square @ square
        products.append(time.perf_counter() - started)
        started = time.perf_counter()
        big.copy_(other)
        copies.append(time.perf_counter() - started)

    peak = 2 * 2048**3 / min(products)
    bandwidth = 8 * big.numel() / min(copies)  # read and written, 4 bytes a number
    flops = sum(step_flops(g, data, batch_size) for g in genotypes)
    least = flops / peak + ADAM_BYTES * count_params(genotypes, data) / bandwidth
    return {
        "gflops": flops / 1e9,
        "peak_gflop_s": peak / 1e9,
        "gb_s": bandwidth / 1e9,
        "least_s": least,
    }


def sides_of(
    genotypes: Sequence[Genotype], data: DistillationSet, batch_size: int
) -> dict[str, Side]:
    """All sides of one population, by name."""
    num_threads = sorted({1, devices.usable_cores()})
    sides: dict[str, Side] = {"kernel": kernel(genotypes, data, batch_size)}
    for label, dtype in {"fp32": torch.float32, "bf16": torch.bfloat16}.items():
        for threads in num_threads:
            loop = Loop(genotypes, data, batch_size=batch_size, dtype=dtype)
            sides[f"loop {label}, {threads} threads"] = timed(loop.step, threads)
        sides[f"loop {label}, 2 processes"] = processes(genotypes, data, batch_size, dtype)

    if genotypes[0].family == "mlp":
        for threads in num_threads:
            stacked = Stacked(genotypes, data, batch_size=batch_size)
            sides[f"vmap, {threads} threads"] = timed(stacked.step, threads)
    return sides


def measure(
    name: str, genotypes: Sequence[Genotype], shape: tuple[int, ...], batch_size: int, rounds: int
) -> dict[str, Any]:
    """All sides of one population."""
    data = noise(4096, shape)
    is_half_fast = devices.half_is_fast(CPU)
    sides = sides_of(genotypes, data, batch_size)
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, run in sides.items():
            # an imitated bfloat16 step can take seconds
            is_slow = "bf16" in side and not is_half_fast
            seconds[side].append(run(1 if is_slow else 10))

    floor = roofline(genotypes, data, batch_size, torch.bfloat16 if is_half_fast else torch.float32)
    median = {side: statistics.median(values) for side, values in seconds.items()}
    return {
        "population": name,
        "students": len(genotypes),
        "batch_size": batch_size,
        "bf16": is_half_fast,
        "ms": {side: [1e3 * q for q in _quartiles(values)] for side, values in seconds.items()},
        "ratios": ratios(median),
        "roofline": {**floor, "fraction": floor["least_s"] / median["kernel"]},
        "rounds": rounds,
        "hardware": devices.fingerprint(CPU),
    }


def ratios(median: dict[str, float]) -> dict[str, float]:
    """Seconds of the other sides over the kernel's, each at its best number of threads."""
    best: dict[str, float] = {}
    for side, value in median.items():
        # "loop fp32, 2 threads" and "loop fp32, 1 threads" are one side at two settings
        name = side.partition(",")[0] if side.endswith("threads") else side
        best[name] = min(value, best.get(name, value))
    kernel_s = best.pop("kernel")
    return {name: value / kernel_s for name, value in best.items()}


def _quartiles(values: Sequence[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    cuts = statistics.quantiles(values, n=4, method="inclusive")
    return [cuts[0], cuts[1], cuts[2]]


def main() -> None:
    """Measure the populations and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    args = parser.parse_args()

    cases = {
        "mlp 8": (mlps(8), (784,)),
        "mlp 32": (mlps(32), (784,)),
        "cnn 8": (cnns(8), (1, 28, 28)),
    }
    populations = []
    for name, (genotypes, shape) in cases.items():
        populations.append(measure(name, genotypes, shape, 256, args.rounds))
        print(json.dumps(populations[-1]), flush=True)
    write_json(make_dir(args.out) / f"kernel-{CPU.type}.json", {"populations": populations})


if __name__ == "__main__":
    main()
