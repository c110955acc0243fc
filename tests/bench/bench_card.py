"""The kernel's step on a GPU: by products, by walks, and padded, in one run.

    python tests/bench/bench_card.py --out reports/bench

Prints one JSON line a population.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gped_nas import device as devices
from gped_nas.distill.feed import DistillationSet
from gped_nas.distill.phases.bundle import PhasedMlp
from gped_nas.distill.phases.launch import Launch
from gped_nas.distill.phases.tiles import Sizes
from gped_nas.distill.recipe import Recipe
from gped_nas.io import make_dir, write_json
from gped_nas.models.base import Genotype
from tests.bench.cuda_sides import (
    CUDA,
    EagerLoop,
    Padded,
    captured,
    drawn,
    kernel_side,
    ms_of,
    scheduled,
)
from tests.bench.populations import mlps, noise

LAUNCHES = {
    "64x64x64 w4 s3 p2": Launch(),
    "64x64x64 w4 s3 p3": Launch(programs_a_processor=3),
    "64x64x64 w4 s3 p4": Launch(programs_a_processor=4),
    "64x64x64 w4 s4 p3": Launch(stages=4, programs_a_processor=3),
    "64x64x32 w4 s4 p4": Launch(depth=32, stages=4, programs_a_processor=4),
    "32x64x64 w4 s3 p4": Launch(Sizes(32, 64), programs_a_processor=4),
    "64x128x64 w4 s3 p2": Launch(Sizes(64, 128)),
    "128x128x64 w8 s3 p1": Launch(Sizes(128, 128), warps=8, programs_a_processor=1),
    "64x32x64 w4 s3 p4": Launch(Sizes(64, 32), programs_a_processor=4),
}


def parts_of(bundle: PhasedMlp, data: DistillationSet, recipe: Recipe) -> dict[str, float]:
    """Milliseconds of the pieces of a step, each captured by itself."""
    x, expectations = data.batch(torch.arange(recipe.batch_size, device=CUDA))
    bundle.compute(x, expectations)
    step = bundle._step
    assert step is not None
    return {
        "forward": ms_of(captured(lambda: bundle._walk(step, step.forward))),
        "backward": ms_of(captured(lambda: bundle._walk(step, step.backward))),
        "loss": ms_of(captured(lambda: bundle._loss_of(step, expectations))),
    }


def measure(
    genotypes: Sequence[Genotype],
    data: DistillationSet,
    recipe: Recipe,
    launches: dict[str, Launch],
    *,
    with_loop: bool,
) -> dict[str, Any]:
    """All sides of one population, milliseconds a step."""
    data = data.to(CUDA)
    half = replace(data, inputs=data.inputs.to(torch.bfloat16))
    students = drawn(genotypes, data)
    ms: dict[str, float] = {}

    def kernel(launch: Launch | None, dtype: torch.dtype = torch.bfloat16) -> float:
        shown = half if dtype == torch.bfloat16 else data
        step, _ = scheduled(students, shown, recipe, dtype=dtype, launch=launch)
        return ms_of(kernel_side(step))

    ms["padded"] = ms_of(captured(Padded(genotypes, data, recipe)))
    ms["products"] = kernel(None)
    for name, launch in launches.items():
        ms[f"walks {name}"] = kernel(launch)
    ms["walks float32"] = kernel(Launch(), torch.float32)
    ms["products float32"] = kernel(None, torch.float32)
    if with_loop:
        ms["loop"] = ms_of(EagerLoop(students, data, recipe), replays=3, rounds=3)

    step, trained = scheduled(students, half, recipe, dtype=torch.bfloat16, launch=Launch())
    bundle = trained.bundle
    assert isinstance(bundle, PhasedMlp)
    parts = parts_of(bundle, half, recipe)
    lr = torch.full((), 1e-3, device=CUDA)
    parts["update"] = ms_of(captured(lambda: trained._optimizer.step(lr)))
    return {"students": len(genotypes), "ms": ms, "parts": parts}


def main() -> None:
    """Measure the populations and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    parser.add_argument("--all-launches", action="store_true")
    args = parser.parse_args()

    devices.set_precision()
    launches = LAUNCHES if args.all_launches else {"default": Launch()}
    recipe = Recipe(steps=4000, batch_size=256, warmup=0)
    populations = []
    for num in (8, 32, 128, 256):
        result = measure(mlps(num), noise(4096, (784,)), recipe, launches, with_loop=num == 8)
        populations.append({"population": f"mlp {num}", **result})
        print(json.dumps(populations[-1]), flush=True)

    equal = [Genotype("mlp", depth=2, width=[128, 128]) for _ in range(128)]
    shallow = [Genotype("mlp", depth=1, width=w) for w in (16, 32, 64, 100, 128, 200) * 22]
    for name, genotypes, shape, size in [
        ("equal 128", equal, (320,), 384),
        ("shallow 132", shallow, (768,), 128),
    ]:
        batches = Recipe(steps=4000, batch_size=size, warmup=0)
        result = measure(genotypes, noise(4096, shape), batches, launches, with_loop=False)
        populations.append({"population": name, **result})
        print(json.dumps(populations[-1]), flush=True)

    hardware = devices.fingerprint(CUDA)
    write_json(
        make_dir(args.out) / "kernel-cuda.json",
        {"populations": populations, "hardware": hardware},
    )


if __name__ == "__main__":
    main()
