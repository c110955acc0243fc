"""The distillation kernel: one shared batch stream, many students, one fused optimiser step.

All students' parameters, gradients and moments lie in four flat buffers. A step gathers one batch, runs
every student forward and back on it (autograd writes into views of the flat gradient; the loss is computed
once for all, each student a row of its own), then updates all parameters by one elementwise pass. No
operation mixes two students, so a student's bits depend neither on its place in the population nor on its
siblings, and one that diverges harms none of them. Nothing in a step waits for the device.

Training has two phases: with the group penalty up to the pruning step; then dead units are removed, the
buffers are rebuilt around what is left, and the remaining steps fine-tune it. ``kernel_reference.py`` does
the same one student at a time with torch's own optimiser; tests hold the two together.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil, isfinite

import torch
import torch.nn.functional as F
from torch import Tensor

from gped_nas import rng
from gped_nas.distill.feed import Batch, DistillationSet, cached_batches
from gped_nas.distill.pruning import prox_group_lasso, rows_of, write_rows
from gped_nas.distill.recipe import Recipe
from gped_nas.distill.targets import Heads, loss
from gped_nas.errors import Interrupted
from gped_nas.io import canonical_json
from gped_nas.models.base import FAMILIES, Genotype, Params, Shapes, initialise, num_params
from gped_nas.models.compact import compact, num_dead_units
from gped_nas.posterior.base import flatten, views

EPS = 1e-8
LOG_EVERY = 50
_ALIGNMENT = 64
"""Each student begins at a multiple of so many numbers: vector instructions round the last few numbers of a
buffer, and products of unaligned matrices, in their own way, so its bits would depend on its place."""


@dataclass(frozen=True, eq=False)
class Distilled:
    """One trained student.

    Attributes:
        genotype: what was trained.
        params: float32 parameters that are left after pruning, on the CPU.
        seed: the seed its initialisation came from.
        num_dead: units that the group penalty killed.
        losses: ``[step, loss]`` of the training batch, now and then.
        is_finite: whether every parameter and loss is finite.
    """

    genotype: Genotype
    params: Params
    seed: int
    num_dead: int
    losses: tuple[tuple[int, float], ...]
    is_finite: bool


@dataclass(frozen=True, eq=False)
class Population:
    """Students trained together, in the order they were asked for."""

    students: tuple[Distilled, ...]


def student_seed(root: int, genotype: Genotype, replicate: int = 0) -> int:
    """The seed of a student: of its genotype and replicate, never of its place in a population."""
    return rng.seed(root, "student", canonical_json(genotype.to_json()), replicate)


def distill(
    genotypes: Sequence[Genotype],
    data: DistillationSet,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    feed: Iterator[Batch] | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Population:
    """Train one student for each genotype on one shared batch stream.

    Args:
        genotypes: what to train; equal ones give equal students.
        data: inputs and expectations.
        recipe: how to train.
        seed: root seed of initialisations and of the batch order.
        device: where to train.
        feed: what the students are shown, a batch a step, on ``device``; drawn from ``data`` by default.
        progress: told ``(what, steps done, steps in all)``.
        should_stop: asked now and then.

    Returns:
        The students in the order of ``genotypes``; one whose numbers stopped being finite says so.

    Raises:
        Interrupted: ``should_stop`` said so.
    """
    data = data.to(device)
    seeds = [student_seed(seed, g) for g in genotypes]
    params = [
        _on(device, initialise(data.shapes(g), generator=torch.Generator().manual_seed(s)))
        for g, s in zip(genotypes, seeds, strict=True)
    ]
    feed = feed or cached_batches(data, recipe, seed)
    log = _Log(recipe.steps, progress, should_stop)
    first = _Phase(genotypes, params, data, recipe)
    for step in range(recipe.prune_step):
        log.add(step, first.step(*next(feed), step))
        if (step + 1) % recipe.prox_every == 0 or step + 1 == recipe.prune_step:
            first.shrink(step)
    dead = [num_dead_units(g.family, p) for g, p in zip(genotypes, first.params, strict=True)]
    left = [compact(g.family, p) for g, p in zip(genotypes, first.params, strict=True)]
    second = _Phase(genotypes, left, data, recipe)
    for step in range(recipe.prune_step, recipe.steps):
        log.add(step, second.step(*next(feed), step))
    curves = log.curves(len(genotypes))
    return Population(
        tuple(
            _distilled(g, p, s, d, c)
            for g, p, s, d, c in zip(genotypes, second.params, seeds, dead, curves, strict=True)
        )
    )


def _on(device: torch.device, params: Params) -> Params:
    return {name: p.to(device) for name, p in params.items()}


def _distilled(
    genotype: Genotype, params: Params, seed: int, dead: int, curve: tuple[tuple[int, float], ...]
) -> Distilled:
    kept = {name: p.detach().cpu().clone() for name, p in params.items()}
    finite = all(bool(p.isfinite().all()) for p in kept.values()) and all(isfinite(v) for _, v in curve)
    return Distilled(genotype, kept, seed, dead, curve, finite)


@dataclass(eq=False)
class _Log:
    """Losses now and then, read back from the device only at the end; progress and the wish to stop."""

    total: int
    progress: Callable[[str, int, int], None]
    should_stop: Callable[[], bool]
    rows: list[tuple[int, Tensor]] = field(default_factory=list)

    def add(self, step: int, losses_P: Tensor) -> None:
        if step % LOG_EVERY == 0 or step + 1 == self.total:
            self.rows.append((step, losses_P))
            self.progress("students", step + 1, self.total)
            if self.should_stop():
                raise Interrupted("stopped while distilling; run the same command again to go on")

    def curves(self, num_students: int) -> list[tuple[tuple[int, float], ...]]:
        table = torch.stack([row for _, row in self.rows]).cpu()
        return [tuple((step, float(table[i, p])) for i, (step, _) in enumerate(self.rows)) for p in range(num_students)]


class _Phase:
    """Flat buffers of a population whose shapes stay fixed, and the step that trains it."""

    def __init__(
        self, genotypes: Sequence[Genotype], params: list[Params], data: DistillationSet, recipe: Recipe
    ) -> None:
        self.genotypes, self.data, self.recipe = genotypes, data, recipe
        shapes: list[Shapes] = [{name: tuple(p.shape) for name, p in own.items()} for own in params]
        sizes = [_ALIGNMENT * ceil(num_params(own) / _ALIGNMENT) for own in shapes]
        self.theta = torch.cat(
            [
                F.pad(flatten(own), (0, size - num_params(shape)))
                for own, shape, size in zip(params, shapes, sizes, strict=True)
            ]
        )
        self.grad = torch.zeros_like(self.theta)
        self.first, self.second = torch.zeros_like(self.theta), torch.zeros_like(self.theta)
        self.params = self._views(self.theta, sizes, shapes)
        self.seconds = self._views(self.second, sizes, shapes)
        for own, grads in zip(self.params, self._views(self.grad, sizes, shapes), strict=True):
            for name, grad in grads.items():
                own[name] = own[name].detach().requires_grad_()
                own[name].grad = grad
        self.forwards = [FAMILIES[g.family].forward for g in genotypes]
        self.updates = 0
        self.lr_since_shrink = 0.0

    @staticmethod
    def _views(flat: Tensor, sizes: list[int], shapes: list[Shapes]) -> list[Params]:
        parts = flat.split(sizes)  # type: ignore[no-untyped-call]
        return [views(part[: num_params(own)], own) for part, own in zip(parts, shapes, strict=True)]

    def step(self, x: Tensor, expectations: Heads, step: int) -> Tensor:
        """One step of every student on one batch; returns their losses (P,)."""
        data, recipe = self.data, self.recipe
        raw_PBU = torch.stack([forward(own, x) for forward, own in zip(self.forwards, self.params, strict=True)])
        losses = loss(raw_PBU, data.targets, recipe.target_weights, expectations, data.num_classes)
        self.grad.zero_()
        losses.sum().backward()  # type: ignore[no-untyped-call]
        self._update(recipe.lr_at(step))
        return losses.detach()

    @torch.no_grad()
    def _update(self, lr: float) -> None:
        """AdamW over the flat buffers, elementwise."""
        recipe = self.recipe
        self.updates += 1
        self.first.lerp_(self.grad, 1 - recipe.beta1)
        self.second.mul_(recipe.beta2).addcmul_(self.grad, self.grad, value=1 - recipe.beta2)
        if recipe.weight_decay:
            self.theta.mul_(1 - lr * recipe.weight_decay)
        scale = self.second.sqrt().div_((1 - recipe.beta2**self.updates) ** 0.5).add_(EPS)
        self.theta.addcdiv_(self.first, scale, value=-lr / (1 - recipe.beta1**self.updates))
        self.lr_since_shrink += lr

    @torch.no_grad()
    def shrink(self, step: int) -> None:
        """The group lasso's proximal step of each student with a penalty, over the steps since the last."""
        correction = 1 - self.recipe.beta2**self.updates
        for genotype, own, seconds in zip(self.genotypes, self.params, self.seconds, strict=True):
            if genotype["group_penalty"] == 0:
                continue
            shapes = {name: tuple(p.shape) for name, p in own.items()}
            for group in FAMILIES[genotype.family].groups(shapes):
                seconds_rows = rows_of([seconds[name] for name in group.weights])
                scale = 1 / ((seconds_rows / correction).sqrt() + EPS)
                rows = rows_of([own[name] for name in group.weights])
                rows = prox_group_lasso(rows, scale, self.lr_since_shrink, genotype["group_penalty"])
                write_rows([own[name] for name in group.weights], rows)
        self.lr_since_shrink = 0.0
