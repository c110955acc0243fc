"""What cached views cost: KL(teacher || student) when inputs are drawn once, several times, or anew
in every pass.

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

import gped_nas as gn
from gped_nas import device as devices
from gped_nas.api.lessons import distillation_set
from gped_nas.api.teacher import Teacher, load_dataset
from gped_nas.distill.feed import Batch, BatchOrder
from gped_nas.distill.kernel import distill
from gped_nas.io import write_json
from gped_nas.models.base import FAMILIES, Genotype
from gped_nas.search.space_file import load_space
from gped_nas.targets.expectations import expect_all
from tests.bench.bench_policies import interval
from tests.bench.bench_time_to_front import kl

DRAWS = (1, 2, 4, 8)
STUDENTS = [Genotype("mlp", depth=2, width=128), Genotype("mlp", depth=1, width=32)]


def fresh_feed(teacher: Teacher, seed: int) -> Iterator[Batch]:
    """Batches whose inputs are drawn anew in every pass."""
    space, stream = teacher.space, teacher.stream
    forward = FAMILIES[space.genotype.family].forward
    num_inputs = len(teacher.dataset.inputs("distillation"))
    order, view, num_seen, number = (
        BatchOrder(num_inputs, space.recipe, seed),
        teacher.resolve_views()[0],
        0,
        -1,
    )
    while True:
        index = next(order)
        if num_seen // num_inputs > number:
            number = num_seen // num_inputs
            x = replace(view, seed=1000 + number).inputs(teacher.dataset)
            log_prob = torch.stack(
                [forward(stream.params(s), x).log_softmax(-1) for s in range(stream.num_samples)]
            ).double()
            averages = expect_all(space.targets, log_prob, stream.weight_S)
            said = {name: average.float() for name, average in averages.items()}
        num_seen += len(index)
        yield x[index], {name: value[index] for name, value in said.items()}


def measure(seed: int) -> dict[str, list[float]]:
    """KL of each student by kind, with the teacher of one seed."""
    views = [{"policy": "noise", "std": 0.1, "draw": draw} for draw in range(max(DRAWS))]
    space, session = load_space("digits_mlp", {"views": views, "seed": seed}), gn.new_session("cpu")
    teacher = gn.build_teacher(space, session, dataset=load_dataset(space))
    found = {}
    for draws in DRAWS:
        fewer = replace(teacher, space=replace(space, views=space.views[:draws]))
        population = distill(
            STUDENTS, distillation_set(fewer), space.recipe, seed=seed, device=session.device
        )
        found[f"cached {draws}"] = [kl(teacher, "mlp", s.params) for s in population.students]
    data, feed = distillation_set(teacher), fresh_feed(teacher, seed)
    population = distill(STUDENTS, data, space.recipe, seed=seed, device=session.device, feed=feed)
    found["fresh"] = [kl(teacher, "mlp", s.params) for s in population.students]
    print(f"seed {seed}: {found}", flush=True)
    return found


def main() -> None:
    """Measure, write the file, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("reports/bench/fresh.json"))
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    runs = [measure(seed) for seed in range(args.seeds)]
    rows: list[dict[str, Any]] = [
        {"inputs": kind, "student": str(genotype), "kl": interval([run[kind][i] for run in runs])}
        for kind in runs[0]
        for i, genotype in enumerate(STUDENTS)
    ]
    for row in rows:
        print(
            f"| {row['inputs']} | {row['student']} | {row['kl'][0]:.4f} [{row['kl'][1]:.4f}, "
            f"{row['kl'][2]:.4f}] |"
        )
    space, hardware = load_space("digits_mlp"), devices.fingerprint(torch.device("cpu"))
    seconds = round(time.monotonic() - started)
    write_json(
        args.out,
        {
            "recipe": space.recipe.to_record(),
            "seeds": args.seeds,
            "seconds": seconds,
            "hardware": hardware,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
