"""What ``teacher tune`` may draw of a posterior method's settings.

A method says it at its registration (``Method.tuned``): a function that draws by name and gives the
settings, so that a setting which hangs on another one can be drawn after it. For example

    lambda draw, effort: {"rate": draw.scale("rate", 0.02, 0.5, usual=0.1), "steps": effort.steps}

Prior precisions are drawn beside it, for every method alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Draw(Protocol):
    """Where settings come from: a sampler, or their usual values."""

    def scale(self, name: str, low: float, high: float, *, usual: float) -> float:
        """A positive number, its logarithm uniform, of three digits."""

    def whole(self, name: str, low: int, high: int, *, usual: int) -> int:
        """A positive integer, its logarithm uniform."""

    def choice(self, name: str, options: Sequence[str], *, usual: str) -> str:
        """One of the options."""


@dataclass(frozen=True)
class Effort:
    """How much work a candidate is, before what is drawn multiplies it.

    Attributes:
        num_examples: of the training data.
        batch_size: examples of one minibatch gradient.
        steps: minibatch gradients that train one network, a multiple of 100.
    """

    num_examples: int
    batch_size: int
    steps: int

    @property
    def thinning(self) -> int:
        """Minibatch gradients between two samples of a chain: a tenth of a training, 10 to 100."""
        return min(max(self.steps // 10, 10), 100)

    def steps_times(self, factor: float) -> int:
        """So many times the steps, in whole hundreds."""
        return max(1, round(self.steps * factor / 100)) * 100

    def burn_in_times(self, factor: float) -> int:
        """So many times the steps, a multiple of ``thinning``."""
        return max(1, round(self.steps * factor / self.thinning)) * self.thinning


Settings = Callable[[Draw, Effort], Mapping[str, Any]]
"""Draws to the settings of a method, without ``name``."""


@dataclass(frozen=True)
class Tuned:
    """How a method is tuned.

    Attributes:
        settings: what is drawn.
        is_tried: whether it is among the candidates when nobody names methods.
    """

    settings: Settings
    is_tried: bool = True


def chain_settings(draw: Draw, effort: Effort) -> dict[str, Any]:
    """What every minibatch chain has: chains, their start, samples, burn-in, temperature."""
    chains = draw.whole("chains", 2, 8, usual=5)
    start: dict[str, Any] = {}
    if draw.choice("start", ("prior", "map"), usual="prior") == "map":
        network = {"name": "map", "steps": effort.steps, "batch_size": effort.batch_size}
        start = {"start": network}
    return {
        **start,
        "chains": chains,
        "num_samples": chains * draw.whole("draws", 5, 50, usual=10),
        "burn_in": effort.burn_in_times(draw.scale("burn_in", 0.3, 2, usual=1)),
        "thinning": effort.thinning,
        "batch_size": effort.batch_size,
        "temperature": draw.scale("temperature", 1e-3, 1, usual=0.01),
    }


def training_settings(draw: Draw, effort: Effort) -> dict[str, Any]:
    """What every training by Adam has: steps, step size, batch size."""
    return {
        "steps": effort.steps_times(draw.scale("length", 0.4, 2, usual=1)),
        "lr": draw.scale("lr", 3e-4, 1e-2, usual=1e-3),
        "batch_size": effort.batch_size,
    }


def step_of(draw: Draw, effort: Effort) -> float:
    """SGLD's step size eta: from 0.02 to 2 over the number of examples."""
    return three_digits(draw.scale("step", 0.02, 2, usual=0.2) / effort.num_examples)


def three_digits(value: float) -> float:
    """A number that people can read and copy."""
    return float(f"{value:.3g}")
