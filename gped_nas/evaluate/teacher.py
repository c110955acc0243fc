"""What posterior samples say, alone and together, in the form that metrics read.

Samples of a classifier predict log-probabilities (S, N, C) in nats, those of a regression mean and
variance (S, N, 2) in the label's normalized unit; ``label_normalization`` leads back to its own and
is None for classes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gped_nas.data.base import Normalization
from gped_nas.evaluate.certify.networks import CertifiableNetwork
from gped_nas.evaluate.conditions import Forward
from gped_nas.evaluate.predictions import (
    AnyPredictions,
    Floats,
    Labels,
    NormalPredictions,
    PosteriorSamples,
    Predictions,
)
from gped_nas.targets.base import (
    MAIN_TARGET,
    TARGETS,
    DerivedTarget,
    QuantileTarget,
    Target,
    for_labels,
)
from gped_nas.targets.expectations import expect_all
from gped_nas.targets.formulas import entropy
from gped_nas.targets.quantile import empirical_quantile

_BATCH = 512


def averaged(
    predicted_SNG: Tensor,
    weight_S: Tensor,
    label_normalization: Normalization | None = None,
    targets: Sequence[Target] = (),
) -> AnyPredictions:
    """The predictions of the weighted average of posterior samples.

    Args:
        predicted_SNG: what each sample predicts, see the module docstring.
        weight_S: non-negative weights on any scale.
        label_normalization: of real labels; None for classes.
        targets: whose expectations are wanted beside those of the predictions themselves; those
            that follow from them come along.
    """
    weight = weight_S.double() / weight_S.double().sum()
    all_targets = for_labels(with_derived(targets), label_normalization)
    expectations = posterior_expectations(all_targets, predicted_SNG, weight)
    if label_normalization:
        expectations = in_own_unit(expectations, all_targets, label_normalization)
    samples = PosteriorSamples(predicted_SNG, weight)
    is_point = len(predicted_SNG) == 1

    if label_normalization:
        moments = torch.einsum("s,sng->ng", weight, moments_of(predicted_SNG))
        return normal_predictions(
            moments[:, 0],
            moments[:, 1] - moments[:, 0].square(),
            label_normalization,
            expectations=expectations,
            targets=all_targets,
            samples=samples,
            is_point=is_point,
        )

    log_prob = predicted_SNG.double()
    mean = torch.logsumexp(log_prob + weight.log()[:, None, None], 0)
    expected = torch.einsum("s,sn->n", weight, entropy(log_prob))
    expectations["expected_entropy"] = expected.numpy()
    return Predictions(mean.numpy(), expectations, all_targets, samples, is_point)


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Networks whose predictions are averaged: a teacher, or one network alone.

    Attributes:
        members: weight and forward pass of each network, made anew at each call.
        label_normalization, targets: as in ``averaged``.
        attacked: who is attacked, and asked at what was found; None where that is itself.
        certifiable: gives it as layers; None where it is no network whose layers are known.
    """

    members: Callable[[], Iterator[tuple[float, Forward]]]
    label_normalization: Normalization | None = None
    targets: tuple[Target, ...] = ()
    attacked: "Ensemble | None" = None
    certifiable: Callable[[], CertifiableNetwork] | None = None

    def networks(self) -> Iterator[tuple[float, Forward]]:
        """See ``conditions.Predictor``."""
        return self.members()

    @torch.no_grad()
    def predict(self, raw: Tensor) -> AnyPredictions:
        """What the networks say on average at raw inputs (N, *input_shape)."""
        weights: list[float] = []
        predicted: list[Tensor] = []
        for weight, forward in self.members():
            batches = [forward(batch).cpu() for batch in torch.split(raw, _BATCH)]
            weights.append(weight)
            predicted.append(torch.cat(batches))

        weight_S = torch.tensor(weights, dtype=torch.float64)
        return averaged(torch.stack(predicted), weight_S, self.label_normalization, self.targets)


def with_derived(targets: Sequence[Target]) -> tuple[Target, ...]:
    """The targets, then the registered ones that are computed from them and not listed.

    What is computed from such a one comes after it.
    """
    known = {target.name for target in targets}
    derived = [target for target in TARGETS.values() if isinstance(target, DerivedTarget)]
    complete = list(targets)

    while ready := [t for t in derived if t.name not in known and known.issuperset(t.requires)]:
        complete += ready
        known.update(target.name for target in ready)
    return tuple(complete)


def posterior_expectations(
    targets: Sequence[Target], predicted_SNG: Tensor, weight_S: Tensor
) -> dict[str, Floats]:
    """What posterior samples say together of each target, ``{target: (N, G)}`` in float64.

    The main target is left out: predictions have it in a form of their own. Quantiles are those of
    the samples; of a target of that kind without levels nothing is said.
    """
    if not targets:
        return {}

    averaged_targets = []
    quantile_targets = []
    for target in targets:
        if isinstance(target, QuantileTarget):
            quantile_targets.append(target)
        elif target.name not in MAIN_TARGET.values():
            averaged_targets.append(target)

    predicted = predicted_SNG.double()
    expectations = {}
    averages = expect_all(averaged_targets, predicted, weight_S)
    for target in averaged_targets:
        expectations[target.name] = target.shown(averages[target.name]).numpy()

    for target in quantile_targets:
        levels = getattr(target.settings, "levels", None)
        if target.of_samples is not None:
            quantiles = target.of_samples(target.values(predicted), weight_S)
            expectations[target.name] = quantiles.numpy()
        elif levels is not None:
            quantiles = empirical_quantile(target.values(predicted), weight_S, levels)
            expectations[target.name] = quantiles.numpy()
    return expectations


def in_own_unit(
    expectations: Mapping[str, Floats], targets: Sequence[Target], unit: Normalization
) -> dict[str, Floats]:
    """What is said of each target, in the label's own unit where it depends on that."""
    converted = dict(expectations)
    for target in targets:
        if target.own_unit is not None and target.name in expectations:
            values = torch.from_numpy(expectations[target.name])
            converted[target.name] = target.own_unit(values, unit).numpy()
    return converted


def nll_by_sample(
    predicted_SNG: Tensor, labels: Labels, label_normalization: Normalization | None = None
) -> Tensor:
    """The NLL of each posterior sample on its own, (S,), nats."""
    return -log_scores(predicted_SNG, labels, label_normalization).mean(1)


def log_scores(
    predicted_SNG: Tensor, labels: Labels, label_normalization: Normalization | None = None
) -> Tensor:
    """Log-score of each label by each posterior sample on its own, (S, N) float64, nats.

    It is the log-probability of a class, or the log-density of a real label.
    """
    if not label_normalization:
        return _log_prob_of_labels(predicted_SNG, labels)

    scores = []
    for predicted_1NG in torch.split(predicted_SNG, 1):
        predictions = averaged(predicted_1NG, torch.ones(1), label_normalization)
        scores.append(predictions.log_score(labels))
    return torch.from_numpy(np.stack(scores))


def samples_to_nll(
    predicted_SNG: Tensor,
    weight_S: Tensor,
    labels: Labels,
    label_normalization: Normalization | None = None,
) -> list[list[float]]:
    """``[number of samples, NLL of their average]`` for growing numbers of samples, nats.

    The first samples may have no weight: they have no average, and the curve begins after them.
    """
    num = len(predicted_SNG)
    powers_of_two = {2**i for i in range(num.bit_length())}
    eighths = {num * i // 8 for i in range(1, 9)}
    smallest = int((weight_S > 0).byte().argmax()) + 1
    sizes = [size for size in sorted(powers_of_two | eighths) if size >= smallest]

    if label_normalization:
        curve = []
        for size in sizes:
            mean = averaged(predicted_SNG[:size], weight_S[:size], label_normalization)
            curve.append([float(size), -float(mean.log_score(labels).mean())])
        return curve

    log_weight_S = weight_S.double().log()
    joint_SN = _log_prob_of_labels(predicted_SNG, labels) + log_weight_S[:, None]
    nll_S = -(joint_SN.logcumsumexp(0) - log_weight_S.logcumsumexp(0)[:, None]).mean(1)
    return [[float(size), float(nll_S[size - 1])] for size in sizes]


def _log_prob_of_labels(log_prob_SNC: Tensor, labels: Labels) -> Tensor:
    """Each sample's log-probability of the label, (S, N), float64."""
    index = torch.as_tensor(labels)[None, :, None].expand(len(log_prob_SNC), -1, 1)
    return log_prob_SNC.gather(2, index).squeeze(2).double()


def normal_predictions(
    mean: Tensor, variance: Tensor, label_normalization: Normalization, **details: Any
) -> NormalPredictions:
    """Mean and variance (N,) in the label's normalized unit as predictions in its own.

    ``details`` are further attributes of ``NormalPredictions``.
    """
    unit = label_normalization
    return NormalPredictions(
        mean.double().numpy() * unit.std + unit.mean,
        variance.double().numpy() * unit.std**2,
        **details,
    )


def moments_of(predicted_SN2: Tensor) -> Tensor:
    """E[y] and E[y^2] of each sample, (S, N, 2), float64."""
    mean, variance = predicted_SN2.double().unbind(-1)
    return torch.stack([mean, mean.square() + variance], -1)
