"""Recipes: step sizes by hand, where pruning and rungs fall, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gped_nas.config import parse
from gped_nas.distill.recipe import Recipe
from gped_nas.errors import ConfigError


@given(st.integers(1, 5000), st.floats(0.01, 0.99), st.integers(1, 100))
def test_pruning_falls_within_the_steps_and_on_the_grid(steps, prune_at, prox_every):
    step = Recipe(steps=steps, prune_at=prune_at, prox_every=prox_every).prune_step
    assert 1 <= step <= steps
    assert step % prox_every == 0 or step < prox_every


@given(st.integers(1, 500), st.integers(0, 600), st.sampled_from([0.0, 0.01, 0.8, 0.999]))
def test_step_sizes_are_positive_and_bounded(steps, warmup, decay_from):
    recipe = Recipe(steps=steps, warmup=warmup, lr=0.01, decay_from=decay_from)
    assert all(0 < recipe.lr_at(step) <= 0.01 for step in range(steps))


def test_warm_up_then_cosine_by_hand():
    recipe = Recipe(steps=100, warmup=3, lr=1.0)
    assert recipe.lr_at(0) == pytest.approx(0.25)  # (0 + 1) / (3 + 1), cosine at its top
    assert recipe.lr_at(50) == pytest.approx(0.5)  # halfway down
    assert recipe.lr_at(25) == pytest.approx(0.853553)  # (1 + cos 45 degrees) / 2


def test_constant_then_a_line_to_zero_by_hand():
    recipe = Recipe(steps=100, warmup=3, lr=1.0, decay_from=0.8)
    expected = {0: 0.25, 2: 0.75, 3: 1.0, 79: 1.0, 80: 1.0, 85: 0.75, 90: 0.5, 99: 0.05}
    assert {step: recipe.lr_at(step) for step in expected} == pytest.approx(expected)


def test_a_line_of_one_step_ends_above_zero():
    recipe = Recipe(steps=3, warmup=0, lr=1.0, decay_from=0.99)
    assert [recipe.lr_at(step) for step in range(3)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "f: steps: found 0, expected greater than or equal to 1"),
        ({"lr": 0.0}, "f: lr: found 0.0, expected greater than 0"),
        ({"lr": "1e-3"}, "f: lr: found the text '1e-3', expected a number; YAML takes it for text"),
        ({"steps": 10.5}, "f: steps: found 10.5, expected"),
        ({"steps": True}, "f: steps: found True, expected"),
        ({"decay_from": 1.0}, "f: decay_from: found 1.0, expected less than 1"),
        (
            {"decay_from": 0.8, "halve_every": 100},
            "decay_from: found 0.8 with halve_every 100, expected one of them; remove the other",
        ),
        ({"beta2": 1.0}, "f: beta2: found 1.0, expected less than 1"),
        ({"prune_at": 1.0}, "f: prune_at: found 1.0, expected less than 1"),
        ({"stepps": 3}, "f: stepps: unknown key; did you mean 'steps'?"),
        (
            {"target_weights": {"predictive": 0.0}},
            "target_weights.predictive: found 0.0, expected more than 0",
        ),
        ({"lr": float("nan")}, "f: lr: found nan, expected"),
    ],
)
def test_impossible_recipes_are_refused(settings, message):
    with pytest.raises(ConfigError) as caught:
        parse(Recipe, settings, "f")
    assert message in str(caught.value)


def test_halving_by_hand():
    recipe = Recipe(steps=100, warmup=0, lr=1.0, halve_every=30)
    expected = {0: 1.0, 29: 1.0, 30: 0.5, 59: 0.5, 60: 0.25, 99: 0.125}
    assert {step: recipe.lr_at(step) for step in expected} == expected


def test_online_is_shown_single_samples_unless_told_otherwise():
    assert Recipe().update == "averaged" and Recipe().mode == "cached"
    assert Recipe(mode="online").update == "newest"
    assert Recipe(mode="online", update="running_mean").update == "running_mean"
    with pytest.raises(
        ConfigError,
        match="update: found averaged, expected newest or running_mean: mode online keeps",
    ):
        parse(Recipe, {"mode": "online", "update": "averaged"}, "f")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"patience": 2},
            "patience: needs rungs of at least 1, because students are checked at rungs; set "
            "recipe.rungs",
        ),
        (
            {"rungs": 3, "update": "newest"},
            "rungs: found it with update newest, expected averaged: rungs read averages",
        ),
        (
            {"rungs": 3, "update": "running_mean"},
            "rungs: found it with update running_mean, expected averaged",
        ),
        ({"rungs": 3, "mode": "online"}, "rungs: found it with update newest, expected averaged"),
        ({"rungs": -1}, "f: rungs: found -1, expected greater than or equal to 0"),
        ({"average": 1.0}, "f: average: found 1.0, expected less than 1"),
        ({"optimizer": "adam"}, "f: optimizer: found 'adam'; did you mean 'adamw'?"),
        ({"precision": "float16"}, "f: precision: found 'float16'; did you mean 'bfloat16'?"),
        ({"lr_width_power": 1.5}, "f: lr_width_power: found 1.5, expected less than or equal to 1"),
    ],
)
def test_rungs_optimizers_and_precisions_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError) as caught:
        parse(Recipe, settings, "f")
    assert message in str(caught.value)


@given(st.integers(1, 400), st.integers(1, 500))
def test_rungs_are_at_equal_distances_and_end_with_the_steps(steps, rungs):
    rung_steps = Recipe(steps=steps, rungs=rungs).rung_steps
    assert rung_steps[-1] == steps and rung_steps[0] >= 1
    assert list(rung_steps) == sorted(set(rung_steps))
    assert len(rung_steps) <= rungs
    if rungs <= steps:
        gaps = [stop - start for start, stop in zip((0, *rung_steps), rung_steps, strict=False)]
        assert len(rung_steps) == rungs and max(gaps) - min(gaps) <= 1


def test_no_rungs_are_nowhere():
    assert Recipe().rung_steps == ()


@given(st.integers(1, 300), st.floats(0.05, 0.95), st.integers(1, 40))
def test_proximal_steps_act_over_every_step_of_the_first_phase_once(steps, prune_at, prox_every):
    recipe = Recipe(steps=steps, prune_at=prune_at, prox_every=prox_every, warmup=3)
    first_phase = range(recipe.prune_step)
    lr_sums = [
        recipe.lr_since_shrink(step)
        for step in first_phase
        if recipe.shrinks_after(step, recipe.prune_step)
    ]
    assert sum(lr_sums) == pytest.approx(sum(recipe.lr_at(step) for step in first_phase))


def test_a_record_tells_the_kind_of_training_and_what_is_not_the_default():
    kind = {"mode": "cached", "update": "averaged", "optimizer": "adamw", "precision": "auto"}
    assert Recipe().to_record() == kind
    recipe = Recipe(steps=7, optimizer="muon", lr_rest=0.25, precision="bfloat16", kernel="graph")
    record = recipe.to_record()
    assert record == {
        **kind,
        "optimizer": "muon",
        "precision": "bfloat16",
        "steps": 7,
        "lr_rest": 0.25,
    }
