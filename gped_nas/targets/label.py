"""Targets of a real label beyond its mean and its variance.

Posterior samples say a normal distribution of the label each, and together a mixture of these. What
is computed here is of the mixture: its variance that samples disagree about, its quantiles, and the
probability that the label exceeds a number.

Samples speak in the label's normalized unit. What depends on a unit (``exceedance``, and functions
of a user) is made for labels of one normalization by ``Target.of_labels``.
"""

from collections.abc import Callable
from itertools import pairwise
from math import inf, log, pi
from statistics import NormalDist
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from gped_nas.config import Config
from gped_nas.data.base import Normalization
from gped_nas.errors import ConfigError
from gped_nas.targets.base import (
    TARGETS,
    DerivedTarget,
    Expectations,
    MeanTarget,
    QuantileTarget,
    RawHeads,
    try_values,
)
from gped_nas.targets.formulas import constant, log_softmax, squared_error
from gped_nas.targets.mean import identity
from gped_nas.targets.quantile import QuantileSettings

_HALVINGS = 60
"""Of the stretch that holds a quantile of a mixture: float64 has no more digits."""


def _squared_unit(variance: Tensor, unit: Normalization) -> Tensor:
    return variance * unit.std**2


def _label_unit(value: Tensor, unit: Normalization) -> Tensor:
    return value * unit.std + unit.mean


# ------------------------------------------------------------------ variance, of which kind it is


def _moments_of_parts(normal: Tensor) -> Tensor:
    mean, variance = normal.unbind(-1)
    return torch.stack([mean, mean.square(), variance], -1)


def _variance_of_mean(moments: Tensor) -> Tensor:
    mean, second_moment, _ = moments.unbind(-1)
    return (second_moment - mean.square()).clamp_min(0).unsqueeze(-1)


def _log_parts(heads: RawHeads) -> tuple[Tensor, Tensor]:
    """Logarithms of the model's and of the noise's variance: shares of the label's whole one.

    The whole is detached: learning its parts cannot bend it, and they never contradict it.
    """
    share = heads["model_variance"][..., 0]
    log_whole = heads["predictive_normal"].detach()[..., 1]
    return F.logsigmoid(share) + log_whole, F.logsigmoid(-share) + log_whole


def _model_variance_loss(raw: Tensor, heads: RawHeads, expectation: Tensor) -> Tensor:
    # As for ``predictive_normal``, for each part: samples' means around the student's mean, and
    # their noise. Both are affine in what is averaged, which the squared error of a variance is
    # not, and both are least at the same share.
    center = heads["predictive_normal"].detach()[..., 0]
    log_model, log_noise = _log_parts(heads)
    mean, second_moment, noise = expectation.unbind(-1)
    squared_distance = second_moment - mean.square() + (mean - center).square()
    of_model = log_model + (-log_model).exp() * squared_distance
    return 0.5 * (of_model + log_noise + (-log_noise).exp() * noise)


TARGETS.add(
    MeanTarget(
        name="model_variance",
        label="variance of the label's mean over the posterior (its unit squared)",
        requires=("predictive_normal",),
        prediction="normal",
        shown=_variance_of_mean,
        own_unit=_squared_unit,
        values=_moments_of_parts,
        num_outputs=lambda num_classes: 1,
        predict=lambda raw, heads: _log_parts(heads)[0].exp().unsqueeze(-1),
        loss=_model_variance_loss,
    )
)


def _noise_variance(mean: Expectations) -> Tensor:
    variance = mean["predictive_normal"][..., 1:]
    return (variance - mean["model_variance"]).clamp_min(0)


TARGETS.add(
    DerivedTarget(
        name="noise_variance",
        label="expected variance of the label's noise (its unit squared)",
        requires=("predictive_normal", "model_variance"),
        prediction="normal",
        own_unit=_squared_unit,
        derive=_noise_variance,
        from_heads=lambda heads: _log_parts(heads)[1].exp().unsqueeze(-1),
    )
)


# ----------------------------------------------------------------------------------- quantiles


def mixture_quantile(mean_SN: Tensor, std_SN: Tensor, weight_S: Tensor, level: float) -> Tensor:
    """A quantile of mixtures of normals, (N,) float64.

    It lies between the least and the greatest quantile of its parts, and is found by halving.

    Args:
        mean_SN, std_SN: of the parts, float64.
        weight_S: their weights, summing to 1.
        level: of the quantile.
    """
    standard = torch.special.ndtri(mean_SN.new_tensor(level))
    parts_SN = (mean_SN + std_SN * standard)[weight_S > 0]
    low_N, high_N = parts_SN.amin(0), parts_SN.amax(0)

    for _ in range(_HALVINGS):
        middle_N = (low_N + high_N) / 2
        is_below_N = weight_S @ torch.special.ndtr((middle_N - mean_SN) / std_SN) < level
        low_N = torch.where(is_below_N, middle_N, low_N)
        high_N = torch.where(is_below_N, high_N, middle_N)
    middle: Tensor = (low_N + high_N) / 2
    return middle


class LabelQuantileSettings(QuantileSettings):
    """Settings of ``label_quantile``."""


def label_quantile(settings: LabelQuantileSettings) -> QuantileTarget:
    """Quantiles of the label itself, noise included: (..., B, levels).

    With zeros for raw outputs they are those of the student's own normal distribution, whose mean
    and variance are detached; steps between them are positive by construction. The loss of a
    posterior sample is the pinball loss (Koenker & Bassett 1978, Econometrica 46) averaged over its
    normal distribution of the label, which has a closed form, so that no label is drawn.
    """
    levels = settings.levels
    standard = tuple(NormalDist().inv_cdf(level) for level in levels)
    steps = (standard[0], *(high - low for low, high in pairwise(standard)))

    def predict(raw: Tensor, heads: RawHeads) -> Tensor:
        mean, log_variance = heads["predictive_normal"].detach().unbind(-1)
        step = constant(steps, raw.dtype, raw.device)
        first = step[:1] + raw[..., :1]
        others = step[1:] * F.softplus(raw[..., 1:]) / log(2)
        standardized = torch.cat([first, others], -1).cumsum(-1)
        return mean.unsqueeze(-1) + (0.5 * log_variance).exp().unsqueeze(-1) * standardized

    def loss(raw: Tensor, heads: RawHeads, normal: Tensor) -> Tensor:
        level = constant(levels, raw.dtype, raw.device)
        mean, std = normal[..., :1], normal[..., 1:].sqrt()
        z = (predict(raw, heads) - mean) / std
        density = (-0.5 * z.square()).exp() / (2 * pi) ** 0.5
        # E[(y - q) (level - 1{y < q})] of y ~ N(mean, std^2)
        losses: Tensor = std * (density + z * (torch.special.ndtr(z) - level))
        return losses.sum(-1)

    def of_samples(normal_SN2: Tensor, weight_S: Tensor) -> Tensor:
        mean_SN, variance_SN = normal_SN2.double().unbind(-1)
        weight_S = weight_S.double() / weight_S.double().sum()
        std_SN = variance_SN.sqrt()
        quantiles = [mixture_quantile(mean_SN, std_SN, weight_S, level) for level in levels]
        return torch.stack(quantiles, -1)

    return QuantileTarget(
        name="label_quantile",
        label="quantiles of the label (its unit) at " + ", ".join(f"{level:g}" for level in levels),
        requires=("predictive_normal",),
        prediction="normal",
        settings=settings,
        build=label_quantile,
        own_unit=_label_unit,
        values=identity,
        num_outputs=lambda num_classes: len(levels),
        predict=predict,
        loss=loss,
        of_samples=of_samples,
    )


TARGETS.add(label_quantile(LabelQuantileSettings()))


# ---------------------------------------------------------------------------------- exceedance


class ExceedanceSettings(Config):
    """Settings of ``exceedance``."""

    thresholds: Annotated[
        tuple[float, ...],
        Field(
            strict=False,
            description="numbers in the label's own unit, rising; the mean of the training labels "
            "if there are none",
        ),
    ] = ()

    @model_validator(mode="after")
    def _thresholds_rise(self) -> "ExceedanceSettings":
        ends = (-inf, *self.thresholds, inf)
        if not all(low < high for low, high in pairwise(ends)):
            raise ValueError(
                f"thresholds: found {list(self.thresholds)}, expected finite numbers that rise"
            )
        return self


def exceedance(settings: ExceedanceSettings, unit: Normalization | None = None) -> MeanTarget:
    """The probability that the label exceeds each threshold: (..., B, thresholds).

    The student's are sums of a softmax over the stretches between thresholds: they lie in [0, 1]
    and fall with the threshold by construction. Their loss is the cross-entropy of the stretches.

    Args:
        settings: the thresholds, in the label's own unit.
        unit: of the labels; without it only the default threshold has a place.
    """
    if unit is not None:
        settings = ExceedanceSettings(thresholds=settings.thresholds or (unit.mean,))
    num_thresholds = len(settings.thresholds) or 1

    def normalized(normal: Tensor) -> Tensor:
        places: tuple[float, ...] = (0.0,)
        if unit is not None:
            places = tuple((number - unit.mean) / unit.std for number in settings.thresholds)
        elif settings.thresholds:
            raise ConfigError(
                "target 'exceedance': found thresholds in the label's own unit without that unit, "
                "expected both; take it from targets.base.for_labels"
            )
        return constant(places, normal.dtype, normal.device)

    def values(normal: Tensor) -> Tensor:
        mean, variance = normal[..., :1], normal[..., 1:]
        exceeding: Tensor = torch.special.ndtr((mean - normalized(normal)) / variance.sqrt())
        return exceeding

    def predict(raw: Tensor, heads: RawHeads) -> Tensor:
        # the stretches above each threshold
        rows = [
            [float(stretch > number) for number in range(num_thresholds)]
            for stretch in range(num_thresholds + 1)
        ]
        is_above = constant(tuple(map(tuple, rows)), raw.dtype, raw.device)
        return (raw.softmax(-1) @ is_above).clamp_max(1)

    def loss(raw: Tensor, heads: RawHeads, exceeding: Tensor) -> Tensor:
        ends = F.pad(F.pad(exceeding, (1, 0), value=1.0), (0, 1))
        return ((ends[..., 1:] - ends[..., :-1]) * log_softmax(raw)).sum(-1)

    written = ", ".join(f"{number:g}" for number in settings.thresholds) or "its mean"
    return MeanTarget(
        name="exceedance",
        label=f"probability that the label exceeds {written}",
        prediction="normal",
        settings=settings,
        build=exceedance,
        of_labels=lambda unit: exceedance(settings, unit),
        values=values,
        num_outputs=lambda num_classes: num_thresholds + 1,
        predict=predict,
        loss=loss,
    )


TARGETS.add(exceedance(ExceedanceSettings()))


# -------------------------------------------------------------------------- a function of a user


def label_target(
    name: str,
    values: Callable[[Tensor], Tensor],
    *,
    link: Callable[[Tensor], Tensor] = identity,
    error: Callable[[Tensor, Tensor], Tensor] = squared_error,
    label: str = "",
    version: int = 1,
) -> MeanTarget:
    """A mean of a real label with a head of its own: one raw output for each number of ``values``.

    Args:
        name: the name to register it under.
        values: mean and variance (..., N, 2) of the label, in its own unit and that squared, to
            what is averaged, (..., N, G); one number an example is ``values.unsqueeze(-1)``.
            Numbers of about one are learned best.
        link: raw outputs (..., B, G) to the student's value, elementwise; ``torch.sigmoid`` keeps
            it in [0, 1].
        error: as in ``mean_target``.
        label: for people, with the unit; the name by default.
        version: raise it whenever ``values`` comes to mean something else.
    """

    def num_outputs(num_classes: int) -> int:
        return try_values(name, values, torch.tensor([[0.0, 1.0]])).shape[-1]

    def of_labels(unit: Normalization) -> MeanTarget:
        def in_own_unit(normal: Tensor) -> Tensor:
            mean, variance = normal.unbind(-1)
            own = [_label_unit(mean, unit), _squared_unit(variance, unit)]
            return values(torch.stack(own, -1))

        return made(in_own_unit)

    def made(values: Callable[[Tensor], Tensor]) -> MeanTarget:
        return MeanTarget(
            name=name,
            label=label or name,
            prediction="normal",
            version=version,
            of_labels=of_labels,
            values=values,
            num_outputs=num_outputs,
            predict=lambda raw, heads: link(raw),
            loss=lambda raw, heads, expectation: error(link(raw), expectation),
        )

    return made(values)
