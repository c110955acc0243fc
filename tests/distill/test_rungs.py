"""Rungs, patience and leaving."""

import math

import pytest
import torch

from gped_nas.distill import kernel
from gped_nas.distill.kernel import distill, is_out_of_patience
from gped_nas.distill.recipe import Recipe
from gped_nas.models.base import FAMILIES
from tests.distill.populations import CPU, LAYOUT, MIXED, NORMED, make_data, relative_difference

VALIDATION = make_data(35, seed=5)
BASE = {
    "steps": 40,
    "batch_size": 16,
    "warmup": 5,
    "lr": 0.02,
    "prune_at": 0.5,
    "precision": "float32",
}


def run(genotypes, recipe, **more):
    return distill(
        genotypes, make_data(), recipe, seed=0, device=CPU, validation=VALIDATION, **more
    ).students


def direct_loss(genotype, params):
    """The loss on all of validation at once, in float64."""
    params = {name: p.double() for name, p in params.items()}
    raw = FAMILIES[genotype.family].forward(params, VALIDATION.inputs.double())
    expectations = {name: e.double() for name, e in VALIDATION.expectations.items()}
    return float(LAYOUT.loss(raw, expectations, {"expected_entropy": 3.0}))


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_losses_at_rungs_are_those_of_the_student_as_it_is_there(average, monkeypatch):
    """Validation is looked at in blocks that do not divide it.

    The rung at the end is of the student that is handed out.
    """
    monkeypatch.setattr(kernel, "EVALUATED_AT_ONCE", 8)
    recipe = Recipe(**BASE, rungs=4, average=average, target_weights={"expected_entropy": 3.0})
    outcomes = {}
    look = kernel._Training._look

    def watch(self, training, step):
        outcomes[step] = [copy(student.outcome) for student in self.students]
        look(self, training, step)

    monkeypatch.setattr(kernel._Training, "_look", watch)
    students = run([*MIXED, NORMED[1], NORMED[3]], recipe)
    assert sorted(outcomes) == [10, 20, 30, 40]
    for i, student in enumerate(students):
        assert [step for step, _ in student.rungs] == [10, 20, 30, 40]
        for step, value in student.rungs:
            expected = direct_loss(student.genotype, outcomes[step][i])
            assert value == pytest.approx(expected, rel=1e-5)
        expected = direct_loss(student.genotype, student.params)
        assert student.rungs[-1][1] == pytest.approx(expected, rel=1e-5)


def copy(params):
    return {name: p.clone() for name, p in params.items()}


@pytest.mark.parametrize("rungs", [1, 3, 39, 500])
def test_looking_changes_nothing(rungs):
    genotypes = [*MIXED[:3], NORMED[1], NORMED[4]]
    plain = run(genotypes, Recipe(**BASE))
    looked = run(genotypes, Recipe(**BASE, rungs=rungs))
    for student, twin in zip(plain, looked, strict=True):
        assert student.rungs == () and 1 <= len(twin.rungs) <= 40
        assert all(torch.equal(twin.params[name], p) for name, p in student.params.items())


@pytest.fixture
def losing(monkeypatch):
    """The first student's loss, and no other's, is told to grow at every rung."""
    look = kernel._Training._look

    def look_and_lose(self, training, step):
        look(self, training, step)
        if 0 in training:
            self.students[0].rungs = (*self.students[0].rungs[:-1], (step, float(step)))

    monkeypatch.setattr(kernel._Training, "_look", look_and_lose)


@pytest.mark.parametrize(("optimizer", "average"), [("adamw", 0.8), ("muon", 0.0), ("sgd", 0.8)])
def test_one_leaves_and_its_siblings_go_on_as_without_it(losing, optimizer, average):
    """Rungs at 4, 8, ... 40; pruning at 20; patience 2.

    Rungs 24, 28 and 32 tell that it has not improved since 24.
    """
    settings = {**BASE, "optimizer": optimizer, "average": average, "lr_rest": 0.01}
    recipe = Recipe(**settings, rungs=10, patience=2)
    students = run(MIXED, recipe)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "is_out_of_patience", lambda rungs, recipe, at: False)
        all_stay = run(MIXED, recipe)

    leaver = students[0]
    assert [step for step, _ in leaver.rungs] == list(range(4, 33, 4))
    assert relative_difference(leaver.params, all_stay[0].params) > 1e-4, "it stopped at 32"

    going = [i for i, student in enumerate(students) if len(student.rungs) == 10]
    assert len(going) > 3, "most have no reason to leave"
    for i in going:
        assert relative_difference(students[i].params, all_stay[i].params) < 2e-5
        assert dict(students[i].rungs) == pytest.approx(dict(all_stay[i].rungs), rel=1e-5)
    assert not any(student.failure for student in students)


def test_a_student_that_leaves_is_the_one_of_its_last_rung(losing, monkeypatch):
    outcomes = {}
    look = kernel._Training._look

    def watch(self, training, step):
        look(self, training, step)
        outcomes[step] = copy(self.students[0].outcome)

    monkeypatch.setattr(kernel._Training, "_look", watch)
    leaver, _ = run(MIXED[:2], Recipe(**BASE, rungs=10, patience=1))
    assert leaver.rungs[-1][0] == 28 and max(outcomes) > 28 and not leaver.failure
    assert all(torch.equal(leaver.params[name], p) for name, p in outcomes[28].items())


def test_training_ends_when_everyone_has_left(monkeypatch):
    reports = []
    monkeypatch.setattr(kernel, "is_out_of_patience", lambda rungs, recipe, at: len(rungs) == 7)
    students = run(
        MIXED[:2], Recipe(**BASE, rungs=10, patience=1), progress=lambda *args: reports.append(args)
    )
    assert [len(student.rungs) for student in students] == [7, 7]
    assert reports[-1] == ("students", 28, 40)


def leaves_after(losses, patience, prune_step=20):
    recipe = Recipe(**BASE, rungs=10, patience=patience)
    assert recipe.prune_step == prune_step
    rungs = [(4 * (i + 1), value) for i, value in enumerate(losses)]
    return is_out_of_patience(rungs, recipe, recipe.prune_step)


@pytest.mark.parametrize(
    ("after_pruning", "patience", "leaves"),
    [
        ([], 1, False),
        ([1.0], 1, False),
        ([1.0, 0.9], 1, False),
        ([1.0, 1.0], 1, True),  # as good is no better
        ([1.0, 1.1], 1, True),
        ([1.0, 1.1], 2, False),
        ([1.0, 1.1, 0.95], 2, False),
        ([1.0, 1.1, 1.05], 2, True),
        ([0.5, 0.9, 0.8, 0.7], 2, True),  # better than the last ones, never than the best
        ([1.0, math.nan], 1, True),
        ([math.nan, math.nan], 1, True),
        ([1.0, 2.0, 3.0, 4.0], 0, False),
    ],
)
def test_patience_by_hand(after_pruning, patience, leaves):
    """Rungs up to the pruning step, here five of loss 0.1, do not count."""
    assert leaves_after([0.1] * 5 + after_pruning, patience) == leaves
