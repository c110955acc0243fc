"""Walks over tiles on a GPU against the products of ``FusedMlp``; without one, interpreted."""

import pytest
import torch

from gped_nas.distill.fused_mlp import FusedMlp
from gped_nas.distill.phases.bundle import PhasedMlp
from gped_nas.distill.phases.launch import Launch
from gped_nas.distill.phases.tiles import Sizes
from gped_nas.models.base import Genotype, shapes_of
from tests.distill.populations import fresh, make_data, value_of
from tests.gpu.place import DEVICE, IS_CARD, cases

POPULATION = cases(
    [
        Genotype("mlp", depth=0),
        Genotype("mlp", depth=1, width=7),
        Genotype("mlp", depth=1, width=130),
        Genotype("mlp", depth=2, width=[40, 70]),
        Genotype("mlp", depth=2, width=[40, 300]),
        Genotype("mlp", depth=3, width=[200, 33, 90]),
    ],
    [Genotype("mlp", depth=0), Genotype("mlp", depth=2, width=[7, 70])],
)
SIZE = 200 if IS_CARD else 20
# the interpreter's products are right in float32 alone
ROUNDED = torch.bfloat16 if IS_CARD else torch.float32


def gradients(kind, students, *, size=SIZE, dtype=torch.float32, **more):
    """Losses and gradients of a batch, on the CPU, of a bundle on the GPU."""
    shapes = [shapes_of(s.params) for s in students]
    bundle = kind(shapes, [s.chain for s in students], value_of, dtype=dtype, device=DEVICE, **more)
    for views, student in zip(bundle.views(bundle.buffers.theta), students, strict=True):
        for name, value in student.params.items():
            views[name].copy_(value)
    bundle.buffers.refresh()
    x, expectations = make_data(size).to(DEVICE).batch(torch.arange(size, device=DEVICE))
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


@pytest.mark.parametrize("size", cases([200, 256, 100], [20]))
@pytest.mark.parametrize(
    "sizes", cases([Sizes(64, 64), Sizes(32, 64), Sizes(64, 128)], [Sizes(32, 64)]), ids=str
)
def test_gradients_are_those_of_products(sizes, size):
    students = fresh(POPULATION)
    losses, ours = gradients(PhasedMlp, students, size=size, launch=Launch(sizes))
    expected, theirs = gradients(FusedMlp, students, size=size)
    assert torch.allclose(losses, expected, rtol=1e-5)
    assert worst(ours, theirs) < 1e-5


def test_bfloat16_rounds_as_products_do():
    students = fresh(POPULATION)
    _, exact = gradients(FusedMlp, students)
    _, ours = gradients(PhasedMlp, students, dtype=ROUNDED)
    _, theirs = gradients(FusedMlp, students, dtype=ROUNDED)
    assert worst(ours, exact) < 1.5 * max(worst(theirs, exact), 1e-6)


def test_a_hundred_walks_give_the_same_bits():
    students = fresh(POPULATION)
    _, first = gradients(PhasedMlp, students, dtype=ROUNDED)
    for _ in cases(range(100), range(2)):
        _, again = gradients(PhasedMlp, students, dtype=ROUNDED)
        assert worst(again, first) == 0


def test_a_student_alone_is_the_student_among_others():
    students = fresh(POPULATION)
    _, together = gradients(PhasedMlp, students)
    for i in range(len(students)):
        _, alone = gradients(PhasedMlp, students[i : i + 1])
        assert worst(alone, together[i : i + 1]) == 0
