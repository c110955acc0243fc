"""Masses of last layers: never above the share of draws that hold, and exact where they can be."""

import math

import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from gped_nas import rng
from gped_nas.errors import ConfigError
from gped_nas.evaluate.certify.box import Box
from gped_nas.evaluate.certify.last_layer import LastLayerLaw, log10_certified
from gped_nas.evaluate.certify.networks import CertifiableNetwork
from gped_nas.models.elementary import Activation, Dense, Elementary, Scaling, run_layers

INPUTS, HIDDEN, NUM = 4, 6, 8


def law_of(classes: int, *, spread: float, temperature: float = 1.0) -> LastLayerLaw:
    """A network 4-6-C, whose last layer has correlated parameters."""
    generator = rng.generator(0, "law", classes)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).double()

    layers: list[Elementary] = [
        Dense(normal(HIDDEN, INPUTS), normal(HIDDEN)),
        Activation("relu"),
        Dense(normal(classes, HIDDEN), normal(classes)),
    ]
    if temperature != 1:
        layers.append(Scaling(torch.tensor(1 / temperature).double(), torch.zeros(()).double()))
    network = CertifiableNetwork(tuple(layers), slice(0, classes), classes, (INPUTS,))
    num = classes * (HIDDEN + 1)
    factor = spread * (normal(num, num) / num**0.5 + torch.eye(num))
    return LastLayerLaw(network, factor.view(classes, HIDDEN + 1, num))


def inputs() -> Tensor:
    return torch.randn(NUM, INPUTS, generator=rng.generator(0, "inputs")).double()


def answers_of(law: LastLayerLaw, x: Tensor) -> Tensor:
    return run_layers(law.network.layers, x).argmax(1)


def draws_of(law: LastLayerLaw, num: int) -> Tensor:
    """Parameters (num, C, H + 1) of the last layer."""
    noise = torch.randn(num, law.factor.shape[2], generator=rng.generator(0, "draws")).double()
    mean = torch.cat([law.last.weight, law.last.offset[:, None]], 1)
    return mean + torch.einsum("cfm,nm->ncf", law.factor, noise)


def share_that_holds(law: LastLayerLaw, box: Box, label_N: Tensor, num: int = 4000) -> Tensor:
    """The share of draws (N,) that answer rightly at corners and middles: an upper bound."""
    draws = draws_of(law, num)
    holds = torch.ones(num, NUM, dtype=torch.bool)
    generator = rng.generator(0, "corners")
    for _ in range(24):
        is_high = torch.rand(box.low.shape, generator=generator) < 0.5
        hidden = run_layers(law.features, torch.where(is_high, box.high, box.low))
        features = torch.cat([hidden, torch.ones(NUM, 1).double()], 1)
        holds &= torch.einsum("dcf,nf->dnc", draws, features).argmax(2) == label_N
    return holds.double().mean(0)


@pytest.mark.parametrize("spread", [0.05, 0.2])
@pytest.mark.parametrize("radius", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_no_more_mass_is_certified_than_draws_hold(
    classes: int, radius: float, spread: float
) -> None:
    law, x = law_of(classes, spread=spread), inputs()
    label_N = answers_of(law, x)
    box = Box(x - radius, x + radius)
    mass_N = 10 ** log10_certified(law, box, label_N)
    share_N = share_that_holds(law, box, label_N)
    error_N = (share_N * (1 - share_N) / 4000).sqrt() + 1 / 4000
    assert (mass_N <= share_N + 4 * error_N).all()
    if radius < 0.1 and spread < 0.1:
        assert mass_N.max() > 0.9 and mass_N.mean() > 0.5 * share_N.mean()


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_of_two_classes_at_a_point_the_mass_is_a_half_spaces(temperature: float) -> None:
    """The margin is normal: above 0 with probability Phi(mean / deviation), at any temperature."""
    law, x = law_of(2, spread=0.3, temperature=temperature), inputs()
    label_N = answers_of(law, x)
    mass_N = 10 ** log10_certified(law, Box(x, x), label_N)

    plain = law_of(2, spread=0.3)
    features = torch.cat([run_layers(plain.features, x), torch.ones(NUM, 1).double()], 1)
    mean = torch.cat([plain.last.weight, plain.last.offset[:, None]], 1)
    sign_N = torch.where(label_N == 0, 1.0, -1.0)
    lead_N = sign_N * (features @ (mean[0] - mean[1]))
    deviation_N = torch.einsum("nf,fm->nm", features, plain.factor[0] - plain.factor[1]).norm(dim=1)
    exact_N = torch.from_numpy(norm.cdf((lead_N / deviation_N).numpy()))
    assert (mass_N <= exact_N).all()
    assert (mass_N > 0.9995 * exact_N).all()


def test_a_mode_that_is_wrong_certifies_nothing() -> None:
    law, x = law_of(3, spread=0.05), inputs()
    wrong_N = (answers_of(law, x) + 1) % 3
    assert (log10_certified(law, Box(x, x), wrong_N) == -math.inf).all()


def test_a_wider_box_and_a_wider_law_certify_less() -> None:
    x = inputs()
    label_N = answers_of(law_of(3, spread=0.1), x)
    certified = []
    for radius, spread in ((0.0, 0.1), (0.05, 0.1), (0.05, 0.3)):
        law = law_of(3, spread=spread)
        certified.append(10 ** log10_certified(law, Box(x - radius, x + radius), label_N))
    assert certified[0].mean() > certified[1].mean() > certified[2].mean()
    assert (certified[0] >= certified[1] * (1 - 1e-9)).all()


def test_fewer_parameters_than_classes_have_no_box() -> None:
    law = law_of(3, spread=0.1)
    narrow = LastLayerLaw(law.network, law.factor[:, :, :1])
    x = inputs()
    with pytest.raises(ConfigError, match="found a last layer of 1 parameters and 3 classes"):
        log10_certified(narrow, Box(x, x), answers_of(law, x))


@pytest.mark.parametrize("place", [0, 3])
def test_features_that_vary_cost_mass(place: int) -> None:
    """A margin 1 + t x with x in [-1, 1] holds for all x where |t| < 1: .683 of the law.

    In the box's middle no parameter matters.
    """
    identity = Scaling(torch.ones(()).double(), torch.zeros(()).double())
    last = Dense(torch.zeros(2, 1).double(), torch.tensor([1.0, 0.0]).double())
    network = CertifiableNetwork((identity, last), slice(0, 2), 2, (1,))
    factor = torch.zeros(2, 2, 4).double()
    factor[0, 0, place] = 1.0
    law, label_N = LastLayerLaw(network, factor), torch.tensor([0])

    one = torch.ones(1, 1).double()
    mass = 10 ** float(log10_certified(law, Box(-one, one), label_N))
    assert mass <= norm.cdf(1) - norm.cdf(-1)
    assert 10 ** float(log10_certified(law, Box(-0.1 * one, 0.1 * one), label_N)) > 0.99
