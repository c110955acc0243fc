"""Flat buffers of a bundle of students: parameters, gradients, and what a step computes with.

Master parameters and gradients are float32. Where a step computes in bfloat16 it reads a shadow of the parameters
and leaves its gradients in another; in float32 both are the masters themselves, so that nothing is copied.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(eq=False)
class Buffers:
    """Parameters and gradients of students trained side by side, one number after the other.

    Attributes:
        theta: float32 master parameters (total,).
        grad: float32 gradients (total,).
        dtype: what a step computes in.
        work: parameters in ``dtype``; ``theta`` itself where that is float32.
        work_grad: gradients in ``dtype``; ``grad`` itself where that is float32.
    """

    theta: Tensor
    dtype: torch.dtype
    grad: Tensor = field(init=False)
    work: Tensor = field(init=False)
    work_grad: Tensor = field(init=False)

    def __post_init__(self) -> None:
        is_full = self.dtype == torch.float32
        self.grad = torch.zeros_like(self.theta)
        self.work = self.theta if is_full else self.theta.to(self.dtype)
        self.work_grad = self.grad if is_full else torch.zeros_like(self.work)

    def collect(self) -> None:
        """Bring the gradients of a step into ``grad``."""
        if self.work_grad is not self.grad:
            self.grad.copy_(self.work_grad)

    def refresh(self) -> None:
        """Bring parameters that an update has changed into ``work``."""
        if self.work is not self.theta:
            self.work.copy_(self.theta)
