"""How noisy a front is: one genotype on several seeds, and fronts with and without finalists.

    python tests/bench/bench_seeds.py --out reports/reference [--genotypes 64] [--seeds 9]

Random genotypes of ``digits_mlp`` are trained with each of the seeds. What was trained lies beside
the result as ``seeds-parts.json``, and the same command goes on with it. Then

* the standard deviation over five seeds of a genotype's NLL stands beside the distance of neighbors
  on the front;
* each seed is seen once. Three others train the finalists, and the mean of the rest is the truth.
  The optimism of a figure is the truth minus the figure;
* the trials of each seed are looked at in their order, as ``--stop-when-flat`` would.

Intervals are 95 % by Student's t over the seeds that are seen. Prints one JSON line.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gped_nas import device as devices
from gped_nas.evaluate.measured import from_public
from gped_nas.io import make_dir, write_json
from gped_nas.posterior.diagnostics import t_quantile
from gped_nas.search.finalists import near_front
from gped_nas.search.flatness import FrontWatch
from gped_nas.search.objectives import objective
from gped_nas.search.pareto import hypervolume, pareto_front, to_box
from gped_nas.search.record import TrialRecord
from gped_nas.search.space_file import load_space
from tests.bench.seed_pool import build

Floats = NDArray[np.float64]
NAMES = ("nll", "flops", "storage_bytes")
GOALS = tuple(objective(name, "bench") for name in NAMES)
NEAR, NUM_FRESH, NUM_SPREAD, KEEP = 0.2, 3, 5, 0.9
PATIENCES = (12, 24)


class Pool:
    """The pool as arrays.

    Attributes:
        values: NLL, FLOPs and bytes by seed and genotype, (S, N, 3).
        bound: the NLL that students inside the region have at most.
    """

    def __init__(self, pool: Mapping[str, Any]) -> None:
        rows = [pool["rows"][str(seed)] for seed in range(len(pool["rows"]))]
        sound = [i for i in range(len(rows[0])) if all(of_seed[i] for of_seed in rows)]
        self.draws = [[of_seed[i]["draws"] for i in sound] for of_seed in rows]
        self.values: Floats = np.array(
            [[[of_seed[i][name] for name in NAMES] for i in sound] for of_seed in rows]
        )
        self.teacher, self.guess = pool["teacher"], pool["guess"]
        self.bound = self.guess - KEEP * (self.guess - self.teacher)

    def records(self, seed: int) -> list[TrialRecord]:
        """The trials of a seed."""
        made = []
        for i, (nll, flops, num_bytes) in enumerate(self.values[seed].tolist()):
            record = TrialRecord(
                i,
                "complete",
                {},
                measures=from_public({"nll": nll}),
                costs={"flops": flops, "storage_bytes": num_bytes},
                draws={"nll": self.draws[seed][i]},
            )
            made.append(record)
        return made

    def front(self, values: Floats) -> list[int]:
        """Genotypes on the front of those inside, best first."""
        inside = np.flatnonzero(values[:, 0] <= self.bound)
        is_on_front = pareto_front(values[inside], ["minimize"] * 3)
        return sorted(inside[is_on_front].tolist(), key=lambda i: values[i, 0])

    def volume(self, values: Floats) -> float:
        """Hypervolume of points in the region's box."""
        best = (0.0, *self.values[:, :, 1:].min(axis=(0, 1)))
        worst = (self.bound, *self.values[:, :, 1:].max(axis=(0, 1)))
        losses = to_box(values, best, worst, scales=[goal.scale for goal in GOALS])
        return hypervolume(losses, np.ones(3))


def mean_of(values: Sequence[float]) -> dict[str, Any]:
    """The mean over seeds that were seen, with its 95 % interval."""
    half = t_quantile(len(values) - 1) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    mean = float(np.mean(values))
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": len(values)}


def spread(pool: Pool) -> dict[str, Any]:
    """A genotype's NLL on five seeds beside the distance of neighbors on the front."""
    nll = pool.values[:NUM_SPREAD, :, 0]
    means = nll.mean(axis=0)
    inside = means <= pool.bound
    bands = {}
    flops = pool.values[:NUM_SPREAD, :, 1].mean(axis=0)
    for low, high in ((0, 2_000), (2_000, 8_000), (8_000, float("inf"))):
        of_band = inside & (flops >= low) & (flops < high)
        if of_band.any():
            variance = nll[:, of_band].var(axis=0, ddof=1)
            bands[f"{low} to {high:g} FLOPs"] = {
                "sd": float(variance.mean() ** 0.5),
                "n": int(of_band.sum()),
            }
    distances = []
    for seed in range(len(pool.values)):
        ordered = sorted(pool.values[seed, pool.front(pool.values[seed]), 0])
        distances.append(float(np.median(np.diff(ordered))))
    return {
        "sd of NLL over 5 seeds": float(nll[:, inside].var(axis=0, ddof=1).mean() ** 0.5),
        "sd of log NLL over 5 seeds": float(
            np.log(nll[:, inside]).var(axis=0, ddof=1).mean() ** 0.5
        ),
        "genotypes inside": int(inside.sum()),
        "by size": bands,
        "median distance of neighbors on the front": mean_of(distances),
    }


def compare(pool: Pool, seen: int) -> dict[str, float]:
    """One seed's front without and with finalists, against the mean of the seeds that none used."""
    num_seeds = len(pool.values)
    others = [(seen + step) % num_seeds for step in range(1, num_seeds)]  # in turn
    fresh, rest = others[:NUM_FRESH], others[NUM_FRESH:]
    truth, values = pool.values[rest].mean(axis=0), pool.values[seen]
    true_front = set(pool.front(truth))

    front = pool.front(values)
    records = pool.records(seen)
    inside = [record for record in records if record.value("nll") <= pool.bound]
    near = near_front(inside, [records[i] for i in front], GOALS, (0.0, 1.0, 1.0), NEAR)
    finalists = [*front, *(record.trial for record in near)]

    means = pool.values[fresh].mean(axis=0)
    with_first = pool.values[[seen, *fresh[:-1]]].mean(axis=0)
    by_means = [
        finalists[i] for i in np.flatnonzero(pareto_front(means[finalists], ["minimize"] * 3))
    ]
    kept = [i for i in front if i in by_means]
    return {
        "members": len(front),
        "finalists": len(finalists),
        "optimism, one seed": float((truth[front, 0] - values[front, 0]).mean()),
        "optimism, mean of 3 fresh seeds": float((truth[front, 0] - means[front, 0]).mean()),
        "optimism, first seed and 2 fresh": float((truth[front, 0] - with_first[front, 0]).mean()),
        "truly on the front, one seed": len(true_front & set(front)) / len(front),
        "truly on the front, also by the means": len(true_front & set(kept)) / len(kept),
        "on the front and not by the means": 1 - len(kept) / len(front),
    }


def flat(pool: Pool, seen: int, patience: int) -> dict[str, float]:
    """When a search would end whose trials are those of one seed."""
    best = (0.0, *pool.values[:, :, 1:].min(axis=(0, 1)))
    worst = (pool.bound, *pool.values[:, :, 1:].max(axis=(0, 1)))
    watch = FrontWatch(patience, GOALS, best, worst, lambda r: r.value("nll") <= pool.bound)
    for record in pool.records(seen):
        watch.add(record)
        flatness = watch.look()
        if flatness.is_flat:
            break

    num = flatness.num_trials
    others = [seed for seed in range(len(pool.values)) if seed != seen]
    truth = pool.values[others].mean(axis=0)
    stopped, whole = pool.front(pool.values[seen, :num]), pool.front(pool.values[seen])
    return {
        "trials": num,
        "after the last gain": flatness.num_since,
        "share of all trials' hypervolume": pool.volume(truth[stopped]) / pool.volume(truth[whole]),
    }


def recorded(pool: Pool, seen: int) -> dict[str, Any]:
    """The trials of a seed in their order, and their truth: for a test of ``stop_when_flat``."""
    others = [seed for seed in range(len(pool.values)) if seed != seen]
    truth = pool.values[others].mean(axis=0)
    trials = []
    for i, draws in enumerate(pool.draws[seen]):
        row = dict(zip(NAMES, pool.values[seen, i].tolist(), strict=True))
        trials.append({**row, "draws": draws, "true_nll": float(truth[i, 0])})
    best = [0.0, *pool.values[:, :, 1:].min(axis=(0, 1)).tolist()]
    worst = [pool.bound, *pool.values[:, :, 1:].max(axis=(0, 1)).tolist()]
    return {"best": best, "worst": worst, "trials": trials}


def _over_seeds(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    return {name: mean_of([row[name] for row in rows]) for name in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    parser.add_argument("--genotypes", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=9)
    args = parser.parse_args()

    out = make_dir(args.out)
    parts = out / "seeds-parts.json"
    made = build(load_space("digits_mlp"), parts, num=args.genotypes, seeds=args.seeds)
    pool = Pool(made)
    seen = range(len(pool.values))
    result = {
        "space": "digits_mlp",
        "genotypes": args.genotypes,
        "seeds": args.seeds,
        "bound": pool.bound,
        "machine": devices.fingerprint(devices.choose("cpu")),
        "spread": spread(pool),
        "fronts": _over_seeds([compare(pool, seed) for seed in seen]),
        "stop when flat": {
            str(patience): _over_seeds([flat(pool, seed, patience) for seed in seen])
            for patience in PATIENCES
        },
        "recorded": recorded(pool, 0),
    }
    write_json(out / "seeds.json", result)
    print(json.dumps({name: row for name, row in result.items() if name != "recorded"}))


if __name__ == "__main__":
    main()
