"""Optimizers over a bundle's flat buffers: one update for all its students, a step size for each.

* ``adamw`` (Loshchilov & Hutter 2019, arXiv:1711.05101) and ``sgd`` (Nesterov momentum): torch's
  own, in one pass over the numbers.
* ``muon`` (Jordan et al. 2024, kellerjordan.github.io/posts/muon): the momentum of every weight
  matrix but the last layer's is replaced by one with the same singular vectors and singular values
  near one, by five steps of a Newton-Schulz iteration, times ``sqrt(max(1, rows / columns))``;
  equal shapes are iterated together. Biases, norms and last layers go by adamw, with the step size
  ``lr_rest``.

What an optimizer remembers lies in flat buffers of the bundle's layout, so that it survives when
students leave. Each tells its metric, the positive diagonal D of ``step = -lr * D * gradient``, in
which the group lasso's proximal step is taken (``pruning.py``). Muon has no such diagonal; the
length of a row's step over that of its gradient stands for it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import prod
from typing import Protocol

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from gped_nas.distill.buffers import Block, Buffers
from gped_nas.distill.bundle import Bundle
from gped_nas.distill.phases import takes_phases
from gped_nas.distill.phases.update import AdamWUpdate, SgdUpdate, factor_table
from gped_nas.distill.recipe import Recipe

EPS = 1e-8
_SMALL = 8192
"""Numbers below which a call for a part costs more than to scale its steps afterwards."""
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 5


class Optimizer(Protocol):
    """Updates a bundle's parameters from its gradients.

    Attributes:
        memory: what it remembers, by name: flat buffers of the bundle's layout.
    """

    memory: dict[str, Tensor]

    def step(self, lr: float | Tensor) -> None:
        """One update of the masters and of what a step computes with.

        ``lr`` is multiplied by each student's own factor.
        """
        ...

    def metric(self, student: int, name: str) -> Tensor:
        """The diagonal D of a parameter, as of the last update."""
        ...


def optimizer(
    bundle: Bundle, recipe: Recipe, factors: Sequence[float], updates: Tensor
) -> Optimizer:
    """The recipe's optimizer of a bundle.

    Args:
        bundle: whose buffers it updates.
        recipe: its kind and constants.
        factors: for each student what its step size is multiplied by.
        updates: how many updates there have been, a float32 scalar on the bundle's device; counted
            up here.
    """
    if recipe.optimizer == "muon":
        return Muon(bundle, recipe, factors, updates)
    if recipe.optimizer == "sgd":
        return Sgd(bundle, recipe, factors, updates)
    return AdamW(bundle, recipe, factors, updates)


class AdamW:
    """See the module docstring."""

    def __init__(
        self,
        bundle: Bundle,
        recipe: Recipe,
        factors: Sequence[float],
        updates: Tensor,
        *,
        cuts: Mapping[float, list[slice]] | None = None,
    ) -> None:
        """Begin with nothing remembered.

        Args:
            bundle, recipe, factors, updates: see ``optimizer``.
            cuts: limits the update to these parts of the buffers, by their factor; everything by
                default.
        """
        theta = bundle.buffers.theta
        self._recipe, self._updates = recipe, updates
        first = torch.zeros_like(theta)
        second = torch.zeros_like(theta)
        self.memory = {"first": first, "second": second}
        self._seconds = bundle.views(second)

        self._whole_update: _WholeUpdate | None = None
        if cuts is None and takes_phases(recipe.kernel, theta.device):
            table = factor_table(bundle, factors)
            update = AdamWUpdate(bundle.buffers, first, second, updates, recipe, table)
            self._whole_update = _WholeUpdate(update, theta)
            return

        if cuts is None:
            cuts = _cuts_by_factor(bundle, factors)
        self._blocks: list[tuple[float, Block, list[Tensor], list[Tensor], list[Tensor]]] = []
        for factor, block in _make_blocks(bundle.buffers, cuts):
            firsts = [first[cut] for cut in block.cuts]
            seconds = [second[cut] for cut in block.cuts]
            counts = [updates] * len(block.cuts)
            self._blocks.append((factor, block, firsts, seconds, counts))

    def step(self, lr: float | Tensor) -> None:
        """See ``Optimizer.step``."""
        self._updates.add_(1)
        if self._whole_update is not None:
            self._whole_update.step(lr)
            return

        for factor, block, firsts, seconds, counts in self._blocks:
            block.collect()
            # the operator below torch.optim's function, which would count every part's updates
            torch._fused_adamw_(
                block.params,
                block.grads,
                firsts,
                seconds,
                [],
                counts,
                lr=lr * factor,
                beta1=self._recipe.beta1,
                beta2=self._recipe.beta2,
                weight_decay=self._recipe.weight_decay,
                eps=EPS,
                amsgrad=False,
                maximize=False,
            )
            block.refresh()

    def metric(self, student: int, name: str) -> Tensor:
        """See ``Optimizer.metric``: ``1 / (sqrt(v) + eps)`` with v unbiased."""
        # in float64: of 1 - 0.99 float32 keeps but five digits
        unbiased = self._seconds[student][name] / (1 - self._recipe.beta2 ** self._updates.double())
        return 1 / (unbiased.sqrt() + EPS)


class Sgd:
    """See the module docstring."""

    def __init__(
        self, bundle: Bundle, recipe: Recipe, factors: Sequence[float], updates: Tensor
    ) -> None:
        theta = bundle.buffers.theta
        self._recipe, self._updates = recipe, updates
        self._fused = theta.device.type in ("cpu", "cuda")
        momentum = torch.zeros_like(theta)
        self.memory = {"momentum": momentum}
        self._thetas = bundle.views(theta)

        self._whole_update: _WholeUpdate | None = None
        if takes_phases(recipe.kernel, theta.device):
            table = factor_table(bundle, factors)
            update = SgdUpdate(bundle.buffers, momentum, recipe, table)
            self._whole_update = _WholeUpdate(update, theta)
            return

        cuts = _cuts_by_factor(bundle, factors)
        self._blocks: list[tuple[float, Block, list[Tensor]]] = []
        for factor, block in _make_blocks(bundle.buffers, cuts):
            momenta = [momentum[cut] for cut in block.cuts]
            self._blocks.append((factor, block, momenta))

    def step(self, lr: float | Tensor) -> None:
        """See ``Optimizer.step``."""
        self._updates.add_(1)
        if self._whole_update is not None:
            self._whole_update.step(lr)
            return

        for factor, block, momenta in self._blocks:
            block.collect()
            sgd(
                block.params,
                block.grads,
                list(momenta),
                foreach=False,
                fused=self._fused,
                weight_decay=self._recipe.weight_decay,
                momentum=self._recipe.momentum,
                lr=lr * factor,
                dampening=0,
                nesterov=self._recipe.momentum > 0,
                maximize=False,
            )
            block.refresh()

    def metric(self, student: int, name: str) -> Tensor:
        """See ``Optimizer.metric``.

        In the long run a gradient moves its number by ``lr / (1 - momentum)``.
        """
        return torch.full_like(self._thetas[student][name], 1 / (1 - self._recipe.momentum))


class Muon:
    """See the module docstring."""

    def __init__(
        self, bundle: Bundle, recipe: Recipe, factors: Sequence[float], updates: Tensor
    ) -> None:
        self._recipe = recipe
        self._buffers = bundle.buffers

        # equal shapes are iterated together, where step size and stretch are equal too
        rest = defaultdict[float, list[slice]](list)
        stacks = defaultdict[tuple[float, float, tuple[int, int]], list[slice]](list)
        self._matrices: set[tuple[int, str]] = set()
        for piece in bundle.pieces():
            factor = factors[piece.student]
            if piece.matrix is None:
                rest[factor * recipe.lr_rest / recipe.lr].append(piece.cut)
                continue
            # without units that rounding added
            rows, *columns = bundle.shapes[piece.student][piece.name]
            stretch = max(1.0, rows / prod(columns)) ** 0.5
            stacks[factor, stretch, piece.matrix].append(piece.cut)
            self._matrices.add((piece.student, piece.name))

        self._stacks = stacks
        self._rest = AdamW(bundle, recipe, factors, updates, cuts=rest)

        theta = bundle.buffers.theta
        self._step = torch.zeros_like(theta)
        self.memory = {**self._rest.memory, "momentum": torch.zeros_like(theta)}
        self._steps = bundle.views(self._step)
        self._momenta = bundle.views(self.memory["momentum"])

    def step(self, lr: float | Tensor) -> None:
        """See ``Optimizer.step``."""
        recipe, momentum = self._recipe, self.memory["momentum"]
        theta, work, grad = self._buffers.theta, self._buffers.work, self._buffers.work_grad

        for (factor, stretch, (rows, columns)), cuts in self._stacks.items():
            gradients = torch.stack([grad[cut].float().view(rows, columns) for cut in cuts])
            # Nesterov: the gradient, a step ahead of its own mean
            for cut, gradient in zip(cuts, gradients, strict=True):
                mean = momentum[cut].view(rows, columns)
                mean.lerp_(gradient, 1 - recipe.momentum)
                gradient.lerp_(mean, recipe.momentum)

            steps = orthogonalize(gradients.to(self._buffers.dtype)).float() * stretch
            for cut, step in zip(cuts, steps, strict=True):
                self._step[cut] = step.flatten()
                decay = 1 - lr * factor * recipe.weight_decay
                theta[cut].mul_(decay).sub_(self._step[cut] * (lr * factor))
                if work is not theta:
                    work[cut].copy_(theta[cut])

        self._rest.step(lr)

    def metric(self, student: int, name: str) -> Tensor:
        """See ``Optimizer.metric`` and the module docstring."""
        if (student, name) not in self._matrices:
            return self._rest.metric(student, name) * (self._recipe.lr_rest / self._recipe.lr)

        step = self._steps[student][name]
        momentum = self._momenta[student][name]
        step_norms = step.flatten(1).norm(dim=1)
        gradient_norms = momentum.flatten(1).norm(dim=1).clamp_min(EPS)
        # a unit that no example reaches does not move; the proximal step divides by D
        rows: Tensor = (step_norms / gradient_norms).clamp_min(EPS)
        return rows.view(-1, *[1] * (step.dim() - 1)).expand_as(step)


def orthogonalize(stack: Tensor) -> Tensor:
    """Matrices (n, rows, columns) with the same singular vectors and singular values of about one.

    They are computed in the matrices' own precision, and bfloat16 is enough.

    Source: Jordan et al. 2024; the polynomial's coefficients are theirs.
    """
    a, b, c = _NEWTON_SCHULZ
    is_tall = stack.shape[1] > stack.shape[2]
    # the iteration squares the shorter side
    x: Tensor = stack.mT if is_tall else stack
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(EPS)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if is_tall else x


class _WholeUpdate:
    """An update of all numbers in one launch, with a step size from the host or the device."""

    def __init__(self, update: AdamWUpdate | SgdUpdate, theta: Tensor) -> None:
        self._update = update
        self._lr = torch.zeros((), device=theta.device)

    def step(self, lr: float | Tensor) -> None:
        """See ``Optimizer.step``."""
        self._update(lr if isinstance(lr, Tensor) else self._lr.fill_(lr))


def _cuts_by_factor(bundle: Bundle, factors: Sequence[float]) -> dict[float, list[slice]]:
    """Parts of the flat buffers by factor: all of them as one where there is one factor."""
    if len(set(factors)) == 1:
        return {factors[0]: [slice(0, len(bundle.buffers.theta))]}

    cuts = defaultdict[float, list[slice]](list)
    for piece in bundle.pieces():
        cuts[factors[piece.student]].append(piece.cut)
    return dict(cuts)


def _make_blocks(buffers: Buffers, cuts: Mapping[float, list[slice]]) -> list[tuple[float, Block]]:
    """Blocks to update, each with the factor on its step size.

    Parts too small for a call of their own share one, whatever their factors.
    """
    blocks: list[tuple[float, Block]] = []
    small: list[tuple[slice, float]] = []
    for factor, parts in cuts.items():
        large = []
        for part in parts:
            if len(cuts) == 1 or part.stop - part.start >= _SMALL:
                large.append(part)
            else:
                small.append((part, factor))
        blocks += [(factor, block) for block in buffers.blocks(large)]
    return blocks + _join_blocks(buffers, small)


def _join_blocks(
    buffers: Buffers, small: Sequence[tuple[slice, float]]
) -> list[tuple[float, Block]]:
    """Parts of several factors in common blocks.

    They are updated with the largest factor, and the other steps are shortened after it. To
    lengthen steps would lengthen the rounding of what was updated as well.
    """
    if not small:
        return []

    largest = max(factor for _, factor in small)
    factors = torch.ones_like(buffers.theta)
    for part, factor in small:
        factors[part] = factor / largest

    merged = _merge_adjacent([part for part, _ in small])
    return [(largest, block) for block in buffers.blocks(merged, factors)]


def _merge_adjacent(parts: Sequence[slice]) -> list[slice]:
    """The parts in order; neighbors that touch become one."""
    merged: list[slice] = []
    for part in sorted(parts, key=lambda part: part.start):
        if merged and merged[-1].stop == part.start:
            part = slice(merged.pop().start, part.stop)
        merged.append(part)
    return merged
