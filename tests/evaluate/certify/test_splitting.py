"""Boxes that are split, on functions whose ranges are known and whose interval bounds are loose."""

import pytest
import torch
from torch import Generator, Tensor

from gped_nas.evaluate.certify.splitting import Boxes, Judged, enclose, judge_boxes


def parabola(x: Tensor) -> Tensor:
    """``x (1 - x)`` of the first number: from 0 to 1/4 over [0, 1]."""
    return (x[:, 0] * (1 - x[:, 0]))[:, None]


def least_of_parabola(low: Tensor, high: Tensor) -> Tensor:
    """Its lower bound by intervals, for boxes within [0, 1]."""
    return (low[:, 0] * (1 - high[:, 0]))[:, None]


def most_of_parabola(low: Tensor, high: Tensor) -> Tensor:
    """Its upper bound by intervals: 1 over [0, 1], four times too much."""
    return (high[:, 0] * (1 - low[:, 0]))[:, None]


def box(*ends: tuple[float, float]) -> Boxes:
    """One box."""
    low, high = zip(*ends, strict=True)
    return Boxes(torch.tensor([low]).double(), torch.tensor([high]).double())


def judged_below(limit: float, boxes: Boxes, most_parts: int = 200) -> Judged:
    """Whether the parabola is below a number."""
    return judge_boxes(
        boxes,
        lambda low, high: limit - most_of_parabola(low, high),
        lambda x: limit - parabola(x),
        lambda rows: rows.amin(1),
        generator=Generator().manual_seed(0),
        most_parts=most_parts,
    )


def test_what_loose_bounds_leave_open_splitting_certifies() -> None:
    unsplit = judged_below(0.3, box((0, 1)), most_parts=1)
    assert (unsplit.verdict, unsplit.certified_share, unsplit.num_parts) == ("unknown", 0.0, 1)

    split = judged_below(0.3, box((0, 1)))
    assert (split.verdict, split.certified_share) == ("certified", 1.0)
    assert 1 < split.num_parts <= 200


def test_a_box_with_an_unsafe_input_is_broken_by_it() -> None:
    boxes = box((0, 1), (3, 3))
    judged = judged_below(0.24999, boxes)
    assert judged.verdict == "broken"
    assert judged.witness is not None
    assert float(parabola(judged.witness[None])) > 0.24999
    assert bool(((boxes.low <= judged.witness) & (judged.witness <= boxes.high)).all())


def test_a_limit_that_is_touched_is_neither_certified_nor_broken() -> None:
    judged = judged_below(0.25, box((0, 1)))
    assert judged.verdict == "unknown"
    # all but a neighborhood of 1/2 is certified
    assert judged.certified_share is not None
    assert 0.8 < judged.certified_share < 1.0


@pytest.mark.parametrize("most_parts", [1, 2, 3, 5, 9, 33])
def test_no_more_parts_are_made_than_the_budget_allows(most_parts: int) -> None:
    assert judged_below(0.2501, box((0, 1)), most_parts).num_parts <= most_parts


def test_one_broken_box_of_several_breaks_them_all() -> None:
    boxes = Boxes(torch.tensor([[0.0], [0.4]]).double(), torch.tensor([[0.1], [0.6]]).double())
    assert judged_below(0.2, boxes).verdict == "broken"
    safe = Boxes(boxes.low[:1], boxes.high[:1])
    assert judged_below(0.2, safe).verdict == "certified"


def test_each_of_several_boxes_has_its_share() -> None:
    boxes = Boxes(torch.tensor([[0.0], [0.0]]).double(), torch.tensor([[0.1], [1.0]]).double())
    judged = judged_below(0.3, boxes, most_parts=2)
    assert (judged.verdict, judged.certified_share) == ("unknown", 0.5)


def test_it_splits_the_dimension_that_gains() -> None:
    # five others are wider, and change nothing
    wide = [(0.0, 100.0)] * 5
    alone = judged_below(0.3, box((0, 1)))
    among_others = judged_below(0.3, box((0, 1), *wide))
    assert among_others.verdict == "certified"
    assert among_others.num_parts == alone.num_parts


def test_bounds_that_are_no_numbers_certify_nothing() -> None:
    judged = judge_boxes(
        box((0, 1)),
        lambda low, high: torch.full((len(low), 1), torch.nan, dtype=torch.float64),
        lambda x: 1 + parabola(x),
        lambda rows: rows.amin(1),
        generator=Generator().manual_seed(0),
        most_parts=8,
    )
    assert (judged.verdict, judged.certified_share) == ("unknown", 0.0)


def test_a_point_is_judged_without_splitting() -> None:
    assert judged_below(0.3, box((0.5, 0.5))).verdict == "certified"
    assert judged_below(0.25, box((0.5, 0.5))).verdict == "unknown"
    assert judged_below(0.2, box((0.5, 0.5))).verdict == "broken"


def test_an_interval_holds_the_range_and_is_close_to_it() -> None:
    interval = enclose(
        box((0, 1), (0, 0)),
        lambda low, high: torch.cat(
            [least_of_parabola(low, high), -most_of_parabola(low, high)], 1
        ),
        lambda x: torch.cat([parabola(x), -parabola(x)], 1),
        generator=Generator().manual_seed(0),
    )
    assert interval.low <= 0 <= interval.reached_low
    assert interval.reached_high <= 0.25 <= interval.high
    # a hundredth of its length at each end, as it is promised
    assert interval.low >= -0.0026
    assert interval.high <= 0.2526


def test_an_interval_of_one_part_is_that_of_its_bounds() -> None:
    interval = enclose(
        box((0, 1)),
        lambda low, high: torch.cat(
            [least_of_parabola(low, high), -most_of_parabola(low, high)], 1
        ),
        lambda x: torch.cat([parabola(x), -parabola(x)], 1),
        generator=Generator().manual_seed(0),
        most_parts=1,
    )
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_a_narrow_failure_is_met_where_parts_become_small() -> None:
    place, reach = 0.3125, 1e-4

    def spike(x: Tensor) -> Tensor:
        return torch.where((x - place).abs() < reach, -1.0, 1.0)

    def bounds(low: Tensor, high: Tensor) -> Tensor:
        holds_it = (low < place + reach) & (high > place - reach)
        return torch.where(holds_it, -1.0, 1.0).double()

    judged = judge_boxes(
        box((0, 1)), bounds, spike, lambda rows: rows.amin(1), generator=Generator().manual_seed(0)
    )
    assert judged.verdict == "broken"
    assert judged.witness is not None
    assert abs(float(judged.witness) - place) < reach
