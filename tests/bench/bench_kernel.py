"""What a step of the kernel costs, beside what a user would write instead, in one run.

    python tests/bench/bench_kernel.py --out reports/bench
    python tests/bench/bench_kernel.py --out reports/bench --device cuda

Sides take turns, round by round; each is shown at its best thread setting. Sides: the kernel; a
loop over students in float32 and in bfloat16 (autocast, bfloat16 inputs); each loop shared out over
two processes of one thread; ``vmap`` of padded stacks. The roofline is the FLOPs of the products
over the measured peak of a large product, in the kernel's own precision, plus 28 bytes a parameter
for Adam over the measured memory bandwidth.

On a GPU, sides are the kernel by its own choice and by its graph of products, students padded by
depth in one graph, ragged products of ``torch._foreach_mm``, a graph for each student on four
streams, the loop, and a compiled ``vmap`` (``card_sides.py``); of convolutional students, grouped
convolutions padded to the widest (``card_convolutions.py``). All are in bfloat16.

Prints one JSON line a population.
"""

import argparse
import contextlib
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gped_nas import device as devices
from gped_nas.distill.feed import DistillationSet
from gped_nas.distill.kernel import LOG_EVERY, distill
from gped_nas.distill.recipe import Recipe
from gped_nas.io import make_dir, write_json
from gped_nas.models.base import Genotype
from tests.bench.card_convolutions import PaddedConvolutions
from tests.bench.card_sides import CHEAP, DEAR, PADDED, Setting, Step, captured, ms_of
from tests.bench.card_sides import roofline as card_roofline
from tests.bench.populations import (
    ADAM_BYTES,
    Loop,
    Stacked,
    cnns,
    count_params,
    mlps,
    noise,
    step_flops,
)

CPU = torch.device("cpu")
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


def kernel(
    genotypes: Sequence[Genotype],
    data: DistillationSet,
    batch_size: int,
    *,
    device: torch.device = CPU,
    num_reports: int = 2,
    **settings: Any,
) -> Side:
    """The kernel itself, from the first report of progress to another.

    Gathering, layout and bookkeeping are included.
    """

    def run(num_steps: int) -> float:
        del num_steps  # it reports every LOG_EVERY steps
        torch.set_num_threads(devices.usable_cores())
        reports: list[tuple[int, float]] = []

        def note(what: str, done: int, total: int) -> None:
            if device.type == "cuda":
                torch.cuda.synchronize()
            reports.append((done, time.perf_counter()))

        steps = (num_reports + 1) * LOG_EVERY
        recipe = Recipe(steps=steps, batch_size=batch_size, warmup=0, prune_at=0.99, **settings)
        distill(genotypes, data, recipe, seed=0, device=device, progress=note)
        (first, started), (last, ended) = reports[0], reports[num_reports - 1]
        return (ended - started) / (last - first)

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


# -- on a GPU


@dataclass(frozen=True)
class CardCase:
    """A population that is measured on a GPU."""

    name: str
    genotypes: Sequence[Genotype]
    shape: tuple[int, ...]
    batch_size: int

    def setting(self, device: torch.device) -> Setting:
        """Where its sides run."""
        data = noise(4096, self.shape)
        return Setting(self.genotypes, data, batch_size=self.batch_size, device=device)

    def sides(self, *, is_dear: bool) -> dict[str, Callable[[Setting], Step]]:
        """What is measured beside the kernel."""
        if self.genotypes[0].family == "mlp":
            return DEAR if is_dear else CHEAP
        return {} if is_dear else CONVOLUTIONS


EQUAL = [Genotype("mlp", depth=2, width=[128, 128])] * 128
CARD_CASES = [
    *(CardCase(f"mlp {num}", mlps(num), (784,), 256) for num in (32, 256, 8, 128)),
    CardCase("equal 128", EQUAL, (320,), 384),
    *(CardCase(f"cnn {num}", cnns(num), (1, 28, 28), 256) for num in (8, 32)),
]
TINY_CASES = [
    CardCase("mlp 3", [Genotype("mlp", depth=d, width=5) for d in (1, 2, 2)], (12,), 8),
    CardCase("cnn 2", cnns(2), (1, 28, 28), 4),
]
CONVOLUTIONS: dict[str, Callable[[Setting], Step]] = {
    PADDED: lambda setting: captured(PaddedConvolutions(setting), setting.device),
}


def measure_on_card(
    device: torch.device,
    path: Path,
    *,
    is_dry: bool,
    seconds: float,
    names: Sequence[str] = (),
) -> None:
    """All sides of all populations; the file is written anew after each.

    Args:
        device: where; a CPU in a dry run.
        path: of the file.
        is_dry: whether sizes are tiny, and times mean nothing.
        seconds: after which no dear side is begun.
        names: of the populations; all by default.
    """
    devices.set_precision()
    ends = time.monotonic() + seconds
    hardware = devices.fingerprint(device)
    rows: dict[str, dict[str, Any]] = {}
    cases = TINY_CASES if is_dry else CARD_CASES
    chosen = [case for case in cases if not names or case.name in names]

    def write(case: CardCase) -> None:
        ms = rows[case.name]["ms"]
        rows[case.name]["ratios"] = {
            side: values[1] / ms["kernel"][1] for side, values in ms.items() if side != "kernel"
        }
        print(json.dumps({"population": case.name, **rows[case.name]}), flush=True)
        write_json(path, {"populations": list(rows.values()), "hardware": hardware})

    for is_dear in (False, True):
        for case in chosen:
            setting = case.setting(device)
            if not is_dear:
                rows[case.name] = _row_of_kernel(case, setting, is_dry=is_dry)
                write(case)

            row = rows[case.name]
            for side, make in case.sides(is_dear=is_dear).items():
                if is_dear and time.monotonic() > ends:
                    row["left out"][side] = "no time was left"
                    continue
                _add_side(row, side, make, setting, is_dry=is_dry)
            write(case)


def _row_of_kernel(case: CardCase, setting: Setting, *, is_dry: bool) -> dict[str, Any]:
    """The kernel by phases where it has them, and by the graph of products."""
    ms = {}
    for side, choice in {"kernel": "auto", "kernel, graph": "graph"}.items():
        run = kernel(
            case.genotypes,
            setting.data,
            case.batch_size,
            device=setting.device,
            num_reports=2 if is_dry else 12,
            kernel=choice,
        )
        values = [1e3 * run(0) for _ in range(1 if is_dry else 3)]
        ms[side] = _quartiles([*values, *values])

    floor = card_roofline(setting, is_dry=is_dry)
    return {
        "population": case.name,
        "students": len(case.genotypes),
        "batch_size": case.batch_size,
        "ms": ms,
        "left out": {},
        "roofline": {**floor, "fraction": floor["least_ms"] / ms["kernel"][1]},
    }


def _add_side(
    row: dict[str, Any],
    side: str,
    make: Callable[[Setting], Step],
    setting: Setting,
    *,
    is_dry: bool,
) -> None:
    """Measure a side; one that does not run says why."""
    is_slow = side == "loop"
    replays, rounds = (1, 2) if is_dry else (3, 3) if is_slow else (100, 5)
    try:
        values = ms_of(make(setting), setting.device, replays=replays, rounds=rounds)
    except Exception as error:  # of whatever this version of torch lacks
        if is_dry:
            raise
        row["left out"][side] = repr(error)[:300]
    else:
        row["ms"][side] = _quartiles(values)


def main() -> None:
    """Measure the populations and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--seconds", type=float, default=600.0, help="begin no dear side later")
    parser.add_argument("--cases", nargs="*", default=(), help="names of a GPU's populations")
    parser.add_argument(
        "--dry-run", action="store_true", help="a GPU's sides with tiny sizes on the CPU"
    )
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    args = parser.parse_args()

    path = make_dir(args.out) / f"kernel-{args.device}.json"
    if args.device == "cuda":
        device = torch.device("cpu" if args.dry_run else "cuda")
        limits = {"is_dry": args.dry_run, "seconds": args.seconds}
        measure_on_card(device, path, names=args.cases, **limits)
        return

    cases = {
        "mlp 8": (mlps(8), (784,)),
        "mlp 32": (mlps(32), (784,)),
        "cnn 8": (cnns(8), (1, 28, 28)),
    }
    populations = []
    for name, (genotypes, shape) in cases.items():
        populations.append(measure(name, genotypes, shape, 256, args.rounds))
        print(json.dumps(populations[-1]), flush=True)
    write_json(path, {"populations": populations})


if __name__ == "__main__":
    main()
