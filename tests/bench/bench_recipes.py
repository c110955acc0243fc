"""Which recipe reaches the teacher soonest: KL(teacher || student) against processor time.

    python tests/bench/bench_recipes.py --space digits_sgld --out reports/reference/recipes.json
    GPED_DATA=... python tests/bench/bench_recipes.py --space fashion_sgld --out ...

The same unpruned students learn the space's stream by every recipe of a grid; each budget of steps
is a run of its own, since the schedule ends with it. KL is the mean over validation and over the
students, by seed of the students' draws; time is the whole population's processor seconds. Results
are merged into the file space by space.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import gped_nas as gn
from gped_nas import device as devices
from gped_nas.api.lessons import distillation_set
from gped_nas.api.teacher import Teacher, load_dataset
from gped_nas.distill.kernel import distill
from gped_nas.distill.recipe import Recipe
from gped_nas.io import make_dir, read_json, write_json
from gped_nas.models.base import Genotype
from gped_nas.search.space_file import load_space
from tests.bench.bench_time_to_front import kl

STUDENTS = {
    "digits_sgld": [
        Genotype("mlp", depth=d, width=w) for d, w in ((1, 32), (2, 64), (2, 128), (3, 128))
    ],
    "fashion_sgld": [
        Genotype("mlp", depth=d, width=w) for d, w in ((1, 64), (2, 128), (3, 128), (1, 256))
    ],
    "fashion_cnn": [
        Genotype("cnn", depth=1, width=8, kernel=5, pool=2, head_width=[64]),
        Genotype("cnn", depth=2, width=[8, 16], kernel=5, pool=2, head_width=[64]),
    ],
    "fashion_resnet": [Genotype("resnet", stages=2, depth=1, width=[8, 16])],
}
COARSE: dict[str, list[dict[str, Any]]] = {
    "adamw": [
        {"optimizer": "adamw", "lr": lr, "beta2": beta2, "batch_size": batch}
        for lr, beta2, batch in itertools.product(
            (2e-3, 4e-3, 8e-3, 1.6e-2), (0.95, 0.99), (128, 256)
        )
    ],
    "muon": [
        {"optimizer": "muon", "lr": lr, "lr_rest": rest, "batch_size": batch}
        for lr, rest, batch in itertools.product((0.02, 0.04, 0.08), (4e-3, 8e-3), (256, 512))
    ],
    "sgd": [
        {"optimizer": "sgd", "lr": lr, "momentum": 0.9, "batch_size": 128}
        for lr in (0.03, 0.1, 0.3)
    ],
}


def measure(
    teacher: Teacher, recipe: Recipe, genotypes: list[Genotype], seed: int
) -> dict[str, Any]:
    """KL by student and processor seconds of one run."""
    session = gn.new_session("cpu")
    data = distillation_set(teacher)
    started_processor, started = time.process_time(), time.perf_counter()
    population = distill(genotypes, data, recipe, seed=seed, device=session.device)
    processor_s = time.process_time() - started_processor
    wall_s = time.perf_counter() - started

    values = []
    for student in population.students:
        if student.failure:
            values.append(float("inf"))
        else:
            kl_N = kl(teacher, student.genotype.family, student.params)
            values.append(float(kl_N.mean()))
    return {"kl": values, "processor_s": round(processor_s, 3), "wall_s": round(wall_s, 3)}


def recipes(
    base: Recipe, kinds: list[str], steps: list[int], only: dict[str, float], extra: dict[str, Any]
) -> Iterator[Recipe]:
    """The recipes of the grid at every budget of steps, a tenth of it warm-up at most.

    Args:
        base: what the grid leaves open.
        kinds: optimizers.
        steps: budgets.
        only: settings that the grid is limited to.
        extra: settings of every recipe.
    """
    for kind in kinds:
        for settings in COARSE[kind]:
            if any(settings.get(key, value) != value for key, value in only.items()):
                continue
            for budget in steps:
                schedule = {"steps": budget, "warmup": min(base.warmup, budget // 10)}
                yield Recipe(**{**base.model_dump(), **settings, **extra, **schedule})


def parse_numbers(pairs: list[str]) -> dict[str, float]:
    """``KEY=NUMBER`` to a dictionary."""
    numbers = {}
    for pair in pairs:
        key, value = pair.split("=")
        numbers[key] = float(value)
    return numbers


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    parser.add_argument("--space", choices=STUDENTS, default="digits_sgld")
    parser.add_argument("--kinds", nargs="+", choices=COARSE, default=list(COARSE))
    parser.add_argument("--steps", nargs="+", type=int, default=[150, 300, 600])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--samples", type=int, help="posterior samples of the teacher, the space's own by default"
    )
    parser.add_argument(
        "--only",
        nargs="*",
        default=[],
        metavar="KEY=NUMBER",
        help="the part of the grid that has these",
    )
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=NUMBER", help="more settings of every recipe"
    )
    parser.add_argument("--out", type=Path, default=Path("reports/bench/recipes.json"))
    return parser.parse_args()


def main() -> None:
    """Measure one space, merge it into the file, print its table."""
    args = parse_args()
    make_dir(args.out.parent)
    only, extra = parse_numbers(args.only), parse_numbers(args.set)
    overrides = {"teacher.method.num_samples": args.samples} if args.samples else None
    space = load_space(args.space, overrides)
    session = gn.new_session("cpu")
    torch.set_num_threads(1)
    teacher = gn.build_teacher(space, session, dataset=load_dataset(space))

    rows: list[dict[str, Any]] = []
    for recipe in recipes(space.recipe, args.kinds, args.steps, only, extra):
        runs = [measure(teacher, recipe, STUDENTS[args.space], seed) for seed in range(args.seeds)]
        mean = statistics.fmean(statistics.fmean(run["kl"]) for run in runs)
        seconds = statistics.fmean(run["processor_s"] for run in runs)
        record = recipe.to_record()
        rows.append({"recipe": record, "kl": mean, "processor_s": seconds, "runs": runs})
        print(f"{mean:.5f} {seconds:7.2f} s {record}", flush=True)

    result = {
        "students": [str(g) for g in STUDENTS[args.space]],
        "n": len(teacher.dataset.validation),
        "seeds": args.seeds,
        "posterior samples": teacher.stream.num_samples,
        "hardware": devices.fingerprint(session.device),
        "rows": sorted(rows, key=lambda row: row["kl"]),
    }
    merged = read_json(args.out) if args.out.exists() else {}
    write_json(args.out, {**merged, args.space: result})


if __name__ == "__main__":
    main()
