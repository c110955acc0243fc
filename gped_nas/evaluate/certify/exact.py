"""The smallest value of a form of a network's outputs over a box, by HiGHS.

HiGHS looks at a programme with tolerances, and what it gives is no proof by itself. Its *dual*
bound is one of the programme whose rows may be broken, and whose reduced costs may be wrong, by
these tolerances; so much is taken off it that neither matters. That is little: where margins are
near 1, some ten-thousandths. The *primal* value belongs to an input, whose answer is asked for
where it counts.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from gped_nas.errors import ConfigError
from gped_nas.evaluate.certify.bounds import Node
from gped_nas.evaluate.certify.programme import Floats, Programme
from gped_nas.models.elementary import Affine, MaxPool, Shape

TOLERANCE = 1e-6
"""HiGHS' largest: of rows and of whole numbers; that of reduced costs is a tenth of it."""
MOST_UNSTABLE = 60
_WHOLE_GAP = 1e-6


@dataclass(frozen=True)
class ExactSettings:
    """How far exact bounds go.

    Attributes:
        time_limit: seconds an input, at most; an input that takes longer is unknown.
        max_unstable: units that may be on or off, above which an input is not tried.
    """

    time_limit: float = 10.0
    max_unstable: int = MOST_UNSTABLE


def exact_settings(time_limit: float, where: str = "--time-limit") -> ExactSettings:
    """Settings with this time limit.

    Raises:
        ConfigError: it is no time.
    """
    if not 0 < time_limit <= 1e6:
        raise ConfigError(
            f"{where}: found {time_limit:g} seconds an input, expected more than 0 and at most a "
            "million: without time nothing is found out; give some, or leave --exact out"
        )
    return ExactSettings(time_limit=time_limit)


@dataclass(frozen=True, eq=False)
class Minimum:
    """What is known of the smallest value of a form over a box.

    Attributes:
        low: it is not below this: sound for the network in real arithmetic.
        at: an input, float64, near which the form is small; None where no one was met.
        is_timed_out: whether the time was over before the gap was closed.
    """

    low: float
    at: Tensor | None
    is_timed_out: bool = False


def minimum(
    programme: Programme, form_U: Floats, *, seconds: float = np.inf, gap: float = _WHOLE_GAP
) -> Minimum:
    """The smallest value over the box of a form of the raw outputs.

    Args:
        programme: of the network over the box.
        form_U: what each raw output is multiplied by.
        seconds: after which it ends with what it knows.
        gap: between the ends, as a share of the value, at which it ends; with 0.5 it ends as soon
            as the sign is known.

    Source: HiGHS, Huangfu & Hall 2018, through ``scipy.optimize.milp``.
    """
    form_V = programme.outputs_VU @ form_U
    offset = float(programme.offset_U @ form_U)
    if not programme.is_binary_V.any():
        # a sum over a box is smallest in a corner
        numbers_V = np.where(form_V > 0, programme.low_V, 1.0)
        return Minimum(offset + float(form_V @ numbers_V), programme.input_of(numbers_V))

    size = float(np.abs(form_V).max())
    if size == 0:
        return Minimum(offset, programme.middle)

    from scipy import optimize  # slow to import

    options: dict[str, float] = {"mip_rel_gap": gap}
    if np.isfinite(seconds):
        options["time_limit"] = seconds
    # the gap is a share of the value, so that the value is there whole: a last number is 1
    rows = np.pad(programme.rows_RV, ((0, 0), (0, 1)))
    solved = optimize.milp(
        np.append(form_V, offset) / size,
        integrality=np.append(programme.is_binary_V, False).astype(int),
        bounds=optimize.Bounds(np.append(programme.low_V, 1.0), np.ones(len(form_V) + 1)),
        constraints=optimize.LinearConstraint(rows, -np.inf, programme.limit_R),
        options=options,
    )

    at = None if solved.x is None else programme.input_of(solved.x)
    bound = solved.get("mip_dual_bound")
    if solved.status not in (0, 1) or bound is None or not np.isfinite(bound):
        return Minimum(-np.inf, at, is_timed_out=solved.status == 1)
    low = size * bound - slack(programme, form_V)
    return Minimum(low, at, is_timed_out=solved.status == 1)


def slack(programme: Programme, form_V: Floats) -> float:
    """What HiGHS' tolerances can change in the smallest value of a form of the numbers, at most.

    A row that is broken by the tolerance moves a unit by that share of its range, and the form as
    far as the weights behind carry it: the tolerance times the big-M of each row. A reduced cost
    that is wrong by it moves the form by that share of a number's range.
    """
    by_costs = float(np.abs(form_V).max()) * 2 * len(form_V)
    return TOLERANCE * (programme.moved_by_rows(form_V) + by_costs)


def run_time_error(nodes: Sequence[Node], form_U: Tensor) -> float:
    """How far a form of the raw outputs may be off, at most, in the float32 of a forward pass.

    Each layer's own error is carried to the outputs; a ReLU and a maximum move no further than what
    they read.

    Args:
        nodes: of the layers in one box, from input to output.
        form_U: what each raw output is multiplied by.
    """
    total = 0.0
    moved = form_U.abs().reshape(1, *nodes[-1].low.shape[1:])
    for node in reversed(nodes):
        if isinstance(node.layer, Affine):
            if node.error is not None:
                total += float((moved * node.error).sum())
            moved = node.layer.absolute().transposed(moved, node.input_shape)
        elif isinstance(node.layer, MaxPool):
            moved = _spread(node.layer, moved, node.input_shape)
    return total * (1 + 1e-6)


def _spread(pool: MaxPool, moved: Tensor, input_shape: Shape) -> Tensor:
    """How far a form moves with each number that is pooled: all of a window alike."""
    num = prod(input_shape)
    places = pool.windows(torch.arange(num, dtype=torch.float64).reshape(1, *input_shape)).long()
    by_place = moved[:, :, :, None, :, None].expand_as(places)
    spread = moved.new_zeros(num).index_add(0, places.flatten(), by_place.flatten())
    return spread.reshape(1, *input_shape)


@dataclass(eq=False)
class Clock:
    """Seconds that are left of a limit.

    Attributes:
        limit: seconds.
        now: what time it is, seconds.
    """

    limit: float
    now: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._began = self.now()

    @property
    def remaining(self) -> float:
        """Seconds; at most 0 where it is over."""
        return self.limit - (self.now() - self._began)
