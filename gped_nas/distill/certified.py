"""Certified training: what a student may lose in a box around each input, added to its loss.

Intervals are carried through the network, and the last layer is joined with the difference of two
logits, of which an upper bound ``u_yk`` of ``z_k - z_y`` comes out. With the teacher's
probabilities p, ``sum_y p_y log sum_k exp(u_yk)`` is no less than the cross-entropy anywhere in the
box, and equal to it where the box is a point. It is added to the loss at the inputs themselves.

Source: Gowal et al. 2018, arXiv:1810.12715, for intervals; De Palma, Bunel, Dvijotham, Kumar &
Stanforth 2024, arXiv:2305.13991, for the sum with a loss at inputs (MTL-IBP). The teacher's
probabilities in place of labels are ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gped_nas.errors import ConfigError
from gped_nas.models.activations import RELU
from gped_nas.models.base import FAMILIES, Family, Genotype, Params
from gped_nas.models.elementary import Activation, Affine, Dense, Elementary, MaxPool
from gped_nas.targets.base import Expectations

MONOTONE = (RELU, "tanh")
"""Activations that intervals go through end by end."""


@dataclass(frozen=True, eq=False)
class WorstLoss:
    """The bound of a student's loss in boxes.

    Attributes:
        family: of the student.
        reach: how far each number of a normalized input may move, of a shape that meets it.
        target: whose expectations are the teacher's probabilities.
        rows: which raw outputs are its logits.
    """

    family: Family
    reach: Tensor
    target: str
    rows: slice

    def __call__(self, params: Params, x: Tensor, expectations: Expectations) -> Tensor:
        """The mean over a batch of inputs (B, *input_shape), float32.

        Args:
            params: of the student; gradients flow to them.
            x: normalized inputs.
            expectations: what the teacher says there.
        """
        layers = self.family.layers(params)
        assert layers is not None, "other families are refused"
        upper_BCC = worst_differences(layers, x, self.reach.to(x), self.rows).float()
        lost_BC = upper_BCC.logsumexp(2)
        return (expectations[self.target] * lost_BC).sum(1).mean()


def worst_differences(
    layers: Sequence[Elementary], x: Tensor, reach: Tensor, rows: slice
) -> Tensor:
    """Upper bounds ``u_yk`` of ``z_k - z_y`` in a box around each input, (B, C, C).

    Args:
        layers: from normalized inputs to raw outputs; the last one is dense.
        x: inputs (B, *input_shape).
        reach: how far each number may move.
        rows: which raw outputs are the logits.
    """
    *hidden, last = layers
    assert isinstance(last, Dense), "other networks are refused"
    center, radius = x, reach.expand_as(x)
    for layer in hidden:
        if isinstance(layer, Affine):
            center, radius = layer.forward(center), layer.absolute().linear(radius)
        else:
            low, high = layer.forward(center - radius), layer.forward(center + radius)
            center, radius = (low + high) / 2, (high - low) / 2

    weight_CF, offset_C = last.weight[rows], last.offset[rows]
    weight_CCF = weight_CF[None] - weight_CF[:, None]
    middle_BCC = torch.einsum("bf,ykf->byk", center, weight_CCF) + (offset_C - offset_C[:, None])
    return middle_BCC + torch.einsum("bf,ykf->byk", radius, weight_CCF.abs())


def check_intervals(genotype: Genotype, input_shape: tuple[int, ...], where: str) -> None:
    """Refuse a student that no intervals go through.

    Args:
        genotype: of the student.
        input_shape: of a normalized input.
        where: file and key of the recipe, for messages.

    Raises:
        ConfigError: it is trained as another network than it is stored as, its family does not say
            its layers, or one is not monotone.
    """
    if genotype.form is not None:
        raise ConfigError(
            f"{where}.certify: found {genotype}, which is trained in other parameters than it is "
            "stored in: the bound would be of another network; take norm none, or leave certify "
            "out"
        )

    shapes = genotype.shapes(input_shape, 2)
    layers = FAMILIES[genotype.family].layers({name: torch.zeros(s) for name, s in shapes.items()})
    if layers is None or not isinstance(layers[-1], Dense):
        raise ConfigError(
            f"{where}.certify: found students of family {genotype.family}, which has no bounds; "
            "take mlp or cnn, or leave certify out"
        )
    for layer in layers:
        is_monotone = isinstance(layer, Activation) and layer.name in MONOTONE
        if not (is_monotone or isinstance(layer, Affine | MaxPool)):
            name = layer.name if isinstance(layer, Activation) else type(layer).__name__
            raise ConfigError(
                f"{where}.certify: found students with '{name}', which no intervals go through "
                f"here; expected {' or '.join(MONOTONE)}; take these, or leave certify out"
            )
