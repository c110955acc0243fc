"""Whether convolutions of several students are worth computing together.

    python tests/bench/bench_convolutions.py --out reports/bench

The layout of ``cnn`` rests on it. Measured are forward and backward passes, on one thread, channels
last:

* first layers (5x5, pooling included) of eight students on one batch of 28x28 images: each its own;
  one convolution of all their filters; one product of all filters with the patches of the batch;
* second layers of four students of equal shape: each its own; one grouped convolution.

Sides take turns; what is told are quartiles of milliseconds of processor time. Prints one JSON
line.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from gped_nas import device as devices
from gped_nas.io import make_dir, write_json
from gped_nas.models.images import channels_last

BATCH, KERNEL = 128, 5
WARM_UP = 2
WIDTHS = (4, 8, 16, 4, 8, 16, 8, 4)


def first_layers(x: Tensor) -> dict[str, Callable[[], None]]:
    """The sides of the first layers."""
    weights = [torch.randn((width, 1, KERNEL, KERNEL), requires_grad=True) for width in WIDTHS]

    def finish(pooled: Tensor) -> None:
        parts = pooled.split(WIDTHS, 1)  # type: ignore[no-untyped-call]
        total = torch.stack([channels_last(part).sum() for part in parts]).sum()
        total.backward()  # type: ignore[no-untyped-call]

    def each() -> None:
        seen = channels_last(x)
        for weight in weights:
            F.max_pool2d(F.conv2d(seen, weight), 2).sum().backward()  # type: ignore[no-untyped-call]

    def together() -> None:
        finish(F.max_pool2d(F.conv2d(channels_last(x), torch.cat(weights)), 2))

    def patches() -> None:
        windows = x.unfold(2, KERNEL, 1).unfold(3, KERNEL, 1)[:, 0]
        side = windows.shape[1]
        product = windows.reshape(-1, KERNEL**2) @ torch.cat(weights).flatten(1).t()
        finish(F.max_pool2d(product.view(BATCH, side, side, -1).permute(0, 3, 1, 2), 2))

    return {"first, each": each, "first, one convolution": together, "first, one product": patches}


def second_layers() -> dict[str, Callable[[], None]]:
    """The sides of second layers of equal shape."""
    inputs = [channels_last(torch.randn((BATCH, 8, 12, 12))).requires_grad_() for _ in range(4)]
    weights = [
        channels_last(torch.randn((16, 8, KERNEL, KERNEL))).requires_grad_() for _ in range(4)
    ]

    def each() -> None:
        for x, weight in zip(inputs, weights, strict=True):
            F.conv2d(x, weight).sum().backward()  # type: ignore[no-untyped-call]

    def grouped() -> None:
        F.conv2d(torch.cat(inputs, 1), torch.cat(weights), groups=4).sum().backward()  # type: ignore[no-untyped-call]

    return {"second, each": each, "second, grouped": grouped}


def measure(rounds: int) -> dict[str, list[float]]:
    """Quartiles of milliseconds of each side."""
    with devices.one_thread():
        sides = {**first_layers(torch.randn((BATCH, 1, 28, 28))), **second_layers()}
        times: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(WARM_UP + rounds):
            for side, run in sides.items():
                started = time.process_time()
                run()
                times[side].append(1e3 * (time.process_time() - started))
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
        "hardware": devices.fingerprint(torch.device("cpu")),
    }
    print(json.dumps(result))
    write_json(make_dir(args.out) / "convolutions-cpu.json", result)


if __name__ == "__main__":
    main()
