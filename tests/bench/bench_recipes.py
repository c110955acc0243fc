"""Which recipe reaches the teacher soonest: KL(teacher || student) on validation against processor
time.

    python tests/bench/bench_recipes.py --space digits_mlp --out reports/reference/recipes.json
    GPED_DATA=... python tests/bench/bench_recipes.py --space fashion_mlp --out ...

The same unpruned students learn the space's stream by every recipe of a grid; each budget of steps
is a run of its own, since the schedule ends with it. KL is the mean over validation and over the
students, by seed of the students' draws; time is the whole population's processor seconds. Results
are merged into the file space by space.
"""

import argparse
import itertools
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
from gped_nas.io import read_json, write_json
from gped_nas.models.base import FAMILIES, Genotype
from gped_nas.search.space_file import load_space

STUDENTS = {
    "digits_mlp": [
        Genotype("mlp", depth=d, width=w) for d, w in ((1, 32), (2, 64), (2, 128), (3, 128))
    ],
    "fashion_mlp": [
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
    started, clock = time.process_time(), time.perf_counter()
    population = distill(genotypes, data, recipe, seed=seed, device=session.device)
    seconds, wall = time.process_time() - started, time.perf_counter() - clock
    x = teacher.dataset.inputs("validation")
    teacher_log_prob = torch.from_numpy(teacher.averaged("validation").log_prob_NC)
    found = []
    for student in population.students:
        raw = (
            FAMILIES[student.genotype.family].forward(student.params, x)
            if not student.failure
            else None
        )
        if raw is None:
            found.append(float("inf"))
            continue
        log_prob = raw[:, : data.num_classes].double().log_softmax(-1)
        found.append(float((teacher_log_prob.exp() * (teacher_log_prob - log_prob)).sum(-1).mean()))
    return {"kl": found, "processor_s": round(seconds, 3), "wall_s": round(wall, 3)}


def recipes(
    base: Recipe, kinds: list[str], steps: list[int], only: dict[str, float], extra: dict[str, Any]
) -> Iterator[Recipe]:
    """The recipes of the grid that have these settings, at every budget of steps, a tenth of it
    warm-up at most.
    """
    for kind in kinds:
        grid = [
            settings
            for settings in COARSE[kind]
            if all(settings.get(key, value) == value for key, value in only.items())
        ]
        for settings, budget in itertools.product(grid, steps):
            update = {
                **settings,
                **extra,
                "steps": budget,
                "warmup": min(base.warmup, budget // 10),
            }
            yield Recipe(**{**base.model_dump(), **update})


def main() -> None:
    """Measure one space, merge it into the file, print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--space", choices=STUDENTS, default="digits_mlp")
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
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    only, extra = (
        {key: float(value) for key, value in (pair.split("=") for pair in pairs)}
        for pairs in (args.only, args.set)
    )
    space = load_space(
        args.space, {"teacher.method.num_samples": args.samples} if args.samples else None
    )
    session = gn.new_session("cpu")
    torch.set_num_threads(1)
    teacher = gn.build_teacher(space, session, dataset=load_dataset(space))
    rows = []
    for recipe in recipes(space.recipe, args.kinds, args.steps, only, extra):
        runs = [measure(teacher, recipe, STUDENTS[args.space], seed) for seed in range(args.seeds)]
        mean = sum(sum(run["kl"]) / len(run["kl"]) for run in runs) / len(runs)
        seconds = sum(run["processor_s"] for run in runs) / len(runs)
        rows.append(
            {"recipe": recipe.to_record(), "kl": mean, "processor_s": seconds, "runs": runs}
        )
        print(f"{mean:.5f} {seconds:7.2f} s {rows[-1]['recipe']}", flush=True)
    found = {
        "students": [str(g) for g in STUDENTS[args.space]],
        "n": len(teacher.dataset.validation),
        "seeds": args.seeds,
        "posterior samples": teacher.stream.num_samples,
        "hardware": devices.fingerprint(session.device),
        "rows": sorted(rows, key=lambda row: row["kl"]),
    }
    merged = read_json(args.out) if args.out.exists() else {}
    write_json(args.out, {**merged, args.space: found})


if __name__ == "__main__":
    main()
