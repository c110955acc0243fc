"""What the input policy does to KL(teacher || student): the same students, steps and batch, other
inputs to learn at.

    python tests/bench/bench_policies.py --out reports/reference/input_policies.json
    GPED_DATA=... python tests/bench/bench_policies.py --dataset fashion_mnist --out ...

Every seed has a teacher of its own, which all policies share. KL is measured on validation with
students read back from their files; intervals are Student's t over the seeds, differences are
paired by seed. Results are merged into the file dataset by dataset.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

import gped_nas as gn
from gped_nas import device as devices
from gped_nas.api.lessons import distillation_set
from gped_nas.api.students import Trainer
from gped_nas.api.teacher import Teacher, averaged, load_dataset
from gped_nas.data.base import Dataset, Split
from gped_nas.distill.student import load_student, save_student
from gped_nas.evaluate.base import METRICS, draw_resamples
from gped_nas.evaluate.student import student_predictions
from gped_nas.io import read_json, write_json
from gped_nas.models.base import Genotype
from gped_nas.search.space_file import load_space

METRIC = "kl_to_teacher"
CLEAN, NOISE, MIXUP, DISAGREEMENT = (
    {"policy": "clean"},
    {"policy": "noise", "std": 0.1},
    {"policy": "mixup"},
    {"policy": "disagreement", "distance": 0.1},
)
NEAR = {"policy": "disagreement", "distance": 0.01}
POLICIES = {
    "clean": (CLEAN,),
    "noise": (NOISE,),
    "clean + noise": (CLEAN, NOISE),
    "mixup": (MIXUP,),
    "clean + mixup": (CLEAN, MIXUP),
    "clean + noise + mixup": (CLEAN, NOISE, MIXUP),
    "disagreement 0.1": (DISAGREEMENT,),
    "clean + disagreement 0.1": (CLEAN, DISAGREEMENT),
    "mixup + disagreement 0.1": (MIXUP, DISAGREEMENT),
    "disagreement 0.01": (NEAR,),
    "clean + disagreement 0.01": (CLEAN, NEAR),
    "mixup + disagreement 0.01": (MIXUP, NEAR),
}


@dataclass(frozen=True)
class Case:
    """One dataset's experiment: the space, what of it is shortened, how many inputs every policy
    starts from.
    """

    space: str
    shipped: str
    widths: tuple[tuple[int, int], ...]
    overrides: dict[str, Any] = field(default_factory=dict)
    num_inputs: int | None = None


CASES = {
    "digits": Case("digits_mlp", "clean + noise", ((2, 128), (1, 32))),
    "fashion_mnist": Case(
        "fashion_mlp",
        "noise",
        ((2, 128), (1, 64)),
        {"teacher.method.num_samples": 60, "teacher.method.burn_in": 5000, "recipe.steps": 3000},
        12_000,
    ),
}


def fewer(dataset: Dataset, num: int | None) -> Dataset:
    """The dataset with the first ``num`` training inputs alone: the teacher's own labels are not
    fewer.
    """
    train = dataset.train
    return dataset if num is None else replace(dataset, train=Split(train.x[:num], train.y[:num]))


def measure(case: Case, seed: int, names: Sequence[str]) -> dict[tuple[str, str], float]:
    """KL on validation by student and policy, with the teacher of one seed."""
    every = list({repr(view): view for name in names for view in POLICIES[name]}.values())
    space = load_space(case.space, {**case.overrides, "seed": seed, "views": every})
    session, dataset = gn.new_session("cpu"), load_dataset(space)
    bare = replace(space, views=())
    teacher = Teacher(
        space,
        fewer(dataset, case.num_inputs),
        gn.build_teacher(bare, session, dataset=dataset).stream,
        session,
    )
    log_prob = teacher.predicted("validation")
    validation, labels = averaged(log_prob, teacher.stream.weight_S), dataset.labels("validation")
    genotypes = [Genotype("mlp", depth=depth, width=width) for depth, width in case.widths]
    found = {}
    for name in names:
        wanted = tuple(
            view for view in space.views if {"policy": view.policy, **view.settings} in _full(name)
        )
        assert len(wanted) == len(POLICIES[name])
        data = distillation_set(replace(teacher, space=replace(space, views=wanted)))
        with tempfile.TemporaryDirectory() as scratch:
            resamples = draw_resamples(len(labels), root=seed, part="validation", num_resamples=1)
            trainer = Trainer(
                teacher,
                data,
                teacher.space.recipe,
                validation,
                resamples,
                Path(scratch),
                {},
            )
            for genotype, student in zip(genotypes, trainer.distill(genotypes), strict=True):
                folder = Path(scratch) / str(genotype)
                save_student(folder, trainer.spec(genotype), student.params)
                predictions = student_predictions(load_student(folder), dataset.raw("validation"))
                found[str(genotype), name] = METRICS[METRIC].value(predictions, labels, validation)
        print(
            f"seed {seed}: {name}: {[round(found[str(g), name], 5) for g in genotypes]}", flush=True
        )
    return found


def _full(name: str) -> list[dict[str, Any]]:
    """The settings of a row's policies, defaults filled in."""
    space = load_space("digits_mlp", {"views": list(POLICIES[name])})
    return [{"policy": view.policy, **view.settings} for view in space.views]


def interval(values: Sequence[float]) -> list[float]:
    """Mean and the ends of the 95 % t-interval."""
    mean, error = float(np.mean(values)), float(stats.sem(values))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return [mean, mean - half, mean + half]


def rows(case: Case, by_seed: Sequence[dict[tuple[str, str], float]]) -> list[dict[str, Any]]:
    """One row a student and policy: its KL and its paired difference to what the space shipped
    with.
    """
    out = []
    for student, name in by_seed[0]:
        values = [found[student, name] for found in by_seed]
        shipped = [found[student, case.shipped] for found in by_seed]
        mean, low, high = interval(values)
        gain, gain_low, gain_high = interval([a - b for a, b in zip(values, shipped, strict=True)])
        out.append(
            {
                "student": student,
                "policy": name,
                METRIC: mean,
                "interval": [low, high],
                "by_seed": values,
                "minus_shipped": gain,
                "minus_shipped_interval": [gain_low, gain_high],
            }
        )
    return out


def table(found: dict[str, Any]) -> str:
    """The rows as Markdown."""
    students = list(dict.fromkeys(row["student"] for row in found["rows"]))
    lines = [
        f"| views | {' | '.join(f'`{s}`' for s in students)} |",
        "|---|" + "---|" * len(students),
    ]
    for name, group in itertools.groupby(
        sorted(found["rows"], key=lambda r: r["policy"]), lambda r: r["policy"]
    ):
        cells = {
            r["student"]: f"{r[METRIC]:.4f} [{r['interval'][0]:.4f}, {r['interval'][1]:.4f}]"
            for r in group
        }
        lines.append(f"| {name} | {' | '.join(cells[s] for s in students)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure one dataset, merge it into the file, print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", choices=CASES, default="digits")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("reports/bench/input_policies.json"))
    args = parser.parse_args()
    case, started = CASES[args.dataset], time.monotonic()
    by_seed = [measure(case, seed, list(POLICIES)) for seed in range(args.seeds)]
    space = load_space(case.space, case.overrides)
    found = {
        "space": case.space,
        "overrides": case.overrides,
        "shipped": case.shipped,
        "steps": space.recipe.steps,
        "batch_size": space.recipe.batch_size,
        "num_inputs": case.num_inputs,
        "policies": {name: _full(name) for name in POLICIES},
        "part": "validation",
        "n": len(load_dataset(space).validation),
        "seeds": args.seeds,
        "seconds": round(time.monotonic() - started),
        "hardware": devices.fingerprint(gn.new_session("cpu").device),
        "rows": rows(case, by_seed),
    }
    merged = read_json(args.out) if args.out.exists() else {}
    write_json(args.out, {**merged, args.dataset: found})
    print(table(found))


if __name__ == "__main__":
    main()
