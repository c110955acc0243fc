"""The mixed-integer programme of a network, against enumeration and against sampling."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize

from gped_nas.errors import ConfigError
from gped_nas.evaluate.certify.bounds import lower_bound, propagate
from gped_nas.evaluate.certify.exact import Clock, exact_settings, minimum, run_time_error, slack
from gped_nas.evaluate.certify.programme import build, count_unstable
from gped_nas.models.base import FAMILIES, Genotype
from gped_nas.models.elementary import (
    Activation,
    Dense,
    Elementary,
    MaxPool,
    Scaling,
    run_layers,
)
from tests.evaluate.certify.small_networks import (
    bounds_before,
    enumerate_minimum,
    network,
    programme_of,
    random_box,
)

FIRST_LESS_SECOND = np.array([1.0, -1.0])


@pytest.mark.parametrize("scale", [1.0, 1e6, 1e-6])
@pytest.mark.parametrize("seed", range(8))
def test_the_minimum_is_that_of_all_patterns_of_units(seed: int, scale: float) -> None:
    layers = network([2, 4, 2], seed, scale=scale)
    low, high = random_box(2, seed + 100)
    programme = programme_of(layers, low, high)

    exactly = enumerate_minimum(layers, low, high, FIRST_LESS_SECOND)
    found = minimum(programme, FIRST_LESS_SECOND)

    # never above, and no further below than the gap and what is taken off for tolerances
    rounding = 1e-12 * abs(exactly)
    apart = 2 * slack(programme, programme.outputs_VU @ FIRST_LESS_SECOND) + 2e-6 * abs(exactly)
    assert exactly - apart <= found.low <= exactly + rounding
    assert found.at is not None
    reached = run_layers(layers, found.at[None])[0].numpy() @ FIRST_LESS_SECOND
    assert exactly - rounding <= reached <= found.low + apart


def test_it_is_at_least_what_bounds_say_and_at_most_what_points_reach() -> None:
    layers = network([6, 8, 5, 3], seed=3)
    low, high = random_box(6, seed=4)
    form_U = np.array([1.0, 0.0, -1.0])

    found = minimum(programme_of(layers, low, high), form_U)

    (by_crown,) = lower_bound(layers, low[None], high[None], torch.from_numpy(form_U)[None])
    points = torch.rand((100_000, 6), generator=torch.Generator().manual_seed(0)).double()
    values = run_layers(layers, low + points * (high - low)).numpy() @ form_U
    assert by_crown < found.low < values.min()


def test_a_network_whose_units_all_stay_on_or_off_needs_no_solver() -> None:
    layers = network([3, 4, 2], seed=1)
    low, high = random_box(3, seed=0)
    high = low + 1e-3
    assert count_unstable(layers, bounds_before(layers, low, high)) == 0

    found = minimum(programme_of(layers, low, high), FIRST_LESS_SECOND)

    corners = torch.cartesian_prod(*torch.stack([low, high], 1))
    values = run_layers(layers, corners).numpy() @ FIRST_LESS_SECOND
    assert found.low == pytest.approx(values.min(), rel=1e-12)


@pytest.mark.parametrize("pool", [1, 2], ids="pool {}".format)
def test_convolutions_and_max_pooling_have_a_programme(pool: int) -> None:
    genotype = Genotype("cnn", depth=1, width=[2], kernel=2, pool=[pool])
    shape = (1, 5, 5)
    shapes = genotype.shapes(shape, 2)
    params = FAMILIES["cnn"].initialize(shapes, generator=torch.Generator().manual_seed(5))
    layers = FAMILIES["cnn"].layers({name: p.double() for name, p in params.items()})
    assert layers is not None
    low = torch.rand(shape, generator=torch.Generator().manual_seed(1)).double() - 0.5
    high = low + 0.4

    programme = programme_of(layers, low, high)
    found = minimum(programme, FIRST_LESS_SECOND)

    (by_crown,) = lower_bound(
        layers, low[None], high[None], torch.from_numpy(FIRST_LESS_SECOND)[None]
    )
    assert found.at is not None
    reached = float(run_layers(layers, found.at[None])[0].numpy() @ FIRST_LESS_SECOND)
    assert by_crown < found.low <= reached <= found.low + 1e-3
    points = torch.rand((20_000, *shape), generator=torch.Generator().manual_seed(0)).double()
    values = run_layers(layers, low + points * (high - low)).numpy() @ FIRST_LESS_SECOND
    assert found.low < values.min()

    # what is pooled moves a form by all of its windows
    assert programme.is_binary_V.any()
    assert (
        run_time_error(
            propagate(layers, low[None], high[None]), torch.from_numpy(FIRST_LESS_SECOND)
        )
        < 1e-3
    )


def test_a_programme_has_a_binary_for_each_unstable_unit() -> None:
    layers = network([6, 8, 5, 3], seed=3)
    low, high = random_box(6, seed=4)
    programme = programme_of(layers, low, high)

    unstable = 0
    for lowest, highest in bounds_before(layers, low, high):
        unstable += int(((lowest < 0) & (highest > 0)).sum())
    assert unstable > 5
    assert programme.is_binary_V.sum() == unstable
    assert count_unstable(layers, bounds_before(layers, low, high)) == unstable


def test_where_time_is_over_the_bound_that_is_known_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    programme = programme_of(network([6, 8, 5, 3], seed=3), *random_box(6, seed=4))
    form_U = np.array([1.0, 0.0, -1.0])
    closed = minimum(programme, form_U)
    solve = optimize.milp

    def over(*args: Any, **settings: Any) -> Any:
        # a test must not hang on how fast a processor is
        assert settings["options"]["time_limit"] == 5.0
        solved = solve(*args, **settings)
        solved.update(status=1, mip_dual_bound=solved.mip_dual_bound - 1)
        return solved

    monkeypatch.setattr(optimize, "milp", over)
    stopped = minimum(programme, form_U, seconds=5.0)
    largest = float(np.abs(programme.outputs_VU @ form_U).max())
    assert stopped.low == pytest.approx(closed.low - largest)
    assert stopped.is_timed_out and not closed.is_timed_out


def test_what_a_solver_gives_no_bound_of_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = network([2, 4, 2], seed=0)
    low, high = random_box(2, seed=100)
    solve = optimize.milp

    def infeasible(*args: Any, **settings: Any) -> Any:
        solved = solve(*args, **settings)
        solved.status = 2
        return solved

    monkeypatch.setattr(optimize, "milp", infeasible)
    assert minimum(programme_of(layers, low, high), FIRST_LESS_SECOND).low == -np.inf

    def too_late(*args: Any, **settings: Any) -> Any:
        solved = solve(*args, **settings)
        solved.update(status=1, mip_dual_bound=None, x=None)
        return solved

    monkeypatch.setattr(optimize, "milp", too_late)
    late = minimum(programme_of(layers, low, high), FIRST_LESS_SECOND)
    assert (late.low, late.at, late.is_timed_out) == (-np.inf, None, True)


def test_what_is_taken_off_covers_rows_and_binaries_that_are_off_together() -> None:
    """Of four numbers that are pooled, the last one's row has the binaries of all others."""
    low = torch.tensor([0.9, 0.9, 0.9, -10.0]).double().reshape(1, 2, 2)
    layers = [Scaling(torch.ones(()), torch.zeros(())), MaxPool(2)]
    programme = programme_of(layers, low, torch.ones_like(low))
    largest_V, tolerance = -programme.outputs_VU[:, 0], 1e-3

    # the last number is the largest, .95, and every row and binary is wrong by the tolerance
    low_V, high_V = programme.low_V, np.where(programme.is_binary_V, tolerance, 1.0)
    low_V[3] = high_V[3] = (0.95 + 4.5) / 5.5
    high_V[:3] = -1.0
    solved = optimize.linprog(
        largest_V,
        A_ub=programme.rows_RV,
        b_ub=programme.limit_R + tolerance,
        bounds=np.stack([low_V, high_V], 1),
    )
    reached = programme.offset_U[0] - solved.fun
    allowed = tolerance * programme.moved_by_rows(largest_V)
    assert allowed / 2 < reached - 0.95 <= allowed


def test_what_float32_computes_is_within_the_error_of_the_run_time() -> None:
    layers = network([6, 32, 32, 3], seed=5, scale=30.0)
    low, high = random_box(6, seed=4)
    form_U = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64)
    error = run_time_error(propagate(layers, low[None], high[None]), form_U)

    points = torch.rand((20_000, 6), generator=torch.Generator().manual_seed(0)).double()
    inputs = (low + points * (high - low)).float()
    single = []
    for layer in layers:
        is_dense = isinstance(layer, Dense)
        single.append(Dense(layer.weight.float(), layer.offset.float()) if is_dense else layer)
    exactly = run_layers([_rounded(layer) for layer in layers], inputs.double()) @ form_U
    computed = run_layers(single, inputs).double() @ form_U
    farthest = float((exactly - computed).abs().max())
    assert 0 < farthest < error < 1e4 * farthest


def _rounded(layer: Elementary) -> Elementary:
    """The layer whose parameters are those of float32."""
    if not isinstance(layer, Dense):
        return layer
    return Dense(layer.weight.float().double(), layer.offset.float().double())


def test_units_that_are_no_relus_are_refused() -> None:
    layers = [
        *network([2, 4, 2], seed=0)[:1],
        Activation("tanh"),
        Dense(torch.eye(4), torch.ones(4)),
    ]
    low, high = random_box(2, seed=100)
    with pytest.raises(ConfigError, match="'tanh', expected ReLUs .*; leave"):
        build(layers, low, high, [(torch.zeros(4), torch.ones(4))])


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), 1e9])
def test_a_time_limit_that_is_no_time_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigError, match="time_limit: found .* seconds .*; give some"):
        exact_settings(seconds)
    assert exact_settings(3.0).time_limit == 3.0


def test_a_clock_counts_down() -> None:
    times = iter([5.0, 7.0, 20.0])
    clock = Clock(10.0, now=lambda: next(times))
    assert clock.remaining == 8.0
    assert clock.remaining == -5.0
