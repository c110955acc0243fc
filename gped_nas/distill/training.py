"""A bundle in training: its optimizer, its running average, its proximal steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from gped_nas.distill.budget import BudgetPath
from gped_nas.distill.bundle import Bundle
from gped_nas.distill.optim import optimizer
from gped_nas.distill.phases import takes_phases
from gped_nas.distill.phases.update import PenalizedUnits, Shrinking
from gped_nas.distill.pruning import prox_group_lasso, rows_of, write_rows
from gped_nas.distill.recipe import Recipe
from gped_nas.distill.trainee import Trainee
from gped_nas.models.base import Params
from gped_nas.targets.base import Expectations


@dataclass(frozen=True)
class _Penalized:
    """A layer's groups of one student: parameters that are shrunk together, row by row.

    Attributes:
        student: place in the bundle.
        weights: the parameters.
        size: numbers of a unit in all of them.
        num_rows: units.
        penalty: lambda, with the form's factor; of a student with a budget the factor alone.
        lr_factor: of the student.
    """

    student: int
    weights: tuple[str, ...]
    size: int
    num_rows: int
    penalty: float
    lr_factor: float


class TrainedBundle:
    """A bundle's buffers filled with students, and the step that trains them."""

    def __init__(
        self,
        bundle: Bundle,
        students: Sequence[Trainee],
        recipe: Recipe,
        *,
        updates: int,
        paths: Sequence[BudgetPath | None] = (),
    ) -> None:
        """Fill the buffers.

        Args:
            bundle: with buffers for these students, in this order.
            students: taken as they are; their ``memory`` is that of ``updates`` updates.
            recipe: how to train.
            updates: how many updates there have been in this phase.
            paths: of each student the way to its budget; None of those without one. Nobody has one
                by default.
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
        self._paths = {i: path for i, path in enumerate(paths) if path is not None}
        self._prune_steps = [recipe.prune_step_of(student.genotype) for student in students]
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
    def shrink_after(self, step: int) -> None:
        """What follows a step of the first phase: proximal steps, and at its end landings.

        Args:
            step: of the recipe, counted from 0.
        """
        recipe = self._recipe
        is_of_everybody = (step + 1) % recipe.prox_every == 0
        if not is_of_everybody and step + 1 not in self._prune_steps:
            return
        due = [i for i, at in enumerate(self._prune_steps) if recipe.shrinks_after(step, at)]

        thresholds = {}
        for i in due:
            if i not in self._paths:
                continue
            num_left = recipe.num_shrinks_left(step, self._prune_steps[i])
            if num_left == 1:
                self._land(i)
            elif not self._paths[i].is_by_length:
                thresholds[i] = self._paths[i].threshold(self._prices(i), num_left)
        self._shrink(recipe.lr_since_shrink(step), frozenset(due), thresholds)

    @torch.no_grad()
    def shrink(self, lr_sum: float) -> None:
        """Take the group lasso's proximal step of each student with a penalty.

        Args:
            lr_sum: the sum of the step sizes over which the penalty acts.
        """
        self._shrink(lr_sum, frozenset(range(len(self._students))), {})

    def _shrink(self, lr_sum: float, due: frozenset[int], thresholds: Mapping[int, float]) -> None:
        """A proximal step; groups of as many numbers are shrunk together, whosever they are.

        Args:
            lr_sum: see ``shrink``.
            due: whose step it is.
            thresholds: of those with a budget; they have no ``lr_sum``.
        """
        if self._shrinking is not None and len(due) == len(self._students):
            self._shrinking(lr_sum)
            return

        by_size: dict[int, list[tuple[_Penalized, float]]] = {}
        for group in self._groups:
            factor = lr_sum * group.lr_factor
            if group.student in self._paths:
                factor = thresholds.get(group.student, 0.0)
            step = factor * group.penalty
            if step > 0 and group.student in due:
                by_size.setdefault(group.size, []).append((group, step))

        for together in by_size.values():
            weights, scales, steps = [], [], []
            for group, step in together:
                weights.append(rows_of(self._weights(group)))
                scales.append(rows_of(self._metrics(group)))
                steps.append(weights[-1].new_full((group.num_rows, 1), step))

            shrunk = prox_group_lasso(torch.cat(weights), torch.cat(scales), torch.cat(steps), 1.0)
            parts = torch.split(shrunk, [group.num_rows for group, _ in together])
            for (group, _), rows in zip(together, parts, strict=True):
                write_rows(self._weights(group), rows)
        self.bundle.buffers.refresh()

    def _land(self, student: int) -> None:
        """Remove the units of a student that are beyond its budget."""
        groups = [group for group in self._groups if group.student == student]
        kept = self._paths[student].land(self._prices(student))
        for group, stays in zip(groups, kept, strict=True):
            for weight in self._weights(group):
                weight[~stays] = 0.0
        self.bundle.buffers.refresh()

    def _prices(self, student: int) -> list[Tensor]:
        """What removes each unit of a student with a budget, group by group; see ``budget.py``."""
        prices = []
        for group in self._groups:
            if group.student != student:
                continue
            rows = rows_of(self._weights(group))
            if self._paths[student].is_by_length:
                lengths = rows.norm(dim=1)
                prices.append(lengths / lengths.mean())
            else:
                lengths = (rows / rows_of(self._metrics(group))).norm(dim=1)
                prices.append(lengths / (group.size**0.5 * group.penalty))
        return prices

    def _weights(self, group: _Penalized) -> list[Tensor]:
        return [self._params[group.student][name] for name in group.weights]

    def _metrics(self, group: _Penalized) -> list[Tensor]:
        return [self._optimizer.metric(group.student, name) for name in group.weights]

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
        if self._paths:  # their thresholds are found at each step
            return None

        penalized = []
        for group in self._groups:
            weights = self._weights(group)
            units = PenalizedUnits(weights[0], group.penalty * group.lr_factor)
            if len(weights) > 1 or not units.is_in_rows:
                return None
            penalized.append(units)
        second = self._optimizer.memory.get("second")
        return Shrinking(
            self.bundle.buffers, penalized, recipe, second=second, updates=self._updates
        )

    def _penalized_groups(self) -> list[_Penalized]:
        """The groups of students with a penalty or on the way to a budget."""
        penalized = []
        for i, student in enumerate(self._students):
            penalty = 1.0 if i in self._paths else student.genotype["group_penalty"]
            if penalty == 0:
                continue
            shapes = self.bundle.shapes[i]
            form = student.genotype.form
            for group in student.genotype.prunable(shapes):
                weights, factor = group.weights, 1.0
                if form is not None:
                    weights, factor = form.penalty(group, shapes)
                size = sum(prod(shapes[name][1:]) for name in weights)
                num_rows = group.num_units(shapes)
                penalized.append(
                    _Penalized(i, weights, size, num_rows, penalty * factor, student.lr_factor)
                )
        return penalized


def _copy(params: Params) -> Params:
    return {name: value.detach().clone() for name, value in params.items()}
