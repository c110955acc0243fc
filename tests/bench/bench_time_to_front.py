"""From nothing to a front of 32 dense students of one teacher: three ways to the same students.

    GPED_DATA=... python tests/bench/bench_time_to_front.py --out reports/bench

All are measured in one run:

* ``online``: the published algorithm, a trial at a time: a chain in step with its student, Adam
  1e-3, one sample a step; a few trials are run whole, spread over the sizes, and stand for all 32.
* ``cached loop``: what a careful user writes, a student at a time: targets averaged over the
  stream's samples, Adam 1e-3, batch 100, 6,000 steps, float32, a cosine to zero; at its best number
  of threads.
* ``kernel``: ``distill`` of all 32 together by the space's own recipe.

KL(teacher || student) is on validation, for each student, and how far it is above the loop's, with
a paired interval. Ratios are of time and of processor seconds, for the students alone and with the
teacher, which the last two pay once. Prints one JSON line.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import gped_nas as gn
from gped_nas import device as devices
from gped_nas.api.lessons import distillation_set
from gped_nas.api.online import online_feed
from gped_nas.api.teacher import Teacher, load_dataset
from gped_nas.distill.feed import BatchOrder, DistillationSet
from gped_nas.distill.kernel import distill
from gped_nas.distill.recipe import Recipe
from gped_nas.evaluate.predictions import Predictions
from gped_nas.io import make_dir, write_json
from gped_nas.models.base import FAMILIES, Genotype, Params
from gped_nas.search.space import SearchSpace
from gped_nas.search.space_file import load_space
from tests.bench.populations import Network, mlps, step_flops

NUM_STUDENTS = 32
LOOP = Recipe(steps=6000, batch_size=100, lr=1e-3, warmup=0, beta2=0.999)
CPU = torch.device("cpu")


def clocked(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What ``work`` gives, its seconds and its processor seconds."""
    started = time.perf_counter()
    # chains run in processes of their own
    started_processor = sum(os.times()[:4])
    result = work()
    seconds = time.perf_counter() - started
    return result, {"s": seconds, "processor_s": sum(os.times()[:4]) - started_processor}


def kl(teacher: Teacher, family: str, params: Params) -> torch.Tensor:
    """KL(teacher || student) (N,) on validation, nats."""
    averaged = teacher.averaged("validation")
    assert isinstance(averaged, Predictions), "of classes"
    teacher_log_prob = torch.from_numpy(averaged.log_prob_NC)
    raw = FAMILIES[family].forward(params, teacher.dataset.inputs("validation"))
    log_prob = raw[:, : teacher_log_prob.shape[1]].double().log_softmax(-1)
    return (teacher_log_prob.exp() * (teacher_log_prob - log_prob)).sum(-1)


def excess(ours_N: torch.Tensor, theirs_N: torch.Tensor) -> list[float]:
    """How much farther from the teacher ours is: mean and 95 % interval, paired by example."""
    difference = ours_N - theirs_N
    mean = float(difference.mean())
    half = 1.96 * float(difference.std()) / len(difference) ** 0.5
    return [mean, mean - half, mean + half]


def cached_loop(genotype: Genotype, data: DistillationSet) -> Params:
    """One student by the plain loop."""
    network = Network(genotype, data)
    optimizer = torch.optim.Adam(network.parameters(), lr=LOOP.lr, fused=True)
    order = BatchOrder(len(data.inputs), LOOP, 0)
    soft = data.expectations["predictive"]
    for step in range(LOOP.steps):
        index = next(order)
        optimizer.param_groups[0]["lr"] = LOOP.lr_at(step)
        optimizer.zero_grad()
        F.cross_entropy(network(data.inputs[index]), soft[index]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return {name: value.detach() for name, value in network.named().items()}


def best_threads(genotype: Genotype, data: DistillationSet) -> int:
    """The number of threads at which the plain loop is fastest for a student."""
    soft = data.expectations["predictive"]
    seconds = {}
    for threads in sorted({1, devices.usable_cores()}):
        torch.set_num_threads(threads)
        network = Network(genotype, data)
        order = BatchOrder(len(data.inputs), LOOP, 0)
        optimizer = torch.optim.Adam(network.parameters(), fused=True)
        times = []
        for _ in range(30):
            index = next(order)
            started = time.perf_counter()
            optimizer.zero_grad()
            F.cross_entropy(network(data.inputs[index]), soft[index]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            times.append(time.perf_counter() - started)
        seconds[threads] = statistics.median(times)
    return min(seconds, key=lambda threads: seconds[threads])


def main() -> None:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--space", default="fashion_mlp")
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    args = parser.parse_args()

    space = load_space(args.space, {"targets": ["predictive"]})
    # a teacher built here and now, so that its cost is known
    with tempfile.TemporaryDirectory() as cache:
        os.environ["GPED_CACHE"] = cache
        result = compare(space)
    print(json.dumps(result))
    write_json(make_dir(args.out) / f"time_to_front-{CPU.type}.json", result)


def by_loop(
    teacher: Teacher, genotypes: Sequence[Genotype], data: DistillationSet
) -> tuple[list[torch.Tensor], dict[str, float]]:
    """KL (N,) of each student by the plain loop, and the cost of all."""
    total = {"s": 0.0, "processor_s": 0.0}
    kl_of = []
    for genotype in genotypes:
        torch.set_num_threads(best_threads(genotype, data))
        params, cost = clocked(partial(cached_loop, genotype, data))
        total = {key: total[key] + cost[key] for key in total}
        kl_of.append(kl(teacher, "mlp", params))
    torch.set_num_threads(devices.usable_cores())
    return kl_of, total


def by_chain(
    teacher: Teacher, genotypes: Sequence[Genotype], data: DistillationSet
) -> tuple[dict[int, torch.Tensor], dict[str, float]]:
    """KL (N,) of a few students by the published algorithm, by their index, and a trial's cost."""
    recipe = LOOP.model_copy(update={"mode": "online", "update": "newest", "halve_every": 2000})
    space = teacher.space
    method = space.method.model_copy(update={"thinning": 1, "num_samples": recipe.steps})
    chained = replace(teacher, space=replace(space, recipe=recipe, method=method))

    costs = []
    kl_of = {}
    for sixth in (1, 3, 5):
        index = NUM_STUDENTS // 6 * sixth
        feed = online_feed(chained, data.inputs)
        train = partial(distill, [genotypes[index]], data, recipe, seed=0, device=CPU, feed=feed)
        population, cost = clocked(train)
        costs.append(cost)
        kl_of[index] = kl(teacher, "mlp", population.students[0].params)
        print(f"online, {genotypes[index]}: {cost}", flush=True)
    return kl_of, {key: statistics.mean(cost[key] for cost in costs) for key in costs[0]}


def compare(space: SearchSpace) -> dict[str, Any]:
    """All ways to students of this space's teacher."""
    session, dataset = gn.new_session("cpu"), load_dataset(space)
    teacher, teacher_cost = clocked(partial(gn.build_teacher, space, session, dataset=dataset))
    print(f"teacher: {teacher_cost}", flush=True)
    data = distillation_set(teacher)
    genotypes = sorted(mlps(NUM_STUDENTS), key=lambda g: step_flops(g, data, 100))

    train = partial(distill, genotypes, data, space.recipe, seed=0, device=CPU)
    population, ours = clocked(train)
    kl_ours = [kl(teacher, "mlp", s.params) for s in population.students]
    print(f"kernel: {ours}", flush=True)
    kl_loop, loop = by_loop(teacher, genotypes, data)
    print(f"cached loop: {loop}", flush=True)
    kl_online, online_trial = by_chain(teacher, genotypes, data)

    def ratio_with_teacher(num_trials: int) -> float:
        ours_s = teacher_cost["s"] + num_trials * ours["s"] / NUM_STUDENTS
        return num_trials * online_trial["s"] / ours_s

    above = [excess(a, b) for a, b in zip(kl_ours, kl_loop, strict=True)]
    above_online = [float((kl_ours[index] - k).mean()) for index, k in kl_online.items()]
    return {
        "space": space.name,
        "genotypes": [str(g) for g in genotypes],
        "recipe": space.recipe.to_record(),
        "n": len(dataset.validation),
        "kl": {
            "kernel": [float(k.mean()) for k in kl_ours],
            "cached loop": [float(k.mean()) for k in kl_loop],
            "online": {index: float(k.mean()) for index, k in kl_online.items()},
        },
        "above the cached loop": above,
        "num_not_worse": {
            "than the cached loop": sum(mean <= 0 for mean, _, _ in above),
            "than the cached loop, within the interval": sum(low <= 0 for _, low, _ in above),
            "than online": sum(mean <= 0 for mean in above_online),
        },
        "cost": {
            "kernel": ours,
            "cached loop": loop,
            "online, a trial": online_trial,
            "teacher": teacher_cost,
        },
        "ratios": {
            "online": {key: NUM_STUDENTS * online_trial[key] / ours[key] for key in ours},
            "cached loop": {key: loop[key] / ours[key] for key in ours},
            "online, teacher counted, 32 trials": ratio_with_teacher(32),
            "online, teacher counted, 1000 trials": ratio_with_teacher(1000),
        },
        "hardware": devices.fingerprint(CPU),
    }


if __name__ == "__main__":
    main()
