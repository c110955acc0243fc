"""The weighted average of networks as boxes are asked about it: the prediction that is served.

Of classes an atom is ``p_i - p_k`` of averaged probabilities: the mean over networks of what is
least of each, see ``stream.least_difference``. Of real labels the average is a mixture of normal
distributions: its mean is the mean of means, and its variance is the mean of variances plus the
variance of means, which is at most their mean squared distance from any one number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gped_nas.data.normalization import Normalization
from gped_nas.evaluate.certify.asked import AskedNetwork, Ends
from gped_nas.evaluate.certify.bounds import lower_bound
from gped_nas.evaluate.certify.region import Lead, Region
from gped_nas.evaluate.certify.stream import least_difference, probability_slack


@dataclass(frozen=True, eq=False)
class AskedAverage:
    """Networks whose predictions are averaged.

    Attributes:
        members: their weights, which sum to 1, and the networks.
        temperature: that their logits are divided by.
    """

    members: Sequence[tuple[float, AskedNetwork]]
    temperature: float = 1.0

    @property
    def unit(self) -> Normalization | None:
        """See ``Asked.unit``."""
        return self.members[0][1].unit

    def answers(self, x: Tensor) -> Tensor:
        """See ``Asked.answers``; float64."""
        answers = [(weight, each.answers(x)) for weight, each in self.members]
        if self.unit is None:
            joint = [math.log(weight) + log_prob for weight, log_prob in answers]
            return torch.stack(joint).logsumexp(0)

        moments = []
        for weight, normal in answers:
            mean, variance = normal.unbind(1)
            moments.append(weight * torch.stack([mean, variance + mean.square()], 1))
        mean, second_moment = torch.stack(moments).sum(0).unbind(1)
        return torch.stack([mean, second_moment - mean.square()], 1)

    def leads(self, region: Region, low: Tensor, high: Tensor) -> Tensor:
        """See ``Asked.leads``: differences of averaged probabilities."""
        atoms = [atom for atom in region.atoms if isinstance(atom, Lead)]
        winners = sorted({atom.winner for atom in atoms})
        num_classes = self.members[0][1].network.num_classes

        least = low.new_zeros((len(low), len(winners), num_classes))
        for weight, each in self.members:
            forms = _margins(each, winners)
            margins = lower_bound(each.network.layers, low, high, forms, bounds=each.procedure)
            margins = margins.view(least.shape)
            for place, winner in enumerate(winners):
                margins[:, place, winner] = torch.inf
                least[:, place] += weight * least_difference(margins[:, place])

        slack = 2 * probability_slack(num_classes, self.temperature)
        columns = [least[:, winners.index(atom.winner), atom.other] for atom in atoms]
        return torch.stack(columns, 1) - slack

    def quantities(self, low: Tensor, high: Tensor) -> Ends:
        """See ``Asked.quantities``."""
        ends = [(weight, *each.quantities(low, high)) for weight, each in self.members]
        lower = _averaged([(weight, lowers) for weight, lowers, _ in ends])
        upper = _averaged([(weight, uppers) for weight, _, uppers in ends])

        # what is averaged is the variance, and the distance of means comes to it
        center = (lower[:, 0] + upper[:, 0]) / 2
        least, most = torch.zeros_like(center), torch.zeros_like(center)
        for weight, lowers, uppers in ends:
            distance = torch.maximum((lowers[:, 0] - center).abs(), (uppers[:, 0] - center).abs())
            least = least + weight * lowers[:, 1].square()
            most = most + weight * (uppers[:, 1].square() + distance.square())
        lower = torch.stack([lower[:, 0], least.sqrt()], 1)
        upper = torch.stack([upper[:, 0], most.sqrt()], 1)
        return lower - _rounded(lower), upper + _rounded(upper)


def _margins(each: AskedNetwork, winners: Sequence[int]) -> Tensor:
    """A row over the raw outputs for each winner and class: its logit less the class's."""
    network = each.network
    columns = range(network.num_outputs)[network.rows]
    forms = torch.zeros((len(winners), len(columns), network.num_outputs), dtype=torch.float64)
    for rows, winner in zip(forms, winners, strict=True):
        rows[:, columns[winner]] += 1
        for row, column in zip(rows, columns, strict=True):
            row[column] -= 1
    return forms.flatten(0, 1)


def _averaged(weighted: Sequence[tuple[float, Tensor]]) -> Tensor:
    return torch.stack([weight * ends for weight, ends in weighted]).sum(0)


def _rounded(ends: Tensor) -> Tensor:
    """What float64 may lose of a sum of many such numbers."""
    return 1e-12 * ends.abs()
