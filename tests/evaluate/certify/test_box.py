"""Boxes of a radius: what lies in them, at the edges of the data's range too."""

import pytest
import torch

from gped_nas import rng
from gped_nas.data.scale import ColumnSpread, ValueRange
from gped_nas.errors import ConfigError, DataError
from gped_nas.evaluate.attacks.ball import ball_around
from gped_nas.evaluate.certify.box import linf_box

BYTES = ValueRange(0.0, 255.0)


def test_a_radius_is_a_share_of_the_range_and_ends_with_it() -> None:
    raw = torch.tensor([[[[0, 100], [250, 255]]]], dtype=torch.uint8)
    box = linf_box(raw, BYTES, 0.04)  # 10.2
    assert box.low.flatten().tolist() == pytest.approx([0.0, 89.8, 239.8, 244.8], abs=1e-4)
    assert box.high.flatten().tolist() == pytest.approx([10.2, 110.2, 255.0, 255.0], abs=1e-4)


def test_each_column_of_a_table_has_its_own_radius() -> None:
    raw = torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float64)
    box = linf_box(raw, ColumnSpread((2.0, 0.5, 0.0)), 0.1)
    assert box.low[0].tolist() == pytest.approx([0.8, -2.05, 3.0])
    assert box.high[0].tolist() == pytest.approx([1.2, -1.95, 3.0])


@pytest.mark.parametrize("scale", [BYTES, ValueRange(-1e-3, 0.1), ValueRange(0, 1, is_seen=True)])
def test_whatever_an_attack_may_reach_is_inside(scale: ValueRange) -> None:
    """A float32 sum that is rounded outward lies outside of the exact ends by a last bit."""
    generator = rng.generator(0, "box")
    width = scale.high - scale.low
    raw = scale.low + width * torch.rand(500, 1, 3, 3, generator=generator)
    raw = raw.clamp(scale.low, scale.high)
    epsilon = 0.0312
    box = linf_box(raw, scale, epsilon)
    ball = ball_around(raw, scale, epsilon, "linf")
    for far in (-1e9, 1e9):
        reached = ball.project(torch.full_like(raw, far))
        assert box.holds(reached).all()

    exact_low = (raw.double() - epsilon * width).clamp(min=scale.low)
    assert (box.low <= exact_low).all()
    assert torch.allclose(box.low, exact_low, atol=1e-6 * width)


def test_an_input_beyond_a_range_that_was_only_seen_stays_in_its_box() -> None:
    raw = torch.tensor([[[[1.4]]]])
    box = linf_box(raw, ValueRange(0.0, 1.0, is_seen=True), 0.1)
    assert box.high.item() == pytest.approx(1.4)
    assert box.low.item() == pytest.approx(1.3)


def test_a_radius_of_zero_is_the_input() -> None:
    raw = torch.rand(4, 1, 2, 2, generator=rng.generator(0, "box"))
    box = linf_box(raw, ValueRange(0.0, 1.0), 0.0)
    assert torch.equal(box.low, raw.double())
    assert torch.equal(box.high, raw.double())
    assert len(box) == 4


@pytest.mark.parametrize("epsilon", [-0.1, float("nan"), float("inf")])
def test_an_impossible_radius_is_refused(epsilon: float) -> None:
    with pytest.raises(ConfigError, match="^eps: found .*, expected a finite share"):
        linf_box(torch.zeros(1, 1, 2, 2), BYTES, epsilon)


def test_inputs_outside_of_the_data_are_refused() -> None:
    with pytest.raises(DataError, match="from -1 to 0, expected them within .* 0 to 255"):
        linf_box(torch.tensor([[[[-1.0, 0.0]]]]), BYTES, 0.1)
    with pytest.raises(DataError, match="found inputs with missing numbers, expected none"):
        linf_box(torch.tensor([[torch.nan, 0.0]]), ColumnSpread((1.0, 1.0)), 0.1)


def test_no_input_has_no_box() -> None:
    assert len(linf_box(torch.zeros(0, 1, 2, 2), BYTES, 0.1)) == 0
