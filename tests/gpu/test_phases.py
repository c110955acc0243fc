"""Walks over tiles on a GPU against the products of ``FusedMlp``."""

import pytest
import torch

from gped_nas import device as devices
from gped_nas.distill.fused_mlp import FusedMlp
from gped_nas.distill.phases.bundle import PhasedMlp
from gped_nas.distill.phases.launch import Launch
from gped_nas.distill.phases.tiles import Sizes
from gped_nas.models.base import Genotype, shapes_of
from tests.distill.populations import fresh, make_data, value_of

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")
POPULATION = [
    Genotype("mlp", depth=0),
    Genotype("mlp", depth=1, width=7),
    Genotype("mlp", depth=1, width=130),
    Genotype("mlp", depth=2, width=[40, 70]),
    Genotype("mlp", depth=2, width=[40, 300]),
    Genotype("mlp", depth=3, width=[200, 33, 90]),
]


@pytest.fixture(autouse=True)
def _full_float32() -> None:
    devices.set_precision()


def gradients(kind, students, *, size=200, dtype=torch.float32, **more):
    """Losses and gradients of a batch, on the CPU, of a bundle on the GPU."""
    shapes = [shapes_of(s.params) for s in students]
    bundle = kind(shapes, [s.chain for s in students], value_of, dtype=dtype, device=CUDA, **more)
    for views, student in zip(bundle.views(bundle.buffers.theta), students, strict=True):
        for name, value in student.params.items():
            views[name].copy_(value)
    bundle.buffers.refresh()
    x, expectations = make_data(size).to(CUDA).batch(torch.arange(size, device=CUDA))
    losses_P = bundle.compute(x, expectations)
    views = bundle.views(bundle.buffers.work_grad.float())
    return losses_P.cpu(), [{name: g.cpu().clone() for name, g in v.items()} for v in views]


def worst(ours, theirs):
    """The largest relative distance of two gradients of the same parameter."""
    distances = []
    for mine, other in zip(ours, theirs, strict=True):
        for name, value in other.items():
            distances.append(float((mine[name] - value).norm() / value.norm()))
    return max(distances)


@pytest.mark.parametrize("size", [200, 256, 100])
@pytest.mark.parametrize("sizes", [Sizes(64, 64), Sizes(32, 64), Sizes(64, 128)], ids=str)
def test_gradients_are_those_of_products(sizes, size):
    students = fresh(POPULATION)
    losses, ours = gradients(PhasedMlp, students, size=size, launch=Launch(sizes))
    expected, theirs = gradients(FusedMlp, students, size=size)
    assert torch.allclose(losses, expected, rtol=1e-5)
    assert worst(ours, theirs) < 1e-5


def test_bfloat16_rounds_as_products_do():
    students = fresh(POPULATION)
    _, exact = gradients(FusedMlp, students)
    _, ours = gradients(PhasedMlp, students, dtype=torch.bfloat16)
    _, theirs = gradients(FusedMlp, students, dtype=torch.bfloat16)
    assert worst(ours, exact) < 1.5 * worst(theirs, exact)


def test_a_hundred_walks_give_the_same_bits():
    students = fresh(POPULATION)
    _, first = gradients(PhasedMlp, students, dtype=torch.bfloat16)
    for _ in range(100):
        _, again = gradients(PhasedMlp, students, dtype=torch.bfloat16)
        assert worst(again, first) == 0


def test_a_student_alone_is_the_student_among_others():
    students = fresh(POPULATION)
    _, together = gradients(PhasedMlp, students)
    for i in range(len(students)):
        _, alone = gradients(PhasedMlp, students[i : i + 1])
        assert worst(alone, together[i : i + 1]) == 0
