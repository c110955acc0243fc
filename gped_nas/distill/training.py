"""A bundle in training: its optimizer, its running average, its proximal steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from gped_nas.distill.bundle import Bundle
from gped_nas.distill.optim import optimizer
from gped_nas.distill.phases import takes_phases
from gped_nas.distill.phases.update import PenalizedUnits, Shrinking
from gped_nas.distill.pruning import prox_group_lasso, rows_of, write_rows
from gped_nas.distill.recipe import Recipe
from gped_nas.distill.trainee import Trainee
from gped_nas.models.base import FAMILIES, Params
from gped_nas.targets.base import Expectations


@dataclass(frozen=True)
class _Penalized:
    """A layer's groups of one student: parameters that are shrunk together, row by row."""

    student: int
    weights: tuple[str, ...]
    num_rows: int
    penalty: float
    lr_factor: float


class TrainedBundle:
    """A bundle's buffers filled with students, and the step that trains them."""

    def __init__(
        self, bundle: Bundle, students: Sequence[Trainee], recipe: Recipe, *, updates: int
    ) -> None:
        """Fill the buffers.

        Args:
            bundle: with buffers for these students, in this order.
            students: taken as they are; their ``memory`` is that of ``updates`` updates.
            recipe: how to train.
            updates: how many updates there have been in this phase.
        """
        self.bundle, self._students, self._recipe = bundle, students, recipe
        theta = bundle.buffers.theta

        # A captured step counts on the device; elsewhere a number that torch reads back lies on the
        # CPU.
        counting_device = theta.device if theta.is_cuda else torch.device("cpu")
        self._updates = torch.tensor(float(updates), device=counting_device)
        factors = [student.lr_factor for student in students]
        self._optimizer = optimizer(bundle, recipe, factors, self._updates)

        self._fill(theta, [student.params for student in students])
        for name, flat in self._optimizer.memory.items():
            self._fill(flat, [student.memory.get(name, {}) for student in students])

        self._average: Tensor | None = None
        self._num_averaged = updates
        if all(student.average for student in students):
            self._average = torch.zeros_like(theta)
            self._fill(self._average, [student.average for student in students])

        bundle.buffers.refresh()
        self._params = bundle.views(theta)
        self._groups = self._penalized_groups()
        self._ridge = self._ridge_of_each_number()
        self._shrinking = self._make_shrinking()

    def _fill(self, flat: Tensor, values: Sequence[Params]) -> None:
        for views, params in zip(self.bundle.views(flat), values, strict=True):
            for name, value in params.items():
                views[name].copy_(value)

    @torch.no_grad()
    def unload(self) -> None:
        """Write what has been learnt back into the students."""
        memory = {name: self.bundle.views(flat) for name, flat in self._optimizer.memory.items()}
        average = None if self._average is None else self.bundle.views(self._average)

        for i, student in enumerate(self._students):
            student.params = _copy(self._params[i])
            student.memory = {name: _copy(views[i]) for name, views in memory.items()}
            student.average = {} if average is None else _copy(average[i])

    def step(self, x: Tensor, expectations: Expectations, lr: float | Tensor) -> Tensor:
        """One step of every student on one batch; returns their losses (P,)."""
        losses_P = self.bundle.compute(x, expectations)
        with torch.no_grad():
            if self._ridge is not None:
                buffers = self.bundle.buffers
                buffers.work_grad.addcmul_(buffers.work, self._ridge)
            self._optimizer.step(lr)
        return losses_P

    @torch.no_grad()
    def add_to_average(self) -> None:
        """Take the present parameters into the running average.

        It is a plain mean until the decay takes over.
        """
        if self._average is not None:
            self._num_averaged += 1
            weight = max(1 - self._recipe.average, 1 / (self._num_averaged + 1))
            self._average.lerp_(self.bundle.buffers.theta, weight)

    @torch.no_grad()
    def shrink(self, lr_sum: float) -> None:
        """Take the group lasso's proximal step of each student with a penalty.

        Groups of as many numbers are shrunk together, whosever they are.

        Args:
            lr_sum: the sum of the step sizes over which the penalty acts.
        """
        if self._shrinking is not None:
            self._shrinking(lr_sum)
            return

        for groups in self._groups.values():
            weights, scales, steps = [], [], []
            for group in groups:
                params = [self._params[group.student][name] for name in group.weights]
                metrics = [self._optimizer.metric(group.student, name) for name in group.weights]
                step = lr_sum * group.lr_factor * group.penalty
                weights.append(rows_of(params))
                scales.append(rows_of(metrics))
                steps.append(weights[-1].new_full((group.num_rows, 1), step))

            shrunk = prox_group_lasso(torch.cat(weights), torch.cat(scales), torch.cat(steps), 1.0)
            parts = torch.split(shrunk, [group.num_rows for group in groups])
            for group, rows in zip(groups, parts, strict=True):
                write_rows([self._params[group.student][name] for name in group.weights], rows)
        self.bundle.buffers.refresh()

    def _ridge_of_each_number(self) -> Tensor | None:
        """The ridge of whoever owns a number, (total,); None where nobody has one."""
        if not any(student.ridge for student in self._students):
            return None

        ridge = torch.zeros_like(self.bundle.buffers.work)
        for views, student in zip(self.bundle.views(ridge), self._students, strict=True):
            for view in views.values():
                view.fill_(student.ridge)
        return ridge

    def _make_shrinking(self) -> Shrinking | None:
        """The proximal step in one launch, for groups of a GPU that are rows of a weight each."""
        recipe, theta = self._recipe, self.bundle.buffers.theta
        is_diagonal = recipe.optimizer != "muon"
        if not (self._groups and is_diagonal and takes_phases(recipe.kernel, theta.device)):
            return None

        penalized = []
        for groups in self._groups.values():
            for group in groups:
                weights = [self._params[group.student][name] for name in group.weights]
                units = PenalizedUnits(weights[0], group.penalty * group.lr_factor)
                if len(weights) > 1 or not units.is_in_rows:
                    return None
                penalized.append(units)
        second = self._optimizer.memory.get("second")
        return Shrinking(
            self.bundle.buffers, penalized, recipe, second=second, updates=self._updates
        )

    def _penalized_groups(self) -> dict[int, list[_Penalized]]:
        """Groups of students with a penalty, by how many numbers a group has."""
        by_size: dict[int, list[_Penalized]] = {}
        for i, student in enumerate(self._students):
            penalty = student.genotype["group_penalty"]
            if penalty == 0:
                continue
            shapes = self.bundle.shapes[i]
            form = student.genotype.form
            for group in FAMILIES[student.genotype.family].groups(shapes):
                weights, factor = group.weights, 1.0
                if form is not None:
                    weights, factor = form.penalty(group, shapes)
                size = sum(prod(shapes[name][1:]) for name in weights)
                num_rows = group.num_units(shapes)
                penalized = _Penalized(i, weights, num_rows, penalty * factor, student.lr_factor)
                by_size.setdefault(size, []).append(penalized)
        return by_size


def _copy(params: Params) -> Params:
    return {name: value.detach().clone() for name, value in params.items()}
