"""What the input policy does to KL(teacher || student).

    python tests/bench/bench_policies.py --out reports/reference/input_policies.json
    GPED_DATA=... python tests/bench/bench_policies.py --dataset fashion_mnist --out ...

The students, steps and batch are the same; they learn at other inputs. Every seed has a teacher of
its own, which all policies share. KL is measured on validation with students read back from their
files; intervals are Student's t over the seeds, differences are paired by seed. Results are merged
into the file dataset by dataset.
"""

import argparse
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
from gped_nas.api.teacher import Teacher, load_dataset
from gped_nas.data.base import Dataset, Split
from gped_nas.distill.feed import DistillationSet
from gped_nas.distill.student import load_student, save_student
from gped_nas.evaluate.base import METRICS, draw_resamples
from gped_nas.evaluate.student import student_predictions
from gped_nas.io import read_json, write_json
from gped_nas.models.base import Genotype
from gped_nas.search.space_file import load_space

METRIC = "kl_to_teacher"
CLEAN: dict[str, Any] = {"policy": "clean"}
NOISE: dict[str, Any] = {"policy": "noise", "std": 0.1}
MIXUP: dict[str, Any] = {"policy": "mixup"}
DISAGREEMENT: dict[str, Any] = {"policy": "disagreement", "distance": 0.1}
NEAR: dict[str, Any] = {"policy": "disagreement", "distance": 0.01}
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
    """One dataset's experiment.

    Attributes:
        space: name of the space.
        shipped: the policy that it ships with.
        widths: depth and width of each student.
        overrides: what of the space is shortened.
        num_inputs: how many inputs every policy starts from; None is all.
    """

    space: str
    shipped: str
    widths: tuple[tuple[int, int], ...]
    overrides: dict[str, Any] = field(default_factory=dict)
    num_inputs: int | None = None


CASES = {
    "digits": Case("digits_sgld", "clean + noise", ((2, 128), (1, 32))),
    "fashion_mnist": Case(
        "fashion_sgld",
        "noise",
        ((2, 128), (1, 64)),
        {"teacher.method.num_samples": 60, "teacher.method.burn_in": 5000, "recipe.steps": 3000},
        12_000,
    ),
}


def fewer(dataset: Dataset, num: int | None) -> Dataset:
    """The dataset with the first ``num`` training inputs alone.

    The teacher's own labels are not fewer.
    """
    if num is None:
        return dataset
    train = dataset.train
    return replace(dataset, train=Split(train.x[:num], train.y[:num]))


def measure(case: Case, seed: int, names: Sequence[str]) -> dict[tuple[str, str], float]:
    """KL on validation by student and policy, with the teacher of one seed."""
    views = {repr(view): view for name in names for view in POLICIES[name]}
    overrides = {**case.overrides, "seed": seed, "views": list(views.values())}
    space = load_space(case.space, overrides)
    session = gn.new_session("cpu")
    dataset = load_dataset(space)
    # sampled from all labels; the views are of fewer inputs
    stream = gn.build_teacher(replace(space, views=()), session, dataset=dataset).stream
    teacher = Teacher(space, fewer(dataset, case.num_inputs), stream, session)

    kl = {}
    genotypes = [Genotype("mlp", depth=depth, width=width) for depth, width in case.widths]
    for name in names:
        settings = _full(name)
        policy_views = tuple(
            view for view in space.views if {"policy": view.policy, **view.settings} in settings
        )
        assert len(policy_views) == len(POLICIES[name])
        restricted = replace(teacher, space=replace(space, views=policy_views))
        values = measure_students(teacher, distillation_set(restricted), genotypes, seed)
        for genotype, value in zip(genotypes, values, strict=True):
            kl[str(genotype), name] = value
        print(f"seed {seed}: {name}: {[round(value, 5) for value in values]}", flush=True)
    return kl


def measure_students(
    teacher: Teacher, data: DistillationSet, genotypes: Sequence[Genotype], seed: int
) -> list[float]:
    """KL on validation of students trained on a distillation set, read back from their files."""
    dataset = teacher.dataset
    labels = dataset.labels("validation")
    validation = teacher.averaged("validation")
    resamples = draw_resamples(len(labels), root=seed, part="validation", num_resamples=1)

    values = []
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            teacher, data, teacher.space.recipe, validation, resamples, Path(scratch), {}
        )
        for genotype, student in zip(genotypes, trainer.distill(genotypes), strict=True):
            folder = Path(scratch) / str(genotype)
            save_student(folder, trainer.spec(genotype), student.params)
            predictions = student_predictions(load_student(folder), dataset.raw("validation"))
            values.append(METRICS[METRIC].value(predictions, labels, validation))
    return values


def _full(name: str) -> list[dict[str, Any]]:
    """The settings of a row's policies, defaults filled in."""
    space = load_space("digits_sgld", {"views": list(POLICIES[name])})
    return [{"policy": view.policy, **view.settings} for view in space.views]


def interval(values: Sequence[float]) -> list[float]:
    """Mean and the ends of the 95 % t-interval."""
    mean = float(np.mean(values))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * float(stats.sem(values))
    return [mean, mean - half, mean + half]


def rows(case: Case, by_seed: Sequence[dict[tuple[str, str], float]]) -> list[dict[str, Any]]:
    """One row a student and policy: its KL, and its paired difference to what the space shipped."""
    table_rows = []
    for student, name in by_seed[0]:
        values = [kl[student, name] for kl in by_seed]
        shipped = [kl[student, case.shipped] for kl in by_seed]
        gains = [value - other for value, other in zip(values, shipped, strict=True)]
        mean, low, high = interval(values)
        gain, gain_low, gain_high = interval(gains)
        table_rows.append(
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
    return table_rows


def table(result: dict[str, Any]) -> str:
    """The rows as Markdown, a policy a row."""
    students = list(dict.fromkeys(row["student"] for row in result["rows"]))
    cells: dict[str, dict[str, str]] = {}
    for row in result["rows"]:
        low, high = row["interval"]
        text = f"{row[METRIC]:.4f} [{low:.4f}, {high:.4f}]"
        cells.setdefault(row["policy"], {})[row["student"]] = text

    heads = [f"`{student}`" for student in students]
    lines = [f"| views | {' | '.join(heads)} |", "|---|" + "---|" * len(students)]
    for policy in sorted(cells):
        by_student = [cells[policy][student] for student in students]
        lines.append(f"| {policy} | {' | '.join(by_student)} |")
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

    case = CASES[args.dataset]
    started = time.monotonic()
    by_seed = [measure(case, seed, list(POLICIES)) for seed in range(args.seeds)]
    seconds = round(time.monotonic() - started)

    space = load_space(case.space, case.overrides)
    result = {
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
        "seconds": seconds,
        "hardware": devices.fingerprint(gn.new_session("cpu").device),
        "rows": rows(case, by_seed),
    }
    merged = read_json(args.out) if args.out.exists() else {}
    write_json(args.out, {**merged, args.dataset: result})
    print(table(result))


if __name__ == "__main__":
    main()
