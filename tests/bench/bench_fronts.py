"""How often the interval of a difference of hypervolumes holds the truth.

    python tests/bench/bench_fronts.py --out reports/reference/coverage-of-hypervolumes.json

Two searches draw their trials independently: costs are uniform, and losses fall with the cost but
for noise that is half a normal. The truth is the difference of average hypervolumes over 2,000
searches of each. 200 pairs know a coverage of 95 % to .015, as a standard error. It takes two
minutes on one core.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gped_nas import device as devices
from gped_nas.io import write_json
from gped_nas.search.coverage import resampled_difference
from gped_nas.search.pareto import hypervolume

PAIRS = 200
KINDS = {
    "alike": {},
    "losses greater by .05": {"shift": 0.05},
    "noise three times as large": {"noise": 0.45},
}
"""What the second search is, beside the first."""


def trials(
    generator: np.random.Generator, num: int, *, shift: float = 0.0, noise: float = 0.15
) -> Any:
    """Costs and losses (num, 2) of independent trials."""
    cost = generator.random(num)
    excess = np.abs(generator.normal(0, noise, num))
    loss = 0.05 + shift + 0.5 * np.exp(-4 * cost) + excess
    return np.stack([cost, np.clip(loss, 0, 1)], axis=1)


def average(generator: np.random.Generator, num: int, **kind: float) -> float:
    """The average hypervolume of 2,000 searches."""
    ones = np.ones(2)
    return float(np.mean([hypervolume(trials(generator, num, **kind), ones) for _ in range(2000)]))


def measure(name: str, num: int) -> dict[str, Any]:
    """A row: how many intervals hold the truth."""
    generator = np.random.default_rng(num)
    kind = KINDS[name]
    truth = average(generator, num) - average(generator, num, **kind)

    num_covered = 0
    for _ in range(PAIRS):
        first, second = trials(generator, num), trials(generator, num, **kind)
        _, (low, high) = resampled_difference(first, second)
        num_covered += low <= truth <= high
    return {"second": name, "trials": num, "pairs": PAIRS, "coverage": num_covered / PAIRS}


def main() -> None:
    """Measure every kind at every length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    rows = []
    for name in KINDS:
        for num in (16, 32, 48):
            rows.append(measure(name, num))
            print(rows[-1], flush=True)
    write_json(args.out, {"hardware": devices.fingerprint(torch.device("cpu")), "rows": rows})


if __name__ == "__main__":
    main()
