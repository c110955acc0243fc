"""Boxes that are split where bounds are loose, until a question is settled or a budget is used up.

Bounds of a network over a box are sound and loose; over its halves they are tighter. What holds on
every part holds on the whole, and one input where it fails settles the opposite. So splitting
changes how much is known, and never what is true of it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor

from gped_nas.evaluate.certify.verdict import Verdict

Bounds = Callable[[Tensor, Tensor], Tensor]
"""Lower and upper corners (B, *input_shape), float64, to lower bounds (B, R) over each box."""
Values = Callable[[Tensor], Tensor]
"""Inputs (B, *input_shape), float64, to the numbers (B, R) that the network gives there."""
Clearance = Callable[[Tensor], Tensor]
"""Numbers (B, R) to how far each is from failing, (B,): see ``Region.clearance``."""

MOST_PARTS = 1000
"""Parts that a box is split into, unless somebody says otherwise."""
_TOGETHER = 32
"""Parts that are split at a time."""
_TRIED = 4
"""Dimensions of a part whose halves are bounded, to see which gain most."""
_STARTS, _STEPS = 64, 20
"""Inputs that a search for a failing one begins with, and its steps."""
_CLOSE, _ALIKE = 0.01, 1e-5
"""How much of its own length an interval may be too long at each end, and of its numbers: float32
does not tell those apart much better."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of raw inputs.

    Attributes:
        low, high: their corners, (M, *input_shape), float64.
    """

    low: Tensor
    high: Tensor

    def __len__(self) -> int:
        return len(self.low)

    def at(self, index: Tensor) -> "Boxes":
        """Some of them."""
        return Boxes(self.low[index], self.high[index])

    @property
    def middle(self) -> Tensor:
        """(M, *input_shape)."""
        # not half the sum, which overflows; inside also after rounding
        middle = self.low + (self.high - self.low) / 2
        return torch.minimum(torch.maximum(middle, self.low), self.high)

    @property
    def width(self) -> Tensor:
        """(M, D)."""
        return (self.high - self.low).flatten(1)

    def halves(self, dimension_M: Tensor) -> "Boxes":
        """Both halves of each along a dimension of its own, (2 M): all lower ones come first."""
        shape = self.low.shape
        rows = torch.arange(len(self))
        low, high = self.low.flatten(1), self.high.flatten(1)
        cut = self.middle.flatten(1)[rows, dimension_M]

        end, begin = high.clone(), low.clone()
        end[rows, dimension_M] = cut
        begin[rows, dimension_M] = cut
        lows, highs = torch.cat([low, begin]), torch.cat([end, high])
        return Boxes(lows.view(-1, *shape[1:]), highs.view(-1, *shape[1:]))


@dataclass(frozen=True, eq=False)
class Parts:
    """Boxes that nothing is settled of yet.

    Attributes:
        boxes: M of them.
        rows_MR: lower bounds over each.
        share_M: of the whole, that each is.
    """

    boxes: Boxes
    rows_MR: Tensor
    share_M: Tensor

    def __len__(self) -> int:
        return len(self.boxes)

    def at(self, index: Tensor) -> "Parts":
        """Some of them."""
        return Parts(self.boxes.at(index), self.rows_MR[index], self.share_M[index])


@dataclass(frozen=True, eq=False)
class Judged:
    """What is known of a box.

    Attributes:
        verdict: of all of it.
        certified_share: the share of its volume that is certified; 1 where it is, None where it is
            broken, since nobody looks any further then.
        num_parts: that it was split into.
        witness: an input inside whose answer is not safe, (*input_shape); of a broken one alone.
    """

    verdict: Verdict
    certified_share: float | None
    num_parts: int
    witness: Tensor | None = None


@dataclass(frozen=True)
class Enclosure:
    """Where a number of an answer lies.

    Attributes:
        low, high: it is never outside of these.
        reached_low, reached_high: some input reaches each of these.
    """

    low: float
    reached_low: float
    reached_high: float
    high: float


def judge_boxes(
    boxes: Boxes,
    bounds: Bounds,
    values: Values,
    clearance: Clearance,
    *,
    generator: Generator,
    most_parts: int = MOST_PARTS,
) -> Judged:
    """Whether all answers over boxes are safe, some is not, or neither is known.

    Args:
        boxes: together they are asked about.
        bounds: of the atoms of a region.
        values: of these atoms, by the forward pass that answers are made with.
        clearance: of the region; it is safe above zero.
        generator: of the inputs that are tried.
        most_parts: that they are split into, at least one each.
    """
    witness = find_witness(boxes, values, clearance, generator=generator)
    if witness is not None:
        return Judged("broken", None, len(boxes), witness)

    num_parts, certified = len(boxes), 0.0
    parts = _whole(boxes, bounds)
    while True:
        is_safe = clearance(parts.rows_MR) > 0
        certified += float(parts.share_M[is_safe].sum())
        parts = parts.at(~is_safe)
        if not len(parts):
            return Judged("certified", 1.0, num_parts)

        worst = _most_urgent(parts, -clearance(parts.rows_MR), most_parts - num_parts)
        if not worst.any():
            return Judged("unknown", certified, num_parts)
        halves = _split(parts.at(worst), boxes, bounds, values, clearance)
        witness = _failing(halves.boxes.middle, values, clearance)
        if witness is not None:
            return Judged("broken", None, num_parts, witness)
        num_parts += int(worst.sum())
        parts = _joined(parts.at(~worst), halves)


def enclose(
    boxes: Boxes,
    bounds: Bounds,
    values: Values,
    *,
    generator: Generator,
    most_parts: int = MOST_PARTS,
) -> Enclosure:
    """Where a number of the answers over boxes lies, and how far it is known to reach.

    Args:
        boxes: together they are asked about.
        bounds: of the number and of its negative, (B, 2).
        values: the same at inputs.
        generator: of the inputs that are tried.
        most_parts: that they are split into, at least one each.
    """
    reached_2 = _reached(boxes, values, generator)
    num_parts = len(boxes)
    parts = _whole(boxes, bounds)

    while True:
        # how far beyond what is reached a part may go, less what is close enough
        close = float(_CLOSE * -reached_2.sum() + _ALIKE * reached_2.abs().amax())
        slack = partial(_slack, reached_2=reached_2, close=close)
        worst = _most_urgent(parts, -slack(parts.rows_MR), most_parts - num_parts)
        if not worst.any():
            low, negative_high = parts.rows_MR.amin(0).tolist()
            return Enclosure(low, float(reached_2[0]), float(-reached_2[1]), -negative_high)

        halves = _split(parts.at(worst), boxes, bounds, values, slack)
        with torch.no_grad():
            reached_2 = torch.minimum(reached_2, values(halves.boxes.middle).amin(0))
        num_parts += int(worst.sum())
        parts = _joined(parts.at(~worst), halves)


@torch.no_grad()
def _reached(boxes: Boxes, values: Values, generator: Generator) -> Tensor:
    """The least number, and the least of its negative, that was found at inputs, (2,)."""
    least = []
    for end in range(2):
        for x in _downhill(boxes, values, partial(_column, end=end), generator):
            least.append(values(x).amin(0))
    return torch.stack(least).amin(0)


def _column(rows_M2: Tensor, *, end: int) -> Tensor:
    return rows_M2[:, end]


def _slack(rows_M2: Tensor, *, reached_2: Tensor, close: float) -> Tensor:
    return (rows_M2 - reached_2).amin(1) + close


def _whole(boxes: Boxes, bounds: Bounds) -> Parts:
    share = torch.full((len(boxes),), 1 / len(boxes), dtype=torch.float64)
    return Parts(boxes, _bounded(boxes, bounds), share)


def _joined(first: Parts, second: Parts) -> Parts:
    boxes = Boxes(
        torch.cat([first.boxes.low, second.boxes.low]),
        torch.cat([first.boxes.high, second.boxes.high]),
    )
    return Parts(
        boxes,
        torch.cat([first.rows_MR, second.rows_MR]),
        torch.cat([first.share_M, second.share_M]),
    )


def _bounded(boxes: Boxes, bounds: Bounds) -> Tensor:
    """Lower bounds (M, R); minus infinity where a bound is no number."""
    rows = []
    num_together = 2 * _TOGETHER
    for start in range(0, len(boxes), num_together):
        some = boxes.at(torch.arange(start, min(start + num_together, len(boxes))))
        rows.append(bounds(some.low, some.high))
    return torch.cat(rows).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)


def _most_urgent(parts: Parts, need_M: Tensor, num_left: int) -> Tensor:
    """Which parts are split next, (M,): those that need it most, as far as any can be split."""
    can_be_split = (parts.boxes.middle.flatten(1) > parts.boxes.low.flatten(1)).any(1)
    need_M = torch.where(can_be_split & (need_M >= 0), need_M, -torch.inf)
    num = min(_TOGETHER, max(0, num_left), int((need_M >= 0).sum()))
    chosen = torch.zeros(len(parts), dtype=torch.bool)
    chosen[need_M.topk(num).indices] = True
    return chosen


# ----------------------------------------------------------------------------------- splitting


def _split(
    parts: Parts, whole: Boxes, bounds: Bounds, values: Values, clearance: Clearance
) -> Parts:
    """Both halves of each part, along the dimension whose halves are bounded best.

    Halves keep what was known of their part: of its bounds and theirs the tighter ones hold.
    """
    tried_MQ = _steepest(parts.boxes, whole, values, clearance)
    num = len(parts)
    inherited = torch.cat([parts.rows_MR, parts.rows_MR])

    rows, gains = [], []
    for dimension_M in tried_MQ.unbind(1):
        halves = parts.boxes.halves(dimension_M)
        bounded = torch.maximum(_bounded(halves, bounds), inherited)
        # what is above zero is settled, so that more of it gains nothing
        gain = clearance(bounded).clamp(max=0).view(2, num).sum(0)
        rows.append(bounded.view(2, num, -1))
        gains.append(gain)

    best_M = torch.stack(gains).argmax(0)
    index = torch.arange(num)
    best_rows = torch.stack(rows)[best_M, :, index].transpose(0, 1).flatten(0, 1)
    halves = parts.boxes.halves(tried_MQ[index, best_M])
    return Parts(halves, best_rows, torch.cat([parts.share_M, parts.share_M]) / 2)


def _steepest(boxes: Boxes, whole: Boxes, values: Values, clearance: Clearance) -> Tensor:
    """The dimensions of each box along which an answer changes most, (M, Q), best first."""
    slope = _gradient(boxes.middle, values, clearance).flatten(1).abs()
    change = slope * boxes.width
    change = change / change.amax(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)

    # where nothing changes (a network that is flat in the middle), what was split least
    total = whole.width.amax(0)
    unsplit = torch.where(total > 0, boxes.width / total, 0.0)
    is_wide = boxes.middle.flatten(1) > boxes.low.flatten(1)
    score = torch.where(is_wide, change + 1e-3 * unsplit, -torch.inf)

    num_tried = min(_TRIED, int(is_wide.sum(1).min()))
    return score.topk(num_tried, 1).indices


def _gradient(x: Tensor, values: Values, clearance: Clearance) -> Tensor:
    """The slope of the clearance at inputs; zero where it is none."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        worst = clearance(values(x)).sum()
        if not worst.requires_grad:
            return torch.zeros_like(x)
        (gradient,) = torch.autograd.grad(worst, x)
    return gradient.nan_to_num(0.0)


# ----------------------------------------------------------------------------------- searching


def find_witness(
    boxes: Boxes, values: Values, clearance: Clearance, *, generator: Generator
) -> Tensor | None:
    """An input inside boxes whose answer is not safe, (*input_shape); None where none was found.

    Args: as for ``judge_boxes``.
    """
    for x in _downhill(boxes, values, clearance, generator):
        witness = _failing(x, values, clearance)
        if witness is not None:
            return witness
    return None


def _downhill(
    boxes: Boxes, values: Values, clearance: Clearance, generator: Generator
) -> Iterator[Tensor]:
    """Middles, corners and random inputs of boxes, (N, *input_shape), and where they go downhill.

    Steps become smaller.
    """
    x, box = _starts(boxes, generator)
    yield x
    for step in range(_STEPS):
        size = 0.5 * (1 - step / _STEPS)
        direction = -_gradient(x, values, clearance).sign()
        moved = x + size * direction * (box.high - box.low)
        x = torch.minimum(torch.maximum(moved, box.low), box.high)
        yield x


def _starts(boxes: Boxes, generator: Generator) -> tuple[Tensor, Boxes]:
    """Inputs (N, *input_shape) to begin with, and the box of each."""
    repeats = max(1, _STARTS // len(boxes))
    index = torch.arange(len(boxes)).repeat(repeats)
    box = boxes.at(index)
    shares = torch.rand(box.low.shape, generator=generator, dtype=torch.float64)
    is_corner = torch.arange(len(index)) % 2 == 0
    is_corner = is_corner.view(-1, *[1] * (shares.dim() - 1))
    shares = torch.where(is_corner, shares.round(), shares)
    inside = box.low + shares * (box.high - box.low)
    inside = torch.minimum(torch.maximum(inside, box.low), box.high)

    all_boxes = Boxes(torch.cat([boxes.low, box.low]), torch.cat([boxes.high, box.high]))
    return torch.cat([boxes.middle, inside]), all_boxes


@torch.no_grad()
def _failing(x: Tensor, values: Values, clearance: Clearance) -> Tensor | None:
    """The input that is least safe, if its answer is unsafe by itself too; None otherwise."""
    worst = clearance(values(x)).nan_to_num(torch.inf)
    index = int(worst.argmin())
    if worst[index] >= 0:
        return None
    # a batch of another length may round otherwise
    alone = clearance(values(x[index : index + 1]))
    return x[index] if float(alone) < 0 else None
