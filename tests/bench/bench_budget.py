"""Students pruned to a budget against students of drawn penalties, at equal student seconds.

    python tests/bench/bench_budget.py --out reports/reference/budget.json

Both arms draw the same depths and widths of the shipped digits space at random, and beside them a
penalty from the shipped range, or a budget of multiply-adds, evenly in the logarithm. They learn
the same stream. What counts is the hypervolume of NLL (below what keeps 90 % of the teacher's
skill) and the logarithm of multiply-adds, as a share of its box, after as many processor seconds of
training as the quicker arm took.

Then pairs: each penalized student of a wide network beside one of the same network whose budget is
what that one was left with. The difference is that of the logarithms of their NLL, of those that
keep the skill.

Intervals are over seeds of draws and students: 95 %, paired, by the t distribution. Validation
alone is looked at. With ``--pairs`` the pairs alone are measured, and the file keeps the rest.
"""

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

import gped_nas as gn
from gped_nas.api.lessons import distillation_set
from gped_nas.api.teacher import Teacher, load_dataset
from gped_nas.distill.kernel import distill
from gped_nas.io import make_dir, read_json, write_json
from gped_nas.models.base import FAMILIES, Genotype, shapes_of
from gped_nas.models.costs import cost_of
from gped_nas.search.space_file import load_space

SPACE = "digits_mlp"
PENALTIES = (1e-5, 1e-1)
BUDGETS = (200, 40_000)
"""Multiply-adds: from little more than a unit a layer costs to the space's largest network."""
KEEP = 0.9
AT_ONCE = 12


@dataclass(frozen=True)
class Box:
    """What hypervolumes are a share of: NLL from zero to the bound, MACs between the budgets."""

    bound: float

    def share(self, points: list[tuple[float, float]]) -> float:
        """The share of the box that students with these NLL and MACs dominate."""
        low, high = (math.log(end) for end in BUDGETS)
        inside = [(nll, math.log(macs)) for nll, macs in points if nll < self.bound]
        volume, best = 0.0, self.bound
        for nll, log_macs in sorted(inside, key=lambda point: point[1]):
            if nll < best:
                volume += (best - nll) * (high - max(low, log_macs))
                best = nll
        return volume / (self.bound * (high - low))


def draw(rng: np.random.Generator, num: int) -> tuple[list[Genotype], list[Genotype]]:
    """Networks drawn at random: with penalties, and with budgets."""
    penalized, budgeted = [], []
    for _ in range(num):
        depth, width = int(rng.integers(1, 4)), int(rng.choice([8, 16, 32, 64, 128]))
        whole = Genotype("mlp", depth=depth, width=width)
        penalty = math.exp(rng.uniform(*np.log(PENALTIES)))
        budget = round(math.exp(rng.uniform(*np.log(BUDGETS))))
        penalized.append(whole.replace(group_penalty=penalty))
        budgeted.append(whole.replace(prune_to_macs=budget))
    return penalized, budgeted


def nll_of(teacher: Teacher, genotype: Genotype, params: dict[str, torch.Tensor]) -> float:
    """Mean NLL of the labels of validation."""
    raw = FAMILIES[genotype.family].forward(params, teacher.dataset.inputs("validation"))
    labels = torch.as_tensor(np.asarray(teacher.dataset.labels("validation")))
    log_prob = raw[:, : teacher.dataset.num_outputs].double().log_softmax(-1)
    return float(-log_prob[torch.arange(len(labels)), labels].mean())


def curve(
    teacher: Teacher, genotypes: list[Genotype], box: Box, seed: int
) -> dict[str, list[float]]:
    """Processor seconds and share of the box after each population."""
    data = distillation_set(teacher)
    recipe = teacher.space.recipe
    shape = teacher.dataset.input_shape
    seconds, shares, under = [0.0], [0.0], []
    points: list[tuple[float, float]] = []
    for start in range(0, len(genotypes), AT_ONCE):
        population = genotypes[start : start + AT_ONCE]
        started = time.process_time()
        students = distill(
            population, data, recipe, seed=seed, device=torch.device("cpu"), workers=1
        ).students
        seconds.append(seconds[-1] + time.process_time() - started)

        for genotype, student in zip(population, students, strict=True):
            if student.failure:
                continue
            macs = cost_of("mlp", shapes_of(student.params), shape, "float32").macs
            points.append((nll_of(teacher, genotype, student.params), macs))
            if genotype.budget is not None and student.num_dead:
                under.append(macs / genotype.budget.most)
        shares.append(box.share(points))
    inside = sum(nll < box.bound for nll, _ in points) / len(genotypes)
    return {"seconds": seconds, "shares": shares, "inside": [inside], "under": under}


def pairs(teacher: Teacher, box: Box, seed: int, num: int) -> dict[str, float]:
    """How much farther a budget's students are from the labels than a penalty's of as many MACs."""
    data, recipe = distillation_set(teacher), teacher.space.recipe
    shape = teacher.dataset.input_shape
    rng = np.random.default_rng(1000 + seed)

    def train(genotypes: list[Genotype]) -> list[tuple[float, int]]:
        students = distill(
            genotypes, data, recipe, seed=seed, device=torch.device("cpu"), workers=1
        ).students
        outcome = []
        for genotype, student in zip(genotypes, students, strict=True):
            macs = cost_of("mlp", shapes_of(student.params), shape, "float32").macs
            outcome.append((nll_of(teacher, genotype, student.params), macs))
        return outcome

    wholes = [Genotype("mlp", depth=int(rng.integers(1, 4)), width=64) for _ in range(num)]
    penalties = np.exp(rng.uniform(math.log(1e-4), math.log(1e-2), num))
    penalized = train(
        [whole.replace(group_penalty=float(p)) for whole, p in zip(wholes, penalties, strict=True)]
    )
    budgeted = train(
        [
            whole.replace(prune_to_macs=macs)
            for whole, (_, macs) in zip(wholes, penalized, strict=True)
        ]
    )
    logs = [
        math.log(of_budget / of_penalty)
        for (of_penalty, _), (of_budget, _) in zip(penalized, budgeted, strict=True)
        if min(of_penalty, of_budget) < box.bound
    ]
    macs_ratio = [b / a for (_, a), (_, b) in zip(penalized, budgeted, strict=True)]
    return {
        "log_ratio": float(np.mean(logs)),
        "n": len(logs),
        "macs_ratio": float(np.mean(macs_ratio)),
    }


def bound_of(teacher: Teacher) -> float:
    """The NLL of a student that keeps so much of the teacher's skill."""
    labels = np.asarray(teacher.dataset.labels("validation"))
    counts = np.bincount(np.asarray(teacher.dataset.labels("train")))
    guess = float(-np.log(counts / counts.sum())[labels].mean())
    averaged: Any = teacher.averaged("validation")
    skilled = float(-averaged.log_prob_NC[np.arange(len(labels)), labels].mean())
    return guess - KEEP * (guess - skilled)


def mean_and_interval(values: list[float]) -> list[float]:
    """Mean and 95 % interval over seeds."""
    mean, error = float(np.mean(values)), float(stats.sem(values))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return [round(mean, 4), round(mean - half, 4), round(mean + half, 4)]


def main() -> None:
    """Run both arms for each seed and write what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--students", type=int, default=24)
    parser.add_argument("--pairs", action="store_true", help="the pairs alone")
    parser.add_argument("--out", type=Path, default=Path("reports/bench/budget.json"))
    args = parser.parse_args()

    torch.set_num_threads(1)
    space = load_space(SPACE)
    teacher = gn.build_teacher(space, gn.new_session("cpu"), dataset=load_dataset(space))
    box = Box(bound_of(teacher))

    of_pairs = [pairs(teacher, box, seed, AT_ONCE) for seed in range(args.seeds)]
    paired = {
        "log_nll_budget_over_penalty": mean_and_interval([run["log_ratio"] for run in of_pairs]),
        "macs_budget_over_penalty": mean_and_interval([run["macs_ratio"] for run in of_pairs]),
        "n": int(sum(run["n"] for run in of_pairs)),
        "seeds": args.seeds,
    }
    print(json.dumps(paired), flush=True)
    if args.pairs:
        write_json(args.out, {**read_json(args.out), "pairs": paired})
        return

    runs = []
    for seed in range(args.seeds):
        penalized, budgeted = draw(np.random.default_rng(seed), args.students)
        arms = {
            "penalty": curve(teacher, penalized, box, seed),
            "budget": curve(teacher, budgeted, box, seed),
        }
        seconds = min(arm["seconds"][-1] for arm in arms.values())
        at_equal = {
            name: float(np.interp(seconds, arm["seconds"], arm["shares"]))
            for name, arm in arms.items()
        }
        runs.append({"seed": seed, "seconds": seconds, "shares": at_equal, "arms": arms})
        print(json.dumps({"seed": seed, "seconds": round(seconds, 2), **at_equal}), flush=True)

    differences = [run["shares"]["budget"] - run["shares"]["penalty"] for run in runs]
    of_time = [
        math.log(run["arms"]["budget"]["seconds"][-1] / run["arms"]["penalty"]["seconds"][-1])
        for run in runs
    ]
    under = [share for run in runs for share in run["arms"]["budget"]["under"]]
    result = {
        "space": SPACE,
        "seeds": args.seeds,
        "students": args.students,
        "bound": round(box.bound, 4),
        "share_of_box": {
            arm: mean_and_interval([run["shares"][arm] for run in runs])
            for arm in ("penalty", "budget")
        },
        "difference": mean_and_interval(differences),
        "seconds_ratio": [round(math.exp(x), 3) for x in mean_and_interval(of_time)],
        "inside": {
            arm: mean_and_interval([run["arms"][arm]["inside"][0] for run in runs])
            for arm in ("penalty", "budget")
        },
        "pruned_students": len(under),
        "within_two_percent": round(float(np.mean([share >= 0.98 for share in under])), 3),
        "least_share_of_budget": round(min(under), 3),
        "pairs": paired,
        "runs": [
            {"seed": run["seed"], "seconds": round(run["seconds"], 2), **run["shares"]}
            for run in runs
        ],
    }
    make_dir(args.out.parent)
    write_json(args.out, result)
    print(json.dumps({key: value for key, value in result.items() if key != "runs"}))


if __name__ == "__main__":
    main()
