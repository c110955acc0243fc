"""Out of memory, and students whose numbers are not finite."""

import math

import pytest
import torch

from gped_nas.distill import layout
from gped_nas.distill.feed import CachedFeed
from gped_nas.distill.kernel import distill, student_seed
from gped_nas.distill.recipe import Recipe
from gped_nas.distill.team import Team
from gped_nas.distill.training import TrainedBundle
from gped_nas.errors import EnvironmentProblem
from gped_nas.models.base import initialize
from tests.distill.populations import CPU, MIXED, make_data, relative_difference

RECIPE = Recipe(steps=30, batch_size=16, warmup=5, lr=0.02, precision="float32")
ERRORS = {
    "cuda": lambda: torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ..."
    ),
    "cuda-says-little": lambda: torch.OutOfMemoryError(""),
    "cpu": lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to "
        "allocate 4000000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "numpy": lambda: MemoryError("Unable to allocate 2.00 GiB for an array"),
    "python": lambda: MemoryError(),
    "driver": lambda: RuntimeError("CUDA error: out of memory\nCompile with ..."),
    "cublas": lambda: RuntimeError(
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
    ),
}


def run(genotypes, recipe=RECIPE, **more):
    return distill(genotypes, make_data(), recipe, seed=0, device=CPU, **more).students


@pytest.fixture
def memory_for(monkeypatch):
    """Room for so many students at once.

    More of them, or one of a genotype that is too large, is out of memory.
    """

    def limit(error, most, too_large=None, after=0):
        sizes = []
        step = Team.run

        def run_limited(self, steps):
            genotypes = [student.genotype for student in self.students]
            sizes.append(len(genotypes))
            is_too_much = len(genotypes) > most or too_large in genotypes
            if len(sizes) > after and is_too_much:
                raise error()
            step(self, steps)

        monkeypatch.setattr(Team, "run", run_limited)
        return sizes

    return limit


@pytest.mark.parametrize("kind", ["cpu", "cuda-says-little", "python"])
def test_what_does_not_fit_is_trained_in_halves(kind, memory_for):
    expected = run(MIXED)
    sizes = memory_for(ERRORS[kind], most=2)
    halved = run(MIXED)
    assert sizes[:3] == [6, 3, 1] and max(sizes[3:]) == 3, "6 into 3 and 3, each into 1 and 2"
    for student, twin in zip(expected, halved, strict=True):
        assert twin.genotype == student.genotype and twin.seed == student.seed and not twin.failure
        assert relative_difference(twin.params, student.params) < 2e-5


def test_memory_that_ends_halfway_begins_the_students_anew(memory_for):
    expected = run(MIXED[:2])
    memory_for(ERRORS["cpu"], most=1, after=1)
    for student, twin in zip(expected, run(MIXED[:2]), strict=True):
        assert relative_difference(twin.params, student.params) < 2e-5
        assert [step for step, _ in twin.losses] == [step for step, _ in student.losses]


@pytest.mark.parametrize("kind", sorted(ERRORS))
def test_one_that_fits_into_no_memory_fails_with_a_reason(kind, memory_for):
    memory_for(ERRORS[kind], most=6, too_large=MIXED[3])
    students = run(MIXED)
    for i, student in enumerate(students):
        assert bool(student.failure) == (i == 3)

    failed = students[3]
    prefix = "out of memory: "
    assert failed.failure.startswith(prefix) and "\n" not in failed.failure
    assert len(failed.failure) > len(prefix) + 5
    assert failed.params == {} and failed.losses == ()
    assert failed.genotype == MIXED[3]
    assert failed.seed == student_seed(0, MIXED[3])


@pytest.mark.parametrize("kind", sorted(ERRORS))
def test_a_feed_of_its_own_cannot_be_begun_anew(kind, memory_for):
    memory_for(ERRORS[kind], most=2)
    with pytest.raises(
        EnvironmentProblem, match="students: 6 at once do not fit into memory .*students_at_once"
    ):
        run(MIXED, feed=CachedFeed(make_data(), RECIPE, 0))


def test_memory_that_a_worker_lacks_is_lacking_for_all(monkeypatch):
    monkeypatch.setattr(layout, "_WORTH_A_WORKER", 1)
    step = TrainedBundle.step

    def limited(self, *args):
        if len(self._students) > 1:
            raise ERRORS["cpu"]()
        return step(self, *args)

    monkeypatch.setattr(TrainedBundle, "step", limited)
    students = run([MIXED[0], MIXED[2], MIXED[4], MIXED[5]], workers=2)
    assert [student.failure for student in students] == [""] * 4


@pytest.mark.parametrize(
    "error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("memory")]
)
def test_another_error_is_no_lack_of_memory(error, monkeypatch):
    def broken(self, steps):
        raise error

    monkeypatch.setattr(Team, "run", broken)
    with pytest.raises(type(error), match=str(error)):
        run(MIXED)


# -- not finite


@pytest.mark.parametrize(
    ("bad", "value", "optimizer"),
    [
        (0, math.nan, "muon"),
        (5, math.inf, "adamw"),
        (5, math.nan, "sgd"),
        (2, -3e38, "muon"),
        (1, math.nan, "adamw"),
        (3, math.inf, "muon"),
    ],
)
def test_a_student_that_diverges_fails_alone(bad, value, optimizer, monkeypatch):
    """Of every family, through pruning and rungs; its siblings are trained as ever, to the bit.

    It has no penalty, so that it stays as large and the layout is the same in both runs: another
    layout rounds otherwise.
    """
    population = list(MIXED)
    population[bad] = MIXED[bad].replace(group_penalty=0.0)
    recipe = RECIPE.model_copy(update={"optimizer": optimizer, "rungs": 3, "lr_rest": 0.01})
    validation = make_data(20, seed=1)
    clean = run(population, recipe, validation=validation)
    seed = student_seed(0, population[bad])

    def initialize_broken(shapes, *, generator):
        params = initialize(shapes, generator=generator)
        if generator.initial_seed() == seed:
            next(iter(params.values())).fill_(value)
        return params

    monkeypatch.setattr("gped_nas.models.base.initialize", initialize_broken)
    students = run(population, recipe, validation=validation)
    assert students[bad].failure == "training diverged: its numbers are not finite"
    for i, (before, after) in enumerate(zip(clean, students, strict=True)):
        if i != bad:
            assert not after.failure
            assert after.losses == before.losses and after.rungs == before.rungs
            assert all(torch.equal(after.params[name], p) for name, p in before.params.items())


def test_a_loss_at_a_rung_that_is_not_finite_is_a_failure():
    """The student is finite and fits what it sees; of one input of validation it makes none."""
    validation = make_data(20, seed=1)
    validation.inputs[3] = math.inf
    students = run(MIXED[:1], RECIPE.model_copy(update={"rungs": 2}), validation=validation)
    assert all(bool(p.isfinite().all()) for p in students[0].params.values())
    assert students[0].failure == "training diverged: its numbers are not finite"
