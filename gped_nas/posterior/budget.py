"""What each posterior method may spend where methods are compared.

A method says at its registration what settings suit a budget (``Method.suited``), so that it can be
compared with others before anybody tuned it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Budget:
    """The work that methods share out among their own settings.

    Attributes:
        chains: independent chains.
        num_samples: posterior samples, all chains together; a multiple of ``chains``.
        batch_size: examples of one minibatch gradient.
        burn_in: minibatch gradients of a chain before its first sample.
        thinning: minibatch gradients between two samples of a chain.
        step_size: SGLD's step size eta: a parameter moves by about sqrt(eta) in one step.
    """

    chains: int
    num_samples: int
    batch_size: int
    burn_in: int
    thinning: int
    step_size: float

    @property
    def steps(self) -> int:
        """Minibatch gradients of one chain, in whole hundreds."""
        gradients = self.burn_in + self.num_samples // self.chains * self.thinning
        return -(-gradients // 100) * 100


Suited = Callable[[Budget], Mapping[str, Any]]
"""A budget to the settings that suit it, beyond those that every method shares."""


def nothing_special(budget: Budget) -> dict[str, Any]:
    """No settings: those that methods share, and a method's defaults, are enough."""
    return {}
