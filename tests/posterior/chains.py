"""What tests of posterior methods share: short runs, and what is asked of their steps."""

import itertools
from collections.abc import Iterator, Sequence

import torch

from gped_nas.posterior.base import Step


def take(steps: Iterator[Step], num: int) -> list[Step]:
    """The first ``num`` steps."""
    return list(itertools.islice(steps, num))


def have_samples(steps: Sequence[Step]) -> list[bool]:
    """Which steps have a posterior sample."""
    return [step.sample is not None for step in steps]


def with_samples(steps: Sequence[Step]) -> list[Step]:
    """The steps that have a posterior sample."""
    return [step for step in steps if step.sample is not None]


def assert_same_states(steps: Sequence[Step], others: Sequence[Step]) -> None:
    """Both runs went through the same states, to the bit."""
    for step, other in zip(steps, others, strict=True):
        assert step.state.keys() == other.state.keys()
        assert all(torch.equal(step.state[name], other.state[name]) for name in step.state)
