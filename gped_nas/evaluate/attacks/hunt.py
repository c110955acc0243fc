"""An attack on all inputs of a part: which were broken, by what, and what a reader must know of it.

Signs that an attack is weaker than it looks are told, as AutoAttack tells them: gradients that are
exactly zero, a larger radius that does not help, and random search that finds more than gradients.

Source: Croce & Hein 2020, arXiv:2003.01690; Carlini et al. 2019, arXiv:1902.06705, section 4.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from gped_nas.evaluate.attacks.average import Aim, Average, Loss
from gped_nas.evaluate.attacks.ball import Ball
from gped_nas.evaluate.attacks.losses import (
    CROSS_ENTROPY,
    DLR_CLASSES,
    MARGIN,
    TARGETED_DLR,
    TARGETED_MARGIN,
)
from gped_nas.evaluate.attacks.square import square
from gped_nas.evaluate.attacks.steps import Best, apgd, pgd

_MANY_ZERO = 0.05
"""Share of the inputs whose gradients are zero, above which it is said."""
_MANY_MORE = 0.01
_LARGE_STEPS, _LARGE_INPUTS = 20, 128
_LARGE_DEVIATIONS = 10.0


@dataclass(eq=False)
class Hunt:
    """What was found so far.

    Attributes:
        average: who is attacked.
        ball: where.
        label_N: the labels.
        generator: of everything that is drawn, for all inputs alike.
        notes: what a reader must know, a sentence each.
    """

    average: Average
    ball: Ball
    label_N: Tensor
    generator: Generator
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        slope = self.average.slope(self.ball.center, CROSS_ENTROPY, self.aim())
        self.clean_NC = slope.log_prob_NC
        self.best = Best(self.ball.center, slope.rank_N)
        self.is_zero_N = (slope.gradient.flatten(1) == 0).all(1)

    @property
    def is_constant(self) -> bool:
        """Whether the answer is the same everywhere, as a guess's is: there is nothing to do."""
        return bool(self.is_zero_N.all()) and bool((self.clean_NC == self.clean_NC[:1]).all())

    @property
    def num_classes(self) -> int:
        """How many classes are told apart."""
        return self.clean_NC.shape[1]

    def aim(self, place: int | None = None) -> Aim:
        """At nothing, or at the class that is so probable among the others, 0 for the best."""
        if place is None:
            return Aim(self.label_N, self.label_N)
        others = self.clean_NC.scatter(1, self.label_N[:, None], -math.inf)
        ordered = others.sort(dim=1, descending=True, stable=True).indices
        return Aim(self.label_N, ordered[:, place])

    def right(self) -> Tensor:
        """Which inputs are still answered rightly."""
        return (self.best.rank_N <= 0).nonzero().squeeze(1)

    def all(self) -> Tensor:
        """All inputs."""
        return torch.arange(len(self.label_N), device=self.label_N.device)

    def climb(self, loss: Loss, index: Tensor, *, steps: int, restarts: int = 1) -> None:
        """APGD on some inputs, from random starts."""
        for _ in range(restarts):
            self._apgd(loss, index, self.aim(), steps)

    def climb_to(
        self, loss: Loss, *, targets: int, steps: int, restarts: int = 1, is_on_all: bool = False
    ) -> None:
        """APGD towards one class after the other, on those that are still answered rightly."""
        everyone = self.all()
        for _ in range(restarts):
            for place in range(min(targets, self.num_classes - 1)):
                index = everyone if is_on_all else self.right()
                self._apgd(loss, index, self.aim(place), steps)

    def climb_to_targets(self, *, targets: int, steps: int, restarts: int) -> None:
        """``climb_to`` with the targeted DLR, or the margin where classes are too few."""
        loss = TARGETED_DLR
        if self.num_classes < DLR_CLASSES:
            loss = TARGETED_MARGIN
            self.notes.append(
                f"{self.num_classes} classes are too few for the targeted DLR: the margin stood in"
            )
        self.climb_to(loss, targets=targets, steps=steps, restarts=restarts)

    def walk(self, loss: Loss, *, steps: int, step_size: float, restarts: int) -> None:
        """PGD on all inputs, from random starts."""
        found: Best | None = None
        for _ in range(restarts):
            best = pgd(
                self.average,
                self.ball,
                loss,
                self.aim(),
                self._starts(),
                steps=steps,
                step_size=step_size,
            )
            if found is None:
                found = best
            else:
                found.offer(best.x, best.rank_N)
        assert found is not None, "it starts once at least"
        self.best = found

    def search(self, *, queries: int, restarts: int = 1) -> None:
        """Square on the inputs that are still answered rightly; the others stay."""
        for _ in range(restarts):
            is_right_N = self.best.rank_N <= 0
            found = square(
                self.average,
                self.ball,
                self.aim(),
                self.generator,
                queries=queries,
                is_wanted_N=is_right_N,
            )
            self.best.offer(found.x, torch.where(is_right_N, found.rank_N, -math.inf))

    # -- what is told

    def tell_zero_gradients(self) -> None:
        """Say how often the gradient of the cross-entropy is exactly zero."""
        share = float(self.is_zero_N.float().mean())
        if share > _MANY_ZERO:
            self.notes.append(
                f"gradients are exactly zero at about {_tens(share)} of the inputs, masked or on a "
                "plateau: what follows the cross-entropy fails there for that reason alone"
            )

    def tell_more(self, num_right_before: int, who: str) -> None:
        """Say it if somebody broke what gradients of the average did not.

        Args:
            num_right_before: inputs that these had left.
            who: found more.
        """
        num_more = num_right_before - len(self.right())
        if num_more > max(1, _MANY_MORE * len(self.label_N)):
            share = num_more / len(self.label_N)
            self.notes.append(
                f"{who} broke about {_tens(share)} of the inputs that gradients of the prediction "
                "had left: they are masked, and robustness may be lower still"
            )

    def tell_large_radius(self) -> None:
        """Say it if gradients do not break inputs even where they may go anywhere."""
        index = self.right()[:_LARGE_INPUTS]
        if not len(index):
            return
        ball = self.ball.of_radius(self._large_radius()).at(index)
        aim = self.aim().at(index)
        best = apgd(self.average, ball, MARGIN, aim, ball.center, steps=_LARGE_STEPS)
        share = float((best.rank_N <= 0).float().mean())
        if share > 0.5:
            self.notes.append(
                f"a radius of the whole range leaves about {_tens(share)} of the inputs that were "
                "tried right: a bigger budget does not help, so gradients lead nowhere"
            )

    def _large_radius(self) -> float:
        """One that leads anywhere."""
        share = 1.0 if math.isfinite(self.ball.low) else _LARGE_DEVIATIONS
        if self.ball.norm == "l2":
            share *= math.sqrt(self.ball.center[0].numel())
        return max(share, self.ball.radius)

    def _apgd(self, loss: Loss, index: Tensor, aim: Aim, steps: int) -> None:
        start = self._starts()[index]  # drawn for all, whoever is left
        if not len(index):
            return
        ball = self.ball.at(index)
        found = apgd(self.average, ball, loss, aim.at(index), start, steps=steps)
        self._take(index, found)

    def _take(self, index: Tensor, found: Best) -> None:
        is_better = found.rank_N > self.best.rank_N[index]
        x, rank = self.best.x.clone(), self.best.rank_N.clone()
        x[index[is_better]] = found.x[is_better]
        rank[index[is_better]] = found.rank_N[is_better]
        self.best = Best(x, rank)

    def _starts(self) -> Tensor:
        return self.ball.starts(self.generator)


def _tens(share: float) -> str:
    """A share, roughly: what is said of many students should not differ in its last digit."""
    return f"{max(1, round(10 * share)) * 10} %" if share >= 0.05 else "5 %"
