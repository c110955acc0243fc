"""Principal components: a smaller frame in which fully connected students are trained.

What real inputs vary by lies mostly in few directions. A student is trained on the coordinates of
its inputs along the J of greatest variance, and folded back at the end:

    z = (x - mean) basis,    W z + b  =  (W basis^T) x + (b - W basis^T mean),    basis (D, J)
    orthonormal

so that what is kept and exported reads plain inputs. A step's first products and updates shrink by
J / D, and its directions being uncorrelated suits an optimizer with a step size for each number.
Since the basis is orthonormal, a unit's weights have the same norm in both frames: group penalty
and weight decay mean what they did. Initial weights are drawn for plain inputs and projected, so
that the sign of a direction changes nothing.

What is given up: a student is blind to the D - J directions in which distillation inputs vary
least.
"""

from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from gped_nas.distill.feed import DistillationSet
from gped_nas.models.base import Params

_FITTED_ON = 20_000
"""Inputs that directions are found from, at equal distances: with so many more would not move them.
"""


@dataclass(frozen=True, eq=False)
class Components:
    """The frame.

    Attributes:
        mean_D: mean input.
        basis_DJ: orthonormal directions, of greatest variance first.
    """

    mean_D: Tensor
    basis_DJ: Tensor

    def project(self, x: Tensor) -> Tensor:
        """Inputs (B, *input_shape) to coordinates (B, J)."""
        return torch.addmm(
            -self.mean_D @ self.basis_DJ, x.flatten(1), self.basis_DJ
        )  # no centered copy of all inputs

    def enter(self, params: Params, layer: tuple[str, str]) -> Params:
        """Fresh parameters, first layer projected: (h, D) to (h, J); biases are taken as they are.

        Args:
            params: parameters by name.
            layer: names of the first layer's weight and bias.
        """
        weight, _ = layer
        return {**params, weight: params[weight] @ self.basis_DJ}

    def leave(self, params: Params, layer: tuple[str, str]) -> Params:
        """Parameters that read coordinates to those of the same function of plain inputs."""
        weight, bias = layer
        unprojected = params[weight].double() @ self.basis_DJ.double().T
        shifted = params[bias].double() - unprojected @ self.mean_D.double()
        return {**params, weight: unprojected.float(), bias: shifted.float()}

    def to(self, device: torch.device) -> "Components":
        """The same frame on a device."""
        return Components(self.mean_D.to(device), self.basis_DJ.to(device))


def fit(x: Tensor, num: int) -> Components:
    """The frame of the ``num`` directions of greatest variance of inputs (M, *input_shape)."""
    x_MD = x[:: max(1, len(x) // _FITTED_ON)].flatten(1)
    mean_D = x_MD.mean(0)
    centered_MD = x_MD - mean_D
    _, directions = torch.linalg.eigh((centered_MD.T @ centered_MD).double())  # ascending
    return Components(mean_D, directions.flip(1)[:, :num].float().contiguous())


_KNOWN: WeakKeyDictionary[DistillationSet, dict[int, tuple[Components, DistillationSet]]] = (
    WeakKeyDictionary()
)


def in_components(data: DistillationSet, num: int) -> tuple[Components, DistillationSet]:
    """The frame of a distillation set, and the set in it; computed once for as long as the set is
    there.
    """
    known = _KNOWN.setdefault(data, {})
    if num not in known:
        frame = fit(data.inputs, num)
        known[num] = frame, replace(data, inputs=frame.project(data.inputs))
    return known[num]


def inside(data: DistillationSet, frame: Components) -> DistillationSet:
    """A distillation set in a frame that students were begun in."""
    fitted, in_fitted = in_components(data, frame.basis_DJ.shape[1])
    if is_same_frame(fitted, frame):
        return in_fitted
    # found on another machine, where rounding turned it by a little, or changed a sign
    return replace(data, inputs=frame.project(data.inputs))


def is_same_frame(first: Components | None, second: Components | None) -> bool:
    """Whether coordinates mean the same in both, to the bit; None is plain inputs."""
    if first is None or second is None or first is second:
        return first is second
    is_same_mean = torch.equal(first.mean_D, second.mean_D)
    return is_same_mean and torch.equal(first.basis_DJ, second.basis_DJ)
