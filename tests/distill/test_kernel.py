"""The kernel on fully connected students: the oracle, siblings, the batch stream, stopping."""

import dataclasses
import itertools
import math
import random

import pytest
import torch

from gped_nas.distill.feed import BatchOrder, DistillationSet
from gped_nas.distill.kernel import distill, student_seed
from gped_nas.distill.precision import decided
from gped_nas.distill.pruning import prox_group_lasso
from gped_nas.distill.recipe import Recipe
from gped_nas.errors import Interrupted
from gped_nas.models.base import Genotype, initialize
from gped_nas.targets.layout import HeadLayout
from tests.distill.reference import distill_one

CPU = torch.device("cpu")
CLASSES = 3


def make_pool(size=150, targets=("predictive", "expected_entropy"), shape=(1, 3, 3)):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((size, *shape), generator=generator)
    rule = torch.randn((math.prod(shape), CLASSES), generator=generator)
    expectations = {
        "predictive": (x.flatten(1) @ rule).softmax(-1),
        "expected_entropy": 0.5 * torch.rand((size, 1), generator=generator),
    }
    expectations = {name: expectations[name] for name in targets}
    return DistillationSet(x, expectations, HeadLayout(targets, CLASSES))


def mlp(depth, width, penalty=0.0, **more):
    return Genotype("mlp", depth=depth, width=width, group_penalty=penalty, **more)


MIXED = [
    mlp(1, 5),
    mlp(2, 7, 1e-3),
    mlp(1, 1, 0.01),
    mlp(3, [3, 4, 5], 0.1),
    mlp(0, ()),
    mlp(2, 13, 0.05),
    mlp(1, 17, 0.5),
    mlp(2, 9, 0.2),
]
SHORT = Recipe(steps=60, batch_size=37, warmup=5, lr=0.02, weight_decay=0.05)


def run(genotypes, pool=None, recipe=SHORT, seed=0, **more):
    return distill(genotypes, pool or make_pool(), recipe, seed=seed, device=CPU, **more).students


def has_same_bits(student, other):
    if student.params.keys() != other.params.keys():
        return False
    return all(torch.equal(p, other.params[name]) for name, p in student.params.items())


def largest_difference(params, expected):
    assert {k: p.shape for k, p in params.items()} == {k: p.shape for k, p in expected.items()}
    return max(float((p - expected[name]).abs().max()) for name, p in params.items())


# -- against the oracle


@pytest.mark.parametrize("targets", [("predictive",), ("predictive", "expected_entropy")])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"prox_every": 1, "steps": 25},
        {"prox_every": 7, "beta1": 0.0},
        {"prune_at": 0.3, "weight_decay": 0.0},
    ],
    ids=["plain", "prox-every-step", "odd-prox", "early-pruning"],
)
def test_students_equal_those_of_the_oracle(targets, changes):
    pool = make_pool(targets=targets)
    recipe = SHORT.model_copy(update={"target_weights": dict.fromkeys(targets[1:], 2.5), **changes})
    students = run(MIXED, pool, recipe)
    for genotype, student in zip(MIXED, students, strict=True):
        expected = distill_one(genotype, pool, recipe, seed=0)
        # What rounding makes of 60 steps: at most 1e-5 with AVX2 and AVX-512, 2.5e-5 with SSE 4.1.
        assert largest_difference(student.params, expected) < 5e-5, str(genotype)
        assert not student.failure

    # some units must die for the comparison to be of pruning too
    num_dead = [student.num_dead for student in students]
    assert num_dead[0] == 0 and sum(num_dead) > 5
    num_biases = sum(len(p) for s in students for p in s.params.values() if p.dim() == 1)
    num_hidden = num_biases - len(MIXED) * pool.layout.num_outputs
    assert num_hidden < sum(sum(genotype["width"]) for genotype in MIXED)


def test_the_oracle_with_the_fast_proximal_step_is_the_same():
    pool = make_pool()
    slow = distill_one(MIXED[5], pool, SHORT, seed=0)
    fast = distill_one(MIXED[5], pool, SHORT, seed=0, prox=prox_group_lasso)
    assert largest_difference(slow, fast) < 1e-5


# -- independence of siblings: products of other sizes round otherwise, and nothing else


def test_order_and_siblings_change_rounding_alone():
    students = run(MIXED)
    for seed in range(4):
        order = random.Random(seed).sample(range(len(MIXED)), 1 + 2 * seed)
        for i, student in zip(order, run([MIXED[i] for i in order]), strict=True):
            assert largest_difference(student.params, students[i].params) < 1e-5, str(MIXED[i])
            assert [step for step, _ in student.losses] == [step for step, _ in students[i].losses]


def test_a_population_of_one_is_the_same_student():
    """Buffers of odd lengths."""
    genotypes = [
        mlp(1, 5),
        mlp(2, 7, 0.01),
        mlp(1, 1, 0.3),
        mlp(3, [3, 4, 5], 0.1),
        mlp(0, ()),
        mlp(2, 13, 1e-3),
        mlp(1, 17, 0.05),
        mlp(2, 9, 0.5),
    ]
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn((150, 1, 3, 3), generator=generator)
    soft = torch.rand((150, 3), generator=generator).softmax(-1)
    entropy = torch.rand((150, 1), generator=generator)
    targets = ("predictive", "expected_entropy")
    expectations = {"predictive": soft, "expected_entropy": entropy}
    pool = DistillationSet(inputs, expectations, HeadLayout(targets, 3))
    recipe = Recipe(steps=40, batch_size=37, warmup=3, weight_decay=0.01)

    students = run(genotypes, pool, recipe)
    for genotype, student in zip(genotypes, students, strict=True):
        (alone,) = run([genotype], pool, recipe)
        assert largest_difference(alone.params, student.params) < 1e-5, str(genotype)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e30, -3e38])
def test_a_diverging_sibling_harms_nobody(monkeypatch, value):
    bad = mlp(2, 6)
    population = [*MIXED[:3], bad, *MIXED[3:]]
    clean = run(population)
    seed = student_seed(0, bad)

    def initialize_broken(shapes, *, generator):
        params = initialize(shapes, generator=generator)
        if generator.initial_seed() == seed:
            params["layers.0.weight"].fill_(value)
        return params

    monkeypatch.setattr("gped_nas.models.base.initialize", initialize_broken)
    students = run(population)
    assert "not finite" in students[3].failure or students[3].losses[-1][1] > 1e20
    for i, (before, after) in enumerate(zip(clean, students, strict=True)):
        if i != 3:
            assert has_same_bits(before, after)
            assert not after.failure and before.losses == after.losses


def test_an_infinite_loss_is_not_finite(monkeypatch):
    """Parameters may stay finite while the loss is not.

    Here one class has a logit of -inf, and all gradients are clipped to 0.
    """

    def initialize_broken(shapes, *, generator):
        params = initialize(shapes, generator=generator)
        params["layers.0.weight"].zero_()[0] = -3e38
        return params

    monkeypatch.setattr("gped_nas.models.base.initialize", initialize_broken)
    pool = make_pool(targets=("predictive",))
    pool = dataclasses.replace(pool, inputs=torch.full((150, 1, 3, 3), 2.0))
    (student,) = run([mlp(0, ())], pool, SHORT.model_copy(update={"steps": 1}))
    assert any(not math.isfinite(value) for _, value in student.losses)
    assert student.failure


def test_equal_genotypes_give_equal_students():
    student, stranger, twin = run([mlp(1, 5, 0.01), mlp(2, 3), mlp(1, [5], 0.01)])
    assert largest_difference(student.params, twin.params) < 1e-6
    assert student.seed == twin.seed
    assert not has_same_bits(student, stranger)


def test_seeds_depend_on_root_genotype_and_replicate_only():
    combinations = itertools.product((0, 1), MIXED, (0, 1))
    seeds = [student_seed(root, genotype, replicate) for root, genotype, replicate in combinations]
    assert len(set(seeds)) == len(seeds)
    assert [s.seed for s in run(MIXED[::-1])] == [student_seed(0, g) for g in MIXED[::-1]]
    assert not has_same_bits(run([MIXED[0]], seed=0)[0], run([MIXED[0]], seed=1)[0])


# -- sizes at the edge


def test_a_batch_larger_than_the_pool_is_the_whole_pool():
    pool = make_pool(size=10)
    recipe = SHORT.model_copy(update={"batch_size": 64})
    (student,) = run([MIXED[1]], pool, recipe)
    assert largest_difference(student.params, distill_one(MIXED[1], pool, recipe, seed=0)) < 1e-5

    stream = BatchOrder(10, recipe, 0)
    orders = [next(stream).tolist() for _ in range(3)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert orders[0] != orders[1]


@pytest.mark.parametrize("steps", [1, 2, 10, 11])
def test_short_recipes_train_every_step(steps):
    recipe = SHORT.model_copy(update={"steps": steps})
    (student,) = run([MIXED[5]], recipe=recipe)
    expected = distill_one(MIXED[5], make_pool(), recipe, seed=0)
    assert largest_difference(student.params, expected) < 1e-5
    assert [step for step, _ in student.losses] == sorted({0, steps - 1})


def test_a_layer_whose_units_all_die_keeps_one():
    student = run([mlp(2, 6, 100.0)])[0]
    assert student.num_dead == 12
    assert student.params["layers.0.weight"].shape == (1, 9)
    assert student.params["layers.1.weight"].shape == (1, 1)
    assert not student.failure


def test_the_loss_falls():
    student = run([mlp(1, 32)], recipe=Recipe(steps=400, batch_size=50, warmup=10, lr=0.01))[0]
    losses = [value for _, value in student.losses]
    assert losses[-1] < 0.8 * losses[0]


# -- the batch stream


@pytest.mark.parametrize(("size", "batch"), [(10, 5), (10, 3), (7, 7), (12, 1), (10, 4)])
def test_every_example_is_seen_once_an_epoch(size, batch):
    stream = BatchOrder(size, Recipe(batch_size=batch), 3)
    parts = [next(stream) for _ in range(size * 3)]
    assert all(len(part) == batch for part in parts)

    indices = torch.cat(parts)
    num_epochs = len(indices) // size
    for epoch in indices[: num_epochs * size].view(-1, size):
        assert sorted(epoch.tolist()) == list(range(size))


def test_the_batch_order_depends_on_the_root_only():
    def order(root, recipe=SHORT):
        return torch.stack(list(itertools.islice(BatchOrder(150, recipe, root), 5)))

    assert torch.equal(order(0), order(0))
    assert torch.equal(order(0), order(0, SHORT.model_copy(update={"lr": 1.0})))
    assert not torch.equal(order(0), order(1))


# -- progress and stopping


def test_progress_is_told_from_the_first_step_to_the_last():
    """It is told every LOG_EVERY steps, at the pruning step and at the end."""
    reports = []
    recipe = SHORT.model_copy(update={"steps": 120})
    run([MIXED[0]], recipe=recipe, progress=lambda *args: reports.append(args))
    assert reports == [("students", n, 120) for n in (50, 70, 120)]


def test_a_wish_to_stop_interrupts():
    asked = []

    def should_stop():
        asked.append(1)
        return len(asked) == 2

    with pytest.raises(Interrupted, match="stopped while distilling; run the same command again"):
        run([MIXED[0]], recipe=SHORT.model_copy(update={"steps": 1000}), should_stop=should_stop)
    assert len(asked) == 2


def test_the_pool_and_the_students_stay_as_they_are():
    pool = make_pool()
    before = pool.inputs.clone()
    student = run([MIXED[1]], pool)[0]
    assert torch.equal(pool.inputs, before)
    assert not any(p.requires_grad for p in student.params.values())
    assert all(p.dtype == torch.float32 and p.device == CPU for p in student.params.values())


def test_auto_is_bfloat16_for_populations_with_a_large_product(monkeypatch):
    monkeypatch.setattr("gped_nas.device.half_is_fast", lambda device: True)
    small, large = Genotype("mlp", depth=1, width=4), Genotype("mlp", depth=1, width=8)
    data, recipe = make_pool(), Recipe(batch_size=16)
    macs_a_unit = 16 * data.inputs[0].numel()
    monkeypatch.setattr("gped_nas.device.SHARED_MACS", 8 * macs_a_unit)

    assert decided(recipe, [small, large], data, CPU).precision == "bfloat16"
    assert decided(recipe, [small], data, CPU).precision == "float32"
    asked = recipe.model_copy(update={"precision": "bfloat16"})
    assert decided(asked, [small], data, CPU).precision == "bfloat16"
