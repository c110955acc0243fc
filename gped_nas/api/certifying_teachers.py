"""Certificates of teachers: their stored samples, their average, and the law behind the samples."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gped_nas.api.certifying import check_certifiable, network_of_draw, stored_params
from gped_nas.api.fresh_draws import fresh_params
from gped_nas.api.measuring import ensemble, network
from gped_nas.api.sampling import posterior_chains
from gped_nas.api.teacher import Teacher
from gped_nas.errors import ConfigError
from gped_nas.evaluate.certify.bounds import Bounds
from gped_nas.evaluate.certify.box import Box
from gped_nas.evaluate.certify.breaking import Attack
from gped_nas.evaluate.certify.last_layer import LastLayerLaw, log10_certified
from gped_nas.evaluate.certify.laws import CONFIDENCE, LawShares, law_shares
from gped_nas.evaluate.certify.masses import log10_of_union
from gped_nas.evaluate.certify.stream import (
    Sample,
    SampleVerdicts,
    breaks_within,
    judge_samples,
)
from gped_nas.evaluate.certify.verdict import Judged, judge_by_lead
from gped_nas.evaluate.predictions import Floats
from gped_nas.models.base import Params, num_params
from gped_nas.posterior.base import unflatten
from gped_nas.posterior.laplace import LaplaceConfig, law_of
from gped_nas.stream.chunks import state_of

_GENEROUS = 4.0
FRESH_DRAWS = 200
"""Draws of a law: of 200 that are all certified the share is at least .985 at one input."""


@dataclass(frozen=True, eq=False)
class Boxed:
    """Inputs that may become whatever their boxes hold.

    Attributes:
        raw: inputs (N, *input_shape).
        label_N: their classes.
        box: around each.
    """

    raw: Tensor
    label_N: Tensor
    box: Box


def judge_stream(
    teacher: Teacher,
    boxed: Boxed,
    *,
    generator: Generator,
    bounds: Bounds = "crown",
    attack: Attack = "margin",
) -> SampleVerdicts:
    """What is known of each stored posterior sample, without statistics.

    Args:
        teacher: of a classifier, whose stream is built; between samples it is asked whether to
            stop.
        boxed: the inputs.
        generator: of what attacks draw.
        bounds: what proves.
        attack: what looks for inputs that break a sample, where bounds prove nothing.

    Raises:
        ConfigError: the samples are not stored, or their family has no bounds.
        Interrupted: the session said stop.
    """
    samples = _samples(teacher, stored_params(teacher))
    return _judged(samples, boxed, generator, bounds, attack)


def judge_average(
    teacher: Teacher,
    boxed: Boxed,
    verdicts: SampleVerdicts,
    *,
    generator: Generator,
    attack: Attack = "apgd",
) -> Judged:
    """The verdict on the average that the teacher serves, with its weights and calibration.

    ``lead_N`` is how far its probability of the label is above every other one.

    Args:
        teacher, boxed: as of ``judge_stream``.
        verdicts: what that found.
        generator: of what the attack draws.
        attack: on the average of a few samples, where they are many; what it finds counts where
            the average of all is wrong.

    Raises:
        GpedError: bounds prove what the teacher contradicts: a fault of the program.
        Interrupted: the session said stop.
    """
    return judge_by_lead(
        verdicts.served_lead_N(teacher.stream.calibration.temperature),
        ensemble(teacher),
        boxed.raw,
        boxed.label_N.numpy(),
        boxed.box,
        generator=generator,
        attack=attack,
    )


def judge_law(
    teacher: Teacher,
    boxed: Boxed,
    *,
    generator: Generator,
    num_draws: int = FRESH_DRAWS,
    seed: int = 0,
    bounds: Bounds = "crown",
    attack: Attack = "margin",
    confidence: float = CONFIDENCE,
) -> LawShares:
    """How large a share of the law behind the samples is certified, by fresh draws of it.

    Args:
        teacher, boxed, bounds, attack: as of ``judge_stream``.
        generator: of what attacks draw, and of the test of independence.
        num_draws: how many; none of them is stored.
        seed: of the draws, beside the space's.
        confidence: that all inputs' intervals hold together.

    Raises:
        ConfigError: as ``judge_stream``, or the samples are not independent draws of a law: the
            message says why.
        Interrupted: the session said stop.
    """
    check_certifiable(teacher)
    drawn = ((1 / num_draws, params) for params in fresh_params(teacher, num_draws, seed=seed))
    verdicts = _judged(_samples(teacher, drawn), boxed, generator, bounds, attack)

    return law_shares(
        verdicts.is_certified_SN,
        verdicts.is_broken_SN,
        generator=generator,
        confidence=confidence,
    )


def judge_last_layer(teacher: Teacher, boxed: Boxed, *, bounds: Bounds = "crown") -> Floats:
    """Lower bounds (N,) of log10 of the mass of weights that no input of a box breaks.

    No statistics, and no draws: it is the mass of parameters around the mode that bounds reach.

    Args:
        teacher: of ``laplace``, whose law is over the last layer alone.
        boxed, bounds: as of ``judge_stream``.

    Raises:
        ConfigError: the samples are of another law, which boxes of weights say nothing of.
    """
    check_certifiable(teacher)
    space = teacher.space
    if not isinstance(space.method, LaplaceConfig):
        num = num_params(teacher.stream.key.shapes)
        ones = torch.full((1, num), _GENEROUS, dtype=torch.float64)
        raise ConfigError(
            f"{space.source}: teacher.method.name: found '{space.method.title()}', expected "
            f"laplace, a Gaussian over the last layer: of {num:,} independent weights a box of "
            f"{_GENEROUS:g} deviations to each side holds 10^{log10_of_union(-ones, ones):.1f}; "
            "take the share of draws"
        )

    problem = posterior_chains(space, teacher.dataset, teacher.session).problem()
    masses = []
    for fit in range(space.method.chains):
        teacher.session.raise_if_stopped()
        theta_W, factor = law_of(problem, state_of(teacher.stream.segments[-1], fit))
        at_mode = network_of_draw(teacher, unflatten(theta_W, teacher.stream.key.shapes))
        law = LastLayerLaw(at_mode, factor)
        masses.append(log10_certified(law, boxed.box, boxed.label_N, bounds=bounds))

    # several fits are one law, each as probable as it weighs
    share_K = torch.tensor(teacher.stream.calibration.weights or [1.0] * len(masses)).double()
    log_share_K1 = (share_K / share_K.sum()).log()[:, None]
    together = torch.logsumexp(torch.stack(masses) * math.log(10) + log_share_K1, 0)
    log10_N: Floats = (together / math.log(10)).clamp(max=0.0).numpy()
    return log10_N


def _samples(teacher: Teacher, drawn: Iterable[tuple[float, Params]]) -> Iterator[Sample]:
    """Sets of parameters as networks that can be certified and asked."""
    for weight, params in drawn:
        predictor = network(teacher, teacher.forward(params))
        yield weight, network_of_draw(teacher, params), predictor


def _judged(
    samples: Iterable[Sample],
    boxed: Boxed,
    generator: Generator,
    bounds: Bounds,
    attack: Attack,
) -> SampleVerdicts:
    label_N = boxed.label_N.to(torch.int64)
    breaks = breaks_within(boxed.raw, boxed.box, label_N, attack=attack, generator=generator)
    return judge_samples(samples, boxed.box, label_N, breaks, bounds=bounds)
