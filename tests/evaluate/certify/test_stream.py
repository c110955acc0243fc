"""Shares of stored samples, and the certificate of their average, on small ensembles."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.evaluate.certify.box import Box
from gped_nas.evaluate.certify.networks import CertifiableNetwork, margins
from gped_nas.evaluate.certify.stream import (
    SampleVerdicts,
    judge_samples,
    least_difference,
    probability_slack,
)
from gped_nas.models.elementary import Activation, Dense, run_layers

NUM, CLASSES = 12, 4


def networks(num: int, *, width: int = 10, scale: float = 1.0) -> list[CertifiableNetwork]:
    """Networks 6-10-4 that agree more or less: one, and others near it."""
    generator = rng.generator(0, "networks")

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).double()

    first, second = normal(width, 6), normal(CLASSES, width)
    made = []
    for _ in range(num):
        layers = (
            Dense(first + 0.3 * normal(width, 6), 0.1 * normal(width)),
            Activation("relu"),
            Dense(scale * (second + 0.3 * normal(CLASSES, width)), 0.1 * normal(CLASSES)),
        )
        made.append(CertifiableNetwork(layers, slice(0, CLASSES), CLASSES, (6,)))
    return made


def prob(network: CertifiableNetwork, x: Tensor) -> Tensor:
    return run_layers(network.layers, x.double()).softmax(-1)


def never(forward: object, index_M: Tensor) -> Tensor:
    return torch.zeros(len(index_M), dtype=torch.bool)


def inputs() -> Tensor:
    return torch.randn(NUM, 6, generator=rng.generator(0, "inputs")).double()


def answers(members: list[CertifiableNetwork], weight_S: Tensor, x: Tensor) -> Tensor:
    stacked = torch.stack([prob(member, x) for member in members])
    return torch.einsum("s,snc->nc", weight_S, stacked)


def judged(radius: float, members: list[CertifiableNetwork], weight_S: Tensor) -> SampleVerdicts:
    x = inputs()
    label_N = answers(members, weight_S, x).argmax(1)
    box = Box(x - radius, x + radius)
    samples = ((float(w), n, lambda raw: raw) for w, n in zip(weight_S, members, strict=True))
    return judge_samples(samples, box, label_N, never)


def weights(num: int) -> Tensor:
    weight_S = torch.rand(num, generator=rng.generator(0, "weights")).double() + 0.1
    return weight_S / weight_S.sum()


# ------------------------------------------------------------------------------------ the shares


def test_shares_are_sums_of_weights() -> None:
    margin_SNC = torch.tensor(
        [[[0.0, 1.0, 2.0], [0.5, 0.0, 0.1]], [[0.0, 1.0, -1.0], [0.5, 0.0, 1e-9]]]
    ).double()
    verdicts = SampleVerdicts(
        torch.tensor([0.3, 0.7]).double(),
        margin_SNC,
        torch.tensor([[False, False], [True, False]]),
        torch.tensor([0, 1]),
    )
    assert verdicts.is_certified_SN.tolist() == [[True, True], [False, True]]
    assert verdicts.certified_share_N.tolist() == pytest.approx([0.3, 1.0])
    assert verdicts.unbroken_share_N.tolist() == pytest.approx([0.3, 1.0])


def test_shares_are_exact() -> None:
    """Ten weights of a tenth are 1, of which a sum in turn is short by 1e-16."""
    weight_S = torch.full((10,), 0.1, dtype=torch.float64)
    margin_SNC = torch.tensor([[[0.0, 1.0]]]).double().expand(10, 1, 2)
    none_broken = torch.zeros(10, 1, dtype=torch.bool)
    verdicts = SampleVerdicts(weight_S, margin_SNC, none_broken, torch.tensor([0]))
    assert verdicts.certified_share_N.tolist() == [1.0]
    assert verdicts.unbroken_share_N.tolist() == [1.0]
    assert sum([0.1] * 10) != 1.0


def test_what_is_certified_is_not_attacked_and_the_rest_is() -> None:
    members, weight_S = networks(5), weights(5)
    asked: list[Tensor] = []

    def breaks(forward: object, index_M: Tensor) -> Tensor:
        asked.append(index_M)
        return index_M % 2 == 0

    x = inputs()
    label_N = answers(members, weight_S, x).argmax(1)
    samples = ((float(w), n, lambda raw: raw) for w, n in zip(weight_S, members, strict=True))
    verdicts = judge_samples(samples, Box(x - 0.1, x + 0.1), label_N, breaks)

    open_SN = ~verdicts.is_certified_SN
    assert [index.tolist() for index in asked] == [
        row.nonzero().squeeze(1).tolist() for row in open_SN if row.any()
    ]
    is_even = torch.arange(NUM) % 2 == 0
    assert torch.equal(verdicts.is_broken_SN, open_SN & is_even)
    assert (verdicts.certified_share_N <= verdicts.unbroken_share_N).all()
    assert 0 < verdicts.certified_share_N.mean() < verdicts.unbroken_share_N.mean() < 1


# ----------------------------------------------------------------------------------- the average


def difference_by_search(margin_C: Tensor, other: int) -> float:
    """The least p_y - p_k over margins that are these or larger, on a grid."""
    steps = torch.tensor([0.0, 0.1, 0.5, 1.0, 3.0, 30.0]).double()
    least = np.inf
    for raised in itertools.product(steps.tolist(), repeat=len(margin_C)):
        logits = -(margin_C + torch.tensor(raised).double())
        p = torch.cat([torch.zeros(1).double(), logits]).softmax(0)
        least = min(least, float(p[0] - p[1 + other]))
    return least


@pytest.mark.parametrize(
    "margins_of", [(1.0, 2.0, 0.3), (-0.5, 0.2, 1.0), (-1.0, -2.0, 3.0), (0.0, 0.0, 0.0)]
)
def test_the_difference_is_the_least_of_all_larger_margins(margins_of: tuple[float, ...]) -> None:
    margin_C = torch.tensor(margins_of).double()
    with_label = torch.cat([torch.tensor([torch.inf]).double(), margin_C])[None]
    bound_C = least_difference(with_label)[0, 1:]
    for other in range(3):
        least = difference_by_search(margin_C, other)
        assert bound_C[other] <= least + 1e-15
        if margin_C[other] >= 0:  # the grid holds where the least one is
            assert bound_C[other] == pytest.approx(least, abs=1e-12)
        else:  # it is where the others have gone
            assert bound_C[other] == pytest.approx(least, abs=1e-3)


def test_margins_that_are_not_known_prove_nothing() -> None:
    inf = torch.inf
    margin_NC = torch.tensor([[inf, -inf, 2.0], [inf, -inf, -inf], [inf, 1e4, 800.0]]).double()
    expected = [[1.0, -1.0, 0.0], [1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]
    assert least_difference(margin_NC)[:, 1:].tolist() == [row[1:] for row in expected]


def separate_bounds(verdicts: SampleVerdicts) -> tuple[Tensor, Tensor]:
    """How far p_y is above each p_k, and above 1/2, from bounds of each probability (papers')."""
    others = verdicts.margin_SNC.scatter(
        2, verdicts.label_N.expand(len(verdicts.weight_S), -1)[..., None], torch.inf
    )
    lower_SN = 1 / (1 + (-others).exp().sum(-1))
    upper_SNC = torch.sigmoid(-others)
    lower_N = torch.einsum("s,sn->n", verdicts.weight_S, lower_SN)
    upper_NC = torch.einsum("s,snc->nc", verdicts.weight_S, upper_SNC)
    return lower_N - upper_NC.amax(1), lower_N - 0.5


def test_pairs_prove_more_than_one_half() -> None:
    """16 networks: certified by pairs together, by pairs of separate bounds, by p_y > 1/2."""
    members, weight_S = networks(16), weights(16)
    together, separate, half = 0, 0, 0
    for radius in (0.05, 0.1, 0.15, 0.2, 0.3):
        verdicts = judged(radius, members, weight_S)
        lead_N = verdicts.served_lead_N()
        separate_N, half_N = separate_bounds(verdicts)
        slack = 2 * probability_slack(CLASSES)
        assert (lead_N >= separate_N - slack - 1e-12).all()
        assert ((half_N > 0) <= (separate_N > 0)).all()

        together += int((lead_N > 0).sum())
        separate += int((separate_N > slack).sum())
        half += int((half_N > 0).sum())
    assert together > separate > half > 0


@pytest.mark.parametrize("radius", [0.05, 0.15])
def test_no_input_of_a_box_breaks_a_certified_average(radius: float) -> None:
    members, weight_S = networks(6), weights(6)
    verdicts = judged(radius, members, weight_S)
    lead_N = verdicts.served_lead_N()
    assert (lead_N > 0).any() and (lead_N <= 0).any()

    generator = rng.generator(0, "points")
    x = inputs()
    for corner in (False, True):
        points = 2 * torch.rand(2000, NUM, 6, generator=generator).double() - 1
        points = x + radius * (points.sign() if corner else points)
        p_PNC = answers(members, weight_S, points.reshape(-1, 6)).view(2000, NUM, CLASSES)
        label_PN1 = verdicts.label_N.expand(2000, -1)[..., None]
        p_y = p_PNC.gather(2, label_PN1).squeeze(2)
        others = p_PNC.scatter(2, label_PN1, -1.0).amax(2)
        assert ((p_y - others).amin(0) >= lead_N).all()


def test_a_tie_is_not_certified_for_lack_of_slack() -> None:
    """A lead that float32 may lose is none."""
    weight_S = torch.ones(1).double()
    label_N = torch.tensor([0])
    none_broken = torch.zeros(1, 1, dtype=torch.bool)
    for lead, proves in ((1e-7, False), (1e-4, True)):
        margin_SNC = torch.tensor([[[0.0, lead]]]).double()
        verdicts = SampleVerdicts(weight_S, margin_SNC, none_broken, label_N)
        assert bool(verdicts.served_lead_N()[0] > 0) == proves


@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
def test_the_slack_holds_what_float32_does_to_probabilities(temperature: float) -> None:
    """Logits of all sizes, as samples answer: log-softmax, divided, normalized again, stored."""
    generator = rng.generator(0, "logits")
    size = 10 ** (4 * torch.rand(20_000, 1, generator=generator) - 1)
    logits = size * torch.randn(20_000, 10, generator=generator)
    served = logits.log_softmax(-1)
    served = (served.double() / temperature).log_softmax(-1).float().double().exp()
    exact = (logits.double() / temperature).softmax(-1)
    worst = float((served - exact).abs().max())
    assert 0.001 * probability_slack(10, temperature) < worst < probability_slack(10, temperature)


def test_the_served_average_is_asked_with_its_weights() -> None:
    """Two networks that disagree: the heavier one decides."""
    margin_SNC = torch.tensor([[[0.0, 3.0]], [[0.0, -3.0]]]).double()
    none_broken = torch.zeros(2, 1, dtype=torch.bool)
    for weight, proves in ((0.6, True), (0.4, False)):
        weight_S = torch.tensor([weight, 1 - weight]).double()
        verdicts = SampleVerdicts(weight_S, margin_SNC, none_broken, torch.tensor([0]))
        assert bool(verdicts.served_lead_N()[0] > 0) == proves


def test_a_temperature_changes_what_the_average_proves_and_no_share() -> None:
    """Hot samples are less sure, so that one that is wrong by far has less of a say."""
    margin_SNC = torch.tensor([[[0.0, 1.0]], [[0.0, 1.0]], [[0.0, -30.0]]]).double()
    weight_S, none_broken = weights(3) * 0 + 1 / 3, torch.zeros(3, 1, dtype=torch.bool)
    leads, shares = [], []
    for temperature in (0.1, 1.0):
        tempered = margin_SNC / temperature
        verdicts = SampleVerdicts(weight_S, tempered, none_broken, torch.tensor([0]))
        leads.append(bool(verdicts.served_lead_N(temperature)[0] > 0))
        shares.append(verdicts.certified_share_N[0])
    assert leads == [True, False]
    assert shares == pytest.approx([2 / 3, 2 / 3])


def iterate(members: list[CertifiableNetwork]) -> Iterator[tuple[float, CertifiableNetwork]]:
    for member in members:
        yield 1 / len(members), member


def test_margins_are_those_of_the_networks() -> None:
    members = networks(3)
    x = inputs()
    label_N = torch.zeros(NUM, dtype=torch.int64)
    samples = ((weight, network, lambda raw: raw) for weight, network in iterate(members))
    verdicts = judge_samples(samples, Box(x, x + 0.1), label_N, never, bounds="ibp")
    expected = torch.stack(
        [margins(network, x, x + 0.1, label_N, bounds="ibp") for network in members]
    )
    assert torch.equal(verdicts.margin_SNC, expected)
