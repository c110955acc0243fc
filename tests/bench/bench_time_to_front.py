"""From nothing to a front of 32 fully connected students of one teacher: three ways to the same
students, in one run.

    GPED_DATA=... python tests/bench/bench_time_to_front.py --out reports/bench

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
from collections.abc import Callable
from dataclasses import replace
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
from gped_nas.io import write_json
from gped_nas.models.base import FAMILIES, Genotype, Params
from gped_nas.search.space import SearchSpace
from gped_nas.search.space_file import load_space
from tests.bench.populations import Network, mlps, step_flops

NUM_STUDENTS, NUM_ONLINE = 32, 3
LOOP = Recipe(steps=6000, batch_size=100, lr=1e-3, warmup=0, beta2=0.999)
CPU = torch.device("cpu")


def clocked(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What ``work`` gives, its seconds and its processor seconds."""
    wall, processor = (
        time.perf_counter(),
        sum(os.times()[:4]),
    )  # chains run in processes of their own
    result = work()
    return result, {"s": time.perf_counter() - wall, "processor_s": sum(os.times()[:4]) - processor}


def kl(teacher: Teacher, family: str, params: Params) -> torch.Tensor:
    """KL(teacher || student) (N,) on validation, nats."""
    said = torch.from_numpy(teacher.averaged("validation").log_prob_NC)
    raw = FAMILIES[family].forward(params, teacher.dataset.inputs("validation"))
    log_prob = raw[:, : said.shape[1]].double().log_softmax(-1)
    return (said.exp() * (said - log_prob)).sum(-1)


def excess(ours_N: torch.Tensor, theirs_N: torch.Tensor) -> list[float]:
    """Mean of how much farther from the teacher ours is, with its paired 95 % interval over
    examples.
    """
    difference = ours_N - theirs_N
    middle, reach = (
        float(difference.mean()),
        1.96 * float(difference.std()) / len(difference) ** 0.5,
    )
    return [middle, middle - reach, middle + reach]


def cached_loop(genotype: Genotype, data: DistillationSet) -> Params:
    """One student by the plain loop."""
    network = Network(genotype, data)
    optimizer = torch.optim.Adam(network.parameters(), lr=LOOP.lr, fused=True)
    order = BatchOrder(len(data.inputs), LOOP, 0)
    for step in range(LOOP.steps):
        index = next(order)
        optimizer.param_groups[0]["lr"] = LOOP.lr_at(step)
        optimizer.zero_grad()
        raw = network(data.inputs[index])
        F.cross_entropy(raw, data.expectations["predictive"][index]).backward()
        optimizer.step()
    return {name: value.detach() for name, value in network.named().items()}


def best_threads(genotype: Genotype, data: DistillationSet) -> int:
    """The number of threads at which the plain loop is fastest for a student."""
    seconds = {}
    for threads in sorted({1, devices.usable_cores()}):
        torch.set_num_threads(threads)
        network, order = Network(genotype, data), BatchOrder(len(data.inputs), LOOP, 0)
        optimizer = torch.optim.Adam(network.parameters(), fused=True)
        times = []
        for _ in range(30):
            index, started = next(order), time.perf_counter()
            optimizer.zero_grad()
            F.cross_entropy(
                network(data.inputs[index]), data.expectations["predictive"][index]
            ).backward()
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
    args.out.mkdir(parents=True, exist_ok=True)
    space = load_space(args.space, {"targets": ["predictive"]})
    with (
        tempfile.TemporaryDirectory() as cache
    ):  # a teacher built here and now, so that its cost is known
        os.environ["GPED_CACHE"] = cache
        found = compare(space)
    print(json.dumps(found))
    write_json(args.out / f"time_to_front-{CPU.type}.json", found)


def compare(space: SearchSpace) -> dict[str, Any]:
    """All ways to students of this space's teacher."""
    session, dataset = gn.new_session("cpu"), load_dataset(space)
    teacher, teacher_cost = clocked(lambda: gn.build_teacher(space, session, dataset=dataset))
    print(f"teacher: {teacher_cost}", flush=True)
    data = distillation_set(teacher)
    genotypes = sorted(mlps(NUM_STUDENTS), key=lambda g: step_flops(g, data, 100))
    population, ours = clocked(lambda: distill(genotypes, data, space.recipe, seed=0, device=CPU))
    kl_ours = [kl(teacher, "mlp", s.params) for s in population.students]
    print(f"kernel: {ours}", flush=True)

    loop: dict[str, float] = {"s": 0.0, "processor_s": 0.0}
    kl_loop = []
    for genotype in genotypes:
        torch.set_num_threads(best_threads(genotype, data))
        params, cost = clocked(lambda g=genotype: cached_loop(g, data))
        loop = {key: loop[key] + cost[key] for key in loop}
        kl_loop.append(kl(teacher, "mlp", params))
    torch.set_num_threads(devices.usable_cores())
    print(f"cached loop: {loop}", flush=True)

    recipe = Recipe(
        mode="online",
        steps=LOOP.steps,
        batch_size=100,
        lr=1e-3,
        warmup=0,
        beta2=0.999,
        halve_every=2000,
    )
    method = space.method.model_copy(update={"thinning": 1, "num_samples": recipe.steps})
    chained = replace(teacher, space=replace(space, recipe=recipe, method=method))
    online, kl_online = [], {}
    for place in (NUM_STUDENTS // 6 * k for k in (1, 3, 5)):
        genotype = genotypes[place]
        feed = online_feed(chained, data.inputs)
        trained, cost = clocked(
            lambda g=genotype, f=feed: distill([g], data, recipe, seed=0, device=CPU, feed=f)
        )
        online.append(cost)
        kl_online[place] = kl(teacher, "mlp", trained.students[0].params)
        print(f"online, {genotype}: {cost}", flush=True)
    a_trial = {key: statistics.mean(cost[key] for cost in online) for key in online[0]}

    def with_teacher(num_trials: int) -> float:
        return (
            num_trials * a_trial["s"] / (teacher_cost["s"] + num_trials * ours["s"] / NUM_STUDENTS)
        )

    above = [excess(a, b) for a, b in zip(kl_ours, kl_loop, strict=True)]
    return {
        "space": space.name,
        "genotypes": [str(g) for g in genotypes],
        "recipe": space.recipe.to_record(),
        "n": len(dataset.validation),
        "kl": {
            "kernel": [float(k.mean()) for k in kl_ours],
            "cached loop": [float(k.mean()) for k in kl_loop],
            "online": {place: float(k.mean()) for place, k in kl_online.items()},
        },
        "above the cached loop": above,
        "num_not_worse": {
            "than the cached loop": sum(middle <= 0 for middle, _, _ in above),
            "than the cached loop, within the interval": sum(low <= 0 for _, low, _ in above),
            "than online": sum(
                float((kl_ours[place] - k).mean()) <= 0 for place, k in kl_online.items()
            ),
        },
        "cost": {
            "kernel": ours,
            "cached loop": loop,
            "online, a trial": a_trial,
            "teacher": teacher_cost,
        },
        "ratios": {
            "online": {key: NUM_STUDENTS * a_trial[key] / ours[key] for key in ours},
            "cached loop": {key: loop[key] / ours[key] for key in ours},
            "online, teacher counted, 32 trials": with_teacher(32),
            "online, teacher counted, 1000 trials": with_teacher(1000),
        },
        "hardware": devices.fingerprint(CPU),
    }


if __name__ == "__main__":
    main()
