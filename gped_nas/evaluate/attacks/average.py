"""What is attacked: the average of networks, and the slope of a loss of it.

The loss is one of the averaged prediction ``m = log sum_s w_s p_s``, the one that is served. Its
gradient is the sum over networks of ``dL/dm_c * w_s p_sc / exp(m_c) * d log p_sc / dx``. The first
pass over the networks makes ``m``, the second one adds up the gradient. One network is in memory
at a time, and one accumulator an input, however many networks there are. Every ratio is the
exponential of a difference of logarithms, so that tiny probabilities keep their gradients.

Source: Vadera, Shukla, Jalaian & Marlin 2020, arXiv:2002.02842, whose scheme this is, for any loss
of the average.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from gped_nas.errors import DataError
from gped_nas.evaluate.conditions import Forward, Predictor

_BATCH = 512


class Aim(NamedTuple):
    """What an attack on each input is for.

    Attributes:
        label_N: the class that should be left.
        target_N: the class that should be reached; where a loss has none, it is not read.
    """

    label_N: Tensor
    target_N: Tensor

    def at(self, index: Tensor | slice) -> "Aim":
        """That of some inputs."""
        return Aim(self.label_N[index], self.target_N[index])


@dataclass(frozen=True)
class Loss:
    """What an attack raises.

    Attributes:
        average: of the averaged log-probabilities (B, C) and the aim; (B,).
        network: likewise of each network's own, of which the weighted mean is added.
        entropy: how often the expected entropy E[H] is added.
        by_margin: whether the input that is kept is the one whose label has the least lead; the one
            with the highest loss otherwise.
    """

    average: Callable[[Tensor, Aim], Tensor]
    network: Callable[[Tensor, Aim], Tensor] | None = None
    entropy: float = 0.0
    by_margin: bool = True


@dataclass(frozen=True, eq=False)
class Slope:
    """A loss at inputs.

    Attributes:
        value_N: of the loss.
        log_prob_NC: of the average, nats.
        gradient: like the inputs.
        rank_N: the higher, the better an attack has done; above 0 is a wrong answer where
            ``by_margin``.
    """

    value_N: Tensor
    log_prob_NC: Tensor
    gradient: Tensor
    rank_N: Tensor


@dataclass(frozen=True, eq=False)
class Average:
    """Networks whose average is attacked.

    Attributes:
        networks: weight and forward pass of each, made anew at each call; see ``Predictor``.
        expected_entropy: what a student itself says of E[H], (B,); that of the networks otherwise.
    """

    networks: Callable[[], Iterable[tuple[float, Forward]]]
    expected_entropy: Forward | None = None

    @cached_property
    def is_alone(self) -> bool:
        """Whether one network has all the weight: then one pass is enough."""
        weight, _ = next(iter(self.members()))
        return weight == 1.0

    def members(self) -> Iterator[tuple[float, Forward]]:
        """The networks that have weight."""
        for weight, forward in self.networks():
            if weight > 0:
                yield weight, forward

    @torch.no_grad()
    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probabilities of the average, (N, C), nats."""
        total = None
        for weight, forward in self.members():
            parts = [forward(batch).to(x.device) for batch in torch.split(x, _BATCH)]
            weighted = torch.cat(parts) + math.log(weight)
            total = weighted if total is None else torch.logaddexp(total, weighted)
        assert total is not None, "some network has weight"
        return total

    def slope(self, x: Tensor, loss: Loss, aim: Aim) -> Slope:
        """A loss and its gradient at inputs (N, *input_shape).

        Raises:
            DataError: the networks do not answer with log-probabilities.
        """
        with torch.enable_grad():
            if self.is_alone:
                value, log_prob, gradient = self._slope_of_one(x, loss, aim)
            else:
                value, log_prob, gradient = self._slope_of_many(x, loss, aim)
        rank = margin(log_prob, aim) if loss.by_margin else value
        return Slope(value, log_prob, gradient, rank)

    def _slope_of_one(self, x: Tensor, loss: Loss, aim: Aim) -> tuple[Tensor, Tensor, Tensor]:
        ((_, forward),) = self.members()
        values, log_probs, gradients = [], [], []
        for rows in _batches(len(x)):
            part = x[rows].detach().requires_grad_()
            log_prob = forward(part).to(x.device)
            value = loss.average(log_prob, aim.at(rows))
            if loss.network is not None:
                value = value + loss.network(log_prob, aim.at(rows))
            if loss.entropy:
                value = value + loss.entropy * self._expected_entropy(part, log_prob)

            values.append(value.detach())
            log_probs.append(log_prob.detach())
            gradients.append(_gradient(value.sum(), part))
        return torch.cat(values), torch.cat(log_probs), torch.cat(gradients)

    def _slope_of_many(self, x: Tensor, loss: Loss, aim: Aim) -> tuple[Tensor, Tensor, Tensor]:
        mean_NC = self.log_prob(x).requires_grad_()
        value_N = loss.average(mean_NC, aim)
        slope_NC = _gradient(value_N.sum(), mean_NC)
        value_N = value_N.detach()
        mean_NC = mean_NC.detach()

        total = torch.zeros_like(x)
        for weight, forward in self.members():
            for rows in _batches(len(x)):
                part = x[rows].detach().requires_grad_()
                log_prob = forward(part).to(x.device)

                # what share of the averaged probability of each class is this network's
                share = (log_prob.detach() + math.log(weight) - mean_NC[rows]).exp()
                share = torch.where(mean_NC[rows] == -math.inf, 0.0, share)
                summed = _weighted(slope_NC[rows] * share, log_prob)

                added = torch.zeros_like(value_N[rows])
                if loss.network is not None:
                    added = added + loss.network(log_prob, aim.at(rows))
                if loss.entropy:
                    added = added + loss.entropy * entropy(log_prob)
                value_N[rows] += weight * added.detach()
                total[rows] += _gradient(summed + weight * added.sum(), part)
        return value_N, mean_NC, total

    def _expected_entropy(self, x: Tensor, log_prob: Tensor) -> Tensor:
        if self.expected_entropy is not None:
            return self.expected_entropy(x).to(log_prob.device)
        return entropy(log_prob)


def average_of(predictor: Predictor) -> Average:
    """The networks of a predictor, to be attacked."""
    return Average(predictor.networks, getattr(predictor, "expected_entropy", None))


def check_answers(average: Average, x: Tensor, label_N: Tensor, where: str) -> None:
    """Refuse a predictor that no attack here can say anything of.

    Args:
        average: who is attacked.
        x: some inputs, raw.
        label_N: all labels.
        where: for messages.

    Raises:
        DataError: it draws while it answers, its answers are no log-probabilities, or not of the
            classes of the labels.
    """
    first, again = average.log_prob(x), average.log_prob(x)
    if not torch.allclose(first, again, atol=1e-4, rtol=1e-4, equal_nan=True):
        raise DataError(
            f"{where}: found two answers to the same inputs, expected a predictor that draws "
            "nothing; put the module in evaluation mode, or attack the average of its draws"
        )
    total = first.logsumexp(-1)
    if first.dim() != 2 or not torch.allclose(total, torch.zeros_like(total), atol=1e-3):
        raise DataError(
            f"{where}: found answers that are no log-probabilities of classes, expected "
            "(N, classes) whose exponentials sum to 1; attacks are on classifiers"
        )
    if len(label_N) and not 0 <= int(label_N.min()) <= int(label_N.max()) < first.shape[1]:
        raise DataError(
            f"{where}: found labels from {int(label_N.min())} to {int(label_N.max())}, expected 0 "
            f"to {first.shape[1] - 1}: the predictor knows so many classes; give their numbers"
        )


def margin(log_prob_NC: Tensor, aim: Aim) -> Tensor:
    """By how much the best other class leads the label, (N,), nats; above 0 is a wrong answer."""
    label_N1 = aim.label_N[:, None]
    others = log_prob_NC.scatter(1, label_N1, -math.inf)
    return others.max(1).values - log_prob_NC.gather(1, label_N1).squeeze(1)


def entropy(log_prob_NC: Tensor) -> Tensor:
    """The entropy of each row, (N,), nats; it can be differentiated where a class has none."""
    return -(log_prob_NC.exp() * log_prob_NC.clamp(min=-1e4)).sum(1)


def _weighted(weight: Tensor, log_prob: Tensor) -> Tensor:
    """Sum of ``weight * log_prob``; a class without probability has no part in it."""
    return (weight * torch.where(weight == 0, 0.0, log_prob)).sum()


def _gradient(value: Tensor, x: Tensor) -> Tensor:
    """The gradient of a sum; zero where it does not depend on ``x`` at all."""
    if not value.requires_grad:
        return torch.zeros_like(x)
    (gradient,) = torch.autograd.grad(value, x, allow_unused=True)
    return torch.zeros_like(x) if gradient is None else gradient.detach()


def _batches(num: int) -> Iterator[slice]:
    for start in range(0, num, _BATCH):
        yield slice(start, start + _BATCH)
