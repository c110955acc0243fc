"""What a user's torch modules cost: multiply-adds as fvcore counts them, and bytes of weights.

They are counted by the rules of ``costs``: one a multiply-add, norms and activations free.
"""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gped_nas.models.costs import COUNTED_OPERATORS

_HEAVY = ("conv", "mm", "linear", "attention", "lstm", "gru", "rnn", "bilinear", "fft", "einsum")
"""What an operator that nobody counts must not be called, for a sum without it to be of use."""


def module_macs(modules: Sequence[object], x: Tensor) -> int | None:
    """Multiply-adds of one example through all modules together.

    Args:
        modules: the members of an ensemble.
        x: what they take, of one example (1, ...).

    Returns:
        The sum; None where a member is no module, cannot be traced, or has operators that are not
        counted and cost something.
    """
    total = 0
    for module in modules:
        macs = _macs(module, x) if isinstance(module, nn.Module) else None
        if macs is None:
            return None
        total += macs
    return total


def module_bytes(modules: Sequence[object]) -> int | None:
    """Bytes of all parameters and buffers, each once; None where a member is no module."""
    tensors: dict[int, Tensor] = {}
    for module in modules:
        if not isinstance(module, nn.Module):
            return None
        for tensor in (*module.parameters(), *module.buffers()):
            tensors[id(tensor)] = tensor
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def macs_by_module(module: nn.Module, x: Tensor) -> dict[str, int] | None:
    """Multiply-adds of one example by submodule, those of its own submodules left out.

    Args:
        module: what is counted.
        x: what it takes, of one example (1, ...).

    Returns:
        None where it cannot be traced, or has operators that are not counted and cost something.
    """
    counts = _counts(module, x)
    if counts is None:
        return None

    own: dict[str, int] = {}
    for name, by_operator in counts.items():
        total = sum(num for operator, num in by_operator.items() if operator in COUNTED_OPERATORS)
        own[name] = own.get(name, 0) + total
        parent = name.rpartition(".")[0]
        if name:
            own[parent] = own.get(parent, 0) - total
    return {name: macs for name, macs in own.items() if macs}


def _macs(module: nn.Module, x: Tensor) -> int | None:
    by_module = macs_by_module(module, x)
    return None if by_module is None else sum(by_module.values())


def _counts(module: nn.Module, x: Tensor) -> dict[str, dict[str, int]] | None:
    """What fvcore counts, by submodule and operator; a submodule's are those of its parents too."""
    parameter = next(module.parameters(), None)
    x = x if parameter is None else x.to(parameter.device)
    with warnings.catch_warnings(), torch.no_grad():
        # see ``costs.count_macs``; and tracing warns of whatever a user's forward branches on
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(module, x)
        analysis.unsupported_ops_warnings(False)
        analysis.uncalled_modules_warnings(False)
        analysis.tracer_warnings("none")
        try:
            counts = analysis.by_module_and_operator()
            uncounted = analysis.unsupported_ops()
        except Exception:  # tracing runs a stranger's code, which may refuse in any way
            return None

    if any(word in name for name in uncounted for word in _HEAVY):
        return None
    return {
        module_name: {operator: int(num) for operator, num in by_operator.items()}
        for module_name, by_operator in counts.items()
    }
