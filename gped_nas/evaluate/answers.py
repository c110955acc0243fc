"""What a posterior says of inputs, for people: its average, its uncertainties, credible bounds.

Uncertainty has two parts. What each sample is uncertain about is in the data: the expected entropy
of a class, the expected variance of a real label's noise. What samples disagree about is not: the
mutual information of class and parameters, the variance of the samples' means.
"""

import torch
from torch import Tensor

from gped_nas.data.base import Normalization
from gped_nas.evaluate.teacher import averaged
from gped_nas.targets.base import Target
from gped_nas.targets.label import mixture_quantile
from gped_nas.targets.quantile import empirical_quantile


def posterior_answers(
    predicted_SNG: Tensor,
    weight_S: Tensor,
    *,
    credible: float,
    label_normalization: Normalization | None = None,
    targets: tuple[Target, ...] = (),
) -> dict[str, Tensor]:
    """What weighted posterior samples say together, ``{name: (N, G)}`` in float64.

    Args:
        predicted_SNG: what each sample predicts; see ``likelihoods.Prediction``.
        weight_S: non-negative weights on any scale.
        credible: the share of the posterior between the bounds, as much below as above them.
        label_normalization: of real labels; None for classes.
        targets: whose expectations are wanted too.

    Returns:
        Of classes ``predictive`` (N, C), ``entropy``, ``expected_entropy``, ``mutual_information``
        (nats), and ``low`` and ``high``, the bounds of each class's probability. Of a real label,
        in its own unit and that squared, ``predictive_normal`` (mean and variance),
        ``noise_variance``, ``model_variance``, and the bounds ``mean_low``, ``mean_high`` of its
        mean and ``label_low``, ``label_high`` of itself. And what is said of each target.
    """
    predictions = averaged(predicted_SNG, weight_S, label_normalization, targets)
    expectations = {
        name: torch.from_numpy(values) for name, values in predictions.expectations.items()
    }
    levels = ((1 - credible) / 2, (1 + credible) / 2)

    if label_normalization is not None:
        parts = _of_label(predicted_SNG.double(), weight_S.double(), levels, label_normalization)
    else:
        bounds = empirical_quantile(predicted_SNG.double().exp(), weight_S, levels)
        low, high = torch.unflatten(bounds, -1, (-1, len(levels))).unbind(-1)
        total = torch.special.entr(expectations["predictive"]).sum(-1, keepdim=True)
        parts = {"entropy": total, "low": low, "high": high}
    return {**expectations, **parts}


def _of_label(
    predicted_SN2: Tensor, weight_S: Tensor, levels: tuple[float, float], unit: Normalization
) -> dict[str, Tensor]:
    """The parts of a real label's variance, and its bounds, in its own unit."""
    weight_S = weight_S / weight_S.sum()
    mean_SN, variance_SN = predicted_SN2.unbind(-1)

    mean_N = weight_S @ mean_SN
    variances = {
        "noise_variance": weight_S @ variance_SN,
        "model_variance": weight_S @ (mean_SN - mean_N).square(),
    }
    mean_bounds = empirical_quantile(mean_SN.unsqueeze(-1), weight_S, levels).unbind(-1)
    bounds = dict(zip(("mean_low", "mean_high"), mean_bounds, strict=True))
    for name, level in zip(("label_low", "label_high"), levels, strict=True):
        bounds[name] = mixture_quantile(mean_SN, variance_SN.sqrt(), weight_S, level)

    in_own_unit = {name: values * unit.std**2 for name, values in variances.items()}
    in_own_unit |= {name: values * unit.std + unit.mean for name, values in bounds.items()}
    return {name: values.unsqueeze(-1) for name, values in in_own_unit.items()}
