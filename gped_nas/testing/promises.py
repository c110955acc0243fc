"""What all suites share: a promise is kept, or an ``AssertionError`` says which is not."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor

from gped_nas.errors import GpedError

Case = TypeVar("Case")


def require(is_kept: bool, message: str) -> None:
    """Raise ``AssertionError`` with the message unless the promise is kept."""
    if not is_kept:
        raise AssertionError(message)


def require_close(found: Tensor, expected: Tensor, tolerance: float, message: str) -> None:
    """Raise ``AssertionError`` unless two tensors agree within a tolerance, absolute."""
    require(
        found.shape == expected.shape,
        f"{message}: found shape {tuple(found.shape)}, expected {tuple(expected.shape)}",
    )
    if not found.numel():
        return
    error = float((found.double() - expected.double()).abs().max())
    require(error <= tolerance, f"{message}: they differ by {error:.3g}, more than {tolerance:.3g}")


def require_refusal(
    call: Callable[[], object], refusals: tuple[type[Exception], ...], message: str
) -> str:
    """What a call says when it refuses; raise ``AssertionError`` if it does not."""
    try:
        call()
    except refusals as error:
        return str(error)
    raise AssertionError(message)


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors are the same to the bit, NaN included."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return bool(torch.equal(first.nan_to_num(nan=0.0), second.nan_to_num(nan=0.0))) and bool(
        torch.equal(first.isnan(), second.isnan())
    )


def run_all(checks: Iterable[Callable[[Case], None]], cases: Iterable[Case]) -> None:
    """Every check on every case; what the package itself refuses is a broken promise too."""
    checks = tuple(checks)
    for case in cases:
        for check in checks:
            try:
                check(case)
            except GpedError as error:
                raise AssertionError(f"{case}: {check.__name__}: {error}") from error
