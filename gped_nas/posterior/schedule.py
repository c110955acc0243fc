"""Step sizes over absolute steps: stopping, resuming or adding samples changes none of them."""

import math
from typing import Annotated

from pydantic import Field

from gped_nas.config import Config


class StepSize(Config):
    """``initial``, halved once at each step of ``halve_at``; None is found by each chain."""

    initial: float | None = Field(
        default=None, gt=0, description="eta, in units of the full-data potential"
    )
    halve_at: Annotated[tuple[int, ...], Field(strict=False)] = ()

    def __call__(self, step: int) -> float:
        """The step size at an absolute step, counted from 0."""
        return _given(self.initial) * 0.5 ** sum(step >= at for at in self.halve_at)


class CosineCycles(Config):
    """From ``initial`` down to almost zero along half a cosine, again and again.

    Each chain finds an ``initial`` that is None.

    Source: Zhang et al. 2020, equation 1.
    """

    initial: float | None = Field(
        default=None, gt=0, description="step size at the first step of every cycle"
    )
    length: int = Field(default=2000, ge=1, description="steps in a cycle")

    def __call__(self, step: int) -> float:
        """The step size at an absolute step, counted from 0.

        It is positive at the last step of a cycle too.
        """
        return (
            _given(self.initial)
            * 0.5
            * (1 + math.cos(math.pi * (step % self.length) / self.length))
        )


def _given(initial: float | None) -> float:
    assert initial is not None, "a chain steps by settings that have its step size"
    return initial
