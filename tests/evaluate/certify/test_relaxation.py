"""Lines and planes lie on their side of what they bound, and close to it."""

import pytest
import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.evaluate.certify.relaxation import RELAXATIONS, relax, relax_max
from gped_nas.models.activations import ACTIVATIONS
from gped_nas.models.elementary import Activation, MaxPool
from tests.evaluate.certify.networks import points_in


def ranges() -> tuple[Tensor, Tensor]:
    """Ranges of sums (R,): of every sign and size, points among them."""
    generator = rng.generator(0, "ranges")
    sizes = torch.logspace(-8, 4, 13, dtype=torch.float64)
    ends = torch.cat([-sizes, sizes, torch.zeros(1, dtype=torch.float64)])
    pairs = torch.cartesian_prod(ends, ends)
    drawn = torch.randn(300, 2, generator=generator, dtype=torch.float64)
    both = torch.cat([pairs, drawn]).sort(1).values
    return both[:, 0], both[:, 1]


@pytest.mark.parametrize("name", RELAXATIONS)
def test_an_activation_lies_between_its_lines(name: str) -> None:
    low, high = ranges()
    lines = RELAXATIONS[name].lines(low, high)

    shares = torch.cat([torch.linspace(0, 1, 400), torch.logspace(-9, -1, 50)]).double()
    shares = torch.cat([shares, 1 - shares])[:, None]
    sums = (low + shares * (high - low)).clamp(low, high)
    values = ACTIVATIONS[name](sums)
    below = lines.low_slope * sums + lines.low_shift
    above = lines.high_slope * sums + lines.high_shift
    rounded = 1e-15 * (1 + sums.abs())
    assert (below <= values + rounded).all()
    assert (values <= above + rounded).all()


@pytest.mark.parametrize("name", RELAXATIONS)
def test_lines_meet_where_a_range_is_a_point(name: str) -> None:
    point = torch.linspace(-3, 3, 61, dtype=torch.float64)
    lines = RELAXATIONS[name].lines(point, point)
    value = ACTIVATIONS[name](point)
    assert torch.allclose(lines.low_slope * point + lines.low_shift, value, atol=1e-9)
    assert torch.allclose(lines.high_slope * point + lines.high_shift, value, atol=1e-9)


def test_the_lines_of_tanh_touch_it() -> None:
    """From -1 to 2: the tangent through (-1, tanh -1) touches at d = 0.4583.

    ``(d + 1) (1 - tanh(d)^2) = tanh d + tanh 1`` has this root. The line below is the
    tangent through (2, tanh 2), which touches at -0.7699.
    """
    low, high = torch.tensor([-1.0]).double(), torch.tensor([2.0]).double()
    lines = RELAXATIONS["tanh"].lines(low, high)
    for slope, shift, end in (
        (lines.high_slope, lines.high_shift, low),
        (lines.low_slope, lines.low_shift, high),
    ):
        assert slope * end + shift == pytest.approx(end.tanh().item(), abs=1e-6)
    values = torch.linspace(-1, 2, 100_001, dtype=torch.float64)
    gap_above = (lines.high_slope * values + lines.high_shift - values.tanh())[50:].min()
    gap_below = (values.tanh() - lines.low_slope * values - lines.low_shift)[:-50].min()
    assert 0 <= gap_above < 1e-6
    assert 0 <= gap_below < 1e-6


@pytest.mark.parametrize("side", [2, 3])
def test_the_largest_of_a_window_lies_between_its_planes(side: int) -> None:
    generator = rng.generator(0, "windows", str(side))
    center = torch.randn(3, 2, 7, 6, generator=generator).double()
    radius = 0.5 * torch.rand(center.shape, generator=generator).double()
    low, high = center - radius, center + radius
    layer = MaxPool(side)
    planes = relax_max(layer, low, high)

    forms = torch.randn(3, 5, *layer.forward(low).shape[1:], generator=generator).double()
    pulled = planes.pull(forms)
    points = points_in(low, high, 500, generator)
    outputs = layer.forward(points.flatten(0, 1)).view(3, 1000, -1)
    values = torch.einsum("bnu,bru->bnr", outputs, forms.flatten(2))
    planar = torch.einsum("bnd,brd->bnr", points.flatten(2), pulled.forms.flatten(2))
    assert (planar + pulled.shift[:, None] <= values + 1e-12).all()


def test_a_window_whose_largest_number_is_known_is_that_number() -> None:
    low = torch.tensor([[[[0.0, 2.0], [-1.0, 1.0]]]]).double()
    high = torch.tensor([[[[1.0, 3.0], [0.0, 1.5]]]]).double()
    pulled = relax(MaxPool(2), low, high).pull(
        torch.tensor([1.0, -1.0]).double().view(1, 2, 1, 1, 1)
    )
    expected = torch.tensor([[0.0, 1.0], [0.0, 0.0]]).double()
    assert torch.allclose(pulled.forms, torch.stack([expected, -expected])[None, :, None])
    assert pulled.shift.abs().max() < 1e-12


def test_relu_is_itself_where_its_sign_is_known() -> None:
    low, high = torch.tensor([[1.0, -3.0]]).double(), torch.tensor([[2.0, -1.0]]).double()
    pulled = relax(Activation("relu"), low, high).pull(torch.ones(1, 1, 2).double())
    assert pulled.forms.tolist() == [[[1.0, 0.0]]]
    assert pulled.shift.tolist() == [[0.0]]
