"""Bounds are sound: against exact minima, against many points, and in spite of rounding."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.errors import ConfigError, DataError
from gped_nas.evaluate.certify import bounds as bounds_module
from gped_nas.evaluate.certify.bounds import Bounds, bound, lower_bound
from gped_nas.evaluate.certify.rounding import FLOAT32, REAL, RunTime
from gped_nas.models.base import Genotype
from gped_nas.models.elementary import Activation, AveragePool, Dense, Elementary, run_layers
from tests.evaluate.certify.exact import least_by_milp, least_by_patterns, run_exactly
from tests.evaluate.certify.networks import boxes, mlp, points_in, random_layers

ALL_BOUNDS: tuple[Bounds, ...] = ("ibp", "crown_ibp", "crown")
LowerBound = Callable[..., Tensor]
IMAGE = (2, 7, 6)


def cnn(**values: object) -> Genotype:
    return Genotype("cnn", **{"depth": 2, "width": [3, 4], "kernel": 3, **values})


CNNS = {
    "convolutions": cnn(),
    "max pooling": cnn(kernel=[3, 2], pool=[2, 1], head_width=[5]),
    "average": cnn(padding="same", stride=[2, 1], head="global_average"),
    "large windows": cnn(depth=1, width=3, kernel=2, pool=3, head_width=[4]),
    "separable": cnn(padding="same", block="separable", stages=2),
    "tanh": cnn(kernel=[3, 2], pool=[2, 1], activation="tanh"),
}


def midpoint(layers: Sequence[Elementary], low: Tensor, high: Tensor, forms: Tensor) -> Tensor:
    """A mutant: what the network says in the middle of the box."""
    return run_layers(layers, (low + high) / 2) @ forms.T


def check_patterns(lower: LowerBound) -> None:
    """No lower bound of a 2-4-2 network is above its minimum over all activation patterns."""
    low, high = boxes(12, (2,), 0.4)
    layers = random_layers(mlp(4), (2,), 2)
    forms = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    lowers = lower(layers, low, high, forms)
    for b in range(len(low)):
        for r, form in enumerate(forms):
            assert lowers[b, r] <= least_by_patterns(layers, low[b], high[b], form)


def check_milp(lower: LowerBound, *width: int) -> None:
    """No lower bound is above the optimum of the mixed-integer programme."""
    low, high = boxes(3, (5,), 0.15)
    layers = random_layers(mlp(*width), (5,), 3)
    forms = torch.tensor([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]], dtype=torch.float64)
    lowers = lower(layers, low, high, forms)
    for b in range(len(low)):
        for r, form in enumerate(forms):
            least, point = least_by_milp(layers, low[b], high[b], form)
            assert lowers[b, r] <= least + 1e-6  # the programme's own tolerance
            assert lowers[b, r] <= run_layers(layers, point[None])[0] @ form


def check_points(
    lower: LowerBound, genotype: Genotype, shape: tuple[int, ...], num: int, *, scale: float = 1.0
) -> None:
    """No point of a box, corner or inside, is below the lower bound."""
    low, high = boxes(4, shape, 0.1)
    layers = random_layers(genotype, shape, 3, scale=scale)
    forms = torch.randn(4, 3, generator=rng.generator(0, "forms"), dtype=torch.float64)
    lowers = lower(layers, low, high, forms)
    points = points_in(low, high, num // 8, rng.generator(0, "points"))
    values = run_layers(layers, points.flatten(0, 1)) @ forms.T
    assert (lowers <= values.view(4, -1, 4).amin(1)).all()


def check_real(lower: LowerBound, scale: float) -> None:
    """The lower bound of a point is not above the rational value, and hardly below it."""
    low, _ = boxes(20, (6,), 0.0)
    layers = random_layers(mlp(8, 7), (6,), 2, scale=scale)
    forms = torch.eye(2, dtype=torch.float64)
    lowers = lower(layers, low, low, forms, run_time=REAL)
    for b, x in enumerate(low):
        exact = run_exactly(layers, x)
        for r, value in enumerate(exact):
            assert lowers[b, r].item() <= value
            assert lowers[b, r].item() >= value - abs(value) * 1e-9 - scale**3 * 1e-9


def check_float32(
    lower: LowerBound, genotype: Genotype, shape: tuple[int, ...], *, scale: float = 1.0
) -> None:
    """The lower bound of a point is not above what float32 computes there, in any batch."""
    low, _ = boxes(40, shape, 0.0)
    in_float32 = random_layers(genotype, shape, 3, scale=scale, dtype=torch.float32)
    layers = random_layers(genotype, shape, 3, scale=scale, as_float32=True)
    lowers = lower(layers, low, low, torch.eye(3, dtype=torch.float64), run_time=FLOAT32)
    for num_together in (1, 3, 40):
        parts = [run_layers(in_float32, part) for part in low.float().split(num_together)]
        assert (lowers <= torch.cat(parts)).all()


@pytest.mark.parametrize("kind", ALL_BOUNDS)
def test_no_bound_is_above_the_least_of_all_patterns(kind: Bounds) -> None:
    check_patterns(lambda *args: lower_bound(*args, bounds=kind))


@pytest.mark.parametrize("width", [(16,), (8, 8), (16, 16)], ids=str)
def test_no_bound_is_above_the_mixed_integer_optimum(width: tuple[int, ...]) -> None:
    check_milp(lower_bound, *width)


@pytest.mark.parametrize("kind", ALL_BOUNDS)
@pytest.mark.parametrize("width", [(), (5,), (24, 24), (6, 9, 5)], ids=str)
def test_no_point_of_a_box_is_outside_of_the_bounds(width: tuple[int, ...], kind: Bounds) -> None:
    num = 100_000 if width == (24, 24) else 2_000
    check_points(lambda *args: lower_bound(*args, bounds=kind), mlp(*width), (6,), num)


@pytest.mark.parametrize("kind", ALL_BOUNDS)
@pytest.mark.parametrize("scale", [0.3, 3.0, 100.0])
def test_no_point_is_outside_of_the_bounds_of_tanh(scale: float, kind: Bounds) -> None:
    """Also where sums are near zero, and where all of them are far out."""
    genotype = mlp(9, 7, activation="tanh")

    def lower(*args: Any) -> Tensor:
        return lower_bound(*args, bounds=kind)

    check_points(lower, genotype, (6,), 4_000, scale=scale)


@pytest.mark.parametrize("kind", ALL_BOUNDS)
@pytest.mark.parametrize("name", CNNS)
def test_no_image_of_a_box_is_outside_of_the_bounds(name: str, kind: Bounds) -> None:
    check_points(lambda *args: lower_bound(*args, bounds=kind), CNNS[name], IMAGE, 2_000)


@pytest.mark.parametrize("kind", ALL_BOUNDS)
def test_windows_of_a_chain_of_ones_own_are_averaged_within_the_bounds(kind: Bounds) -> None:
    """No family averages windows; a module's own layers may."""
    first, bent, *_ = random_layers(CNNS["convolutions"], IMAGE, 3)  # images of 3 x 5 x 4
    dense = random_layers(mlp(), (12,), 3)
    layers = [first, bent, AveragePool(2), *dense]
    low, high = boxes(4, IMAGE, 0.1)
    forms = torch.eye(3, dtype=torch.float64)

    lowers = lower_bound(layers, low, high, forms, bounds=kind)

    points = points_in(low, high, 300, rng.generator(0, "points"))
    values = run_layers(layers, points.flatten(0, 1)).view(4, -1, 3)
    assert (lowers <= values.amin(1)).all()
    assert (lowers > values.amin(1) - 2).all()


@pytest.mark.parametrize("kind", ALL_BOUNDS)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_bounds_hold_in_real_arithmetic(scale: float, kind: Bounds) -> None:
    check_real(lambda *args, **rest: lower_bound(*args, bounds=kind, **rest), scale)


@pytest.mark.parametrize(
    "genotype",
    [mlp(64, 64), mlp(64, 64, activation="tanh"), CNNS["max pooling"], CNNS["average"]],
    ids=str,
)
def test_bounds_hold_for_what_float32_computes(genotype: Genotype) -> None:
    check_float32(lower_bound, genotype, IMAGE)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_scaled_networks_are_bounded_as_float32_computes_them(scale: float) -> None:
    check_float32(lower_bound, mlp(64, 64), IMAGE, scale=scale)


def test_products_below_the_smallest_number_are_bounded() -> None:
    """Behind three layers of weights of 1e-14 and no biases numbers are of 1e-42."""
    x, _ = boxes(40, (6,), 0.0)
    drawn = random_layers(mlp(64, 64), (6,), 3, scale=1e-14, dtype=torch.float32)
    in_float32, layers = list(drawn), list(drawn)
    for i, layer in enumerate(drawn):
        if isinstance(layer, Dense):
            in_float32[i] = Dense(layer.weight, 0 * layer.offset)
            layers[i] = Dense(layer.weight.double(), 0 * layer.offset.double())

    answers = run_layers(in_float32, x.float())
    assert 0 < answers.abs().max() < 1e-40
    lower, upper = bound(layers, x, x, torch.eye(3, dtype=torch.float64))
    assert (lower <= answers).all()
    assert (answers <= upper).all()


def test_nothing_is_promised_beyond_the_largest_number() -> None:
    """Also where the second layer's sums are small, and parts of them are not."""
    low, high = boxes(3, (4,), 0.1)
    layers = random_layers(mlp(6, 5), (4,), 2, scale=1e20)
    forms = torch.eye(2, dtype=torch.float64)
    for kind in ALL_BOUNDS:
        assert (lower_bound(layers, low, high, forms, bounds=kind) == -torch.inf).all()
        exact = lower_bound(layers, low, high, forms, bounds=kind, run_time=REAL)
        assert torch.isfinite(exact).all()


def test_boxes_and_layers_without_bounds_are_refused() -> None:
    low, high = boxes(3, (4,), 0.1)
    layers = random_layers(mlp(6), (4,), 2)
    forms = torch.eye(2, dtype=torch.float64)
    with pytest.raises(DataError, match="an end that is no finite number, expected finite ends"):
        lower_bound(layers, low, high * torch.inf, forms)
    with pytest.raises(DataError, match="found a box whose low end is above its high one"):
        lower_bound(layers, high, low, forms)
    with pytest.raises(ConfigError, match="found the activation 'silu', expected .*: relu, tanh"):
        lower_bound([*layers, Activation("silu")], low, high, forms)

    class Doubled(Elementary):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    with pytest.raises(ConfigError, match="found the layer Doubled, expected one that has bounds"):
        lower_bound([*layers, Doubled()], low, high, forms)


def test_a_bound_that_returns_the_middle_is_seen() -> None:
    for check in (check_patterns, lambda lower: check_milp(lower, 8, 8)):
        with pytest.raises(AssertionError):
            check(midpoint)
    with pytest.raises(AssertionError):
        check_points(midpoint, mlp(24, 24), (6,), 2_000)
    with pytest.raises(AssertionError):
        check_points(midpoint, CNNS["max pooling"], IMAGE, 2_000)


@pytest.mark.parametrize("kind", ALL_BOUNDS)
def test_a_bound_without_slack_is_seen(kind: Bounds, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_slack(*args: object, run_time: RunTime) -> Tensor:
        return lower_bound(*args, bounds=kind, run_time=REAL)

    with pytest.raises(AssertionError):
        check_float32(without_slack, mlp(64, 64), IMAGE)

    monkeypatch.setattr(bounds_module, "gamma", lambda num_terms, unit: 0.0)
    monkeypatch.setattr(bounds_module, "UNIT", 0.0)
    for scale in (1e-6, 1.0, 1e6):
        with pytest.raises(AssertionError):
            check_real(lambda *args, **rest: lower_bound(*args, bounds=kind, **rest), scale)


def test_the_upper_bound_is_the_lower_one_of_the_opposite() -> None:
    low, high = boxes(3, (4,), 0.2)
    layers = random_layers(mlp(6, 5), (4,), 2)
    forms = torch.randn(5, 2, generator=rng.generator(0, "forms"), dtype=torch.float64)
    lower, upper = bound(layers, low, high, forms)
    assert torch.equal(lower, lower_bound(layers, low, high, forms))
    assert torch.allclose(upper, -lower_bound(layers, low, high, -forms), rtol=1e-12)
    assert (lower < upper).all()


def test_lines_are_never_worse_than_intervals() -> None:
    low, high = boxes(6, IMAGE, 0.3)
    forms = torch.eye(3, dtype=torch.float64)
    for genotype in (mlp(9, 9), *CNNS.values()):
        layers = random_layers(genotype, IMAGE, 3)
        ibp, _, crown = (lower_bound(layers, low, high, forms, bounds=b) for b in ALL_BOUNDS)
        assert (crown >= ibp).all()
        assert (crown > ibp + 1e-3).any()


def test_many_boxes_are_bounded_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    low, high = boxes(7, IMAGE, 0.1)
    forms = torch.randn(7, 2, 3, generator=rng.generator(0, "forms"), dtype=torch.float64)
    layers = random_layers(CNNS["max pooling"], IMAGE, 3)
    together = lower_bound(layers, low, high, forms)
    monkeypatch.setattr(bounds_module, "_NUMBERS", 300)
    in_parts = lower_bound(layers, low, high, forms)
    assert torch.allclose(together, in_parts, rtol=0, atol=0.05)
    assert torch.equal(in_parts, lower_bound(layers, low, high, forms))
    assert lower_bound(layers, low[:0], high[:0], forms[:0]).shape == (0, 2)
