"""How much of a Gaussian over a network's last layer is certified: boxes of weights.

Everything below the last layer is fixed, so that its parameters w = m + F z are all that varies, z
standard normal. Coordinates of z may be turned: in Q t, t is standard normal too, and a box of t
holds a product of intervals' masses. For an input's box, features phi lie in bounds, and the margin
``z_y - z_k`` of the network with t is that of the network with m plus

    sum_j t_j a_kj(phi),   a_k(phi) = Q^T (F_y - F_k)^T phi

with F's rows of y and of k. For one feature vector only the C - 1 directions a_k matter. Q begins
with them, made orthogonal alike (Loewdin), so that all margins fall with one end of each of these
coordinates alone: there the box ends where a margin would, and everywhere else it ends so far out
that next to nothing is lost.

What is certified is a law of weights, not what a stream stores: the law in real numbers, run in
float32.

Source: Wicker, Laurenti, Patane & Kwiatkowska 2020, arXiv:2004.10281, whose boxes are centered at
draws, in the weights' own coordinates, and hold nothing of a network of many.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gped_nas.errors import ConfigError
from gped_nas.evaluate.certify.bounds import Bounds, bound
from gped_nas.evaluate.certify.box import Box
from gped_nas.evaluate.certify.masses import log10_of_union
from gped_nas.evaluate.certify.networks import CertifiableNetwork, margins
from gped_nas.evaluate.certify.rounding import UNIT, gamma
from gped_nas.models.elementary import Dense, Elementary, Scaling

_LOST = 1e-4
"""The share that all far ends together may lose."""
_FLOAT32 = 2.0**-24
_ERROR = 1e-10
"""What sums here may be off, and the basis from an orthonormal one, as a share of what is added."""


@dataclass(frozen=True, eq=False)
class LastLayerLaw:
    """A Gaussian over a last layer.

    Attributes:
        network: with the mean in its last layer.
        factor: F (C, H + 1, m): parameters of each output, bias last, over the square root of
            their covariance.
    """

    network: CertifiableNetwork
    factor: Tensor

    @property
    def features(self) -> tuple[Elementary, ...]:
        """The layers below the last one."""
        return self.network.layers[: self._place]

    @property
    def last(self) -> Dense:
        """The last layer, of the mean."""
        layer = self.network.layers[self._place]
        assert isinstance(layer, Dense)
        return layer

    @property
    def gain(self) -> float:
        """What margins are multiplied by behind it: one over the temperature."""
        gain = 1.0
        for layer in self.network.layers[self._place + 1 :]:
            assert isinstance(layer, Scaling), "a temperature alone follows"
            gain *= float(layer.gain)
        return gain

    @property
    def _place(self) -> int:
        places = [i for i, layer in enumerate(self.network.layers) if isinstance(layer, Dense)]
        return places[-1]


def log10_certified(
    law: LastLayerLaw, box: Box, label_N: Tensor, *, bounds: Bounds = "crown"
) -> Tensor:
    """Lower bounds (N,) of log10 of the mass of parameters that no input of a box breaks.

    Minus infinity is none at all.

    Args:
        law: of the last layer.
        box: around each of N inputs.
        label_N: their classes.
        bounds: how margins and features are bounded.
    """
    lead_NC = margins(law.network, box.low, box.high, label_N, bounds=bounds)
    low_NF, high_NF = _feature_bounds(law, box, bounds)

    masses = []
    for label, lead_C, low_F, high_F in zip(
        label_N.tolist(), lead_NC, low_NF, high_NF, strict=True
    ):
        others = [k for k in range(len(lead_C)) if k != label]
        directions_KJF = _directions(law, label, others)
        masses.append(_mass_of_input(law, lead_C[others], directions_KJF, low_F, high_F))
    return torch.tensor(masses, dtype=torch.float64)


def _feature_bounds(law: LastLayerLaw, box: Box, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """Between which features lie, with the one of the bias, each (N, F)."""
    num_features = law.last.weight.shape[1]
    low_NF, high_NF = bound(
        law.features, box.low, box.high, torch.eye(num_features).double(), bounds=bounds
    )
    one = torch.ones(len(box), 1, dtype=torch.float64)
    return torch.cat([low_NF, one], 1), torch.cat([high_NF, one], 1)


def _directions(law: LastLayerLaw, label: int, others: Sequence[int]) -> Tensor:
    """How each margin moves with z for each feature: (K, m, F)."""
    return torch.stack([(law.factor[label] - law.factor[k]).mT for k in others]) * law.gain


def _mass_of_input(
    law: LastLayerLaw, lead_K: Tensor, directions_KJF: Tensor, low_F: Tensor, high_F: Tensor
) -> float:
    """``log10_certified`` of one input."""
    center_F, reach_F = (low_F + high_F) / 2, (high_F - low_F) / 2
    slope_KJ = directions_KJF @ center_F
    turned_KJF = torch.einsum("jt,kjf->ktf", _turned(slope_KJ), directions_KJF)

    # interval of each a_kj over the features, outward
    middle_KJ, wide_KJ = turned_KJF @ center_F, turned_KJF.abs() @ reach_F
    error_KJ = gamma(4 * directions_KJF.shape[1] + 16, UNIT) * (
        turned_KJF.abs() @ (center_F.abs() + reach_F)
    )
    least_KJ, most_KJ = middle_KJ - wide_KJ - error_KJ, middle_KJ + wide_KJ + error_KJ

    num_near = len(slope_KJ)
    far = _far_end(slope_KJ.shape[1] + num_near)
    slack = _rounding(law, far, high_F.abs().maximum(low_F.abs()))
    return _largest_box(lead_K - slack, least_KJ, most_KJ, num_near, far)


def _turned(slope_KJ: Tensor) -> Tensor:
    """An orthonormal basis (m, m), whose first K columns span the slopes, each near its own."""
    left, size, right = torch.linalg.svd(slope_KJ.mT, full_matrices=True)
    num = len(slope_KJ)
    if num > left.shape[0]:
        raise ConfigError(
            f"found a last layer of {left.shape[0]} parameters and {num + 1} classes, expected "
            "more parameters than classes; take the share of draws"
        )
    near = left[:, :num] @ right
    return torch.cat([near, left[:, num:]], 1)


def _far_end(num: int) -> float:
    """An end so far out that so many of them lose a share of ``_LOST`` together."""
    share = torch.tensor(1 - _LOST / (2 * num), dtype=torch.float64)
    return float(torch.special.ndtri(share))


def _rounding(law: LastLayerLaw, far: float, largest_F: Tensor) -> float:
    """What float32 may move a margin by, for any parameters within the far ends.

    The mean's own slack is in its margins, and this is for all of any parameters again: they are
    rounded to float32, and so is each product and sum with the features.
    """
    spread_CF = law.factor.norm(dim=2) * far * math.sqrt(law.factor.shape[2])
    mean_CF = torch.cat([law.last.weight, law.last.offset[:, None]], 1).abs()
    largest_C = (mean_CF + spread_CF) @ largest_F
    error = gamma(mean_CF.shape[1] + 8, _FLOAT32)
    return float(2 * error * largest_C.max()) * max(law.gain, 1.0)


def _largest_box(
    lead_K: Tensor, least_KJ: Tensor, most_KJ: Tensor, num_near: int, far: float
) -> float:
    """log10 of the mass of certified boxes: near coordinates end below where a margin would."""
    # what each margin loses where every coordinate is at its worst far end
    outer_KJ = torch.minimum(-far * most_KJ, far * least_KJ)
    rest_K = lead_K + outer_KJ[:, num_near:].sum(1)
    upward_KJ = torch.minimum(far * least_KJ[:, :num_near], torch.zeros(()).double())
    steepness_KJ = most_KJ[:, :num_near].clamp(min=0)

    # a margin is least where each near coordinate is at its lower end -r_j, or at the far upper one
    spare_K = rest_K + upward_KJ.sum(1) - _ERROR * (lead_K.abs() + outer_KJ.abs().sum(1))
    if bool((spare_K <= 0).any()):
        return -math.inf
    total_K = steepness_KJ.sum(1).clamp(min=1e-300)
    even = float((spare_K / total_K).min())

    reaches = [torch.full((num_near,), min(even, far), dtype=torch.float64)]
    reaches.append(_grown(reaches[0], spare_K, steepness_KJ, far))
    low_JD = torch.full((len(reaches), least_KJ.shape[1]), -far, dtype=torch.float64)
    for place, reach in enumerate(reaches):
        low_JD[place, :num_near] = -reach * (1 - 1e-9)
    return log10_of_union(low_JD, torch.full_like(low_JD, far))


def _grown(even_J: Tensor, spare_K: Tensor, steepness_KJ: Tensor, far: float) -> Tensor:
    """Reaches that use what is spare of every margin: one coordinate after the other grows."""
    reach_J = even_J.clone()
    for j in range(len(reach_J)):
        steep_K = steepness_KJ[:, j]
        unused_K = spare_K - steepness_KJ @ reach_J
        limits = unused_K[steep_K > 0] / steep_K[steep_K > 0]
        room = float(limits.min()) if len(limits) else far
        reach_J[j] = min(float(reach_J[j]) + max(room, 0.0) * (1 - 1e-9), far)
    return reach_J
