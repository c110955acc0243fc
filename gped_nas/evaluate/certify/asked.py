"""Networks as boxes are asked about: bounds and values of the atoms of a region, side by side."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gped_nas.data.normalization import Normalization
from gped_nas.evaluate.certify.bounds import Bounds as Procedure
from gped_nas.evaluate.certify.bounds import bound, lower_bound
from gped_nas.evaluate.certify.networks import CertifiableNetwork
from gped_nas.evaluate.certify.region import (
    QUANTITIES,
    Lead,
    Limit,
    Quantity,
    Region,
    quantity_of,
    values_of_answers,
)
from gped_nas.evaluate.certify.rounding import FLOAT32
from gped_nas.evaluate.certify.splitting import Bounds, Values
from gped_nas.evaluate.conditions import Forward

_ROUNDED = 2.0**-21
"""What float32 may lose of a number in the label's own unit, as a share of its terms: 8 times its
unit roundoff, for a product, a sum, an exponential and a root."""


Ends = tuple[Tensor, Tensor]
"""Lower and upper bounds."""


class Asked(Protocol):
    """Who is asked about boxes: a network, or an average of several."""

    @property
    def unit(self) -> Normalization | None:
        """Of real labels; None for classes."""

    def answers(self, x: Tensor) -> Tensor:
        """What is served at inputs, (B, G): log-probabilities, or mean and variance."""

    def leads(self, region: Region, low: Tensor, high: Tensor) -> Tensor:
        """Of classes: lower bounds (B, R) of a region's atoms over boxes."""

    def quantities(self, low: Tensor, high: Tensor) -> Ends:
        """Of real labels: bounds of mean and deviation (B, 2) over boxes, in the own unit."""


def bounds_of(asked: Asked, region: Region) -> Bounds:
    """Lower bounds of a region's atoms over boxes."""
    if asked.unit is None:
        return lambda low, high: asked.leads(region, low, high)

    def of_limits(low: Tensor, high: Tensor) -> Tensor:
        lower, upper = asked.quantities(low, high)
        rows = []
        for atom in region.atoms:
            assert isinstance(atom, Limit), "labels are real"
            place = QUANTITIES.index(atom.quantity)
            # a limit from below is safe by the lower bound, one from above by the upper one
            rows.append(atom.of((lower if atom.sign == 1 else upper)[:, place]))
        return torch.stack(rows, 1)

    return of_limits


def values_of(asked: Asked, region: Region) -> Values:
    """A region's atoms at inputs, of what is answered there."""
    return lambda x: values_of_answers(region, asked.answers(x), asked.unit)


def quantity_bounds(asked: Asked, quantity: Quantity) -> Bounds:
    """Lower bounds of a quantity of a real label and of its negative over boxes."""
    place = QUANTITIES.index(quantity)

    def bounds(low: Tensor, high: Tensor) -> Tensor:
        lower, upper = asked.quantities(low, high)
        return torch.stack([lower[:, place], -upper[:, place]], 1)

    return bounds


def quantity_values(asked: Asked, quantity: Quantity) -> Values:
    """A quantity of a real label and its negative at inputs."""

    def values(x: Tensor) -> Tensor:
        assert asked.unit is not None, "labels are real"
        value = quantity_of(quantity, asked.answers(x), asked.unit)
        return torch.stack([value, -value], 1)

    return values


@dataclass(frozen=True, eq=False)
class Noise:
    """How the standard deviation of a real label is said.

    Attributes:
        std: in the label's own unit, of a raw output that it rises with.
        raw: that number, where it is the same at all inputs; None where it is the output behind the
            mean.
    """

    std: Callable[[Tensor], Tensor]
    raw: float | None = None


@dataclass(frozen=True, eq=False)
class AskedNetwork:
    """One network.

    Attributes:
        network: as layers.
        forward: raw inputs to what it predicts, as answers are made with it.
        unit: of real labels; None for classes.
        noise: of real labels.
        procedure: how bounds are made.
    """

    network: CertifiableNetwork
    forward: Forward
    unit: Normalization | None = None
    noise: Noise | None = None
    procedure: Procedure = "crown"

    def answers(self, x: Tensor) -> Tensor:
        """See ``Asked.answers``; float64."""
        return self.forward(x).cpu().double()

    def leads(self, region: Region, low: Tensor, high: Tensor) -> Tensor:
        """See ``Asked.leads``: differences of logits, which are above 0 after a softmax, too."""
        forms = self._leads(region)
        lower = lower_bound(self.network.layers, low, high, forms, bounds=self.procedure)
        return lower - FLOAT32.least_lead(self.network.num_classes)

    def quantities(self, low: Tensor, high: Tensor) -> Ends:
        """See ``Asked.quantities``."""
        assert self.unit is not None and self.noise is not None, "labels are real"
        is_output = self.noise.raw is None
        first = range(self.network.num_outputs)[self.network.rows][0]
        forms = torch.zeros((1 + is_output, self.network.num_outputs), dtype=torch.float64)
        for place, row in enumerate(forms):
            row[first + place] = 1

        lower, upper = bound(self.network.layers, low, high, forms, bounds=self.procedure)
        if not is_output:
            raw = lower.new_full((len(lower), 1), self.noise.raw or 0.0)
            lower, upper = torch.cat([lower, raw], 1), torch.cat([upper, raw], 1)
        return self._in_own_unit(lower, -1), self._in_own_unit(upper, 1)

    def _leads(self, region: Region) -> Tensor:
        """A row an atom over the raw outputs, (R, U)."""
        columns = range(self.network.num_outputs)[self.network.rows]
        forms = torch.zeros((len(region.atoms), self.network.num_outputs), dtype=torch.float64)
        for row, atom in zip(forms, region.atoms, strict=True):
            assert isinstance(atom, Lead), "labels are classes"
            row[columns[atom.winner]] += 1
            row[columns[atom.other]] -= 1
        return forms

    def _in_own_unit(self, raw_B2: Tensor, outward: int) -> Tensor:
        """Ends of intervals in the label's own unit, a little further out than they are."""
        assert self.unit is not None and self.noise is not None, "labels are real"
        raw_mean, raw_noise = raw_B2.unbind(1)
        mean = raw_mean * self.unit.std + self.unit.mean
        mean_size = raw_mean.abs() * self.unit.std + abs(self.unit.mean)
        std = self.noise.std(raw_noise)
        ends = torch.stack([mean, std], 1)
        sizes = torch.stack([mean_size, std], 1)
        return ends + outward * _ROUNDED * sizes


def noise_of_student(unit: Normalization) -> Noise:
    """How a student says a standard deviation: the output behind the mean is the log-variance."""
    return Noise(lambda log_variance: (0.5 * log_variance).exp() * unit.std)
