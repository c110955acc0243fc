"""Input policies for inputs of every shape: as they are, with noise, mixed, moved.

Those for pictures alone are in ``picture_policies.py``.
"""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from gped_nas.config import Config
from gped_nas.data.views import POLICIES, Answers, DrawnSettings, Policy

_BATCH = 2048


class CleanSettings(Config):
    """Settings of ``clean``: the inputs as they are."""

    policy: Literal["clean"]


class PoolSettings(Config):
    """Settings of ``pool``: the user's unlabeled inputs alone, as they are."""

    policy: Literal["pool"]


def _as_they_are(cfg: Config, x: Tensor, *, generator: torch.Generator, answers: Answers) -> Tensor:
    return x


class NoiseSettings(DrawnSettings):
    """Settings of ``noise``: normal noise on every number."""

    policy: Literal["noise"]
    std: float = Field(
        0.1, gt=0, description="standard deviation, in units of the inputs' own standard deviation"
    )


def _add_noise(
    cfg: NoiseSettings, x: Tensor, *, generator: torch.Generator, answers: Answers
) -> Tensor:
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return noise.mul_(cfg.std).add_(x)  # in place: of large inputs no more than two copies exist


class MixupSettings(DrawnSettings):
    """Settings of ``mixup``: each input is mixed with another one.

    Source: Zhang et al. 2018, arXiv:1710.09412; here labels are not mixed, the teacher predicts at
        the mixed input.
    """

    policy: Literal["mixup"]
    alpha: float = Field(
        1.0,
        gt=0,
        description="the weight of a pair is Beta(alpha, alpha): 1 is uniform, 0.2 near an end",
    )


def _mix(cfg: MixupSettings, x: Tensor, *, generator: torch.Generator, answers: Answers) -> Tensor:
    partner = torch.randperm(len(x), generator=generator)
    weight_N = draw_beta(cfg.alpha, len(x), generator)
    weight = weight_N.view(-1, *[1] * (x.dim() - 1))

    # in place: of large inputs no more than two copies exist
    return x[partner].lerp_(x, weight.to(x))


def draw_beta(alpha: float, num: int, generator: torch.Generator) -> Tensor:
    """So many draws (num,) of Beta(alpha, alpha), float64."""
    # torch draws no Beta from a generator of one's own
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, size=num))


class DisagreementSettings(Config):
    """Settings of ``disagreement``: each input moved to where posterior samples disagree more.

    One step of a fixed length along the gradient, with respect to the input, of the variance of the
    predicted probabilities over a few posterior samples, summed over the classes; of a real label,
    of its predicted mean.

    Source: Nam et al. 2021, arXiv:2110.14149. They follow the gradient of a random combination of
    one member's outputs (output diversified sampling); here the disagreement itself is climbed, and
    nothing is drawn.
    """

    policy: Literal["disagreement"]
    distance: float = Field(
        0.1,
        gt=0,
        description="root mean square of the move, in units of the inputs' own standard deviation",
    )
    samples: int = Field(
        8, ge=2, description="posterior samples asked, evenly spaced; all where there are fewer"
    )


def _climb(
    cfg: DisagreementSettings, x: Tensor, *, generator: torch.Generator, answers: Answers
) -> Tensor:
    length = cfg.distance * x[0].numel() ** 0.5
    batches = torch.split(x, _BATCH)
    return torch.cat([batch + length * _uphill(batch, answers) for batch in batches])


def _uphill(x: Tensor, answers: Answers) -> Tensor:
    """The direction in which disagreement grows fastest, of length 1; 0 where it grows nowhere."""
    # where all samples are sure, float32 would lose the whole gradient
    asked = x.detach().double().requires_grad_()
    disagreement = answers(asked).var(0, correction=0).sum()
    gradient = torch.autograd.grad(disagreement, asked)[0]

    # scaled by the largest number first: squares of tiny ones would vanish
    rows = gradient.flatten(1)
    tiny = torch.finfo(gradient.dtype).tiny
    rows = rows / rows.abs().amax(1, keepdim=True).clamp_min(tiny)
    return F.normalize(rows, dim=1).view_as(x).to(x)


POLICIES.register("clean")(Policy(CleanSettings, _as_they_are, keeps_label=True))
POLICIES.register("pool")(Policy(PoolSettings, _as_they_are, part="unlabeled", keeps_label=True))
POLICIES.register("noise")(Policy(NoiseSettings, _add_noise, keeps_label=True))
POLICIES.register("mixup")(Policy(MixupSettings, _mix))
POLICIES.register("disagreement")(
    Policy(DisagreementSettings, _climb, num_samples=lambda cfg: cfg.samples)
)
