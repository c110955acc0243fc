"""Views that are drawn anew in each step, instead of once before the training.

What a step draws comes from a generator that is named after the view and the step's number, so that
a training that goes on in the middle sees what it would have seen. With answers at the untouched
inputs, what students are shown is stored; at their own inputs the teacher is asked in each step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gped_nas import rng
from gped_nas.data.views import View
from gped_nas.targets.base import Expectations

AskTeacher = Callable[[Tensor], Expectations]
"""Normalized inputs (B, *input_shape), float32, to what the teacher says there, {target: (B, G)}.

Both are on the CPU.
"""


@dataclass(frozen=True, eq=False)
class FreshViews:
    """The views of a distillation set whose inputs are untouched.

    Attributes:
        views: in the order of the inputs.
        num_inputs: of each view.
        ask: the teacher; None where no view has answers of its own.
    """

    views: Sequence[View]
    num_inputs: Sequence[int]
    ask: AskTeacher | None = None

    def to_json(self) -> list[list[Any]]:
        """Plain data that tells what is drawn, but for the teacher."""
        return [[view.key(), num] for view, num in zip(self.views, self.num_inputs, strict=True)]

    def show(
        self, x: Tensor, expectations: Expectations, index_B: Tensor, *, root: int, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A step's batch, drawn.

        Args:
            x: a copy of untouched inputs (B, *input_shape), in any dtype and on any device; they
                are moved in place.
            expectations: what the teacher says there, and what else they are shown with.
            index_B: which inputs of the set they are.
            root: root seed of all draws.
            step: the number of the batch, from 0.
        """
        shown = dict(expectations)
        start = 0
        for view, num_inputs in zip(self.views, self.num_inputs, strict=True):
            row = ((index_B >= start) & (index_B < start + num_inputs)).nonzero().flatten()
            start += num_inputs
            if view.is_untouched or not len(row):
                continue

            path = ("fresh view", view.name, step)
            generators = [rng.generator(root, *path, i) for i in range(len(view.steps))]
            # on the CPU, so that draws are the same on every device
            moved = view.draw(x[row.to(x.device)].float().cpu(), generators)
            x[row.to(x.device)] = moved.to(x)

            if view.answers == "own":
                assert self.ask is not None, "views of their own answers ask the teacher"
                for name, answer in self.ask(moved).items():
                    shown[name] = _put(shown[name], row, answer)
        return x, shown


def _put(values_BG: Tensor, row: Tensor, answer: Tensor) -> Tensor:
    """Values with other rows in some places."""
    return values_BG.index_copy(0, row.to(values_BG.device), answer.to(values_BG))
