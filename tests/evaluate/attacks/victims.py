"""Networks that are attacked in tests, in float64 or float32."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gped_nas import rng
from gped_nas.data.base import load
from gped_nas.data.scale import Scale, ValueRange
from gped_nas.evaluate.condition_names import named_condition
from gped_nas.evaluate.conditions import Forward

SHAPE, CLASSES = (1, 3, 3), 5
RANGE = ValueRange(0, 16)


class Victim:
    """Networks with weights, as a predictor."""

    def __init__(self, members: Sequence[tuple[float, Forward]]) -> None:
        self.members = members

    def networks(self) -> Iterator[tuple[float, Forward]]:
        yield from self.members

    def log_prob(self, raw: Tensor) -> Tensor:
        """The average, all networks at once: the obvious reference."""
        stacked = torch.stack([np.log(w) + forward(raw) for w, forward in self.members if w > 0])
        return stacked.logsumexp(0)

    def accuracy(self, raw: Tensor, labels: Tensor) -> float:
        return float((self.log_prob(raw).argmax(1) == labels).double().mean())


def random_network(
    seed: int,
    *,
    shape: tuple[int, ...] = SHAPE,
    classes: int = CLASSES,
    dtype: torch.dtype = torch.float64,
    sharpness: float = 1.0,
) -> Forward:
    """A random network of one hidden layer on raw inputs from 0 to 16."""
    generator = rng.generator(seed, "victim")
    num_inputs = int(np.prod(shape))
    first = torch.randn((num_inputs, 12), generator=generator, dtype=dtype) / num_inputs**0.5
    second = torch.randn((12, classes), generator=generator, dtype=dtype)

    def forward(raw: Tensor) -> Tensor:
        hidden = (raw.flatten(1) / 8 - 1) @ first
        return (sharpness * (hidden.tanh() @ second)).log_softmax(-1)

    return forward


def inputs(num: int = 7, shape: tuple[int, ...] = SHAPE, dtype: Any = torch.float64) -> Tensor:
    generator = rng.generator(1, "inputs")
    return 16 * torch.rand((num, *shape), generator=generator, dtype=dtype)


def attack(
    name: str,
    victim: Any,
    raw: Tensor,
    labels: Tensor,
    scale: Scale = RANGE,
    seed: int = 0,
    **settings: Any,
) -> Tensor:
    """The inputs that a condition makes."""
    condition = named_condition("mine", {"name": name, **settings}, "here")
    return condition.apply(
        raw,
        predictor=victim,
        labels=labels.numpy(),
        generator=rng.generator(seed, "attack"),
        scale=scale,
    )


@functools.cache
def trained_on_digits(seed: int = 0) -> nn.Module:
    """A network for digits from 0 to 1 (N, 1, 8, 8), trained for a second."""
    dataset = load({"name": "digits"})
    x, y = dataset.train.x.float() / 16, dataset.train.y

    state = torch.get_rng_state()
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(15):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()
    torch.set_rng_state(state)
    return net.eval().requires_grad_(False)


def on_digits(net: nn.Module, sharpness: float = 1.0) -> Forward:
    """The forward pass of such a network on raw digits."""
    return lambda raw: (sharpness * net(raw / 16)).log_softmax(-1)
