"""Batch norm of imported networks, folded into the layers whose outputs it normalizes.

In evaluation a batch norm is an affine map of each unit, so that ``weight`` and ``bias`` of the
layer before it can take it up exactly:

    scale = gamma / sqrt(running_var + eps)
    weight' = scale * weight,   bias' = scale * (bias - running_mean) + beta

Which layer that is, is read from the names, and not guessed: the layer with the next lower number
in a sequence (``0`` and ``1``), or the one of the same number (``conv1`` and ``bn1``). Between
``0`` and ``2`` something without weights may lie, such as a ReLU, and then folding would be wrong.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gped_nas.errors import DataError
from gped_nas.models.base import Params

_MEAN, _VAR, _COUNT = "running_mean", "running_var", "num_batches_tracked"
_NUMBERED = re.compile(r"^(?P<parent>(?:.*\.)?)(?P<text>[^.]*?)(?P<number>\d{1,9})$")
_LEAST = 1e-12
"""Below this a variance is none: a running variance is not negative but for rounding."""


def fold_batch_norms(params: Params, eps: float, path: Path) -> Params:
    """The parameters of a network without batch norm that computes the same.

    Args:
        params: of one network, by the names of its state dict.
        eps: what each batch norm adds to its variances.
        path: the file, for messages.

    Raises:
        DataError: it cannot be told which layer's outputs a batch norm normalizes, or its
            statistics are none.
    """
    norms = sorted({_layer(name) for name in params if name.endswith(f".{_MEAN}")})
    if not norms:
        return params

    folded = dict(params)
    for norm in norms:
        layer = _layer_before(norm, params, norms, path)
        weight = folded[f"{layer}.weight"]
        scale, shift = _affine(norm, params, eps, len(weight), path)
        bias = folded.get(f"{layer}.bias", weight.new_zeros(len(weight)))

        folded[f"{layer}.weight"] = weight * scale.view(-1, *[1] * (weight.dim() - 1))
        folded[f"{layer}.bias"] = bias * scale + shift
        for kind in ("weight", "bias", _MEAN, _VAR, _COUNT):
            folded.pop(f"{norm}.{kind}", None)
    return folded


def _affine(
    norm: str, params: Params, eps: float, num_units: int, path: Path
) -> tuple[Tensor, Tensor]:
    """Scale and shift (units,) of a batch norm in evaluation.

    Raises:
        DataError: a tensor is missing or of another size, or a variance is negative.
    """
    found = {kind: params.get(f"{norm}.{kind}") for kind in ("weight", "bias", _MEAN, _VAR)}
    mean, var = found[_MEAN], found[_VAR]
    sizes = {kind: len(value) for kind, value in found.items() if value is not None}
    if mean is None or var is None or set(sizes.values()) != {num_units}:
        raise DataError(
            f"{path}: {norm}: found a batch norm with {sizes}, expected {num_units} numbers of "
            f"{_MEAN} and {_VAR}, as many as the layer before it has outputs"
        )
    if bool((var + eps <= _LEAST).any()):
        raise DataError(
            f"{path}: {norm}.{_VAR}: found {float(var.min()):.3g}, expected variances that are not "
            "negative; train the network, or set teacher.method.batch_norm_eps"
        )

    gamma = torch.ones_like(mean) if found["weight"] is None else found["weight"]
    beta = torch.zeros_like(mean) if found["bias"] is None else found["bias"]
    # in float64, as is the square root: the product of both is rounded once
    scale = (gamma.double() / (var.double() + eps).sqrt()).float()
    return scale, beta - mean * scale


def _layer_before(norm: str, params: Mapping[str, Tensor], norms: list[str], path: Path) -> str:
    """The layer whose outputs a batch norm normalizes.

    Raises:
        DataError: the names do not say.
    """
    layers = {
        _layer(name)
        for name, value in params.items()
        if name.endswith(".weight") and value.dim() >= 2
    }
    parts = _NUMBERED.match(norm)
    if parts is not None:
        parent, text, number = parts["parent"], parts["text"], int(parts["number"])
        if not text:
            before = f"{parent}{number - 1}"
            if before in layers:
                return before
        else:
            same_number = [
                layer
                for layer in layers
                if (other := _NUMBERED.match(layer)) is not None
                and other["parent"] == parent
                and int(other["number"]) == number
            ]
            if len(same_number) == 1 and _is_only_norm(norm, number, norms):
                return same_number[0]

    raise DataError(
        f"{path}: {norm}: a batch norm, and its name does not say that it stands right behind a "
        "layer with weights, expected names such as 0 and 1, or conv1 and bn1; fold it with "
        "torch.nn.utils.fusion.fuse_conv_bn_eval before saving, or bring the ensemble's predictions"
    )


def _is_only_norm(norm: str, number: int, norms: list[str]) -> bool:
    """Whether no other batch norm beside it has its number."""
    parent = norm.rpartition(".")[0]
    beside = [other for other in norms if other.rpartition(".")[0] == parent]
    return sum(re.search(rf"\D{number}$", f".{other}") is not None for other in beside) == 1


def _layer(name: str) -> str:
    return name.rpartition(".")[0]
