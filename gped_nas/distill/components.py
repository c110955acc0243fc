"""Principal components: a smaller frame in which fully connected students are trained.

What real inputs vary by lies mostly in few directions. A student is trained on the coordinates of
its inputs along the J of greatest variance, and folded back at the end, with an orthonormal basis
(D, J):

    z = (x - mean) basis,    W z + b  =  (W basis^T) x + (b - W basis^T mean)

What is kept and exported therefore reads plain inputs. A step's first products and updates shrink
by J / D, and uncorrelated directions suit an optimizer with a step size for each number. Since the
basis is orthonormal, a unit's weights have the same norm in both frames: group penalty and weight
decay mean what they did. Initial weights are drawn for plain inputs and projected, so that the sign
of a direction changes nothing.

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
"""Inputs that directions are computed from, at equal distances; more would not move them."""


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
        # the mean is projected instead of subtracted: no centered copy of all inputs
        shift_J = -self.mean_D @ self.basis_DJ
        return torch.addmm(shift_J, x.flatten(1), self.basis_DJ)

    def enter(self, params: Params, layer: tuple[str, str]) -> Params:
        """Fresh parameters, first layer projected: (h, D) to (h, J); biases are taken as they are.

        Args:
            params: parameters by name.
            layer: names of the first layer's weight and bias.
        """
        weight, _ = layer
        return {**params, weight: params[weight] @ self.basis_DJ}

    def leave(self, params: Params, layer: tuple[str, str]) -> Params:
        """From parameters that read coordinates to those of the same function of plain inputs."""
        weight, bias = layer
        unprojected = params[weight].double() @ self.basis_DJ.double().T
        shifted = params[bias].double() - unprojected @ self.mean_D.double()
        return {**params, weight: unprojected.float(), bias: shifted.float()}

    def to(self, device: torch.device) -> "Components":
        """The same frame on a device."""
        return Components(self.mean_D.to(device), self.basis_DJ.to(device))


def fit(x: Tensor, num: int) -> Components:
    """The frame of the ``num`` directions of greatest variance of inputs (M, *input_shape)."""
    stride = max(1, len(x) // _FITTED_ON)
    x_MD = x[::stride].flatten(1)
    mean_D = x_MD.mean(0)
    centered_MD = x_MD - mean_D

    # eigenvalues come in ascending order
    _, directions = torch.linalg.eigh((centered_MD.T @ centered_MD).double())
    return Components(mean_D, directions.flip(1)[:, :num].float().contiguous())


_Fitted = dict[int, tuple[Components, DistillationSet]]
_CACHE: WeakKeyDictionary[DistillationSet, _Fitted] = WeakKeyDictionary()
"""By number of components, the frame of a distillation set and the set in it."""


def in_components(data: DistillationSet, num: int) -> tuple[Components, DistillationSet]:
    """The frame of a distillation set, and the set in it.

    Both are computed once and kept for as long as the set is there.
    """
    cache = _CACHE.setdefault(data, {})
    if num not in cache:
        frame = fit(data.inputs, num)
        cache[num] = (frame, replace(data, inputs=frame.project(data.inputs)))
    return cache[num]


def inside(data: DistillationSet, frame: Components) -> DistillationSet:
    """A distillation set in a frame that students were begun in."""
    fitted, in_fitted = in_components(data, frame.basis_DJ.shape[1])
    if is_same_frame(fitted, frame):
        return in_fitted
    # fitted on another machine, where rounding turned it by a little, or changed a sign
    return replace(data, inputs=frame.project(data.inputs))


def is_same_frame(frame: Components | None, other: Components | None) -> bool:
    """Whether coordinates mean the same in both, to the bit; None is plain inputs."""
    if frame is None or other is None or frame is other:
        return frame is other
    is_same_mean = torch.equal(frame.mean_D, other.mean_D)
    return is_same_mean and torch.equal(frame.basis_DJ, other.basis_DJ)
