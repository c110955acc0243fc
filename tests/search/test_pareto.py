"""Fronts, hypervolumes and knees against brute force, closed forms, Optuna and moocore."""

import time

import moocore
import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gped_nas.errors import ConfigError
from gped_nas.search.pareto import (
    KNEE_RULE,
    hypervolume,
    hypervolume_history,
    knee,
    pareto_front,
    to_box,
)

# Few distinct values, so that ties, duplicates, signed zeros and rows that are not finite are
# common.
VALUES = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 1.0, 2.0, 3.0, np.nan, np.inf, -np.inf])
POINTS = st.integers(1, 4).flatmap(
    lambda m: hnp.arrays(np.float64, st.tuples(st.integers(0, 25), st.just(m)), elements=VALUES)
)


def directions_of(num_objectives):
    return ["minimize", "maximize", "minimize", "maximize"][:num_objectives]


def brute_force(points, directions):
    """The front by comparing every point with every other one."""
    signs = [1 if direction == "minimize" else -1 for direction in directions]
    losses = [[sign * x for sign, x in zip(signs, row, strict=True)] for row in points]
    finite = [row for row in losses if np.isfinite(row).all()]

    def dominates(a, b):
        pairs = list(zip(a, b, strict=True))
        return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)

    mask = []
    for row in losses:
        is_dominated = any(dominates(other, row) for other in finite)
        mask.append(bool(np.isfinite(row).all()) and not is_dominated)
    return mask


def sphere(num_objectives, n, seed=0):
    """Points that are all on the front, within the unit box."""
    x = np.abs(np.random.default_rng(seed).normal(size=(n, num_objectives)))
    return 1 - x / np.linalg.norm(x, axis=1, keepdims=True)


@given(POINTS)
@settings(max_examples=150, deadline=None)
def test_the_front_equals_brute_force(points):
    directions = directions_of(points.shape[1])
    assert pareto_front(points, directions).tolist() == brute_force(points, directions)


@given(POINTS, st.data())
@settings(max_examples=80, deadline=None)
def test_flipping_a_direction_and_permuting_leave_the_front_alone(points, data):
    directions = directions_of(points.shape[1])
    front = pareto_front(points, directions)

    column = data.draw(st.integers(0, points.shape[1] - 1))
    flipped = points.copy()
    flipped[:, column] *= -1
    flipped_directions = directions.copy()
    flipped_directions[column] = "maximize" if directions[column] == "minimize" else "minimize"
    assert (pareto_front(flipped, flipped_directions) == front).all()

    rows = np.array(data.draw(st.permutations(range(len(points)))), int)
    columns = data.draw(st.permutations(range(points.shape[1])))
    permuted = points[rows][:, columns]
    permuted_directions = [directions[c] for c in columns]
    assert (pareto_front(permuted, permuted_directions) == front[rows]).all()


def test_the_front_equals_optunas_best_trials():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    points = np.random.default_rng(0).integers(0, 8, size=(120, 3)).astype(float)
    directions = ["minimize", "maximize", "minimize"]
    study = optuna.create_study(directions=directions)
    for row in points:
        study.add_trial(optuna.trial.create_trial(values=row.tolist()))
    expected = {trial.number for trial in study.best_trials}
    assert set(np.flatnonzero(pareto_front(points, directions))) == expected


def test_duplicates_of_a_front_point_are_all_on_the_front():
    points = [[1, 2], [2, 1], [1, 2], [2, 2], [0.0, 9], [-0.0, 9]]
    mask = pareto_front(points, ["minimize", "minimize"])
    assert mask.tolist() == [True, True, True, False, True, True]


def test_rows_that_are_not_finite_neither_join_nor_dominate():
    points = [[-np.inf, 0], [0, 1], [np.nan, -5], [1, 0], [np.inf, -9]]
    mask = pareto_front(points, ["minimize", "minimize"])
    assert mask.tolist() == [False, True, False, True, False]


def test_no_points_make_an_empty_front():
    for empty in (np.empty((0, 2)), []):
        assert pareto_front(empty, ["minimize", "maximize"]).shape == (0,)
        assert hypervolume(empty, [1, 1]) == 0.0
        assert hypervolume_history(empty, [1, 1]).shape == (0,)


@pytest.mark.parametrize(
    ("points", "directions", "message"),
    [
        ([[1, 2]], ["minimize"], r"shape \(1, 2\), expected \(points, 1\)"),
        ([1, 2], ["minimize", "minimize"], r"shape \(2,\)"),
        ([[1]], ["minimise"], "did you mean 'minimize'"),
        ([], [], "found none"),
    ],
)
def test_impossible_fronts_are_refused(points, directions, message):
    with pytest.raises(ConfigError, match=message):
        pareto_front(points, directions)


@pytest.mark.parametrize(
    ("points", "reference", "volume"),
    [
        ([[0.25]], [1.0], 0.75),
        ([[0.5, 0.5]], [1, 1], 0.25),
        # Two strips: [0.2, 0.6] x [0.7, 1] and [0.6, 1] x [0.1, 1].
        ([[0.2, 0.7], [0.6, 0.1]], [1, 1], 0.4 * 0.3 + 0.4 * 0.9),
        # Inclusion-exclusion: boxes of 1/2 x 1/2 and 1/4 x 3/4 share 1/4 x 1/2, all of height 1.
        ([[0.5, 0.5, 0], [0.75, 0.25, 0]], [1, 1, 1], 0.25 + 0.1875 - 0.125),
        # Three boxes of 1/4; each two share 1/8, which all three share too.
        ([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]], [1, 1, 1], 3 * 0.25 - 3 * 0.125 + 0.125),
        ([[0.5, 0.5, 0.5, 0.5]] * 3, [1, 1, 1, 1], 0.0625),
        # On or beyond the reference, or not finite: nothing.
        ([[1.0, 0.0], [0.0, 1.5], [np.nan, 0], [-np.inf, 0]], [1, 1], 0.0),
    ],
)
def test_hypervolume_in_closed_form(points, reference, volume):
    assert hypervolume(points, reference) == pytest.approx(volume, abs=1e-12)


def test_hypervolume_of_a_staircase():
    # n boxes with corners (i/n, (n-1-i)/n): the sum over i of 1/n * (i+1)/n = (n+1) / (2n).
    n = 50
    steps = np.arange(n)
    points = np.c_[steps, n - 1 - steps] / n
    assert hypervolume(points, [1, 1]) == pytest.approx((n + 1) / (2 * n), rel=1e-12)


@pytest.mark.parametrize(("num_objectives", "n"), [(1, 20), (2, 200), (3, 80), (4, 40), (5, 25)])
@pytest.mark.parametrize("draw", ["sphere", "uniform", "grid"])
def test_hypervolume_and_history_equal_moocores(num_objectives, n, draw):
    generator = np.random.default_rng(num_objectives)
    points = {
        "sphere": sphere(num_objectives, n),
        "uniform": generator.random((n, num_objectives)) * 1.2,
        "grid": generator.integers(0, 5, (n, num_objectives)) / 4,
    }[draw]
    reference = np.linspace(1.0, 0.9, num_objectives)

    def oracle(rows):
        inside = rows[(rows < reference).all(axis=1)]
        if num_objectives == 1:
            return float((reference - inside.min(initial=reference[0]))[0])
        return moocore.hypervolume(inside, ref=reference) if len(inside) else 0.0

    assert hypervolume(points, reference) == pytest.approx(oracle(points), rel=1e-10)

    history = hypervolume_history(points, reference)
    expected = [oracle(points[: i + 1]) for i in range(n)]
    assert history == pytest.approx(expected, rel=1e-10, abs=1e-14)
    assert (np.diff(history) >= 0).all()


@given(POINTS)
@settings(max_examples=60, deadline=None)
def test_hypervolume_ignores_order_duplicates_and_dominated_points(points):
    reference = np.full(points.shape[1], 2.5)
    expected = hypervolume(points, reference)

    front = points[pareto_front(points, ["minimize"] * points.shape[1])]
    for same in (points[::-1], np.concatenate([points, points]), front):
        assert hypervolume(same, reference) == pytest.approx(expected, rel=1e-12)

    history = hypervolume_history(points, reference)
    assert not len(points) or history[-1] == pytest.approx(expected, rel=1e-12)


def test_a_thousand_trials_take_seconds():
    points = sphere(3, 1000)
    start = time.perf_counter()
    history = hypervolume_history(points, np.ones(3))
    assert hypervolume(points, np.ones(3)) == pytest.approx(history[-1], rel=1e-9)
    # It takes about 1 s.
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("reference", [[1, np.inf], [1, np.nan], 1.0, []])
def test_impossible_references_are_refused(reference):
    with pytest.raises(ConfigError, match="reference point"):
        hypervolume([[0, 0]], reference)


def test_the_box_is_linear_in_quality_and_in_decades_of_cost():
    # NLL from 0 to log 10; bytes from 100 to 10 000, two decades.
    nll = np.log(10)
    values = [
        [nll / 2, 1000],
        [0, 100],
        [nll, 10_000],
        [2 * nll, 10],
        [np.nan, 1e9],
        [-np.inf, 1000],
    ]
    box = to_box(values, [0, 100], [nll, 10_000], scales=["linear", "log10"])
    expected = [[0.5, 0.5], [0, 0], [1, 1], [1, 0], [np.nan, 1], [np.nan, 0.5]]
    np.testing.assert_allclose(box, expected, atol=1e-12)
    assert hypervolume(box[3:], [1, 1]) == 0.0


def test_the_box_turns_a_maximized_objective_into_a_loss():
    box = to_box([[1.0], [0.75], [0.5], [0.2], [1.1]], [1.0], [0.5])
    np.testing.assert_allclose(box[:, 0], [0, 0.5, 1, 1, 0])


def test_the_box_leaves_its_arguments_alone():
    values = np.array([[10.0]])
    best = np.array([1.0])
    worst = np.array([100.0])
    assert to_box(values, best, worst, scales=["log10"])[0, 0] == pytest.approx(0.5)
    assert (values[0, 0], best[0], worst[0]) == (10.0, 1.0, 100.0)


@pytest.mark.parametrize(
    ("best", "worst", "scales"),
    [
        ([0.0], [0.0], None),
        ([0.0], [1.0], ["log10"]),
        ([0.0], [1.0, 2.0], None),
        ([0.0], [1.0], ["linear"] * 2),
        ([0.0], [np.inf], None),
    ],
)
def test_impossible_boxes_are_refused(best, worst, scales):
    with pytest.raises(ConfigError):
        to_box([[0.5]], best, worst, scales=scales)


def test_the_knee_of_two_objectives_is_furthest_below_the_line():
    # Ends (0, 1) and (1, 0). Below the line by 1 - x - y: 0.06, 0.6, 0.5; worst objectives 0.9,
    # 0.35, 0.25.
    points = [[0.0, 1.0], [0.04, 0.9], [0.05, 0.35], [0.25, 0.25], [1.0, 0.0]]
    assert knee(points) == 2
    assert "furthest below" in KNEE_RULE


def test_the_knee_of_three_objectives_has_the_least_worst_one():
    # Each objective runs from 0 to 1; the worst are 1, 1, 1, 0.5, 0.4. Sums would take the fourth.
    points = [[0, 1, 1], [1, 0, 1], [1, 1, 0], [0.5, 0.1, 0.1], [0.4, 0.4, 0.4]]
    assert knee(points) == 4


def test_equal_worst_objectives_are_told_apart_by_the_others():
    ends = [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    assert knee([*ends, [0.5, 0.1, 0.4], [0.1, 0.5, 0.2]]) == 4


def test_the_knee_does_not_change_with_units_and_skips_what_is_not_on_the_front():
    points = np.array([[np.nan, 0.0], [0.0, 1.0], [0.3, 0.9], [0.3, 0.3], [0.5, 5.0], [1.0, 0.0]])
    assert knee(points) == 3
    assert knee(points * [1e-3, 1e6] + [7, -2e6]) == 3


def test_the_first_of_equal_knees_wins():
    for x, y in ((0.3, 0.4), (0.4, 0.3)):
        points = np.array([[0.0, 1.0], [x, y], [y, x], [1.0, 0.0], [x, y]])
        assert knee(points) == 1
        # Here they are equal up to rounding.
        assert knee(points * [3, 1] + [0.1, 0]) == 1

    assert knee([[2.0], [1.0], [1.0]]) == 1
    assert knee([[5.0, 5.0]]) == 0


def test_a_knee_needs_a_finite_point():
    with pytest.raises(ConfigError, match="found no finite point"):
        knee([[np.nan, 1.0]])
    with pytest.raises(ConfigError, match="found no finite point"):
        knee(np.empty((0, 3)))
    with pytest.raises(ConfigError, match="shape"):
        knee([1.0, 2.0])
