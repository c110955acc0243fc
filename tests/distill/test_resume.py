"""Training to the end is training to the middle, stored, loaded, and on."""

import dataclasses
from itertools import islice

import pytest
import torch

from gped_nas.distill import kernel, layout
from gped_nas.distill.checkpoint import load_trainee, save_trainee
from gped_nas.distill.course import Course, begin
from gped_nas.distill.feed import CachedFeed, PosteriorPredictions
from gped_nas.distill.kernel import distill, train
from gped_nas.distill.recipe import Recipe
from gped_nas.distill.team import Team
from gped_nas.errors import ConfigError
from gped_nas.targets.expectations import expect
from tests.distill.populations import (
    CPU,
    FAMILIES_OF,
    MIXED,
    NORMED,
    make_data,
    relative_difference,
)

MLPS = FAMILIES_OF["mlp"]
OPTIMIZERS = ("adamw", "muon", "sgd")
VALIDATION = make_data(35, seed=5)
STEPS, PRUNED = 30, 20
SETTINGS = {
    "steps": STEPS,
    "batch_size": 16,
    "warmup": 5,
    "lr": 0.02,
    "lr_rest": 0.01,
    "weight_decay": 0.05,
    "beta2": 0.95,
    "momentum": 0.8,
    "prune_at": 0.7,
    "prox_every": 5,
    "rungs": 5,
    "precision": "float32",
}
STOPS = {"in-the-first-phase": 7, "at-a-rung": 12, "pruning": PRUNED, "in-the-second-phase": 27}


def recipe_of(**changes):
    recipe = Recipe(**{**SETTINGS, **changes})
    assert recipe.prune_step == PRUNED
    if recipe.rungs:
        assert STOPS["at-a-rung"] in recipe.rung_steps
    return recipe


def course_of(recipe, data=None):
    return Course(data or make_data(), recipe, 0, VALIDATION)


def through_files(course, students, folder):
    """The students as another process finds them."""
    for i, student in enumerate(students):
        save_trainee(folder / f"{i}.safetensors", student, course)
    return [load_trainee(folder / f"{i}.safetensors", course) for i in range(len(students))]


def trained_by_way_of(stops, course, genotypes, folder, **more):
    students = begin(course, genotypes, device=CPU)
    for stop in (*stops, course.recipe.steps):
        students = train(course, students, until=stop, device=CPU, **more)
        students = through_files(course, students, folder)
    return students


def assert_same(students, expected_students, *, bound=0.0):
    """The students are equal, to the bit or but for rounding."""
    for student, expected in zip(students, expected_students, strict=True):
        for name in ("genotype", "seed", "num_dead", "has_left", "step"):
            assert getattr(student, name) == getattr(expected, name), name

        compared = [
            (student.params, expected.params),
            (student.trained().params, expected.trained().params),
        ]
        if student.average:
            compared.append((student.average, expected.average))
        for part, memory in student.memory.items():
            compared.append((memory, expected.memory[part]))
        for params, expected_params in compared:
            assert list(params) == list(expected_params)
            difference = relative_difference(params, expected_params)
            assert difference <= bound, str(student.genotype)

        assert_same_points(student.losses, expected.losses, bound=bound)
        assert_same_points(student.rungs, expected.rungs, bound=bound)


def assert_same_points(points, expected, *, bound):
    assert [step for step, _ in points] == [step for step, _ in expected]
    assert dict(points) == pytest.approx(dict(expected), rel=10 * bound, abs=0)


@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("stop", STOPS)
def test_students_of_every_family_are_the_same_bits(stop, optimizer, average, tmp_path):
    course = course_of(recipe_of(optimizer=optimizer, average=average))
    whole = trained_by_way_of([], course, MIXED, tmp_path)
    assert_same(trained_by_way_of([STOPS[stop]], course, MIXED, tmp_path), whole)
    assert sum(student.num_dead for student in whole) > 3, "pruning is part of it"


@pytest.mark.parametrize(
    "changes",
    [
        {"centered": True},
        {"components": 10},
        {"components": 10, "centered": True, "average": 0.9},
        {"lr_width_power": 0.5, "lr": 0.005},
        {"precision": "bfloat16"},
    ],
    ids=["centered", "components", "all-of-it", "step-sizes-of-their-own", "bfloat16"],
)
@pytest.mark.parametrize("stop", STOPS)
def test_students_in_another_form_are_the_same_bits(stop, changes, tmp_path):
    course = course_of(recipe_of(**changes))
    whole = trained_by_way_of([], course, MLPS, tmp_path)
    assert_same(trained_by_way_of([STOPS[stop]], course, MLPS, tmp_path), whole)


@pytest.mark.parametrize("stop", STOPS)
def test_students_with_norms_are_the_same_bits(stop, tmp_path):
    course = course_of(recipe_of(average=0.9))
    whole = trained_by_way_of([], course, NORMED, tmp_path)
    assert_same(trained_by_way_of([STOPS[stop]], course, NORMED, tmp_path), whole)


def data_with_samples():
    data = make_data()
    generator = torch.Generator().manual_seed(3)
    log_prob = torch.randn((4, len(data.inputs), 3), generator=generator).log_softmax(-1)
    weight = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    samples = PosteriorPredictions([[log_prob.numpy()]], weight)
    averages = {t.name: expect(t, log_prob, weight) for t in data.layout.targets}
    return dataclasses.replace(data, expectations=averages, samples=samples)


@pytest.mark.parametrize("update", ["averaged", "newest", "running_mean"])
@pytest.mark.parametrize("stop", STOPS)
def test_students_of_every_update_rule_are_the_same_bits(stop, update, tmp_path):
    course = course_of(recipe_of(update=update, rungs=0), data_with_samples())
    whole = trained_by_way_of([], course, MIXED, tmp_path)
    assert_same(trained_by_way_of([STOPS[stop]], course, MIXED, tmp_path), whole)


def test_a_stop_after_every_step_changes_no_bit(tmp_path):
    course = course_of(recipe_of(average=0.9))
    whole = trained_by_way_of([], course, MIXED, tmp_path)
    assert_same(trained_by_way_of(range(STEPS), course, MIXED, tmp_path), whole)


def test_students_that_stop_are_those_of_distill(tmp_path):
    course = course_of(recipe_of())
    students = trained_by_way_of([13], course, MIXED, tmp_path)
    population = distill(
        MIXED, course.data, course.recipe, seed=0, device=CPU, validation=VALIDATION
    )
    for student, expected in zip(students, population.students, strict=True):
        trained = student.trained()
        assert trained.losses == expected.losses and trained.rungs == expected.rungs
        assert all(torch.equal(trained.params[k], p) for k, p in expected.params.items())


# -- in another layout, but for rounding


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("stop", STOPS)
def test_some_go_on_alone(stop, optimizer, tmp_path):
    course = course_of(recipe_of(optimizer=optimizer, average=0.9))
    whole = trained_by_way_of([], course, MIXED, tmp_path)
    students = begin(course, MIXED, device=CPU)
    students = train(course, students, until=STOPS[stop], device=CPU)
    some = through_files(course, students, tmp_path)[1::2]
    assert_same(train(course, some, until=STEPS, device=CPU), whole[1::2], bound=2e-4)


@pytest.mark.parametrize("stop", STOPS)
def test_another_number_of_workers(stop, tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "_WORTH_A_WORKER", 1)
    course = course_of(recipe_of())
    whole = trained_by_way_of([], course, MIXED, tmp_path, workers=1)
    students = begin(course, MIXED, device=CPU)
    students = train(course, students, until=STOPS[stop], device=CPU, workers=3)
    assert_same(train(course, students, until=STEPS, device=CPU, workers=2), whole, bound=2e-4)


@pytest.mark.parametrize("update", ["averaged", "running_mean"])
def test_students_of_different_budgets_go_on_together(update):
    """Two wait at 22, one at 7, one has not begun."""
    course = course_of(recipe_of(rungs=0, update=update), data_with_samples())
    students = list(begin(course, MIXED[:4], device=CPU))
    whole = train(course, students, until=STEPS, device=CPU)
    students[:2] = train(course, students[:2], until=22, device=CPU)
    students[2:3] = train(course, students[2:3], until=7, device=CPU)
    assert [student.step for student in students] == [22, 22, 7, 0]
    together = train(course, students, until=STEPS, device=CPU)
    assert_same(together, whole, bound=2e-4)


def test_who_was_begun_in_another_precision_goes_on_in_it():
    halves = course_of(recipe_of(precision="bfloat16"))
    course = course_of(recipe_of())
    mixed = [begin(course, MLPS[:2], device=CPU)[0], begin(halves, MLPS[2:4], device=CPU)[0]]
    trained = train(course, mixed, until=STEPS, device=CPU)
    assert_same(trained[:1], train(course, mixed[:1], until=STEPS, device=CPU))
    assert_same(trained[1:], train(halves, mixed[1:], until=STEPS, device=CPU))


def test_a_frame_of_another_machine_is_kept():
    """There a direction has the other sign; a student that stays in his frame does not mind."""
    course = course_of(recipe_of(components=10))
    here = begin(course, MLPS[4:6], device=CPU)
    whole = train(course, here, until=STEPS, device=CPU)
    signs = torch.ones(10)
    signs[::3] = -1

    def turn(student):
        frame = dataclasses.replace(student.frame, basis_DJ=student.frame.basis_DJ * signs)
        turned_weight = student.params["layers.0.weight"] * signs
        params = {**student.params, "layers.0.weight": turned_weight}
        return dataclasses.replace(student, frame=frame, params=params)

    mixed = train(course, [here[0], turn(here[1])], until=STEPS, device=CPU)
    for student, expected in zip(mixed, whole, strict=True):
        difference = relative_difference(student.trained().params, expected.trained().params)
        assert difference < 2e-4


# -- budgets


def test_who_is_there_already_comes_back_as_he_is():
    course = course_of(recipe_of())
    students = train(course, begin(course, MIXED[:2], device=CPU), until=14, device=CPU)
    again = train(course, students, until=14, device=CPU)
    back = train(course, students, until=3, device=CPU)
    assert_same(again, students)
    assert_same(back, students)


def test_what_is_trained_on_stays_as_it_is():
    """So that one checkpoint can be gone on with twice."""
    course = course_of(recipe_of(average=0.9))
    students = train(course, begin(course, MIXED, device=CPU), until=22, device=CPU)
    once = train(course, students, until=STEPS, device=CPU)
    assert [student.step for student in students] == [22] * len(MIXED)
    assert_same(train(course, students, until=STEPS, device=CPU), once)


def test_who_has_left_stays_away(monkeypatch, tmp_path):
    """The first is told at the rung at 24 to have stopped improving.

    One stop lies before it, one behind it.
    """
    look = kernel._Training._look
    is_out_of_patience = kernel.is_out_of_patience

    def look_and_lose(self, training, step):
        look(self, training, step)
        for student in self.students:
            if student.genotype == MIXED[0] and step == 24:
                student.rungs = (*student.rungs[:-1], (step, -1.0))

    def has_lost(rungs, recipe, prune_step):
        return rungs[-1][1] < 0 or is_out_of_patience(rungs, recipe, prune_step)

    monkeypatch.setattr(kernel._Training, "_look", look_and_lose)
    monkeypatch.setattr(kernel, "is_out_of_patience", has_lost)
    course = course_of(recipe_of())
    whole = trained_by_way_of([], course, MIXED, tmp_path)
    assert [student.has_left for student in whole] == [True] + [False] * (len(MIXED) - 1)
    assert [student.step for student in whole] == [24] + [STEPS] * (len(MIXED) - 1)
    assert_same(trained_by_way_of([22, 26], course, MIXED, tmp_path), whole)


def test_memory_that_ended_is_no_end(monkeypatch, tmp_path):
    """A student that does not fit comes back as he was, and goes on where there is room."""
    course = course_of(recipe_of())
    whole = trained_by_way_of([], course, MIXED[:3], tmp_path)
    students = train(course, begin(course, MIXED[:3], device=CPU), until=12, device=CPU)
    run = Team.run

    def run_limited(self, steps):
        if any(student.genotype == MIXED[1] for student in self.students):
            raise MemoryError
        run(self, steps)

    with monkeypatch.context() as patch:
        patch.setattr(Team, "run", run_limited)
        students = train(course, students, until=25, device=CPU)
    assert [student.step for student in students] == [25, 12, 25]
    assert [bool(student.trained().failure) for student in students] == [False, True, False]

    students = through_files(course, students, tmp_path)
    assert_same(train(course, students, until=STEPS, device=CPU), whole, bound=2e-4)


@pytest.mark.parametrize("until", [-1, STEPS + 1])
def test_a_stop_that_is_no_step_is_refused(until):
    course = course_of(recipe_of())
    students = begin(course, MIXED[:1], device=CPU)
    with pytest.raises(ConfigError, match=f"until: found {until}, expected .* from 0 to {STEPS}"):
        train(course, students, until=until, device=CPU)


@pytest.mark.parametrize(("start", "until"), [(0, 10), (10, STEPS)])
def test_a_chain_cannot_be_stopped_in_the_middle(start, until):
    course = course_of(recipe_of())
    students = train(course, begin(course, MIXED[:1], device=CPU), until=start, device=CPU)
    feed = CachedFeed(course.data, course.recipe, 0)
    with pytest.raises(ConfigError, match="online chain are trained from step 0 to 30 in one call"):
        train(course, students, until=until, device=CPU, feed=feed)


# -- the shared batch stream


@pytest.mark.parametrize("update", ["averaged", "newest", "running_mean"])
@pytest.mark.parametrize("batch_size", [1, 7, 30, 60, 100])
def test_a_feed_goes_on_from_every_step(update, batch_size):
    """Of 60 inputs: inside a pass, across two, whole passes."""
    data, recipe = data_with_samples(), Recipe(update=update, batch_size=batch_size)
    batches = list(islice(CachedFeed(data, recipe, 4), 24))
    feed = CachedFeed(data, recipe, 4)
    for step in range(20):
        resumed = CachedFeed(data, recipe, 4, feed.position())
        for expected_x, expected in batches[step : step + 4]:
            x, values = next(resumed)
            assert torch.equal(x, expected_x)
            assert all(torch.equal(values[name], value) for name, value in expected.items())
        next(feed)
