"""What cached views cost: KL(teacher || student) with inputs drawn once, several times or anew.

    python tests/bench/bench_fresh.py --out reports/reference/fresh.json

The same students, steps and batches on digits; the policy is noise. ``cached k`` learns at k draws
with the stream's averages there; ``fresh`` draws anew in every pass and asks all posterior samples
at the new inputs. KL: validation, mean and 95 % t-interval over seeds, each with a teacher of its
own.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import gped_nas as gn
from gped_nas import device as devices
from gped_nas.api.lessons import distillation_set
from gped_nas.api.teacher import Teacher, load_dataset
from gped_nas.distill.feed import Batch, BatchOrder, DistillationSet
from gped_nas.distill.kernel import distill
from gped_nas.io import make_dir, write_json
from gped_nas.models.base import FAMILIES, Genotype
from gped_nas.search.space_file import load_space
from gped_nas.targets.expectations import expect_all
from tests.bench.bench_policies import interval
from tests.bench.bench_time_to_front import kl

DRAWS = (1, 2, 4, 8)
STUDENTS = [Genotype("mlp", depth=2, width=128), Genotype("mlp", depth=1, width=32)]


def fresh_feed(teacher: Teacher, seed: int) -> Iterator[Batch]:
    """Batches whose inputs are drawn anew in every pass."""
    num_inputs = len(teacher.dataset.inputs("distillation"))
    order = BatchOrder(num_inputs, teacher.space.recipe, seed)
    view = teacher.resolve_views()[0]

    pass_number = -1
    num_seen = 0
    while True:
        index = next(order)
        if num_seen // num_inputs > pass_number:
            pass_number = num_seen // num_inputs
            x = replace(view, seed=1000 + pass_number).inputs(teacher.dataset)
            expectations = averages_at(teacher, x)
        num_seen += len(index)
        yield x[index], {name: value[index] for name, value in expectations.items()}


def averages_at(teacher: Teacher, x: Tensor) -> dict[str, Tensor]:
    """What all posterior samples say on average at inputs."""
    space, stream = teacher.space, teacher.stream
    forward = FAMILIES[space.genotype.family].forward
    log_prob = [forward(stream.params(s), x).log_softmax(-1) for s in range(stream.num_samples)]
    averages = expect_all(space.targets, torch.stack(log_prob).double(), stream.weight_S)
    return {name: average.float() for name, average in averages.items()}


def measure(seed: int) -> dict[str, list[float]]:
    """KL of each student by kind, with the teacher of one seed."""
    views = [{"policy": "noise", "std": 0.1, "draw": draw} for draw in range(max(DRAWS))]
    space = load_space("digits_sgld", {"views": views, "seed": seed})
    session = gn.new_session("cpu")
    teacher = gn.build_teacher(space, session, dataset=load_dataset(space))

    def kl_of_students(data: DistillationSet, feed: Iterator[Batch] | None = None) -> list[float]:
        population = distill(
            STUDENTS, data, space.recipe, seed=seed, device=session.device, feed=feed
        )
        return [float(kl(teacher, "mlp", s.params).mean()) for s in population.students]

    by_kind = {}
    for draws in DRAWS:
        fewer = replace(teacher, space=replace(space, views=space.views[:draws]))
        by_kind[f"cached {draws}"] = kl_of_students(distillation_set(fewer))
    by_kind["fresh"] = kl_of_students(distillation_set(teacher), fresh_feed(teacher, seed))
    print(f"seed {seed}: {by_kind}", flush=True)
    return by_kind


def main() -> None:
    """Measure, write the file, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("reports/bench/fresh.json"))
    args = parser.parse_args()

    started = time.monotonic()
    runs = [measure(seed) for seed in range(args.seeds)]
    seconds = round(time.monotonic() - started)

    rows: list[dict[str, Any]] = []
    for kind in runs[0]:
        for i, genotype in enumerate(STUDENTS):
            mean, low, high = interval([run[kind][i] for run in runs])
            rows.append({"inputs": kind, "student": str(genotype), "kl": [mean, low, high]})
            print(f"| {kind} | {genotype} | {mean:.4f} [{low:.4f}, {high:.4f}] |")

    make_dir(args.out.parent)
    result = {
        "recipe": load_space("digits_sgld").recipe.to_record(),
        "seeds": args.seeds,
        "seconds": seconds,
        "hardware": devices.fingerprint(torch.device("cpu")),
        "rows": rows,
    }
    write_json(args.out, result)


if __name__ == "__main__":
    main()
