"""The streamed gradient of the average against autograd of all networks at once."""

import math
import subprocess
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from gped_nas.errors import DataError
from gped_nas.evaluate.attacks import losses
from gped_nas.evaluate.attacks.average import Aim, Average, Loss, check_answers, entropy
from gped_nas.evaluate.conditions import Forward
from tests.evaluate.attacks.victims import CLASSES, Victim, inputs, random_network

LOSSES = {name: loss for name, loss in vars(losses).items() if isinstance(loss, Loss)}
AIM = Aim(torch.tensor([0, 1, 2, 3, 4, 0, 1]), torch.tensor([1, 2, 0, 0, 3, 4, 2]))


def batched(victim: Victim, x: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """A loss and its gradient by autograd through all networks together."""
    x = x.clone().requires_grad_()
    value = loss.average(victim.log_prob(x), AIM)
    for weight, forward in victim.members:
        log_prob = forward(x)
        if loss.network is not None:
            value = value + weight * loss.network(log_prob, AIM)
        value = value + loss.entropy * weight * entropy(log_prob)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), gradient


def posterior(num: int, sharpness: float = 1.0) -> Victim:
    weights = torch.arange(1.0, num + 1, dtype=torch.float64)
    weights = (weights / weights.sum()).tolist()
    return Victim([(w, random_network(s, sharpness=sharpness)) for s, w in enumerate(weights)])


@pytest.mark.parametrize("num", [1, 2, 9])
@pytest.mark.parametrize("name", LOSSES)
def test_the_streamed_gradient_is_the_batched_one(name: str, num: int) -> None:
    victim, x = posterior(num), inputs()

    slope = Average(victim.networks).slope(x, LOSSES[name], AIM)
    value, gradient = batched(victim, x, LOSSES[name])

    assert slope.value_N.tolist() == pytest.approx(value.tolist(), rel=1e-12, abs=1e-12)
    assert (slope.gradient - gradient).abs().max() <= 1e-12 * max(1, float(gradient.abs().max()))
    assert torch.allclose(slope.log_prob_NC, victim.log_prob(x), atol=1e-12)
    assert num == 1 or name == "VOTES" or gradient.abs().max() > 0


@pytest.mark.parametrize("name", ["CROSS_ENTROPY", "MARGIN", "TARGETED_DLR", "VOTES"])
def test_tiny_probabilities_keep_their_gradients(name: str) -> None:
    victim, x = posterior(3, sharpness=400), inputs()
    assert victim.log_prob(x).min() < -800  # such probabilities are zero in float64

    slope = Average(victim.networks).slope(x, LOSSES[name], AIM)

    _, gradient = batched(victim, x, LOSSES[name])
    assert torch.allclose(slope.gradient, gradient, rtol=1e-9, atol=1e-9)
    assert slope.gradient.isfinite().all() and slope.gradient.abs().max() > 1


def test_a_class_that_no_network_has_leaves_gradients_finite() -> None:
    forward = random_network(0)

    def without_last(raw: Tensor) -> Tensor:
        masked = forward(raw).clone()
        masked[:, -1] = -math.inf
        return masked.log_softmax(-1)

    average = Average(Victim([(0.5, without_last), (0.5, without_last)]).networks)
    aim = Aim(torch.zeros(7, dtype=torch.int64), torch.ones(7, dtype=torch.int64))
    for name in ("CROSS_ENTROPY", "MARGIN", "RAISE_TOTAL", "LOWER_MODEL"):
        assert average.slope(inputs(), LOSSES[name], aim).gradient.isfinite().all(), name


def test_batches_make_no_difference() -> None:
    victim, x = posterior(3), inputs(1100)
    label = torch.arange(1100) % CLASSES
    aim = Aim(label, (label + 1) % CLASSES)
    whole = Average(victim.networks).slope(x, losses.MARGIN, aim)
    part = Average(victim.networks).slope(x[1000:], losses.MARGIN, aim.at(slice(1000, None)))
    assert torch.allclose(whole.gradient[1000:], part.gradient, atol=1e-12)


class _Model:
    """A network whose life is watched."""

    def __init__(self, seed: int, living: "weakref.WeakSet[_Model]") -> None:
        self.forward = random_network(seed % 5)
        living.add(self)

    def __call__(self, raw: Tensor) -> Tensor:
        return self.forward(raw)


def test_one_network_is_in_memory_and_one_accumulator_however_many_there_are() -> None:
    most = {}
    for num in (10, 500):
        living: weakref.WeakSet[_Model] = weakref.WeakSet()
        answers: weakref.WeakSet[Any] = weakref.WeakSet()
        counts = []

        def networks(
            num: int = num,
            living: Any = living,
            answers: Any = answers,
            counts: Any = counts,
        ) -> Iterator[tuple[float, Forward]]:
            for seed in range(num):
                counts.append((len(living), len(answers)))
                model = _Model(seed, living)

                def forward(raw: Tensor, model: _Model = model) -> Tensor:
                    log_prob = model(raw)
                    answers.add(log_prob)  # with its graph
                    return log_prob

                del model
                yield 1 / num, forward
                del forward

        Average(networks).slope(inputs(), losses.LOWER_MODEL, AIM)
        assert len(counts) >= 2 * num
        most[num] = tuple(max(column) for column in zip(*counts, strict=True))
    assert most[500] == most[10]
    assert most[10][0] <= 1 and most[10][1] <= 1


def test_networks_without_weight_are_not_asked() -> None:
    def never(raw: Tensor) -> Tensor:
        raise AssertionError("it has no weight")

    forward = random_network(0)
    average = Average(Victim([(0.0, never), (1.0, forward)]).networks)
    assert average.is_alone
    assert torch.equal(average.log_prob(inputs()), forward(inputs()))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda raw: torch.rand(7, 5).log_softmax(-1), "found two answers to the same inputs"),
        (lambda raw: raw.flatten(1)[:, :5], "found answers that are no log-probabilities"),
    ],
)
def test_answers_that_cannot_be_attacked_are_refused(answer: Any, message: str) -> None:
    state = torch.get_rng_state()
    with pytest.raises(DataError, match=message):
        check_answers(Average(Victim([(1.0, answer)]).networks), inputs(), AIM.label_N, "x")
    torch.set_rng_state(state)


def test_labels_of_other_classes_are_refused() -> None:
    average = Average(posterior(1).networks)
    with pytest.raises(DataError, match="found labels from 0 to 5, expected 0 to 4"):
        check_answers(average, inputs(), torch.arange(6), "x")


_PEAK = """
import resource, sys, torch
from gped_nas.evaluate.attacks.average import Aim, Average
from gped_nas.evaluate.attacks.losses import LOWER_MODEL

num = int(sys.argv[1])

def networks():
    for seed in range(num):
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn((784, 1000), generator=generator) / 28  # 3 MB
        last = torch.randn((1000, 10), generator=generator)
        yield 1 / num, lambda raw, w=weight, v=last: ((raw @ w).relu() @ v).log_softmax(-1)
        del weight

x = torch.rand((1000, 784), generator=torch.Generator().manual_seed(0))
label = torch.zeros(1000, dtype=torch.int64)
Average(networks).slope(x, LOWER_MODEL, Aim(label, label))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.soak
def test_the_peak_of_memory_does_not_grow_with_samples() -> None:
    """MiB of the whole process; 490 networks more would be 1,470, and their answers 20."""
    peaks = []
    for num in ("10", "500"):
        command = [sys.executable, "-c", _PEAK, num]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 12
