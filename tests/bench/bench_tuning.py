"""What ``teacher tune`` finds within a budget, beside the teachers that are shipped.

    python -m tests.bench.bench_tuning --budget 300 --out reports/reference/tune.json

Each seed is a seed of everything: of what is held out, of candidates and of networks. The tuned
teacher's NLL less a shipped one's is over all validation and test examples, with intervals over
examples. Test is looked at here alone; the tuning has not seen it.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gped_nas as gn
from gped_nas import device as devices
from gped_nas.api.teacher import sample_teacher
from gped_nas.evaluate.intervals import around
from gped_nas.evaluate.predictions import Floats
from gped_nas.evaluate.resamples import draw_resamples
from gped_nas.io import write_json
from gped_nas.search.space import SearchSpace

CPU = torch.device("cpu")


def losses(space: SearchSpace) -> Floats:
    """NLL of each validation and test example by a space's teacher, nats."""
    teacher = sample_teacher(space, gn.new_session("cpu"))
    by_part = []
    for part in ("validation", "test"):
        by_part.append(-teacher.averaged(part).log_score(teacher.dataset.labels(part)))
    return np.concatenate(by_part)


def compare(mine_N: Floats, theirs_N: Floats, seed: int) -> dict[str, Any]:
    """The difference of two mean losses, with its interval."""
    difference_N = mine_N - theirs_N
    mean = difference_N.mean(keepdims=True)
    resamples = draw_resamples(len(difference_N), root=seed, part="tuned and shipped")
    (bounds,) = around(mean, difference_N[:, None], resamples)
    return {
        "nll": float(theirs_N.mean()),
        "difference": float(mean[0]),
        "interval": [bounds.low, bounds.high],
        "why": bounds.why,
        "n": len(difference_N),
    }


def measure(name: str, shipped: list[str], seed: int, budget: float) -> dict[str, Any]:
    """One seed."""
    space = gn.load_space(name, {"seed": seed})
    began = time.monotonic()
    tuning = gn.tune_teacher(space, budget=budget)
    seconds = time.monotonic() - began

    mine_N = losses(tuning.space)
    beside = {}
    for other in shipped:
        theirs_N = losses(gn.load_space(other, {"seed": seed}))
        beside[other] = compare(mine_N, theirs_N, seed)
    answer = tuning.answer
    return {
        "seed": seed,
        "seconds": seconds,
        "candidates": answer["costs"]["candidates"],
        "teacher": answer["teacher"],
        "map": answer["map"],
        "validation": answer["validation"],
        "beats_map": answer["beats_map"],
        "validation and test": {"nll": float(mine_N.mean()), "less shipped": beside},
    }


def main() -> None:
    """Tune with every seed, and write what it came to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", default="digits_mlp")
    parser.add_argument("--shipped", default="digits_mlp,digits_sgld")
    parser.add_argument("--budget", type=float, default=300.0)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    rows: list[dict[str, Any]] = []
    result = {
        "hardware": devices.fingerprint(CPU),
        "space": args.space,
        "budget_s": args.budget,
    }
    for seed in range(args.seeds):
        rows.append(measure(args.space, args.shipped.split(","), seed, args.budget))
        write_json(args.out, {**result, "seeds": rows})
        print(rows[-1]["validation and test"], flush=True)


if __name__ == "__main__":
    main()
