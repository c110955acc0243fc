"""Fresh draws of the law that a method fitted: others than those that a stream holds.

A method whose samples are a law (``Method.is_law``) carries it in its state, and draws change the
generator's ``rng`` alone. So the state that a stream ends with, with another ``rng`` in it, yields
as many further draws as are asked for. They are independent of each other and of the stored ones,
given the fit.

Several fits are one law: each draw is of a fit that is chosen at random. Draws in turn would not be
independent of their number.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.errors import ConfigError
from gped_nas.posterior.base import METHODS, MethodConfig, Origin, State, Step

_WHY: dict[Origin, str] = {
    "chain": "successive states of a chain repeat each other, and an interval that counts each as "
    "a draw of its own would be too narrow",
    "optimized": "points that were optimized are all that there is of them",
    "given": "of samples that were given nothing says whether they are independent",
    "copied": "stored copies are all that there is of them, and what they copy is not known to be "
    "independent",
}


def check_law(method: MethodConfig, where: str) -> None:
    """Refuse a method whose samples are not independent draws of a law.

    Args:
        method: its settings.
        where: for messages.

    Raises:
        ConfigError: they are not; the message says why.
    """
    registered = METHODS[method.name]
    if registered.is_law:
        return
    laws = sorted(name for name, other in METHODS.items() if other.is_law)
    raise ConfigError(
        f"{where}: found method '{method.title()}', expected independent draws of a law "
        f"({', '.join(laws)}): {_WHY[registered.origin]}; take the exact share of the stored "
        "samples"
    )


def fresh_draws(
    run_chain: Callable[[int, State | None], Iterator[Step]],
    states: Sequence[State],
    num: int,
    *,
    seed: int,
    weights: Sequence[float] = (),
) -> Iterator[Tensor]:
    """Flat parameters (W,) of so many independent draws, float32 on the CPU.

    With a larger ``num`` the first ones are the same.

    Args:
        run_chain: yields the steps of a fit from a state; see ``base.Chains``.
        states: where each fit stopped, its law known.
        num: how many draws.
        seed: of them.
        weights: how often each fit is chosen; alike by default.
    """
    fits = [_draws_of_fit(run_chain, fit, state, seed) for fit, state in enumerate(states)]
    share_K = torch.tensor(list(weights) or [1.0] * len(fits), dtype=torch.float64)
    chooser = rng.generator(seed, "fresh draws", "fits")
    for _ in range(num):
        fit = int(torch.multinomial(share_K, 1, generator=chooser))
        yield next(fits[fit])


def _draws_of_fit(
    run_chain: Callable[[int, State | None], Iterator[Step]], fit: int, state: State, seed: int
) -> Iterator[Tensor]:
    generator = rng.generator(seed, "fresh draws", fit)
    for step in run_chain(fit, {**state, "rng": generator.get_state()}):
        assert step.sample is not None, "the law is known"
        yield step.sample.theta_W
