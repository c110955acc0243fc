"""Do two sets of networks come from one law? Energy distance, MMD and a permutation test of both.

With a likeness k of two networks, both are one number,

    mean k(x, x') + mean k(y, y') - 2 mean k(x, y)

The energy distance has k = -d, with d the distance of ``networks.distances``, and squared MMD has
k = exp(-d^2 / (2 b^2)). Of draws of a law a network is not compared with itself, so that the number
is 0 on average where the laws are the same, and may be negative; a set that is the law itself is
compared with itself, too.

The test draws permutations of the pooled networks and counts those whose number is at least the
seen one, the seen one included: p = (1 + count) / (1 + permutations). It is exact for networks that
could have been drawn in any order. Successive states of a chain cannot: beside the p-value of a
code stands that of two chains of one method.

Source: Szekely & Rizzo 2013, J. Stat. Plan. Inference 143 (energy); Gretton et al. 2012, JMLR 13,
equation 3 (MMD); Sejdinovic et al. 2013, arXiv:1207.6076 (both are one); Phipson & Smyth 2010,
Stat. Appl. Genet. Mol. Biol. 9 (the 1 that is added).
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gped_nas.errors import ConfigError, DataError
from gped_nas.evaluate.codecs.networks import Networks, distances

NUM_PERMUTATIONS = 999
_SLACK = 1e-9
"""Share of the largest likeness by which rounding may put a number below an equal one."""
_BLOCK = 2**22


@dataclass(frozen=True)
class Distance:
    """How far two sets are from each other as laws.

    Attributes:
        energy: energy distance, nats.
        mmd: squared maximum mean discrepancy, 0 to 2.
    """

    energy: float
    mmd: float


def law_distance(first: Networks, second: Networks, bandwidth: float) -> Distance:
    """Energy distance and squared MMD of two weighted sets of networks.

    Args:
        first, second: the sets, at the same inputs.
        bandwidth: b, nats.

    Raises:
        DataError: they were asked at other inputs; or a set of draws has a single one.
        ConfigError: the bandwidth is not positive.
    """
    check_bandwidth(bandwidth)
    across, inside_first, inside_second = (
        distances(first, second),
        distances(first, first),
        distances(second, second),
    )
    values = []
    for likeness in (_by_energy, lambda distance: _by_gauss(distance, bandwidth)):
        between = first.weight_S @ likeness(across) @ second.weight_S
        own = _mean_within(likeness(inside_first), first)
        own += _mean_within(likeness(inside_second), second)
        values.append(float(own - 2 * between))
    return Distance(*values)


def _by_energy(distance: Tensor) -> Tensor:
    return -distance


def _by_gauss(distance: Tensor, bandwidth: float) -> Tensor:
    return (-(distance.square()) / (2 * bandwidth**2)).exp()


def _mean_within(likeness_SS: Tensor, networks: Networks) -> Tensor:
    """The mean likeness of two networks of a set: of two different ones where they are draws."""
    weight_S = networks.weight_S
    if not networks.is_drawn:
        return weight_S @ likeness_SS @ weight_S

    same = float(weight_S.square().sum())
    if same >= 1 - 1e-12:
        raise DataError("networks: found one draw of a law, expected at least two")
    all_pairs = weight_S @ likeness_SS @ weight_S
    itself = (weight_S.square() * likeness_SS.diagonal()).sum()
    return (all_pairs - itself) / (1 - same)


def check_bandwidth(bandwidth: float) -> None:
    """Refuse a bandwidth that is none.

    Raises:
        ConfigError: it is not positive.
    """
    if not bandwidth > 0:
        raise ConfigError(f"bandwidth: found {bandwidth:g}, expected more than 0")


def median_distance(networks: Networks) -> float:
    """The median distance of two different networks of a set, nats: the usual bandwidth.

    Raises:
        DataError: there is one network alone, or all are the same.
    """
    pairs = torch.triu_indices(len(networks), len(networks), 1)
    if pairs.shape[1] == 0:
        raise DataError("networks: found one, expected at least two to know how far they are apart")
    median = float(distances(networks, networks)[pairs[0], pairs[1]].median())
    if median <= 0:
        raise DataError("networks: most are the same, so that there is no distance to compare with")
    return median


@dataclass(frozen=True)
class PermutationTest:
    """What a permutation test says.

    Attributes:
        value: the number of the two sets as they are.
        p_value: share of permutations, the sets as they are among them, with at least this number.
    """

    value: float
    p_value: float


@dataclass(frozen=True)
class TwoSampleTests:
    """Permutation tests of two sets by both numbers."""

    energy: PermutationTest
    mmd: PermutationTest


def two_sample_tests(
    first: Networks,
    second: Networks,
    bandwidth: float,
    *,
    generator: Generator,
    num_permutations: int = NUM_PERMUTATIONS,
) -> TwoSampleTests:
    """Test whether two sets of draws come from one law.

    Weights are not looked at: draw from a weighted set first.

    Args:
        first, second: draws, at the same inputs; two of each at least.
        bandwidth: of MMD, nats: fixed beforehand, not by these draws.
        generator: source of the permutations.
        num_permutations: R.

    Raises:
        DataError: they were asked at other inputs, or a set has a single draw.
        ConfigError: no permutations, or a bandwidth that is not positive.
    """
    check_bandwidth(bandwidth)
    if num_permutations < 1:
        raise ConfigError(f"permutations: found {num_permutations}, expected at least 1")
    if min(len(first), len(second)) < 2:
        raise DataError(
            f"networks: found sets of {len(first)} and {len(second)} draws, expected at least two "
            "of each"
        )
    first.check_like(second)

    both = Networks(
        torch.cat([first.log_prob_SMC, second.log_prob_SMC]),
        torch.ones(len(first) + len(second)),
        is_drawn=True,
    )
    distance = distances(both, both)
    orders = _orders(len(both), num_permutations, generator)

    return TwoSampleTests(
        permutation_test(_by_energy(distance), len(first), orders),
        permutation_test(_by_gauss(distance, bandwidth), len(first), orders),
    )


def _orders(num: int, num_permutations: int, generator: Generator) -> Tensor:
    """The networks as they are, then permuted: (1 + R, num) numbers of them."""
    drawn = [torch.randperm(num, generator=generator) for _ in range(num_permutations)]
    return torch.stack([torch.arange(num), *drawn])


def permutation_test(likeness: Tensor, num_first: int, orders: Tensor) -> PermutationTest:
    """The test by a likeness.

    Args:
        likeness: of each pair of pooled networks, symmetric, with one number on its diagonal.
        num_first: how many of an order are the first set.
        orders: permutations of the networks (1 + R, num), the first one as they are.
    """
    is_first = torch.zeros(orders.shape, dtype=torch.float64)
    is_first.scatter_(1, orders[:, :num_first], 1.0)

    # all pairs of a set, and of both, from two products a block of permutations
    off = likeness - torch.diag(likeness.diagonal())
    rows = max(1, _BLOCK // len(likeness))
    within, towards = [], []
    for block in torch.split(is_first, rows):
        sums = block @ off
        within.append((sums * block).sum(1))
        towards.append(sums.sum(1))
    inside_first, from_first = torch.cat(within), torch.cat(towards)

    num_second = len(likeness) - num_first
    across = from_first - inside_first
    inside_second = off.sum() - inside_first - 2 * across
    values = inside_first / (num_first * (num_first - 1))
    values = values + inside_second / (num_second * (num_second - 1))
    values = values - 2 * across / (num_first * num_second)

    seen = float(values[0])
    slack = _SLACK * float(likeness.abs().max())
    num_as_large = int((values >= seen - slack).sum())  # the seen one is among them
    return PermutationTest(seen, num_as_large / len(values))
