"""What students keep of their teacher, task by task: everybody beside everybody, over seeds.

    python -m tests.bench.bench_kept all --parts parts --out reports/reference/kept.json
    python -m tests.bench.bench_kept digits --seed 1 --parts parts
    python -m tests.bench.bench_kept merge --parts parts --out reports/reference/kept.json

Each seed searches its space anew: teacher, MAP network, label twins and students. Then the teacher,
its best single sample, the MAP network, the student of the teacher's own architecture, the chosen
student and its label twin do every task on the test part. A figure is the mean over seeds with
Student's interval; so is the difference of the chosen student and each other predictor, paired by
seed. ``all`` runs a process a seed, two at a time.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

import gped_nas as gn
from gped_nas import device as devices
from gped_nas.io import make_dir, read_json, write_json
from gped_nas.posterior.diagnostics import t_quantile
from tests.bench.side_by_side import run_side_by_side

Settings = dict[str, Any]
CPU = torch.device("cpu")
Line = tuple[str, str, str]
"""Task, metric and condition."""

SHIFTS = ("noise", "blur", "contrast", "rotation", "mask")
COMMON = (
    "prediction",
    "misclassification",
    "selective",
    "ranking",
    "conformal:0.1",
    *(f"shift:{name}" for name in SHIFTS),
    "ood:permuted",
    "ood:noise",
    "ood:rotated",
)


@dataclass(frozen=True)
class Case:
    """A space and what is asked.

    Attributes:
        space: that is searched.
        tasks: beside the common ones.
        settings: of the space.
        limit: examples of the test part; None for all.
    """

    space: str
    tasks: tuple[str, ...]
    settings: Settings = field(default_factory=dict)
    limit: int | None = None


CASES = {
    "digits": Case("digits_mlp", ("attack:worst-0.02..0.2", "ood:pgd-0.1")),
    "fashion": Case(
        "fashion_mlp",
        ("attack:worst-0.01..0.02", "ood:pgd-0.02", "ood:digits"),
        {"twins.students": 1},
        limit=1000,
    ),
}


def measure(args: argparse.Namespace) -> None:
    """One case and seed: the search, and the rows of every task."""
    case = CASES[args.case]
    started = time.monotonic()
    settings = {**case.settings, "seed": args.seed, "name": f"kept_{args.case}_{args.seed}"}
    study = gn.run(gn.load_space(case.space, settings), out=args.parts / "studies")
    searched = time.monotonic()

    evaluation = gn.evaluate_tasks(study, [*COMMON, *case.tasks], limit=case.limit)
    result = {
        "case": args.case,
        "seed": args.seed,
        "space": case.space,
        "settings": case.settings,
        "hardware": devices.fingerprint(CPU),
        "seconds": {"search": searched - started, "tasks": time.monotonic() - searched},
        "notes": evaluation.notes,
        "rows": evaluation.rows,
    }
    write_json(args.parts / f"{args.case}-{args.seed}.json", result)


def merge(args: argparse.Namespace) -> None:
    """The table of every case, of what its seeds measured."""
    cases = {}
    for name in CASES:
        parts = [read_json(path) for path in sorted(args.parts.glob(f"{name}-*.json"))]
        if parts:
            cases[name] = summarize(parts)
    write_json(args.out, {"bench": "kept", "cases": cases})


def summarize(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A case's table: a line a task, metric and condition, a figure a predictor."""
    values = values_of(parts)
    lines = []
    for line, by_predictor in values.items():
        task, metric, condition = line
        figures = {name: over_seeds(list(v.values())) for name, v in by_predictor.items()}
        student = by_predictor.get("student", {})
        others = {name: v for name, v in by_predictor.items() if name != "student"}
        differences = {name: over_seeds(paired(student, v)) for name, v in others.items()}
        lines.append(
            {
                "task": task,
                "metric": metric,
                "condition": condition,
                "figures": {name: figure for name, figure in figures.items() if figure},
                "student minus": {name: figure for name, figure in differences.items() if figure},
            }
        )

    first = parts[0]
    return {
        "space": first["space"],
        "settings": first["settings"],
        "part": first["rows"][0]["part"],
        "seeds": [part["seed"] for part in parts],
        "n": next(row["n"] for row in first["rows"] if row["task"] == "prediction"),
        "hardware": first["hardware"],
        "seconds": [part["seconds"] for part in parts],
        "notes": sorted({note for part in parts for note in part["notes"]}),
        "lines": lines,
    }


def values_of(parts: Sequence[Mapping[str, Any]]) -> dict[Line, dict[str, dict[int, float]]]:
    """Values by line, predictor and seed."""
    values: dict[Line, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for part in parts:
        for row in part["rows"]:
            if row["value"] is None:
                continue
            # a chosen student is called by its trial, which is another one for each seed
            predictor = "student" if row["predictor"].startswith("trial") else row["predictor"]
            line = row["task"], row["metric"], row["condition"]
            values[line][predictor][part["seed"]] = row["value"]
    return values


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> list[float]:
    """Differences of the seeds that both have."""
    return [first[seed] - second[seed] for seed in first.keys() & second.keys()]


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Mean over seeds and its 95 % interval by Student's t; of one seed it has none."""
    if not values:
        return {}
    mean = fmean(values)
    figure = {"mean": round(mean, 6), "values": [round(value, 6) for value in values]}
    if len(values) > 1:
        half = t_quantile(len(values) - 1) * stdev(values) / len(values) ** 0.5
        figure |= {"low": round(mean - half, 6), "high": round(mean + half, 6)}
    return figure


def everything(args: argparse.Namespace) -> None:
    """Every case and seed, two processes at a time, and the table."""
    todo = [(name, seed) for name in args.cases for seed in args.seeds]
    for i in range(0, len(todo), 2):
        parts = []
        for name, seed in todo[i : i + 2]:
            if not (args.parts / f"{name}-{seed}.json").exists():
                parts.append([name, "--seed", str(seed), "--parts", str(args.parts)])
        run_side_by_side("tests.bench.bench_kept", parts, args.time_limit)
    merge(args)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=[*CASES, "all", "merge"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--parts", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("reports/reference/kept.json"))
    parser.add_argument("--time-limit", type=float, default=3600.0)
    args = parser.parse_args()

    make_dir(args.parts)
    {"all": everything, "merge": merge}.get(args.case, measure)(args)


if __name__ == "__main__":
    main()
