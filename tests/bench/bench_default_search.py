"""What a change did to the default search: student seconds and hypervolume, before and after.

    git worktree add ../before COMMIT
    python tests/bench/bench_default_search.py --before ../before --out reports/bench

Both trees run the same space with the same seeds and the same teachers, in turns; intervals are
Student's t over pairs of one seed. With ``--set search.sampler=random`` both trees try the same
genotypes: what remains of the difference is the students'.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import gped_nas as gn
from gped_nas import device as devices
from gped_nas.io import make_dir, write_json
from tests.bench.bench_policies import interval

RUN = "from gped_nas.cli import main; main()"


def search(
    tree: Path, space: str, seed: int, out: Path, settings: Sequence[str]
) -> dict[str, float]:
    """One search by the code of a tree."""
    command = [sys.executable, "-c", RUN, "run", space, "--seed", str(seed), "--out", str(out)]
    for setting in settings:
        command += ["--set", setting]
    environment = {**os.environ, "PYTHONPATH": str(tree.resolve())}
    subprocess.run(command, env=environment, cwd=tree, check=True, capture_output=True)

    study = gn.open_study(out / space)
    seconds = sum(record.seconds or 0.0 for record in study.records())
    return {"student_s": seconds, "hypervolume": study.snapshot().hypervolume[-1]}


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--space", default="digits_mlp")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--first-seed", type=int, default=0, help="others than a choice was made with"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="as of gped-search run"
    )
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    return parser.parse_args()


def main() -> None:
    """Measure and write the file."""
    args = parse_args()
    trees = {"before": args.before, "after": Path(__file__).parents[2]}
    runs: dict[str, list[dict[str, float]]] = {"before": [], "after": []}
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for name, tree in trees.items():
            with tempfile.TemporaryDirectory() as folder:
                runs[name].append(search(tree, args.space, seed, Path(folder), args.set))
            print(f"seed {seed}, {name}: {runs[name][-1]}", flush=True)

    time_ratios = []
    hypervolume_changes = []
    for before, after in zip(runs["before"], runs["after"], strict=True):
        time_ratios.append(after["student_s"] / before["student_s"])
        hypervolume_changes.append(after["hypervolume"] / before["hypervolume"] - 1)

    result: dict[str, Any] = {
        "space": args.space,
        "settings": args.set,
        "first_seed": args.first_seed,
        "runs": runs,
        "time_ratio": interval(time_ratios),
        "hypervolume_change": interval(hypervolume_changes),
        "hardware": devices.fingerprint(torch.device("cpu")),
    }
    print(json.dumps(result))
    write_json(make_dir(args.out) / "default_search-cpu.json", result)


if __name__ == "__main__":
    main()
