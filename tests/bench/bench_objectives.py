"""Does a search for what a posterior is for find students that a search for accuracy missed?

    python -m tests.bench.bench_objectives all --parts parts --out reports/reference/objectives.json
    python -m tests.bench.bench_objectives merge --parts parts --out ...

For each goal and seed, two searches of digits draw as many students: one for NLL and FLOPs, one for
the goal and FLOPs. The students of both fronts are then measured by the goal on the test part. A
figure is the best goal of a front, another the area that it covers: of FLOPs, as a share of the
orders of magnitude that students have, times the goal. The difference of both searches is a mean
over seeds with Student's interval.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import gped_nas as gn
from gped_nas import device as devices
from gped_nas.api.study import Study
from gped_nas.io import make_dir, read_json, write_json
from tests.bench.bench_kept import over_seeds
from tests.bench.side_by_side import run_side_by_side

SPACE = "digits_mlp"
TRIALS = 48
GOALS = {
    "robust": ("accuracy@apgd-0.1", "attack:apgd-0.1", "accuracy"),
    "rotated": ("ood_auroc_total@rotated", "ood:rotated", "ood_auroc_total"),
    "certified": ("certified_accuracy@linf-0.03", "certify:linf-0.03-crown", "certified"),
}
"""The objective, the task that measures it on the test part, and the metric in its rows."""
Point = dict[str, float]


def measure(args: argparse.Namespace) -> None:
    """One goal and seed: two searches, and what their fronts are worth by the goal."""
    objective, task, metric = GOALS[args.goal]
    searches = {}
    for name, objectives in (("nll", ["nll", "flops"]), ("goal", [objective, "flops"])):
        settings = {
            "seed": args.seed,
            "name": f"objectives_{args.goal}_{name}_{args.seed}",
            "objectives": objectives,
            "search.n_trials": TRIALS,
        }
        study = gn.run(gn.load_space(SPACE, settings), out=args.parts / "studies")
        searches[name] = points_of(study, task, metric)

    result = {
        "goal": args.goal,
        "seed": args.seed,
        "hardware": devices.fingerprint(torch.device("cpu")),
        "searches": searches,
    }
    write_json(args.parts / f"{args.goal}-{args.seed}.json", result)


def points_of(study: Study, task: str, metric: str) -> list[Point]:
    """FLOPs and goal on the test part of each student of a study's front."""
    evaluation = gn.evaluate_tasks(study, [task], trials=["front"], subjects=["student"])
    values = {row["predictor"]: row["value"] for row in evaluation.rows if row["metric"] == metric}

    points = []
    for record in study.front_records():
        name = f"trial {record.trial}"
        if name in values:
            points.append({"flops": record.costs["flops"], "goal": values[name]})
    return points


def merge(args: argparse.Namespace) -> None:
    """What every goal's seeds found."""
    goals = {}
    for goal, (objective, *_) in GOALS.items():
        parts = [read_json(path) for path in sorted(args.parts.glob(f"{goal}-*.json"))]
        if parts:
            goals[goal] = {"objective": objective, **summarize(parts)}
    write_json(args.out, {"bench": "objectives", "space": SPACE, "trials": TRIALS, "goals": goals})


def summarize(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The areas of both searches, and how many students of the goal's were missed."""
    flops = [
        p["flops"] for part in parts for name in ("nll", "goal") for p in part["searches"][name]
    ]
    ends = math.log(min(flops)), math.log(max(flops))
    figures: dict[str, Any] = {}
    for what, measured in (("best", best), ("area", lambda points: area(points, ends))):
        values = {
            name: [measured(part["searches"][name]) for part in parts] for name in ("nll", "goal")
        }
        gains = [a - b for a, b in zip(values["goal"], values["nll"], strict=True)]
        figures |= {f"{what} of {name}": over_seeds(values[name]) for name in values}
        figures[f"{what} of goal minus nll"] = over_seeds(gains)
    return {
        "hardware": parts[0]["hardware"],
        "seeds": [part["seed"] for part in parts],
        **figures,
        "missed by nll": [missed(part["searches"], "goal", "nll") for part in parts],
        "missed by goal": [missed(part["searches"], "nll", "goal") for part in parts],
        "searches": [part["searches"] for part in parts],
    }


def best(points: Sequence[Point]) -> float:
    """The best goal of a front, whatever its student costs."""
    return max(point["goal"] for point in points)


def area(points: Sequence[Point], ends: tuple[float, float]) -> float:
    """The area under the best goal for so many FLOPs; 1 where a goal of 1 costs least."""
    low, high = ends
    total, best, at = 0.0, 0.0, low
    for point in sorted(points, key=lambda point: point["flops"]):
        here = math.log(point["flops"])
        total += best * (here - at)
        best, at = max(best, point["goal"]), here
    return (total + best * (high - at)) / (high - low)


def missed(searches: Mapping[str, Sequence[Point]], finder: str, other: str) -> list[int]:
    """How many students of a front are better than all that the other has for as much, of how many.

    Args:
        searches: the points of both fronts, by name.
        finder: whose students are counted.
        other: which search may have missed them.
    """
    count = 0
    for point in searches[finder]:
        rivals = [p["goal"] for p in searches[other] if p["flops"] <= point["flops"]]
        count += point["goal"] > max(rivals, default=-math.inf)
    return [count, len(searches[finder])]


def everything(args: argparse.Namespace) -> None:
    """Every goal and seed, two processes at a time, and the table."""
    todo = [(goal, seed) for goal in GOALS for seed in args.seeds]
    for i in range(0, len(todo), 2):
        parts = []
        for goal, seed in todo[i : i + 2]:
            if not (args.parts / f"{goal}-{seed}.json").exists():
                parts.append([goal, "--seed", str(seed), "--parts", str(args.parts)])
        run_side_by_side("tests.bench.bench_objectives", parts, args.time_limit)
    merge(args)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("goal", choices=[*GOALS, "all", "merge"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--parts", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("reports/reference/objectives.json"))
    parser.add_argument("--time-limit", type=float, default=3600.0)
    args = parser.parse_args()

    make_dir(args.parts)
    {"all": everything, "merge": merge}.get(args.goal, measure)(args)


if __name__ == "__main__":
    main()
