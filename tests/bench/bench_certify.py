"""What certificates say of students of digits and of a small stream, and what they cost.

    python -m tests.bench.bench_certify seed --seed 1 --parts parts
    python -m tests.bench.bench_certify merge --parts parts --out reports/reference/certify.json

Each seed samples a teacher of 16 networks anew, and distils a student of each genotype. Each
student is certified by intervals, by CROWN, and by a programme where it is small; the teacher's
average and samples by CROWN. A share is over the same test digits for everybody; a figure is the
mean of the seeds, with their extremes. Milliseconds are an image's: of bounds, without attacks.
"""

import argparse
import time
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

import gped_nas as gn
from gped_nas import device as devices
from gped_nas.io import make_dir, read_json, write_json
from gped_nas.search.space_file import parse_space

CPU = torch.device("cpu")
RADII = (0.01, 0.03, 0.06)
LIMIT = 100
TEACHER_LIMIT = 40
SPACE: dict[str, Any] = {
    "dataset": {"name": "digits"},
    "teacher": {
        "family": "mlp",
        "genotype": {"depth": 1, "width": 24},
        "method": {
            "name": "sgld",
            "chains": 2,
            "num_samples": 16,
            "step_size": {"initial": 2.0e-4},
            "burn_in": 2000,
            "thinning": 200,
        },
    },
    "views": [{"policy": "clean"}, {"policy": "mixup"}],
    "targets": ["predictive", "expected_entropy"],
    "objectives": ["nll"],
    "search": {"n_trials": 1, "students_at_once": 1, "sampler": "random", "keep": {}},
    "recipe": {"steps": 600, "lr": 0.01},
    "baseline": {"steps": 100, "precisions": [1.0]},
    "twins": {"seeds": 0},
}
STUDENTS: dict[str, dict[str, Any]] = {
    "mlp 16": {"family": "mlp", "genotype": {"depth": 1, "width": 16}},
    "mlp 16-16 int8": {
        "family": "mlp",
        "genotype": {"depth": 2, "width": 16, "storage_dtype": "int8"},
    },
    "mlp 64": {"family": "mlp", "genotype": {"depth": 1, "width": 64}},
    "cnn 8 max": {
        "family": "cnn",
        "genotype": {"depth": 1, "width": 8, "kernel": 3, "pool": 2, "head_width": 16},
    },
    "cnn 8-8 average": {
        "family": "cnn",
        "genotype": {"depth": 2, "width": 8, "kernel": 3, "pool": 1, "head": "global_average"},
    },
}
EXACT = ("mlp 16", "mlp 16-16 int8")
"""Students that a programme decides."""


def measure(seed: int, parts: Path) -> None:
    """The rows of one seed."""
    started = time.monotonic()
    rows: list[dict[str, Any]] = []
    for name, student in STUDENTS.items():
        data = {**SPACE, "name": "certified", "students": [student], "seed": seed}
        space = parse_space(data, "bench_certify")
        study = gn.run(space, out=parts / f"studies-{seed}" / name.replace(" ", "-"))
        exact = ["-exact-20s"] if name in EXACT else []
        tasks = [f"certify:linf-{radius}{words}" for radius in RADII for words in ("", *exact)]
        for row in study.evaluate(tasks, subjects=["student"], limit=LIMIT, seed=0).rows:
            rows.append({**_plain(row), "who": name})
        if name == next(iter(STUDENTS)):
            tasks = [f"certify:linf-{radius}-crown" for radius in RADII]
            found = study.evaluate(tasks, subjects=["teacher"], limit=TEACHER_LIMIT, seed=0)
            rows += [{**_plain(row), "who": f"teacher, {row['of']}"} for row in found.rows]
        print(f"seed {seed}: {name} after {time.monotonic() - started:.0f} s", flush=True)
    make_dir(parts)
    write_json(parts / f"seed-{seed}.json", {"seed": seed, "rows": rows})


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    kept = ("metric", "value", "n", "epsilon", "bounds", "of", "seconds")
    return {key: row[key] for key in kept}


def merge(parts: Path, out: Path) -> None:
    """One file of all seeds."""
    seeds = [read_json(path) for path in sorted(parts.glob("seed-*.json"))]
    lines: dict[tuple[Any, ...], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for part in seeds:
        for row in part["rows"]:
            line = lines[row["who"], row["epsilon"], row["bounds"], row["n"]]
            line[row["metric"]].append(row["value"])
            if row["metric"] == "certified":
                line["ms"].append(1000 * row["seconds"] / row["n"])

    table = []
    for (who, epsilon, bounds, n), values in lines.items():
        line = {"who": who, "epsilon": epsilon, "bounds": bounds, "n": n}
        for name, of_seeds in values.items():
            line[name] = {"mean": fmean(of_seeds), "low": min(of_seeds), "high": max(of_seeds)}
        table.append(line)
    facts = {"seeds": [part["seed"] for part in seeds], "hardware": devices.fingerprint(CPU)}
    write_json(out, {**facts, "settings": {**SPACE, "students": STUDENTS}, "rows": table})
    for line in table:
        shares = [f"{line[name]['mean']:.3f}" for name in ("certified", "broken", "unknown")]
        print("|", " | ".join([line["who"], str(line["epsilon"]), line["bounds"], *shares]), "|")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("seed", "merge"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--parts", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("reports/bench/certify.json"))
    args = parser.parse_args()
    if args.what == "seed":
        measure(args.seed, args.parts)
    else:
        merge(args.parts, args.out)


if __name__ == "__main__":
    main()
