"""From nothing to a front of 32 dense students of one teacher: three ways to the same students.

    GPED_DATA=... python tests/bench/bench_time_to_front.py --out reports/bench [--device cuda]

All are measured in one run:

* ``online``: the published algorithm, a trial at a time: a chain in step with its student, Adam
  1e-3, one sample a step; a few trials are run whole, spread over the sizes, and stand for all 32.
* ``cached loop``: what a careful user writes, a student at a time: targets averaged over the
  stream's samples, Adam 1e-3, batch 100, 6,000 steps, float32, a cosine to zero; at its best number
  of threads.
* ``kernel``: ``distill`` of all 32 together by the space's own recipe.

KL(teacher || student) is on validation, for each student, and how far it is above the loop's, with
a paired interval. Ratios are of time and of processor seconds, for the students alone and with the
teacher, which the last two pay once. With ``--sample N``, N students stand for all of the loop, as
a few always do for the online algorithm. Prints one JSON line.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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

LOOP = Recipe(steps=6000, batch_size=100, lr=1e-3, warmup=0, beta2=0.999)
DRY_SETTINGS = {
    "targets": ["predictive"],
    "teacher.genotype.width": 8,
    "teacher.method.num_samples": 4,
    "teacher.method.burn_in": 20,
    "teacher.method.thinning": 10,
    "recipe.steps": 60,
    "views": [{"policy": "clean"}],
}


@dataclass(frozen=True)
class Job:
    """What is compared.

    Attributes:
        device: where all ways run.
        num_students: wanted.
        loop: the recipe of the plain loop.
        in_loop: indices of the students that the loop trains.
        online: indices of those that the published algorithm trains.
    """

    device: torch.device
    num_students: int
    loop: Recipe
    in_loop: tuple[int, ...]
    online: tuple[int, ...]


def spread(num: int, num_students: int) -> tuple[int, ...]:
    """Indices of ``num`` students, spread over their sizes."""
    return tuple((2 * i + 1) * num_students // (2 * num) for i in range(num))


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


class PlainLoop:
    """One student by the loop that a careful user writes."""

    def __init__(self, genotype: Genotype, data: DistillationSet, job: Job) -> None:
        self._recipe = job.loop
        self._network = Network(genotype, data).to(job.device)
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=job.loop.lr, fused=True)
        self._order = BatchOrder(len(data.inputs), job.loop, 0)
        self._inputs = data.inputs.to(job.device)
        self._soft = data.expectations["predictive"].to(job.device)

    def step(self, number: int) -> None:
        """One step of the schedule."""
        index = next(self._order).to(self._inputs.device)
        self._optimizer.param_groups[0]["lr"] = self._recipe.lr_at(number)
        self._optimizer.zero_grad()
        raw = self._network(self._inputs[index])
        F.cross_entropy(raw, self._soft[index]).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def params(self) -> Params:
        """What was learnt, on the CPU."""
        return {name: p.detach().cpu() for name, p in self._network.named().items()}


def cached_loop(genotype: Genotype, data: DistillationSet, job: Job) -> Params:
    """One student by the plain loop."""
    loop = PlainLoop(genotype, data, job)
    for step in range(job.loop.steps):
        loop.step(step)
    return loop.params()


def best_threads(genotype: Genotype, data: DistillationSet, job: Job) -> int:
    """The number of threads at which the plain loop is fastest for a student."""
    seconds = {}
    for threads in sorted({1, devices.usable_cores()}):
        torch.set_num_threads(threads)
        loop = PlainLoop(genotype, data, job)
        times = []
        for step in range(min(30, job.loop.steps)):
            started = time.perf_counter()
            loop.step(step)
            times.append(time.perf_counter() - started)
        seconds[threads] = statistics.median(times)
    return min(seconds, key=lambda threads: seconds[threads])


def main() -> None:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--space", default="fashion_sgld")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--sample", type=int, default=0, help="students of the loop; 0 is all")
    parser.add_argument("--online", type=int, default=3, help="trials of the online algorithm")
    parser.add_argument("--dry-run", action="store_true", help="tiny, on digits and the CPU")
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    args = parser.parse_args()

    num = 3 if args.dry_run else 32
    job = Job(
        device=torch.device("cpu" if args.dry_run else args.device),
        num_students=num,
        loop=LOOP.model_copy(update={"steps": 20} if args.dry_run else {}),
        in_loop=spread(args.sample or num, num),
        online=spread(args.online, num),
    )
    settings = DRY_SETTINGS if args.dry_run else {"targets": ["predictive"]}
    space = load_space("digits_sgld" if args.dry_run else args.space, settings)

    # a teacher built here and now, so that its cost is known
    with tempfile.TemporaryDirectory() as cache:
        os.environ["GPED_CACHE"] = cache
        result = compare(space, job)
    print(json.dumps(result))
    write_json(make_dir(args.out) / f"time_to_front-{args.device}.json", result)


def by_loop(
    teacher: Teacher, genotypes: Sequence[Genotype], data: DistillationSet, job: Job
) -> tuple[dict[int, torch.Tensor], dict[str, float]]:
    """KL (N,) of students by the plain loop, by their index, and the cost of all."""
    total = {"s": 0.0, "processor_s": 0.0}
    kl_of = {}
    for index in job.in_loop:
        genotype = genotypes[index]
        torch.set_num_threads(best_threads(genotype, data, job))
        params, cost = clocked(partial(cached_loop, genotype, data, job))
        total = {key: total[key] + cost[key] for key in total}
        kl_of[index] = kl(teacher, "mlp", params)
    torch.set_num_threads(devices.usable_cores())
    share = len(job.in_loop) / job.num_students
    return kl_of, {key: value / share for key, value in total.items()}


def by_chain(
    teacher: Teacher, genotypes: Sequence[Genotype], data: DistillationSet, job: Job
) -> tuple[dict[int, torch.Tensor], dict[str, float] | None]:
    """KL (N,) of a few students by the published algorithm, by their index, and a trial's cost."""
    online = {"mode": "online", "update": "newest", "halve_every": 2000}
    recipe = job.loop.model_copy(update=online)
    space = teacher.space
    method = space.method.model_copy(update={"thinning": 1, "num_samples": recipe.steps})
    chained = replace(teacher, space=replace(space, recipe=recipe, method=method))

    costs = []
    kl_of = {}
    for index in job.online:
        feed = online_feed(chained, data.inputs)
        train = partial(
            distill, [genotypes[index]], data, recipe, seed=0, device=job.device, feed=feed
        )
        population, cost = clocked(train)
        costs.append(cost)
        kl_of[index] = kl(teacher, "mlp", population.students[0].params)
        print(f"online, {genotypes[index]}: {cost}", flush=True)
    if not costs:
        return {}, None
    return kl_of, {key: statistics.mean(cost[key] for cost in costs) for key in costs[0]}


def compare(space: SearchSpace, job: Job) -> dict[str, Any]:
    """All ways to students of this space's teacher."""
    session, dataset = gn.new_session(job.device.type), load_dataset(space)
    teacher, teacher_cost = clocked(partial(gn.build_teacher, space, session, dataset=dataset))
    print(f"teacher: {teacher_cost}", flush=True)
    data = distillation_set(teacher)
    genotypes = sorted(mlps(job.num_students), key=lambda g: step_flops(g, data, 100))

    train = partial(distill, genotypes, data, space.recipe, seed=0, device=job.device)
    population, ours = clocked(train)
    kl_ours = [kl(teacher, "mlp", s.params) for s in population.students]
    print(f"kernel: {ours}", flush=True)
    kl_loop, loop = by_loop(teacher, genotypes, data, job)
    print(f"cached loop: {loop}", flush=True)
    kl_online, online_trial = by_chain(teacher, genotypes, data, job)

    above = [excess(kl_ours[index], k) for index, k in kl_loop.items()]
    above_online = [float((kl_ours[index] - k).mean()) for index, k in kl_online.items()]
    ratios: dict[str, Any] = {"cached loop": {key: loop[key] / ours[key] for key in ours}}
    if online_trial is not None:
        num = job.num_students
        ratios["online"] = {key: num * online_trial[key] / ours[key] for key in ours}
        for num_trials in (32, 1000):
            ours_s = teacher_cost["s"] + num_trials * ours["s"] / num
            ratio = num_trials * online_trial["s"] / ours_s
            ratios[f"online, teacher counted, {num_trials} trials"] = ratio
    return {
        "space": space.name,
        "genotypes": [str(g) for g in genotypes],
        "recipe": space.recipe.to_record(),
        "n": len(dataset.validation),
        "kl": {
            "kernel": [float(k.mean()) for k in kl_ours],
            "cached loop": {index: float(k.mean()) for index, k in kl_loop.items()},
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
        "ratios": ratios,
        "hardware": devices.fingerprint(job.device),
    }


if __name__ == "__main__":
    main()
