"""Whole populations of every family under every optimizer against the oracle, in any layout."""

import random
import threading

import pytest
import torch

from gped_nas.distill import layout, team
from gped_nas.distill.kernel import distill
from gped_nas.distill.pruning import prox_group_lasso
from gped_nas.distill.recipe import Recipe
from gped_nas.distill.training import TrainedBundle
from gped_nas.models.base import Genotype
from tests.distill.populations import CPU, MIXED, NORMED, PADDED, make_data, relative_difference
from tests.distill.reference import distill_one

OPTIMIZERS = ("adamw", "muon", "sgd")


def recipe_of(optimizer, **more):
    settings = {
        "steps": 50,
        "batch_size": 16,
        "warmup": 5,
        "lr": 0.02,
        "lr_rest": 0.01,
        "weight_decay": 0.05,
        "beta2": 0.95,
        "momentum": 0.8,
        "target_weights": {"expected_entropy": 2.0},
        "precision": "float32",
    }
    return Recipe(optimizer=optimizer, **{**settings, **more})


def run(genotypes, recipe, **more):
    return distill(genotypes, make_data(), recipe, seed=0, device=CPU, **more).students


def check(students, recipe, bound=2e-5):
    for student in students:
        expected = distill_one(student.genotype, make_data(), recipe, seed=0, prox=prox_group_lasso)
        assert relative_difference(student.params, expected) < bound, str(student.genotype)
        assert not student.failure


@pytest.mark.parametrize(
    "more",
    [
        {},
        # these widths multiply the step size by 10 to 64
        {"average": 0.9, "lr_width_power": 1.0, "lr": 0.002, "lr_rest": 0.001},
        {"prox_every": 7, "prune_at": 0.4, "lr_width_power": 0.5, "lr": 0.01, "lr_rest": 0.002},
    ],
    ids=["plain", "average-and-own-step-sizes", "odd-pruning"],
)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_students_equal_those_of_the_oracle(optimizer, more):
    """50 steps, pruned on the way; students of all families at once."""
    recipe = recipe_of(optimizer, **more)
    students = run([*MIXED, PADDED], recipe)
    check(students, recipe)
    assert sum(student.num_dead for student in students) > 3


@pytest.mark.parametrize(
    ("optimizer", "more"),
    [("adamw", {"average": 0.9}), ("muon", {}), ("sgd", {"lr": 0.1, "average": 0.9})],
)
def test_students_with_norms_equal_those_of_the_oracle(optimizer, more):
    """Folded: through pruning, into their form again, and averaged.

    Behind a norm the scale of what it reads is nearly nothing, and AdamW takes the signs of
    rounding for those of gradients there: deep students with batch norm are compared under SGD,
    and under AdamW step by step in ``test_norm_steps.py``.
    """
    genotypes = NORMED if optimizer == "sgd" else [NORMED[0], NORMED[3], NORMED[4]]
    recipe = recipe_of(optimizer, **more)
    students = run([*genotypes, MIXED[1]], recipe)
    check(students, recipe)
    assert sum(student.num_dead for student in students[:-1]) > 3


def test_students_with_norms_are_their_own():
    """Their statistics too: siblings and places change rounding alone."""
    recipe = recipe_of("sgd", lr=0.1, average=0.9, batch_size=20)
    students = run(NORMED, recipe)
    for student, twin in zip(reversed(students), run(NORMED[::-1], recipe), strict=True):
        assert relative_difference(twin.params, student.params) < 2e-5
    for genotype, student in zip(NORMED, students, strict=True):
        (alone,) = run([genotype], recipe)
        assert relative_difference(alone.params, student.params) < 2e-5


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_workers_share_a_population_and_change_rounding_alone(optimizer, monkeypatch):
    monkeypatch.setattr(layout, "_WORTH_A_WORKER", 1)
    threads = set()
    step = TrainedBundle.step

    def watched(self, *args):
        threads.add(threading.get_ident())
        return step(self, *args)

    monkeypatch.setattr(TrainedBundle, "step", watched)
    monkeypatch.setattr(team.devices, "usable_cores", lambda: 3)
    recipe = recipe_of(optimizer, average=0.9)
    alone = run(MIXED, recipe, workers=1)
    assert threads == {threading.get_ident()}
    threads.clear()
    shared = run(MIXED, recipe, workers=3)
    assert len(threads) >= 3 and threading.get_ident() not in threads
    for student, twin in zip(alone, shared, strict=True):
        assert relative_difference(twin.params, student.params) < 2e-5
        assert dict(twin.losses) == pytest.approx(dict(student.losses), rel=1e-5)

    # fewer cores change nothing: the layout alone decides what is computed together
    threads.clear()
    monkeypatch.setattr(team.devices, "usable_cores", lambda: 2)
    on_two_cores = run(MIXED, recipe, workers=3)
    assert len(threads) == 2
    for student, twin in zip(shared, on_two_cores, strict=True):
        assert all(torch.equal(twin.params[name], student.params[name]) for name in student.params)


def test_a_fault_in_a_worker_is_told(monkeypatch):
    monkeypatch.setattr(layout, "_WORTH_A_WORKER", 1)

    def broken(self, x, expectations, lr):
        raise ZeroDivisionError("of a worker")

    monkeypatch.setattr(TrainedBundle, "step", broken)
    with pytest.raises(ZeroDivisionError, match="of a worker"):
        run(MIXED, recipe_of("adamw"), workers=3)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_order_and_siblings_change_rounding_alone(optimizer):
    recipe = recipe_of(optimizer)
    students = run(MIXED, recipe)
    for seed, size in enumerate((len(MIXED), 3)):
        order = random.Random(seed).sample(range(len(MIXED)), size)
        for i, student in zip(order, run([MIXED[i] for i in order], recipe), strict=True):
            assert relative_difference(student.params, students[i].params) < 2e-5, str(MIXED[i])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_widths_rounded_up_change_rounding_alone(optimizer, monkeypatch):
    """As on a GPU, through pruning and a new layout."""
    fused = team.FusedMlp
    made = []

    def rounded(*args, **more):
        made.append(fused(*args, **{**more, "round_to": 8}))
        return made[-1]

    monkeypatch.setattr(team, "FusedMlp", rounded)
    recipe = recipe_of(optimizer, average=0.9)
    check(run([g for g in MIXED if g.family == "mlp"], recipe), recipe)
    assert len(made) == 2


@pytest.mark.parametrize(
    "genotype", [*MIXED[1:4:2], Genotype("mlp", depth=2, width=1, group_penalty=0.01)], ids=str
)
def test_a_population_of_one(genotype):
    """Also of a genotype with one unit a layer, and a batch larger than the data."""
    recipe = recipe_of("muon", batch_size=200, average=0.5)
    check(run([genotype], recipe), recipe)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_students_in_bfloat16_learn_what_those_in_float32_do(optimizer):
    """To within a tenth of the loss, and not by the very same numbers."""
    population = [*MIXED, NORMED[1], NORMED[3]]
    exact = run(population, recipe_of(optimizer, precision="float32", lr=0.03))
    rounded = run(population, recipe_of(optimizer, precision="bfloat16", lr=0.03))
    for student, twin in zip(exact, rounded, strict=True):
        assert not twin.failure
        (_, start), (_, end) = twin.losses
        assert end < start
        assert end == pytest.approx(student.losses[-1][1], rel=0.1)
        assert twin.losses != student.losses
