"""What a step of students of pictures costs, with each norm, beside a plain PyTorch loop.

    python tests/bench/bench_norms.py --out reports/bench

The network is that of ``reports/notes/pictures-2026-11-28.md``: a stem of stride 2 and three
convolutions more, a global average, one dense layer; 32x32x3 pictures. Six students take a step of
AdamW on a batch of 128, on one thread. Sides take turns; what is told are quartiles of milliseconds
of processor time a student. Prints one JSON line.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gped_nas import device as devices
from gped_nas.distill.bundle import InTurn
from gped_nas.distill.recipe import Recipe
from gped_nas.distill.trainee import Trainee
from gped_nas.distill.training import TrainedBundle
from gped_nas.io import make_dir, write_json
from gped_nas.models.base import FAMILIES, Genotype, shapes_of
from gped_nas.targets.layout import HeadLayout

BATCH, STUDENTS, CLASSES, SHAPE = 128, 6, 7, (3, 32, 32)
WARM_UP = 2
WIDTHS, STRIDES, POOLS = (12, 14, 32, 48), (2, 1, 1, 1), (1, 2, 2, 1)
LAYOUT = HeadLayout(["predictive"], CLASSES)
CPU = torch.device("cpu")

Step = Callable[[], object]


def kernel(norm: str, block: str, x: Tensor, soft: Tensor) -> Step:
    """A step of the kernel's."""
    genotype = Genotype(
        "cnn",
        depth=len(WIDTHS),
        width=WIDTHS,
        kernel=3,
        stride=STRIDES,
        pool=POOLS,
        padding="same",
        head="global_average",
        block=block,
        norm=norm,
    )
    students = []
    for seed in range(STUDENTS):
        generator = torch.Generator().manual_seed(seed)
        shapes = genotype.shapes(SHAPE, CLASSES)
        params = FAMILIES["cnn"].initialize(shapes, generator=generator)
        student = Trainee(genotype, 1.0, params)
        if genotype.form is not None:
            student.params, student.constants = genotype.form.begin(params)
        students.append(student)

    bundle = InTurn(
        FAMILIES["cnn"],
        [shapes_of(student.params) for student in students],
        lambda raw_PBU, expectations: LAYOUT.loss(raw_PBU, expectations, {}),
        dtype=torch.float32,
        device=CPU,
        forwards=[student.forward for student in students],
    )
    training = TrainedBundle(bundle, students, Recipe(), updates=0)
    return lambda: training.step(x, {"predictive": soft}, 0.01)


def plain(norm: str, layout: torch.memory_format, x: Tensor, soft: Tensor) -> Step:
    """A step of what somebody would write, for as many networks."""
    x = x.to(memory_format=layout)
    students = []
    for _ in range(STUDENTS):
        layers: list[nn.Module] = []
        channels = SHAPE[0]
        for width, stride, pool in zip(WIDTHS, STRIDES, POOLS, strict=True):
            layers.append(nn.Conv2d(channels, width, 3, stride, padding=1, bias=norm == "none"))
            if norm == "batch":
                layers.append(nn.BatchNorm2d(width))
            layers += [nn.ReLU(), nn.MaxPool2d(pool)] if pool > 1 else [nn.ReLU()]
            channels = width
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)]
        network = nn.Sequential(*layers, *head).to(memory_format=layout)  # type: ignore[call-overload]
        students.append((network, torch.optim.AdamW(network.parameters(), lr=0.01)))

    def step() -> None:
        for network, optimizer in students:
            optimizer.zero_grad()
            F.cross_entropy(network(x), soft).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return step


def measure(rounds: int) -> dict[str, list[float]]:
    """Quartiles of milliseconds a student of each side."""
    x = torch.randn((BATCH, *SHAPE))
    soft = torch.rand((BATCH, CLASSES)).softmax(-1)
    sides: dict[str, Step] = {}
    for norm in ("none", "batch", "weight"):
        sides[f"kernel, {norm}"] = kernel(norm, "plain", x, soft)
    sides["kernel, batch, separable"] = kernel("batch", "separable", x, soft)
    for norm in ("none", "batch"):
        sides[f"plain, {norm}, channels last"] = plain(norm, torch.channels_last, x, soft)
    sides["plain, batch, channels first"] = plain("batch", torch.contiguous_format, x, soft)

    times: dict[str, list[float]] = {side: [] for side in sides}
    with devices.one_thread():
        for _ in range(WARM_UP + rounds):
            for side, step in sides.items():
                started = time.process_time()
                step()
                times[side].append(1e3 * (time.process_time() - started) / STUDENTS)
    return {side: statistics.quantiles(values[WARM_UP:], n=4) for side, values in times.items()}


def main() -> None:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    args = parser.parse_args()

    result = {
        "ms": measure(args.rounds),
        "rounds": args.rounds,
        "hardware": devices.fingerprint(CPU),
    }
    print(json.dumps(result))
    write_json(make_dir(args.out) / "norms-cpu.json", result)


if __name__ == "__main__":
    main()
