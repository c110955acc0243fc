"""What it costs to ask for a population, beside the sampler alone, without a database.

    python tests/bench/bench_asking.py --out reports/bench

With 1,000 finished trials behind, in a study that has read them. Prints one JSON line a sampler.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import optuna
import torch

from gped_nas import device as devices
from gped_nas.io import make_dir, write_json
from gped_nas.search.drawing import make_sampler, sampler_seed
from gped_nas.search.space import SearchSpace
from tests.search.fakes import Fake, make_space, open_store, run

VAST = {"depth": 4, "width": [{"int": [1, 100]}] * 4}
SIZES = (24, 48, 96)


def alone_s(space: SearchSpace, trials: list[optuna.trial.FrozenTrial], num: int) -> float:
    """Processor seconds of the sampler for so many suggestions, on a study in memory."""
    sampler = make_sampler(space, sampler_seed(space.seed, 0, len(trials)))
    study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
    study.add_trials(trials)
    started = time.process_time()
    for _ in range(num):
        space.draw(study.ask())
    return time.process_time() - started


def measure(sampler: str, num_behind: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of populations of several sizes, and the largest one's ratio."""
    ours: dict[int, list[float]] = {num: [] for num in SIZES}
    alone: dict[int, list[float]] = {num: [] for num in SIZES}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            drawn = make_space(VAST, sampler="random", students_at_once=100, max_failures=0)
            ledger = open_store(drawn, Path(folder) / "study.db")
            run(drawn, ledger, Fake(), n_trials=num_behind)
            trials = ledger._study.get_trials()
            space = make_space(VAST, sampler=sampler, students_at_once=100, max_failures=0)
            for num in SIZES:
                alone[num].append(1e3 * alone_s(space, trials, num))
                started = time.process_time()
                ledger.claim(space, num, space.seed)
                ours[num].append(1e3 * (time.process_time() - started))

    largest = SIZES[-1]
    ratios = [a / b for a, b in zip(ours[largest], alone[largest], strict=True)]
    return {
        "sampler": sampler,
        "behind": num_behind,
        "rounds": rounds,
        "asking_ms": {num: statistics.median(values) for num, values in ours.items()},
        "sampler_alone_ms": {num: statistics.median(values) for num, values in alone.items()},
        "ratio": statistics.median(ratios),
    }


def main() -> None:
    """Measure the samplers, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    parser.add_argument("--behind", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    rows = []
    for sampler in ("tpe", "nsga2", "random"):
        rows.append(measure(sampler, args.behind, args.rounds))
        print(json.dumps(rows[-1]), flush=True)
    hardware = devices.fingerprint(torch.device("cpu"))
    write_json(make_dir(args.out) / "asking-cpu.json", {"rows": rows, "hardware": hardware})


if __name__ == "__main__":
    main()
