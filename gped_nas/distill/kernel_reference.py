"""The kernel's oracle: the same training, one student at a time, in the plainest way torch offers.

Its own loop, torch's own AdamW, the proximal step by bisection where asked for. Slow on purpose; tests hold
``kernel.distill`` against it.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from gped_nas.distill.feed import Batch, DistillationSet, cached_batches
from gped_nas.distill.kernel import student_seed
from gped_nas.distill.pruning import prox_reference, rows_of, write_rows
from gped_nas.distill.recipe import Recipe
from gped_nas.distill.targets import loss
from gped_nas.models.base import FAMILIES, Family, Genotype, Params, initialise
from gped_nas.models.compact import compact

Prox = Callable[[Tensor, Tensor, float, float], Tensor]


def distill_one(
    genotype: Genotype, data: DistillationSet, recipe: Recipe, *, seed: int, prox: Prox = prox_reference
) -> Params:
    """Parameters of one student after the whole recipe, pruned, on the CPU.

    Args:
        genotype, data, recipe, seed: as for ``kernel.distill``.
        prox: the group lasso's proximal step.
    """
    generator = torch.Generator().manual_seed(student_seed(seed, genotype))
    params = initialise(data.shapes(genotype), generator=generator)
    feed = cached_batches(data, recipe, seed)
    params = _train(genotype, params, data, recipe, feed, range(recipe.prune_step), prox)
    params = compact(genotype.family, params)
    return _train(genotype, params, data, recipe, feed, range(recipe.prune_step, recipe.steps), None)


def _train(
    genotype: Genotype,
    params: Params,
    data: DistillationSet,
    recipe: Recipe,
    feed: Iterator[Batch],
    steps: range,
    prox: Prox | None,
) -> Params:
    family = FAMILIES[genotype.family]
    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    optimiser = torch.optim.AdamW(
        leaves.values(),
        lr=recipe.lr,
        betas=(recipe.beta1, recipe.beta2),
        eps=1e-8,
        weight_decay=recipe.weight_decay,
    )
    since = 0.0
    for step in steps:
        x, expectations = next(feed)
        optimiser.param_groups[0]["lr"] = recipe.lr_at(step)
        optimiser.zero_grad()
        raw = family.forward(leaves, x)
        value = loss(raw, data.targets, recipe.target_weights, expectations, data.num_classes)
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        since += recipe.lr_at(step)
        is_due = (step + 1) % recipe.prox_every == 0 or step + 1 == steps[-1] + 1
        if prox is not None and is_due and genotype["group_penalty"] > 0:
            _shrink(family, leaves, optimiser, recipe, prox, since, genotype["group_penalty"])
        if is_due:
            since = 0.0
    return {name: p.detach() for name, p in leaves.items()}


def _shrink(
    family: Family,
    leaves: Params,
    optimiser: torch.optim.Optimizer,
    recipe: Recipe,
    prox: Prox,
    since: float,
    penalty: float,
) -> None:
    for group in family.groups({name: tuple(p.shape) for name, p in leaves.items()}):
        weights = [leaves[name] for name in group.weights]
        states = [optimiser.state[weight] for weight in weights]
        seconds = [s["exp_avg_sq"] / (1 - recipe.beta2 ** int(s["step"])) for s in states]
        rows = prox(rows_of([w.data for w in weights]), 1 / (rows_of(seconds).sqrt() + 1e-8), since, penalty)
        write_rows([w.data for w in weights], rows)
