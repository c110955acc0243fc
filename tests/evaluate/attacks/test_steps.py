"""APGD against the paper's algorithm, written for one input at a time."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.evaluate.attacks.average import Aim, Average, Loss
from gped_nas.evaluate.attacks.ball import Ball, Norm, ball_around
from gped_nas.evaluate.attacks.losses import CROSS_ENTROPY, MARGIN, PROBABILITY
from gped_nas.evaluate.attacks.square import square
from gped_nas.evaluate.attacks.steps import Best, apgd, pgd
from tests.evaluate.attacks.victims import RANGE, Victim, inputs, random_network


def reference(loss: Callable[[Tensor], Tensor], ball: Ball, start: Tensor, steps: int) -> Tensor:
    """Where the loss was highest. Croce & Hein 2020, algorithm 1; of one input."""

    def look(x: Tensor) -> tuple[float, Tensor]:
        x = x.clone().requires_grad_()
        value = loss(x)
        (gradient,) = torch.autograd.grad(value, x)
        return float(value.detach()), gradient

    # w_j = ceil(p_j N) with p_1 = .22 and p_(j+1) = p_j + max(p_j - p_(j-1) - .03, .06)
    shares = [0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99]
    checkpoints = [math.ceil(round(share * steps, 6)) for share in shares]

    size, x_before, x = 2 * ball.radius, start, start
    value, gradient = look(x)
    best, best_value, best_gradient = x, value, gradient
    num_rises, last = 0, 0
    was_halved, value_then = True, value
    for k in range(1, steps + 1):
        stepped = ball.project(x + size * ball.direction(gradient))
        if k > 1:
            stepped = ball.project(x + 0.75 * (stepped - x) + 0.25 * (x - x_before))
        x_before, x = x, stepped

        value_before = value
        value, gradient = look(x)
        num_rises += value > value_before
        if value > best_value:
            best, best_value, best_gradient = x, value, gradient

        if k in checkpoints:
            rarely_rose = num_rises < 0.75 * (k - last)
            stands_still = not was_halved and best_value <= value_then
            was_halved = rarely_rose or stands_still
            if was_halved:
                size /= 2
                x, value, gradient = best, best_value, best_gradient
            value_then, num_rises, last = best_value, 0, k
    return best


def by_value(loss: Loss) -> Loss:
    return Loss(loss.average, by_margin=False)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", [CROSS_ENTROPY, MARGIN, PROBABILITY])
def test_apgd_is_the_papers_algorithm(loss: Loss, norm: Norm) -> None:
    victim = Victim([(1.0, random_network(0, sharpness=3.0))])
    x, label = inputs(5), torch.arange(5)
    ball = ball_around(x, RANGE, 0.3, norm)
    start = ball.starts(rng.generator(0, "start"))

    found = apgd(Average(victim.networks), ball, by_value(loss), Aim(label, label), start, steps=50)

    for i in range(len(x)):
        index = torch.tensor([i])
        aim = Aim(label[index], label[index])

        def value(raw: Tensor, aim: Aim = aim) -> Tensor:
            return loss.average(victim.log_prob(raw), aim).sum()

        expected = reference(value, ball.at(index), start[index], 50)
        assert torch.allclose(found.x[index], expected, atol=1e-8), i


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_is_a_plain_loop_that_keeps_its_best(norm: Norm) -> None:
    victim = Victim([(1.0, random_network(0))])
    x, label = inputs(6), torch.arange(6) % 5
    aim = Aim(label, label)
    ball = ball_around(x, RANGE, 0.1, norm)
    start = ball.starts(rng.generator(0, "start"))
    found = pgd(Average(victim.networks), ball, CROSS_ENTROPY, aim, start, steps=7, step_size=0.2)

    def lead(raw: Tensor) -> Tensor:
        log_prob = victim.log_prob(raw)
        others = log_prob.scatter(1, label[:, None], -torch.inf).max(1).values
        return others - log_prob.gather(1, label[:, None])[:, 0]

    path = [start]
    for _ in range(7):
        leaf = path[-1].clone().requires_grad_()
        nll = -victim.log_prob(leaf).gather(1, label[:, None]).sum()
        (gradient,) = torch.autograd.grad(nll, leaf)
        if norm == "linf":
            moved = path[-1] + 0.02 * 16 * gradient.sign()
            moved = torch.minimum(torch.maximum(moved, x - 1.6), x + 1.6)
        else:
            length = gradient.flatten(1).norm(dim=1)[:, None, None, None]
            moved = path[-1] + 0.02 * 16 * gradient / length
            far = (moved - x).flatten(1).norm(dim=1)[:, None, None, None]
            moved = x + (moved - x) * (1.6 / far).clamp(max=1)
        path.append(moved.clamp(0, 16))

    leads = torch.stack([lead(step) for step in path])
    best = torch.stack(path)[leads.argmax(0), torch.arange(6)]
    assert torch.allclose(found.x, best, atol=1e-9)
    assert torch.allclose(found.rank_N, leads.max(0).values, atol=1e-9)


def test_square_asks_about_wanted_inputs_alone() -> None:
    """Draws are for all inputs; the wanted ones end where they would end with the others."""
    x, victim = inputs(6), Victim([(1.0, random_network(0))])
    average, label_N = Average(victim.networks), victim.log_prob(x).argmax(1)
    ball, aim = ball_around(x, RANGE, 0.01, "linf"), Aim(label_N, label_N)
    is_wanted_N = torch.tensor([True, False, True, False, False, True])

    def search(wanted: Tensor | None) -> Best:
        generator = rng.generator(0, "square")
        return square(average, ball, aim, generator, queries=30, is_wanted_N=wanted)

    everywhere, some = search(None), search(is_wanted_N)
    only_begun = square(average, ball, aim, rng.generator(0, "square"), queries=1)

    torch.testing.assert_close(some.x[is_wanted_N], everywhere.x[is_wanted_N])
    assert torch.equal(some.x[~is_wanted_N], only_begun.x[~is_wanted_N])
    assert not torch.equal(everywhere.x[~is_wanted_N], only_begun.x[~is_wanted_N])
