"""Inputs of boxes that are answered wrongly: attacks within boxes, and the check of what they find.

An input counts where it lies in the box, in the float32 that networks read, and where the answer of
the network itself is wrong there, as it is served.
"""

from typing import Literal, get_args

import numpy as np
import torch
from torch import Generator, Tensor

from gped_nas.evaluate.attacks.average import average_of, check_answers
from gped_nas.evaluate.attacks.ball import Ball
from gped_nas.evaluate.attacks.hunt import Hunt
from gped_nas.evaluate.attacks.losses import MARGIN
from gped_nas.evaluate.attacks.named import hunt_with_apgd, hunt_with_worst
from gped_nas.evaluate.attacks.settings import TargetedSettings, WorstSettings
from gped_nas.evaluate.certify.box import Box
from gped_nas.evaluate.conditions import Predictor
from gped_nas.evaluate.predictions import Predictions

Attack = Literal["worst", "apgd", "margin", "none"]
"""What looks for inputs that break answers: ``margin``, a fortieth of ``apgd``'s steps, for many
networks; ``none`` looks at the inputs themselves alone."""
ATTACKS: tuple[Attack, ...] = get_args(Attack)
_CHECKED = 64
_MARGIN_STEPS = 25


def look_for_breaks(
    predictor: Predictor, box: Box, label_N: Tensor, attack: Attack, generator: Generator
) -> tuple[Tensor, list[str]]:
    """The worst inputs that an attack meets in boxes, (N, *input_shape), and notes on it.

    Args:
        predictor: whose networks are attacked.
        box: one for each input.
        label_N: classes.
        attack: which one.
        generator: of what it draws.

    Raises:
        DataError: the predictor draws while it answers.
    """
    ball = _ball(box, getattr(predictor, "device", None))
    if attack == "none" or not len(box):
        return inward(box, ball.center.cpu()), []

    average = average_of(predictor)
    labels = label_N.to(ball.center.device)
    check_answers(average, ball.center[:_CHECKED], labels, "certificate")

    hunt = Hunt(average, ball, labels, generator)
    # the radius is that of the ball
    if attack == "apgd":
        hunt_with_apgd(hunt, TargetedSettings(epsilon=0.0))
    elif attack == "margin":
        hunt.climb(MARGIN, hunt.right(), steps=_MARGIN_STEPS)
    else:
        hunt_with_worst(hunt, WorstSettings(epsilon=0.0))
    return inward(box, hunt.best.x.detach().cpu()), hunt.notes


def is_wrong(predictor: Predictor, raw: Tensor, label_N: Tensor) -> Tensor:
    """Which inputs the predictor answers with another class than the label, (N,)."""
    predictions = predictor.predict(raw)
    assert isinstance(predictions, Predictions), "labels are classes"
    return torch.from_numpy(np.asarray(predictions.answer_N != label_N.numpy()))


def inward(box: Box, raw: Tensor) -> Tensor:
    """The nearest inputs of float32 that lie in their boxes.

    A box that is narrower than float32 is fine may hold none: the one beside it comes out.
    """
    nearest = torch.minimum(torch.maximum(raw.double(), box.low), box.high).float()
    above = torch.nextafter(nearest, torch.full_like(nearest, torch.inf))
    below = torch.nextafter(nearest, torch.full_like(nearest, -torch.inf))
    nearest = torch.where(nearest.double() < box.low, above, nearest)
    return torch.where(nearest.double() > box.high, below, nearest)


def _ball(box: Box, device: torch.device | None) -> Ball:
    """A box as attacks have it: its middle, and half its size as the unit of a radius of 1."""
    middle = ((box.low + box.high) / 2).float().to(device)
    reach = ((box.high - box.low) / 2).float().to(device)
    return Ball(middle, 1.0, "linf", reach, -torch.inf, torch.inf)
