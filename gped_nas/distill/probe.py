"""The step size of a study, chosen by a short training of a few students with each of several.

The best step size belongs to a family and to its norms, and is worth as much as any other setting
of the recipe. All students of the probe are trained side by side on the same batches: those of one
genotype begin alike and differ in their step sizes alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite

import torch

from gped_nas.distill.course import Course, begin
from gped_nas.distill.feed import DistillationSet
from gped_nas.distill.kernel import Progress, train
from gped_nas.distill.recipe import Recipe
from gped_nas.distill.trainee import Trainee
from gped_nas.models.base import Genotype

SHARE = 0.2
"""Steps of the probe, as a share of the recipe's."""
LEAST_STEPS = 100
NUM_STUDENTS = 3
"""How many genotypes are tried."""


@dataclass(frozen=True)
class Probe:
    """What came out.

    Attributes:
        lr: the step size that was chosen.
        losses: each step size with the students' mean loss on validation; infinite where training
            diverged.
    """

    lr: float
    losses: tuple[tuple[float, float], ...]


def probe(
    recipe: Recipe,
    genotypes: Sequence[Genotype],
    data: DistillationSet,
    validation: DistillationSet,
    *,
    seed: int,
    device: torch.device,
    progress: Progress,
    should_stop: Callable[[], bool],
) -> Probe:
    """The one of ``recipe.lr_probe`` with the lowest loss on validation.

    Args:
        recipe: precision decided. The probe takes a fifth of its steps, whole schedule included.
        genotypes: who is tried, without their group penalty.
        data, validation: what students learn from, and where their loss is looked at.
        seed: as for ``distill``.
        device, progress, should_stop: see ``train``.

    Returns:
        The step size; the recipe's own where training diverged with all of them.

    Raises:
        Interrupted: ``should_stop`` said so.
    """
    course = Course(data, shortened(recipe), seed, validation)
    tried = [genotype.unpruned for genotype in genotypes]
    fresh = begin(course, tried, device=device)

    students: list[Trainee] = []
    for lr in recipe.lr_probe:
        for student in fresh:
            factor = student.lr_factor * lr / recipe.lr
            students.append(replace(student, lr_factor=factor, params=dict(student.params)))
    trained = train(
        course,
        students,
        until=course.recipe.steps,
        device=device,
        progress=lambda what, done, total: progress("step sizes", done, total),
        should_stop=should_stop,
    )

    losses = []
    for i, lr in enumerate(recipe.lr_probe):
        group = trained[i * len(fresh) : (i + 1) * len(fresh)]
        losses.append((lr, _mean_loss(group)))
    best_lr, least = min(losses, key=lambda pair: pair[1])
    return Probe(best_lr if isfinite(least) else recipe.lr, tuple(losses))


def shortened(recipe: Recipe) -> Recipe:
    """The recipe of the probe: the same schedule in fewer steps, and one look at the end."""
    steps = min(recipe.steps, max(LEAST_STEPS, round(SHARE * recipe.steps)))
    share = steps / recipe.steps
    changes = {
        "steps": steps,
        "warmup": round(recipe.warmup * share),
        "halve_every": round(recipe.halve_every * share),
        "rungs": 1,
        "patience": 0,
    }
    return recipe.model_copy(update=changes)


def _mean_loss(students: Sequence[Trainee]) -> float:
    """The mean of the students' losses on validation; infinite where one is of no use."""
    losses = []
    for student in students:
        if student.trained().failure:
            return inf
        losses.append(student.rungs[-1][1])
    return sum(losses) / len(losses)
