"""The exact end of a verdict: a programme for each class that bounds could not rule out."""

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from gped_nas.evaluate.certify.bounds import propagate
from gped_nas.evaluate.certify.box import Box
from gped_nas.evaluate.certify.breaking import inward, is_wrong
from gped_nas.evaluate.certify.exact import Clock, ExactSettings, minimum, run_time_error
from gped_nas.evaluate.certify.networks import CertifiableNetwork
from gped_nas.evaluate.certify.programme import build, count_unstable, read_bounds
from gped_nas.evaluate.certify.rounding import FLOAT32
from gped_nas.evaluate.conditions import Predictor

_SIGN_GAP = 0.5
"""A programme may end where its two ends are of one sign."""


@dataclass(frozen=True, eq=False)
class Closed:
    """What a programme says of one input.

    Attributes:
        lead: how far the label's logit is above every other one, at least; minus infinity where
            nothing is proven.
        broken_by: an input (1, *input_shape) of the box that is answered wrongly; None if there is
            none at hand.
        is_too_large: whether the network has too many unstable units there.
        is_timed_out: whether the time was over.
    """

    lead: float = -inf
    broken_by: Tensor | None = None
    is_too_large: bool = False
    is_timed_out: bool = False


def close_bracket(
    network: CertifiableNetwork,
    predictor: Predictor,
    box: Box,
    label_1: Tensor,
    margin_C: Tensor,
    exact: ExactSettings,
    clock: Clock | None = None,
) -> Closed:
    """Decide one input, as far as time allows.

    Args:
        network: as layers.
        predictor: the same network as it answers.
        box: of the one input.
        label_1: its class, (1,).
        margin_C: lower bounds of how far the label's logit is above each.
        exact: time limit and size limit.
        clock: of the time limit; it begins now by default.

    Raises:
        ConfigError: the network has other units than ReLUs and max pooling.
    """
    clock = clock or Clock(exact.time_limit)
    nodes = propagate(network.layers, box.low, box.high)
    bounds = read_bounds(nodes)
    if count_unstable(network.layers, bounds) > exact.max_unstable:
        return Closed(is_too_large=True)

    programme = build(network.layers, box.low[0], box.high[0], bounds)
    lead = float(margin_C[margin_C > 0].min()) if bool((margin_C > 0).any()) else inf
    label = int(label_1)
    for other in _open_classes(margin_C, label):
        if clock.remaining <= 0:
            return Closed(is_timed_out=True)

        form_U = _difference(network, label, other)
        smallest = minimum(programme, form_U.numpy(), seconds=clock.remaining, gap=_SIGN_GAP)
        if smallest.at is not None:
            at = inward(box, smallest.at[None])
            if bool(is_wrong(predictor, at, label_1)[0]) and bool(box.holds(at)[0]):
                return Closed(broken_by=at)

        lower = smallest.low - run_time_error(nodes, form_U)
        lower -= FLOAT32.least_lead(network.num_classes)
        if lower <= 0:
            return Closed(is_timed_out=smallest.is_timed_out)
        lead = min(lead, lower)
    return Closed(lead)


def _open_classes(margin_C: Tensor, label: int) -> list[int]:
    """Classes that bounds could not rule out, the nearest one first."""
    classes = margin_C.argsort(stable=True).tolist()
    return [other for other in classes if other != label and margin_C[other] <= 0]


def _difference(network: CertifiableNetwork, label: int, other: int) -> Tensor:
    """The label's logit less another one's, over all raw outputs."""
    form_U = torch.zeros(network.num_outputs, dtype=torch.float64)
    outputs = range(network.num_outputs)[network.rows]
    form_U[outputs[label]] += 1
    form_U[outputs[other]] -= 1
    return form_U
