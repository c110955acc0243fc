"""Exact answers for small networks of dense layers and ReLUs, by means that share no code."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor

from gped_nas.models.elementary import Dense, Elementary

Floats = NDArray[np.float64]


def dense_layers(layers: Sequence[Elementary]) -> list[tuple[Floats, Floats]]:
    """Weight and bias of each dense layer; all between them are ReLUs."""
    dense = [layer for layer in layers if isinstance(layer, Dense)]
    return [(layer.weight.numpy(), layer.offset.numpy()) for layer in dense]


def run_exactly(layers: Sequence[Elementary], x: Tensor) -> list[Fraction]:
    """The outputs for one input in rational arithmetic."""
    values = [Fraction(v) for v in x.flatten().tolist()]
    dense = dense_layers(layers)
    for i, (weight, bias) in enumerate(dense):
        sums = []
        for row, offset in zip(weight.tolist(), bias.tolist(), strict=True):
            terms = [Fraction(w) * v for w, v in zip(row, values, strict=True)]
            sums.append(sum(terms, Fraction(offset)))
        is_last = i + 1 == len(dense)
        values = sums if is_last else [max(v, Fraction(0)) for v in sums]
    return values


def least_by_patterns(
    layers: Sequence[Elementary], low: Tensor, high: Tensor, form: Tensor
) -> float:
    """The minimum of a form over a box of two inputs, of a network with one hidden layer.

    Each pattern of units that are on has a polygon where the network is affine: so the minimum is
    at a corner of one of them. All corners are crossings of two lines, on which a unit's sum is
    zero or an input is at its end.
    """
    (weight, bias), (last, offset) = dense_layers(layers)
    lines = list(zip(weight, bias, strict=True))
    for axis in range(2):
        for end in (low, high):
            lines.append((np.eye(2)[axis], -float(end[axis])))

    corners = [np.array(c) for c in product(*zip(low.tolist(), high.tolist(), strict=True))]
    for (first, a), (second, b) in combinations(lines, 2):
        normals = np.stack([first, second])
        if abs(np.linalg.det(normals)) > 1e-12:
            corners.append(np.linalg.solve(normals, [-a, -b]))

    points = np.stack(corners)
    is_inside = (points >= low.numpy() - 1e-12) & (points <= high.numpy() + 1e-12)
    points = points[is_inside.all(1)].clip(low.numpy(), high.numpy())
    values = []
    for pattern in product([0.0, 1.0], repeat=len(weight)):
        # where the pattern is not the point's own, the value is another piece's: left out
        sums = points @ weight.T + bias
        is_own = (sums * (2 * np.array(pattern) - 1) >= -1e-12).all(1)
        outputs = (sums * pattern) @ last.T + offset
        values += (outputs[is_own] @ form.numpy()).tolist()
    return min(values)


def least_by_milp(
    layers: Sequence[Elementary], low: Tensor, high: Tensor, form: Tensor
) -> tuple[float, Tensor]:
    """The minimum of a form over a box as a mixed-integer programme, and where it is reached.

    The variables are the input, and of each layer its sums s, outputs h and switches z. With sums
    between l and u, ``h >= 0, h >= s, h <= s - l (1 - z), h <= u z``.
    """
    dense = dense_layers(layers)
    ends_low, ends_high = low.numpy(), high.numpy()
    num = len(ends_low) + 3 * sum(len(bias) for _, bias in dense[:-1])
    lower, upper, is_whole = np.full(num, -np.inf), np.full(num, np.inf), np.zeros(num)
    rows: list[tuple[Floats, float, float]] = []

    def row(terms: dict[int, float], least: float, most: float) -> None:
        coefficients = np.zeros(num)
        for place, value in terms.items():
            coefficients[place] = value
        rows.append((coefficients, least, most))

    inputs = np.arange(len(ends_low))
    lower[inputs], upper[inputs] = ends_low, ends_high
    place = len(ends_low)
    for weight, bias in dense[:-1]:
        center, radius = (ends_low + ends_high) / 2, (ends_high - ends_low) / 2
        middle, reach = weight @ center + bias, np.abs(weight) @ radius
        ends_low, ends_high = middle - reach, middle + reach
        outputs = []
        for unit, (least, most) in enumerate(zip(ends_low, ends_high, strict=True)):
            total, output, switch = place, place + 1, place + 2
            place += 3
            lower[[total, output, switch]] = least, 0, 0
            upper[[total, output, switch]] = most, max(most, 0), 1
            is_whole[switch] = 1
            terms = {int(i): -w for i, w in zip(inputs, weight[unit], strict=True)}
            row({**terms, total: 1.0}, bias[unit], bias[unit])
            row({output: 1.0, total: -1.0}, 0, np.inf)
            row({output: 1.0, total: -1.0, switch: -min(least, 0)}, -np.inf, -min(least, 0))
            row({output: 1.0, switch: -max(most, 0)}, -np.inf, 0)
            outputs.append(output)
        inputs = np.array(outputs)
        ends_low, ends_high = ends_low.clip(min=0), ends_high.clip(min=0)

    weight, bias = dense[-1]
    cost = np.zeros(num)
    cost[inputs] = form.numpy() @ weight
    constraints = []
    if rows:
        matrix, leasts, mosts = zip(*rows, strict=True)
        constraints.append(LinearConstraint(np.stack(matrix), leasts, mosts))
    solved = milp(
        cost,
        integrality=is_whole,
        bounds=Bounds(lower, upper),
        constraints=constraints,
        options={"mip_rel_gap": 0.0},
    )
    assert solved.success, solved.message
    point = torch.from_numpy(solved.x[: len(low)]).clamp(low, high)
    return float(solved.fun + form.numpy() @ bias), point
