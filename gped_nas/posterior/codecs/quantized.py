"""All of the samples, in 8 or 4 bits a weight.

A weight matrix w (outputs, ...) of a sample is stored as whole numbers n and one scale a row, or
one for all of it:

    n = round((w - c) / scale),   scale = max |w - c| / 127,   or / 7 in 4 bits

where c is 0 or, with ``around: mean``, the mean of the sample's chain there, which is stored once a
chain; samples of one chain differ from it less than they differ from 0, so that steps are finer.
Two numbers of 4 bits are one byte. Biases stay float32, as in students' files: they are few and
enter every output. Weights of samples stay what they are.

Choose it first: in 8 bits it keeps every sample, its chain and its order, in a quarter of the
bytes. It costs nothing to fit, and takes about W bytes a sample, or W / 2.
Its bias: rounding, half a step at most in every weight.

Source: symmetric rounding by row, Jacob et al. 2018, arXiv:1712.05877, section 2.1 with zero point
0.
"""

from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from gped_nas.models.base import Shapes
from gped_nas.posterior.base import Problem
from gped_nas.posterior.codecs.base import (
    Code,
    FiniteCodec,
    FiniteConfig,
    chains_read,
    known_count,
    register,
)

_LEVELS = {8: 127, 4: 7}
"""Bits to the largest whole number that is stored."""


class QuantizedConfig(FiniteConfig):
    """Settings of ``quantized``."""

    bits: Literal[8, 4] = Field(default=8, description="of a weight")
    scales: Literal["row", "tensor"] = Field(
        default="row", description="one scale an output unit of a matrix, or one a matrix"
    )
    around: Literal["zero", "mean"] = Field(
        default="zero", description="what is rounded: weights, or how far they are from the mean"
    )

    def count(self, shapes: Shapes) -> int:
        """See ``MethodConfig.count``."""
        return self.of.count(shapes)

    @property
    def num_known(self) -> int | None:
        """See ``CodecConfig.num_known``."""
        return known_count(self.of)


@dataclass(frozen=True, eq=False)
class Layout:
    """Where weights of matrices lie in flat parameters, and where all others do.

    Attributes:
        matrix_W: places of weights that are rounded.
        row_W: which scale each of them has.
        rest_W: places of all others.
    """

    matrix_W: Tensor
    row_W: Tensor
    rest_W: Tensor

    @property
    def num_rows(self) -> int:
        """Scales of a sample."""
        return int(self.row_W[-1]) + 1 if len(self.row_W) else 0


def layout_of(shapes: Shapes, scales: str) -> Layout:
    """The layout of parameters of these shapes.

    Args:
        shapes: by name, in the order in which they lie flat.
        scales: see ``QuantizedConfig``.
    """
    is_matrix: list[Tensor] = []
    rows: list[Tensor] = []
    num_rows = 0
    for shape in shapes.values():
        size = prod(shape)
        is_matrix.append(torch.full((size,), len(shape) > 1))
        if len(shape) > 1:
            here = shape[0] if scales == "row" else 1
            rows.append(torch.arange(num_rows, num_rows + here).repeat_interleave(size // here))
            num_rows += here

    is_matrix_W = torch.cat(is_matrix)
    return Layout(
        matrix_W=is_matrix_W.nonzero().squeeze(1),
        row_W=torch.cat([*rows, torch.empty(0, dtype=torch.int64)]),
        rest_W=(~is_matrix_W).nonzero().squeeze(1),
    )


def pack(steps_SW: Tensor) -> Tensor:
    """Whole numbers from -7 to 7 as bytes (S, (W + 1) / 2), the first of two in the lower half."""
    nibbles = (steps_SW + 8).to(torch.uint8)
    if nibbles.shape[1] % 2:
        nibbles = torch.cat([nibbles, nibbles.new_full((len(nibbles), 1), 8)], 1)
    return nibbles[:, 0::2] | (nibbles[:, 1::2] << 4)


def unpack(packed: Tensor, num: int) -> Tensor:
    """The ``num`` whole numbers of each row that ``pack`` made bytes of, int8."""
    halves = torch.stack([packed & 15, packed >> 4], -1).flatten(1)
    return halves[:, :num].to(torch.int8) - 8


class Quantized(FiniteCodec):
    """See the module docstring."""

    name = "quantized"

    def settings(self, cfg: QuantizedConfig) -> dict[str, Any]:
        """See ``Codec.settings``."""
        return {"bits": cfg.bits, "scales": cfg.scales}

    def fit(
        self, problem: Problem, cfg: QuantizedConfig, *, generator: Generator
    ) -> dict[str, Tensor]:
        """See ``Codec.fit``."""
        chains = chains_read(problem, cfg)
        layout = layout_of(problem.shapes, cfg.scales)
        num = sum(len(chain.weight_S) for chain in chains)
        stored = {
            "steps": torch.empty(num, len(layout.matrix_W), dtype=torch.int8),
            "scale": torch.empty(num, layout.num_rows),
            "rest": torch.empty(num, len(layout.rest_W)),
            "weight": torch.empty(num, dtype=torch.float64),
        }
        means = []
        for number, chain in enumerate(chains):
            # sample s is of chain s mod K, as where it was read
            rows = slice(number, None, len(chains))
            matrix_SW = chain.theta_SW[:, layout.matrix_W]
            if cfg.around == "mean":
                means.append((chain.share_S @ matrix_SW.double()).float())
                matrix_SW = matrix_SW - means[-1]
            scale = _scales(matrix_SW, layout, _LEVELS[cfg.bits])
            stored["steps"][rows] = (matrix_SW / scale[:, layout.row_W]).round().to(torch.int8)
            stored["scale"][rows] = scale
            stored["rest"][rows] = chain.theta_SW[:, layout.rest_W]
            stored["weight"][rows] = chain.weight_S

        if cfg.bits == 4:
            stored["steps"] = pack(stored["steps"])
        if means:
            stored["mean"] = torch.stack(means)
        return stored

    def theta(self, code: Code, index: int) -> Tensor:
        """See ``FiniteCodec.theta``."""
        layout = layout_of(code.shapes, code.settings["scales"])
        steps_1W = code.tensors["steps"][index : index + 1]
        if code.settings["bits"] == 4:
            steps_1W = unpack(steps_1W, len(layout.matrix_W))

        matrix_W = steps_1W[0] * code.tensors["scale"][index, layout.row_W]
        if "mean" in code.tensors:
            mean_KW = code.tensors["mean"]
            matrix_W = matrix_W + mean_KW[index % len(mean_KW)]
        theta_W = torch.empty(len(layout.matrix_W) + len(layout.rest_W))
        theta_W[layout.matrix_W] = matrix_W
        theta_W[layout.rest_W] = code.tensors["rest"][index]
        return theta_W


def _scales(matrix_SW: Tensor, layout: Layout, levels: int) -> Tensor:
    """The scale (S, R) of each row of each sample: its largest number is the last level."""
    index_SW = layout.row_W.expand(len(matrix_SW), -1)
    largest = matrix_SW.new_zeros(len(matrix_SW), layout.num_rows)
    largest = largest.scatter_reduce(1, index_SW, matrix_SW.abs(), "amax")
    # the scale of a row of zeros must not be zero
    return largest.clamp_min(torch.finfo(torch.float32).tiny * levels) / levels


register(Quantized(), QuantizedConfig, example={})
