"""The kernel on a GPU against the reference on the CPU; without a GPU, on what stands for it."""

import pytest
import torch

from gped_nas.distill import course, kernel, replay, team
from gped_nas.distill.feed import CachedFeed
from gped_nas.distill.kernel import distill
from gped_nas.distill.pruning import prox_group_lasso
from gped_nas.distill.replay import ScheduledStep
from gped_nas.models.base import Genotype
from tests.distill.populations import CPU, FAMILIES_OF, MIXED, make_data, relative_difference
from tests.distill.reference import distill_one
from tests.distill.test_kernel_families import OPTIMIZERS, recipe_of
from tests.gpu.place import DEVICE, cases, no_waits, waits_allowed

SIZES = {
    "one": MIXED[:1],
    "mixed": MIXED,
    "many": [
        Genotype("mlp", depth=1 + i % 3, width=3 + i // 2, group_penalty=0.02 * (i % 4))
        for i in range(24)
    ],
    **FAMILIES_OF,
}


def run(genotypes, recipe, **more):
    return distill(genotypes, make_data(), recipe, seed=0, device=DEVICE, **more).students


@pytest.fixture
def graphs(monkeypatch):
    """Every replay that is made."""
    made = []

    class Watched(replay.Replay):
        def __init__(self, step: ScheduledStep) -> None:
            super().__init__(step)
            made.append(self)

    monkeypatch.setattr(team, "Replay", Watched)
    return made


@pytest.mark.parametrize("optimizer", cases(OPTIMIZERS, ["sgd"]))
@pytest.mark.parametrize(
    ("size", "kernel"),
    cases([*((size, "auto") for size in sorted(SIZES)), ("mixed", "graph")], [("mixed", "graph")]),
)
def test_students_equal_those_of_the_oracle(size, optimizer, kernel, graphs):
    """Recorded steps, pruned on the way, with running averages and step sizes of their own."""
    recipe = recipe_of(
        optimizer, kernel=kernel, average=0.9, lr_width_power=0.5, lr=0.005, lr_rest=0.002
    )
    for student in run(SIZES[size], recipe):
        expected = distill_one(student.genotype, make_data(), recipe, seed=0, prox=prox_group_lasso)
        assert relative_difference(student.params, expected) < 1e-3, str(student.genotype)
        assert all(p.device == CPU for p in student.params.values()) and not student.failure
    assert len(graphs) == 2, "one a layout"
    assert all(replay._graph is not None for replay in graphs), "each is recorded"


@pytest.mark.parametrize("optimizer", cases(OPTIMIZERS, ["sgd"]))
def test_a_recorded_step_is_a_plain_one(optimizer, monkeypatch):
    """With and without a graph these are the same operations; only their order in time differs."""
    recipe = recipe_of(optimizer, average=0.5)
    recorded = run(MIXED, recipe)
    monkeypatch.setattr(replay, "WARM_UP", recipe.steps)
    for student, twin in zip(recorded, run(MIXED, recipe), strict=True):
        assert relative_difference(twin.params, student.params) < 1e-4
        assert dict(twin.losses) == pytest.approx(dict(student.losses), rel=1e-4)


@pytest.mark.parametrize("optimizer", cases(OPTIMIZERS, ["sgd"]))
def test_some_leave_and_the_others_go_on(optimizer, graphs, monkeypatch):
    """Two of six leave after the rung at 35: three layouts, three graphs."""
    look = kernel._Training._look
    mark = -1.0

    def look_and_mark(self, training, step):
        look(self, training, step)
        if step == 35:
            for student in self.students[:2]:
                student.rungs = (*student.rungs[:-1], (step, mark))

    monkeypatch.setattr(kernel._Training, "_look", look_and_mark)
    monkeypatch.setattr(
        kernel, "is_out_of_patience", lambda rungs, recipe, at: rungs[-1][1] == mark
    )
    recipe = recipe_of(optimizer, rungs=10, patience=1)
    students = run(MIXED, recipe, validation=make_data(30, seed=1))
    assert [len(student.rungs) for student in students] == [7, 7, 10, 10, 10, 10]
    assert len(graphs) == 3
    for student in students[2:]:
        expected = distill_one(student.genotype, make_data(), recipe, seed=0, prox=prox_group_lasso)
        assert relative_difference(student.params, expected) < 1e-3, str(student.genotype)


@pytest.mark.parametrize("optimizer", cases(OPTIMIZERS, ["sgd"]))
def test_bfloat16_learns_what_float32_does(optimizer):
    exact = run(MIXED, recipe_of(optimizer, precision="float32"))
    rounded = run(MIXED, recipe_of(optimizer, precision="bfloat16"))
    for student, twin in zip(exact, rounded, strict=True):
        assert not twin.failure
        assert twin.losses[-1][1] == pytest.approx(student.losses[-1][1], rel=0.1)


# torch warns that it does not see every wait
@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
@pytest.mark.parametrize("optimizer", cases(OPTIMIZERS, ["adamw"]))
def test_a_step_never_waits_for_the_device(optimizer, monkeypatch):
    """Recorded or not, shrinking or averaging.

    Only rungs, layouts and the end of training may wait.
    """
    run(MIXED, recipe_of(optimizer))  # libraries set themselves up
    run_steps = team.Team.run
    call = replay.Replay.__call__

    def call_watched(self):
        # buffers for the batch are laid out by the first step; recording waits by torch's own hand
        is_first = self._num_plain == 0
        is_recording = self._num_plain == replay.WARM_UP and self._graph is None
        if not is_first and not is_recording:
            return call(self)
        with waits_allowed():
            return call(self)

    def run_watched(self, steps):
        with no_waits():
            run_steps(self, steps)

    monkeypatch.setattr(replay.Replay, "__call__", call_watched)
    monkeypatch.setattr(team.Team, "run", run_watched)
    assert not any(student.failure for student in run(MIXED, recipe_of(optimizer, average=0.5)))


def test_batches_that_are_fed_train_the_same_students():
    recipe = recipe_of("adamw")
    data = make_data().to(DEVICE)
    fed = run(MIXED, recipe, feed=CachedFeed(data, recipe, 0))
    for student, twin in zip(run(MIXED, recipe), fed, strict=True):
        assert relative_difference(twin.params, student.params) < 1e-4


def test_several_workers_are_one():
    """Whatever is asked for: a GPU is kept busy by one, and everyone is trained."""
    recipe = recipe_of("adamw")
    for student, twin in zip(run(MIXED, recipe), run(MIXED, recipe, workers=4), strict=True):
        assert relative_difference(twin.params, student.params) < 1e-4


def test_a_student_that_diverges_fails_alone(monkeypatch):
    recipe = recipe_of("muon")
    # without a penalty it stays as large, so that the layout is the same in both runs
    population = list(MIXED)
    population[2] = MIXED[2].replace(group_penalty=0.0)
    clean = run(population, recipe)
    draw = course._fresh

    def draw_broken(course, genotype, *more):
        student = draw(course, genotype, *more)
        if genotype == population[2]:
            student.params["layers.0.weight"].fill_(float("nan"))
        return student

    monkeypatch.setattr(course, "_fresh", draw_broken)
    students = run(population, recipe)
    assert students[2].failure
    for i, (before, after) in enumerate(zip(clean, students, strict=True)):
        if i != 2:
            assert not after.failure
            assert relative_difference(after.params, before.params) < 1e-5


def test_memory_that_does_not_suffice_is_told_and_halved(monkeypatch):
    """The allocator's own error, with so little allowed that the whole population does not fit."""
    recipe = recipe_of("adamw", steps=10)
    fill = team.Team.__init__

    def hungry(self, room, students, curves, **more):
        fill(self, room, students, curves, **more)
        if len(students) > 3:
            torch.empty(2**50, dtype=torch.uint8, device=DEVICE)

    monkeypatch.setattr(team.Team, "__init__", hungry)
    assert not any(student.failure for student in run(MIXED, recipe))
