"""Trainings drawn by a seed: a population, what it learns, and a recipe, of all there are."""

import random
from dataclasses import dataclass

import torch

from gped_nas.distill.feed import DistillationSet, PosteriorPredictions
from gped_nas.distill.recipe import Recipe
from gped_nas.models.base import Genotype
from gped_nas.targets.base import TARGETS, DerivedTarget, LearnedTarget, QuantileTarget, Target
from gped_nas.targets.expectations import expect
from gped_nas.targets.layout import HeadLayout

CLASSES, SAMPLES = 3, 5


@dataclass(frozen=True, eq=False)
class Training:
    """What is trained, on what and how.

    Attributes:
        genotypes: the population, all of them chains of dense layers.
        data, validation: what it learns from, and what rungs look at.
        recipe: of few steps.
    """

    genotypes: list[Genotype]
    data: DistillationSet
    validation: DistillationSet
    recipe: Recipe


def drawn_training(seed: int, *, steps: int, most_students: int) -> Training:
    """The training of a seed, of two students or more."""
    draw = random.Random(seed)
    update = draw.choice(["averaged", "averaged", "newest", "running_mean"])
    layout = _layout(draw, update)
    num_inputs = draw.randint(3, 40)
    has_labels = draw.random() < 0.5
    data = _data(draw, layout, num_inputs, 40, has_labels=has_labels)
    validation = _data(draw, layout, num_inputs, 15, has_labels=has_labels)

    recipe = _recipe(draw, steps, update, layout, num_inputs)
    num_students = draw.randint(2, most_students)
    genotypes = [_genotype(draw, has_labels=has_labels) for _ in range(num_students)]
    return Training(genotypes, data, validation, recipe)


def is_of_classes(target: Target) -> bool:
    """Whether a target, and what it is derived from, reads probabilities of classes."""
    if isinstance(target, DerivedTarget):
        return all(is_of_classes(TARGETS[name]) for name in target.requires)
    return isinstance(target, LearnedTarget) and target.prediction == "log_prob"


def _learns_by(target: Target, update: str) -> bool:
    """Whether an update rule teaches a target, and what it is derived from."""
    kinds = {target.kind, *(TARGETS[name].kind for name in target.requires)}
    if "statistic" in kinds:
        return update == "averaged"
    return "quantile" not in kinds or update == "newest"


def _layout(draw: random.Random, update: str) -> HeadLayout:
    """Heads of one to four targets that this update rule can teach."""
    if draw.random() < 0.2:
        return HeadLayout(["predictive_normal"], 1)

    names = []
    for name, target in TARGETS.items():
        if name != "predictive" and is_of_classes(target) and _learns_by(target, update):
            names.append(name)
    chosen = ["predictive"]
    for name in draw.sample(names, draw.randint(0, 3)):
        chosen += [name for name in (*TARGETS[name].requires, name) if name not in chosen]
    return HeadLayout(chosen, CLASSES)


def _data(
    draw: random.Random, layout: HeadLayout, num_inputs: int, size: int, *, has_labels: bool
) -> DistillationSet:
    """What a few posterior samples say at drawn inputs, and labels of two thirds of these."""
    generator = torch.Generator().manual_seed(draw.randrange(2**31))
    x = torch.randn((size, num_inputs), generator=generator)
    rules = torch.randn((SAMPLES, num_inputs, CLASSES), generator=generator) / num_inputs**0.5
    said_SMC = (x @ rules).log_softmax(-1)
    y = torch.randint(CLASSES, (size,), generator=generator)
    if layout.num_classes == 1:
        # means and variances
        said_SMC = torch.stack([(x @ rules)[..., 0], (x @ rules)[..., 1].exp()], -1)
        y = torch.randn((size,), generator=generator)

    weight_S = torch.full((SAMPLES,), 1 / SAMPLES, dtype=torch.float64)
    averages = {}
    for target in layout.learned:
        if not isinstance(target, QuantileTarget):
            averages[target.name] = expect(target, said_SMC, weight_S).float()
    labels = None
    if has_labels:
        labels = layout.labels(y)
        labels[::3] = torch.nan
    samples = PosteriorPredictions([[said_SMC.numpy()]], weight_S)
    return DistillationSet(x, averages, layout, samples, labels)


def _recipe(
    draw: random.Random, steps: int, update: str, layout: HeadLayout, num_inputs: int
) -> Recipe:
    has_rungs = update == "averaged" and draw.random() < 0.5
    return Recipe(
        steps=steps,
        update=update,
        optimizer=draw.choice(["adamw", "adamw", "sgd"]),
        precision="float32",
        batch_size=draw.choice([8, 16, 19, 32]),
        lr=draw.choice([0.003, 0.01]),
        **draw.choice([{}, {"halve_every": 7}, {"decay_from": 0.5}]),
        warmup=draw.choice([0, 5]),
        components=draw.choice([0, 0, draw.randint(1, num_inputs)]),
        centered=draw.random() < 0.3,
        lr_width_power=draw.choice([0.0, 0.0, 0.5]),
        weight_decay=draw.choice([0.0, 0.1]),
        beta1=draw.choice([0.9, 0.8]),
        beta2=draw.choice([0.99, 0.999]),
        momentum=draw.choice([0.9, 0.5, 0.0]),
        average=draw.choice([0.0, 0.8]),
        rungs=2 if has_rungs else 0,
        prune_at=draw.choice([0.4, 0.6]),
        prox_every=draw.choice([1, 4, 10]),
        label_weight=draw.choice([0.0, 0.4]),
        target_weights={target.name: draw.choice([0.5, 2.0]) for target in layout.learned},
    )


def _genotype(draw: random.Random, *, has_labels: bool) -> Genotype:
    depth = draw.randint(0, 3)
    more = {"label_weight": draw.choice([0.2, 1.0])} if has_labels and draw.random() < 0.3 else {}
    widths = [draw.randint(1, 40) for _ in range(depth)]
    penalty = draw.choice([0.0, 0.01, 0.1]) if depth else 0.0
    return Genotype("mlp", depth=depth, width=widths, group_penalty=penalty, **more)
