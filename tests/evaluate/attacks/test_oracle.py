"""Our worst case against AutoAttack's standard suite, of its authors' own package, on digits."""

import logging
from typing import Any

import pyautoattack
import pytest
import torch

from gped_nas.data.base import load
from tests.evaluate.attacks.victims import Victim, attack, on_digits, trained_on_digits

CLOSE = 0.02


def _by_autoattack(
    net: Any, x: torch.Tensor, y: torch.Tensor, *, norm: str, epsilon: float, steps: int
) -> torch.Tensor:
    """The inputs that the suite finds; digits from 0 to 1. It draws from torch's own generator."""
    state = torch.get_rng_state()
    logging.disable(logging.CRITICAL)
    suite = pyautoattack.AutoAttack(
        net, norm={"linf": "Linf", "l2": "L2"}[norm], eps=epsilon, seed=0
    )
    for part in (suite.apgd, suite.apgd_targeted, suite.fab):
        part.n_iter = steps
    suite.square.n_queries = 50 * steps
    found = suite.run_standard_evaluation(x, y, batch_size=len(x))[0]
    logging.disable(logging.NOTSET)
    torch.set_rng_state(state)
    return torch.as_tensor(found)


@pytest.mark.parametrize(
    ("num", "steps", "norm", "epsilon", "seed"),
    [
        (60, 15, "linf", 0.1, 0),
        *(
            pytest.param(359, 100, norm, epsilon, seed, marks=pytest.mark.soak)
            for norm, epsilon in (("linf", 0.05), ("linf", 0.1), ("l2", 0.3), ("l2", 0.5))
            for seed in (0, 1)
        ),
    ],
)
def test_the_worst_case_is_that_of_the_standard_suite(
    num: int, steps: int, norm: str, epsilon: float, seed: int
) -> None:
    dataset, net = load({"name": "digits"}), trained_on_digits(seed)
    x, y = dataset.test.x[:num].float(), dataset.test.y[:num]
    victim = Victim([(1.0, on_digits(net))])

    theirs = _by_autoattack(net, x / 16, y, norm=norm, epsilon=epsilon, steps=steps)
    budget = {"steps": steps, "queries": 50 * steps}
    ours = attack("worst", victim, x, y, epsilon=epsilon, norm=norm, **budget)

    robust = victim.accuracy(ours, y)
    assert robust <= victim.accuracy(16 * theirs, y) + CLOSE
    assert 0.02 < robust < victim.accuracy(x, y) - 0.1  # neither nothing nor everything is broken
