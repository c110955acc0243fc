"""Students are begun, data are kept, and frames are left on a device as on the processor."""

import gc
from dataclasses import replace

import pytest
import torch

from gped_nas.distill import course as courses
from gped_nas.distill.course import Course, begin
from gped_nas.distill.feed import DistillationSet
from gped_nas.distill.kernel import distill
from gped_nas.distill.recipe import Recipe
from gped_nas.distill.resident import _THERE, leave_devices, moved
from gped_nas.models.base import Genotype
from gped_nas.targets.layout import HeadLayout
from tests.distill.populations import relative_difference
from tests.gpu.place import DEVICE, IS_CARD

CPU = torch.device("cpu")
ELSEWHERE = DEVICE if IS_CARD else torch.device("meta")


def pool(num: int = 5000, side: int = 4) -> DistillationSet:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((num, 1, side, side), generator=generator)
    says = torch.rand((num, 3), generator=generator).softmax(-1)
    return DistillationSet(x, {"predictive": says}, HeadLayout(["predictive"], 3))


MLPS = [Genotype("mlp", depth=1, width=7), Genotype("mlp", depth=2, width=[9, 4])]
NORMED = [Genotype("cnn", depth=1, width=4, kernel=3, norm=norm) for norm in ("batch", "weight")]


@pytest.mark.parametrize(
    ("genotypes", "settings"),
    [
        (MLPS, {"components": 6, "centered": True}),
        (MLPS, {"centered": True}),
        (NORMED, {}),
    ],
    ids=["components", "centered", "norms"],
)
def test_students_are_begun_as_on_the_processor(genotypes, settings):
    """Few inputs go there, and are those that the processor looks at."""
    course = Course(pool(), Recipe(steps=20, batch_size=64, **settings), seed=3)
    expected = begin(course, genotypes, device=CPU)
    entrance = courses._Entrance.here(course).moved_to(DEVICE, course.recipe)
    assert len(entrance.data.inputs) < len(course.data.inputs)

    for genotype, other in zip(genotypes, expected, strict=True):
        student = courses._fresh(course, genotype, other.precision, entrance)
        assert student.seed == other.seed and student.frame is other.frame
        for part in ("params", "constants"):
            mine, theirs = getattr(student, part), getattr(other, part)
            assert mine.keys() == theirs.keys()
            for name, value in mine.items():
                assert value.device == CPU
                assert torch.allclose(value, theirs[name], rtol=1e-4, atol=1e-5), name
        for center, theirs in zip(student.centers, other.centers, strict=True):
            assert torch.allclose(center, theirs, rtol=1e-4, atol=1e-5)


def test_a_frame_is_left_on_a_device_as_on_the_processor():
    course = Course(pool(), Recipe(steps=20, batch_size=64, components=6), seed=3)
    for student in begin(course, MLPS, device=CPU):
        there, here = student.trained(DEVICE), student.trained()
        assert {value.device for value in there.params.values()} == {CPU}
        assert relative_difference(there.params, here.params) < 1e-6


def test_data_stay_on_a_device_as_long_as_they_are_there():
    data = pool(20)
    there = moved(data, ELSEWHERE, torch.bfloat16)
    assert there.inputs.device.type == ELSEWHERE.type and there.inputs.dtype == torch.bfloat16
    assert moved(data, ELSEWHERE, torch.bfloat16) is there
    assert moved(data, ELSEWHERE, torch.float32) is not there
    leave_devices()
    assert moved(data, ELSEWHERE, torch.bfloat16) is not there

    del data
    gc.collect()
    assert not _THERE
    # the processor's are where they are
    data = pool(20)
    assert moved(data, CPU, torch.float32).inputs is data.inputs and not _THERE


def test_a_population_that_does_not_fit_lets_the_data_go(monkeypatch):
    data = pool(40)
    moved(replace(data), ELSEWHERE, torch.float32)
    kept = moved(data, ELSEWHERE, torch.float32)
    tried = []

    def hungry(self, job, students, until):
        tried.append(len(students))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("gped_nas.distill.kernel._Training.__init__", hungry)
    recipe = Recipe(steps=20, batch_size=8)
    students = distill(MLPS, data, recipe, seed=0, device=CPU).students
    assert tried == [2, 1, 1] and all("out of memory" in s.failure for s in students)
    assert moved(data, ELSEWHERE, torch.float32) is not kept
