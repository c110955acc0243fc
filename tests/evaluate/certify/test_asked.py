"""Networks and averages that are asked about boxes: bounds against 10,000 inputs of each."""

from dataclasses import dataclass

import pytest
import torch
from torch import Generator, Tensor

from gped_nas.data.normalization import Normalization
from gped_nas.evaluate.certify.asked import (
    Asked,
    AskedNetwork,
    Noise,
    bounds_of,
    noise_of_student,
    quantity_bounds,
    quantity_values,
    values_of,
)
from gped_nas.evaluate.certify.asked_average import AskedAverage
from gped_nas.evaluate.certify.networks import CertifiableNetwork
from gped_nas.evaluate.certify.region import parse_region
from gped_nas.evaluate.certify.splitting import Boxes, enclose, judge_boxes
from gped_nas.models.elementary import Activation, Dense, run_layers

CLASSES = ("a", "b", "c", "d")
UNIT = Normalization(mean=900.0, std=2.0)
LOW, HIGH = torch.tensor([[-0.6, 0.1, -1.0]]).double(), torch.tensor([[0.4, 0.7, -0.2]]).double()


@dataclass
class Drawn:
    """A small network with random weights, whose head stands behind another output."""

    seed: int
    num_outputs: int

    def __post_init__(self) -> None:
        generator = Generator().manual_seed(self.seed)
        self.layers = []
        for inputs, outputs in ((3, 8), (8, 1 + self.num_outputs)):
            weight = torch.randn((outputs, inputs), generator=generator)
            offset = torch.randn(outputs, generator=generator)
            self.layers.append(Dense(weight, 0.5 * offset))

    def raw(self, x: Tensor) -> Tensor:
        """Raw outputs in float32, as they are served."""
        first, last = self.layers
        return run_layers([first, Activation("relu"), last], x.float())

    @property
    def network(self) -> CertifiableNetwork:
        """The same as layers."""
        exact = [Dense(each.weight.double(), each.offset.double()) for each in self.layers]
        layers = (exact[0], Activation("relu"), exact[1])
        return CertifiableNetwork(layers, slice(1, None), 1 + self.num_outputs, (3,))

    def classes(self) -> AskedNetwork:
        """As a classifier."""
        return AskedNetwork(self.network, lambda x: self.raw(x)[:, 1:].log_softmax(-1))

    def label(self) -> AskedNetwork:
        """As a network of a real label whose second output is the log-variance."""

        def forward(x: Tensor) -> Tensor:
            mean, log_variance = self.raw(x)[:, 1:].unbind(1)
            return torch.stack([mean, log_variance.exp()], 1)

        return AskedNetwork(self.network, forward, UNIT, noise_of_student(UNIT))


def inside(num: int = 10000) -> Tensor:
    """Corners and random inputs of the box."""
    shares = torch.rand((num, 3), generator=Generator().manual_seed(0), dtype=torch.float64)
    shares[: num // 4].round_()
    return LOW + shares * (HIGH - LOW)


def averages(kind: str) -> AskedAverage:
    """Three networks with weights of their own."""
    drawn = [Drawn(seed, 2 if kind == "label" else 4) for seed in range(3)]
    asked = [each.label() if kind == "label" else each.classes() for each in drawn]
    return AskedAverage(list(zip((0.5, 0.2, 0.3), asked, strict=True)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("text", ["class is b", "class is never c", "class is a or d"])
def test_no_answer_of_a_classifier_is_below_its_bounds(seed: int, text: str) -> None:
    region = parse_region([text], CLASSES, "here")
    asked = Drawn(seed, 4).classes()
    lower = bounds_of(asked, region)(LOW, HIGH)
    seen = values_of(asked, region)(inside())
    assert bool((seen >= lower).all())
    # and the bounds are no wider than a few times the range
    assert bool((seen.amin(0) - lower < 3 * (seen.amax(0) - seen.amin(0))).all())


@pytest.mark.parametrize("text", ["class is b", "class is never c", "class is a or d"])
def test_no_answer_of_an_average_is_below_its_bounds(text: str) -> None:
    region = parse_region([text], CLASSES, "here")
    average = averages("classes")
    lower = bounds_of(average, region)(LOW, HIGH)
    prob = average.answers(inside()).exp()
    assert prob.sum(1).allclose(torch.ones(1, dtype=torch.float64))
    for place, atom in enumerate(region.atoms):
        seen = prob[:, atom.winner] - prob[:, atom.other]
        assert float(lower[0, place]) <= float(seen.min())
        assert float(seen.min() - lower[0, place]) < 0.8


@pytest.mark.parametrize("quantity", ["mean", "std"])
@pytest.mark.parametrize("who", [*range(5), "average"])
def test_no_answer_of_a_real_label_is_outside(who: int | str, quantity: str) -> None:
    asked: Asked = averages("label") if isinstance(who, str) else Drawn(who, 2).label()
    lower, negative_upper = quantity_bounds(asked, quantity)(LOW, HIGH)[0]
    seen = quantity_values(asked, quantity)(inside())[:, 0]
    assert float(lower) <= float(seen.min())
    assert float(seen.max()) <= -float(negative_upper)


def test_an_average_is_the_mixture_of_its_networks() -> None:
    average = averages("label")
    x = inside(5)
    parts = torch.stack([each.answers(x) for _, each in average.members])
    weight = torch.tensor([0.5, 0.2, 0.3]).double()[:, None]
    mean = (weight * parts[..., 0]).sum(0)
    variance = (weight * (parts[..., 1] + (parts[..., 0] - mean).square())).sum(0)
    assert average.answers(x).allclose(torch.stack([mean, variance], 1))


def test_networks_that_disagree_widen_the_deviation_of_their_average() -> None:
    members = []
    for constant in (-2.0, 2.0):
        drawn = Drawn(0, 2)
        drawn.layers[1].weight.zero_()
        drawn.layers[1].offset[:] = torch.tensor([0.0, constant, -20.0])
        members.append((0.5, drawn.label()))
    lower, upper = AskedAverage(members).quantities(LOW, HIGH)
    # means of 900 - 4 and 900 + 4, each nearly certain: a deviation of 4
    assert float(lower[0, 0]) == pytest.approx(900)
    assert 4 <= float(upper[0, 1]) < 4.01


def test_bounds_at_a_point_hold_what_float32_says_of_it_in_the_labels_unit() -> None:
    asked = Drawn(0, 2).label()
    x = inside(2000)
    lower, upper = asked.quantities(x, x)
    mean = asked.forward(x)[:, 0] * UNIT.std + UNIT.mean
    assert mean.dtype == torch.float32
    assert bool(((lower[:, 0] <= mean) & (mean <= upper[:, 0])).all())
    assert float((upper - lower).amax()) < 0.01


MANY = [pytest.param(seed, marks=pytest.mark.soak) for seed in range(4, 60)]


@pytest.mark.parametrize("seed", [*range(4), *MANY])
def test_no_verdict_contradicts_a_grid(seed: int) -> None:
    """A plane of the box, on 90,000 inputs: limits just inside and just outside of its range."""
    asked = Drawn(seed, 2).label()
    low, high = LOW.clone(), HIGH.clone()
    low[:, 2] = high[:, 2] = 0.3
    steps = torch.linspace(0, 1, 300, dtype=torch.float64)
    shares = torch.cartesian_prod(steps, steps)
    grid = low[:, :2] + shares * (high - low)[:, :2]
    grid = torch.cat([grid, torch.full((len(grid), 1), 0.3, dtype=torch.float64)], 1)
    mean = quantity_values(asked, "mean")(grid)[:, 0]
    length = float(mean.max() - mean.min())

    boxes, verdicts = Boxes(low, high), []
    for step in (-0.2, -0.01, 0.01, 0.05, 0.2):
        region = parse_region([f"mean <= {float(mean.max()) + step * length}"], (), "here")
        judged = judge_boxes(
            boxes,
            bounds_of(asked, region),
            values_of(asked, region),
            region.clearance,
            generator=Generator().manual_seed(0),
        )
        verdicts.append(judged.verdict)
    # a grid misses a corner of the highest cell at most: 0.01 of the range is more
    assert verdicts == ["broken", "broken", "certified", "certified", "certified"]

    interval = enclose(
        boxes,
        quantity_bounds(asked, "mean"),
        quantity_values(asked, "mean"),
        generator=Generator().manual_seed(0),
    )
    assert interval.low <= float(mean.min()) and float(mean.max()) <= interval.high
    assert interval.high - interval.low < 1.05 * length


def test_limits_are_bounded_from_the_side_that_matters() -> None:
    asked = Drawn(1, 2).label()
    lower, upper = asked.quantities(LOW, HIGH)
    region = parse_region(["mean <= 905", "mean >= 890", "std <= 9"], (), "here")
    below, above, noise = bounds_of(asked, region)(LOW, HIGH)[0].tolist()
    assert below == pytest.approx(905 - float(upper[0, 0]))
    assert above == pytest.approx(float(lower[0, 0]) - 890)
    assert noise == pytest.approx(9 - float(upper[0, 1]))


def test_noise_that_is_the_same_everywhere_is_known() -> None:
    drawn = Drawn(0, 1)
    noise = Noise(lambda raw: (0.5 * raw).exp() * UNIT.std, raw=0.2)
    asked = AskedNetwork(drawn.network, drawn.raw, UNIT, noise)
    lower, upper = asked.quantities(LOW, HIGH)
    known = 2.0 * torch.tensor(0.1).exp()
    assert lower[0, 1].item() == pytest.approx(float(known), rel=1e-5)
    assert upper[0, 1].item() == pytest.approx(float(known), rel=1e-5)
