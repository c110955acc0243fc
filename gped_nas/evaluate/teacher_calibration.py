"""Fit a teacher's calibration to held-out labels: one temperature, or weights by stacking.

Both minimize an NLL on validation, or on the calibration part where there is one, in float64:

* ``temperature``: the NLL of the average of tempered samples, in one number T between 1/10 and 10.
  In T it is smooth and need not be convex, so a grid finds the valley and Brent's method its floor.
* ``stacking``: the mean log-density of the labels under the mixture of K groups of samples. It is
  concave in the weights. Of classes that mixture is the average; of real labels it is the mixture
  of normals, while metrics take the normal of the same mean and variance.

What was fitted is measured where it was fitted, which favors it. So it is also fitted on each half
of the examples and measured on the other one. Numbers are rounded to four digits: whoever fits
again on another processor gets the same teacher.

Source: Guo et al. 2017, arXiv:1706.04599, section 4.2 (there of one network's logits; here of every
sample's); Yao et al. 2018, arXiv:1704.02030, equation 4 (there by leave-one-out; here by held-out
examples).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gped_nas.data.base import Normalization, Part
from gped_nas.evaluate.predictions import Floats, Labels
from gped_nas.evaluate.teacher import averaged, log_scores
from gped_nas.posterior.likelihoods import Prediction
from gped_nas.stream.calibration import RAW, TEMPERATURES, Calibration, CalibrationKind

_GRID = 21
_EM_STEPS = 50
_ROUNDING = 1e-6
"""Nats: stored log-probabilities are rounded to float32."""


@dataclass(frozen=True, eq=False)
class LabeledAnswers:
    """What posterior samples say of examples whose labels are known.

    Attributes:
        predicted_SNG: what each sample predicts, see ``evaluate.teacher``.
        weight_S: weights of the samples, summing to 1.
        labels: of the examples.
        label_normalization: of real labels; None for classes.
    """

    predicted_SNG: Tensor
    weight_S: Tensor
    labels: Labels
    label_normalization: Normalization | None = None

    @property
    def prediction(self) -> Prediction:
        """Which kind the predictions are of."""
        return "normal" if self.label_normalization else "log_prob"

    def every_second(self, first: int) -> "LabeledAnswers":
        """Half of the examples, from number ``first``."""
        half, labels = self.predicted_SNG[:, first::2], self.labels[first::2]
        return LabeledAnswers(half, self.weight_S, labels, self.label_normalization)

    def nll(self, calibration: Calibration) -> float:
        """Of the average of the samples, nats; infinite where it gives a label no probability."""
        weight_S = calibration.weigh(self.weight_S)
        if self.label_normalization:
            tempered = calibration.temper(self.predicted_SNG.double(), "normal")
            mean = averaged(tempered, weight_S, self.label_normalization)
            return -float(mean.log_score(self.labels).mean())

        # sample by sample: in float64 all of them may not fit into memory
        index = torch.as_tensor(self.labels)[:, None]
        scores = []
        for log_prob_NC in self.predicted_SNG:
            tempered = calibration.temper(log_prob_NC.double(), "log_prob")
            scores.append(tempered.gather(1, index).squeeze(1))
        joint_SN = torch.stack(scores) + weight_S.double().log()[:, None]
        return -float(joint_SN.logsumexp(0).mean())


@dataclass(frozen=True)
class CalibrationFit:
    """A calibration, and what it was worth where it was fitted.

    Attributes:
        kind: what was fitted.
        calibration: the outcome.
        nll_raw, nll: of the average before and after, on the examples it was fitted on, nats.
        nll_held_out: after, each half by the calibration that was fitted on the other.
        n: number of these examples.
        part: which part they are.
    """

    kind: CalibrationKind
    calibration: Calibration
    nll_raw: float
    nll: float
    nll_held_out: float
    n: int
    part: Part = "validation"

    @property
    def is_at_end(self) -> bool:
        """Whether a temperature beyond those that are tried might be better."""
        return self.calibration.temperature in TEMPERATURES

    def to_json(self) -> dict[str, Any]:
        """Plain data; numbers that are not finite are null."""
        numbers = {"nll_raw": self.nll_raw, "nll": self.nll, "nll_held_out": self.nll_held_out}
        finite = {name: value if np.isfinite(value) else None for name, value in numbers.items()}
        return {
            "kind": self.kind,
            **self.calibration.to_json(),
            "is_at_end": self.is_at_end,
            **finite,
            "n": self.n,
            # of earlier versions' studies it was validation always
            **({} if self.part == "validation" else {"part": self.part}),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "CalibrationFit":
        """The inverse of ``to_json``."""
        numbers = {
            name: np.inf if data[name] is None else float(data[name])
            for name in ("nll_raw", "nll", "nll_held_out")
        }
        calibration = Calibration(float(data["temperature"]), tuple(data["weights"]))
        part = data.get("part", "validation")
        return cls(data["kind"], calibration, **numbers, n=int(data["n"]), part=part)


def fit_calibration(
    kind: CalibrationKind,
    answers: LabeledAnswers,
    *,
    num_groups: int,
    part: Part = "validation",
) -> CalibrationFit:
    """The calibration of this kind with the lowest NLL.

    Args:
        kind: what is fitted.
        answers: what it is fitted on.
        num_groups: groups of samples that stacking weighs.
        part: which part that is.
    """
    fit = partial(_fit, kind, num_groups)
    calibration = fit(answers)
    halves = answers.every_second(0), answers.every_second(1)
    held_out = 0.0
    for fitted_on, measured_on in (halves, halves[::-1]):
        held_out += measured_on.nll(fit(fitted_on)) * len(measured_on.labels)

    return CalibrationFit(
        kind=kind,
        calibration=calibration,
        nll_raw=answers.nll(RAW),
        nll=answers.nll(calibration),
        nll_held_out=held_out / len(answers.labels),
        n=len(answers.labels),
        part=part,
    )


def _fit(kind: CalibrationKind, num_groups: int, answers: LabeledAnswers) -> Calibration:
    if kind == "temperature":
        return Calibration(temperature=fit_temperature(answers))
    assert kind == "stacking", kind
    return Calibration(weights=fit_stacking(answers, num_groups))


def fit_temperature(answers: LabeledAnswers) -> float:
    """The temperature with the lowest NLL, to four digits; 1 where none is lower than there."""

    def nll(log_temperature: float) -> float:
        return answers.nll(Calibration(temperature=float(np.exp(log_temperature))))

    return _round(float(np.exp(_minimize(nll, float(np.log(TEMPERATURES[1]))))))


def _minimize(function: Callable[[float], float], end: float) -> float:
    """Where a function is lowest between -``end`` and ``end``; 0 where it is as low there."""
    from scipy.optimize import minimize_scalar  # slow to import

    grid = np.linspace(-end, end, _GRID)
    values = [function(float(x)) for x in grid]
    best = int(np.argmin(values))

    bounds = grid[max(best - 1, 0)], grid[min(best + 1, _GRID - 1)]
    floor = minimize_scalar(function, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    # less than ``_ROUNDING`` is no gain, and of equals the first is taken
    candidates = [
        (function(0.0) - _ROUNDING, 0.0),
        (values[best], float(grid[best])),
        (float(floor.fun), float(floor.x)),
    ]
    return min(candidates, key=lambda candidate: candidate[0])[1]


def _round(number: float) -> float:
    return float(f"{number:.4g}")


def fit_stacking(answers: LabeledAnswers, num_groups: int) -> tuple[float, ...]:
    """The weights of the groups under whose mixture labels are likeliest, summing to 1.

    They are rounded to four decimal places.

    Args:
        answers: what they are fitted on.
        num_groups: K; see ``stream.calibration``.
    """
    score_SN = log_scores(answers.predicted_SNG, answers.labels, answers.label_normalization)
    joint_SN = score_SN + answers.weight_S.double().log()[:, None]
    log_density_KN = []
    for group in range(num_groups):
        share = answers.weight_S[group::num_groups].double().sum()
        log_density_KN.append(joint_SN[group::num_groups].logsumexp(0) - share.log())

    weights = stack(torch.stack(log_density_KN).numpy()).round(4)
    weights[weights.argmax()] += 1 - weights.sum()
    return tuple(weights.round(4).tolist())


def stack(log_density_KN: Floats) -> Floats:
    """The weights (K,) with the highest mean log of the mixture's density.

    Args:
        log_density_KN: of the labels under each of the K that are mixed. Examples to which none of
            them gives any probability say nothing.
    """
    from scipy.optimize import minimize  # slow to import

    largest_N = log_density_KN.max(axis=0)
    is_known_N = np.isfinite(largest_N)
    density_NK = np.exp(log_density_KN[:, is_known_N] - largest_N[is_known_N]).T
    num = len(log_density_KN)
    weights = np.full(num, 1 / num)
    if not len(density_NK):
        return weights

    # steps of EM never lower the score and never leave the simplex
    for _ in range(_EM_STEPS):
        weights = weights * _gradient(weights, density_NK)

    outcome = minimize(
        lambda weights: -_score(weights, density_NK),
        weights,
        jac=lambda weights: -_gradient(weights, density_NK),
        method="SLSQP",
        bounds=[(0, 1)] * num,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-13, "maxiter": 1000},
    )
    clipped = np.clip(outcome.x, 0, None)
    candidates = [weights, clipped / clipped.sum()]
    return max(candidates, key=lambda weights: _score(weights, density_NK))


def _score(weights_K: Floats, density_NK: Floats) -> float:
    return float(np.log(np.maximum(density_NK @ weights_K, np.finfo(float).tiny)).mean())


def _gradient(weights_K: Floats, density_NK: Floats) -> Floats:
    """Of the score in the weights; at its maximum no entry exceeds 1."""
    mixture_N = np.maximum(density_NK @ weights_K, np.finfo(float).tiny)
    gradient_K: Floats = (density_NK / mixture_N[:, None]).mean(axis=0)
    return gradient_K
