"""Where the numbers of many equal networks lie, each rounded up to what a product on a GPU takes.

Parameters are a block a chain, layer by layer, weights before biases. Activations are a block of
rows for each chain's inputs, then for the units of each layer.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from gped_nas.distill.phases.tiles import DenseLayer
from gped_nas.models.base import Shapes
from gped_nas.models.dense import Chain

_ROUNDING = 16
_LIMIT = 2**31
"""Programs count numbers of a buffer in 32 bits."""


@dataclass(frozen=True, eq=False)
class ChainLayout:
    """Sizes and starts, for ``num_chains`` networks of these shapes.

    Attributes:
        num_chains: how many there are.
        sizes: of the inputs and of each layer's outputs, rounded up.
        num_inputs, num_outputs: as they are.
        num_params: of a chain, with what rounding adds.
        num_rows: of activations, all chains together.
        positions_W: where each number of a chain's flat parameters lies in its block.
    """

    num_chains: int
    sizes: tuple[int, ...]
    num_inputs: int
    num_outputs: int
    num_params: int
    num_rows: int
    positions_W: Tensor

    @classmethod
    def of(cls, shapes: Shapes, chain: Chain, num_chains: int) -> "ChainLayout":
        """The layout of networks that are chains of dense layers."""
        sizes = [round_up(shapes[chain[0][0]][1])]
        starts: dict[str, int] = {}
        strides: dict[str, int] = {}
        end = 0
        for weight, bias in chain:
            rows, columns = round_up(shapes[weight][0]), sizes[-1]
            starts[weight], strides[weight] = end, columns
            starts[bias], strides[bias] = end + rows * columns, 1
            end += rows * columns + rows
            sizes.append(rows)

        positions = []
        for name, shape in shapes.items():
            rows = shape[0]
            columns = prod(shape[1:])
            row, column = torch.arange(rows)[:, None], torch.arange(columns)
            positions.append((starts[name] + row * strides[name] + column).flatten())

        return cls(
            num_chains,
            tuple(sizes),
            num_inputs=shapes[chain[0][0]][1],
            num_outputs=shapes[chain[-1][0]][0],
            num_params=end,
            num_rows=num_chains * sum(sizes),
            positions_W=torch.cat(positions),
        )

    def fits(self, num_columns: int) -> bool:
        """Whether programs can count its numbers, with batches of so many columns."""
        params = self.num_chains * self.num_params
        return max(params, self.num_rows * num_columns) < _LIMIT

    def layers(self) -> list[list[DenseLayer]]:
        """Every layer of every chain."""
        chains = []
        for k in range(self.num_chains):
            start = k * self.num_params
            layers = []
            for i, (columns, rows) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
                bias = start + rows * columns
                layers.append(
                    DenseLayer(
                        rows, columns, start, bias, self._first_row(k, i), self._first_row(k, i + 1)
                    )
                )
                start = bias + rows
            chains.append(layers)
        return chains

    def _first_row(self, chain: int, number: int) -> int:
        """Of a chain's inputs, number 0, or of the outputs of a layer, counted from 1."""
        return self.num_chains * sum(self.sizes[:number]) + chain * self.sizes[number]

    def raw_outputs(self, activations: Tensor) -> Tensor:
        """The raw outputs' rows of a buffer of activations: its last ones."""
        return activations[self._first_row(0, len(self.sizes) - 1) :]

    def spread(self, values_KW: Tensor) -> Tensor:
        """Numbers of flat parameters (..., W) to blocks (..., num_params); -1 between them."""
        blocks = values_KW.new_full((*values_KW.shape[:-1], self.num_params), -1.0)
        blocks[..., self.positions_W.to(values_KW.device)] = values_KW
        return blocks


def round_up(size: int, to: int = _ROUNDING) -> int:
    """The next multiple."""
    return -(-size // to) * to
