"""Updates and proximal steps of a whole buffer in one launch, against torch's, interpreted."""

import importlib.util

import pytest
import torch

from gped_nas.distill.buffers import Buffers
from gped_nas.distill.phases.update import (
    AdamWUpdate,
    PenalizedUnits,
    SgdUpdate,
    Shrinking,
    factor_table,
)
from gped_nas.distill.pruning import prox_group_lasso
from gped_nas.distill.recipe import Recipe
from tests.distill.populations import MLP, bundle_of, fresh

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)
SIZE = 1600
LR = 0.02


@pytest.fixture
def buffers():
    generator = torch.Generator().manual_seed(0)
    buffers = Buffers(torch.randn(SIZE, generator=generator), torch.float32)
    buffers.work_grad.copy_(torch.randn(SIZE, generator=generator))
    return buffers


@pytest.fixture
def factors():
    """A factor of its own for each sixteen numbers."""
    return 0.5 + torch.rand(SIZE // 16, generator=torch.Generator().manual_seed(1))


def taken_by_torch(kind, start, grad, factors, steps, **settings):
    """Parameters after steps of one of torch's optimizers, each sixteen with their factor."""
    parts = [part.clone().requires_grad_() for part in start.split(16)]
    groups = [
        {"params": [part], "lr": LR * float(factor)}
        for part, factor in zip(parts, factors, strict=True)
    ]
    optimizer = kind(groups, **settings)
    for _ in range(steps):
        for part, part_grad in zip(parts, grad.split(16), strict=True):
            part.grad = part_grad.clone()
        optimizer.step()
    return torch.cat([part.detach() for part in parts])


@pytest.mark.parametrize("beta1", [0.9, 0.0])
def test_an_update_of_adamw_is_torchs(buffers, factors, beta1):
    recipe = Recipe(weight_decay=0.1, beta1=beta1, beta2=0.999)
    expected = taken_by_torch(
        torch.optim.AdamW, buffers.theta, buffers.work_grad, factors, 3,
        betas=(beta1, 0.999), eps=1e-8, weight_decay=0.1,
    )  # fmt: skip
    first, second, updates = torch.zeros(SIZE), torch.zeros(SIZE), torch.tensor(0.0)
    update = AdamWUpdate(buffers, first, second, updates, recipe, factors)
    for _ in range(3):
        updates.add_(1)
        update(torch.tensor(LR))
    assert torch.allclose(buffers.theta, expected, rtol=1e-5, atol=1e-6)
    assert torch.allclose(second, (1 - 0.999**3) * buffers.work_grad.square(), rtol=1e-4)


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_an_update_of_sgd_is_torchs(buffers, factors, momentum):
    recipe = Recipe(optimizer="sgd", weight_decay=0.1, momentum=momentum)
    expected = taken_by_torch(
        torch.optim.SGD, buffers.theta, buffers.work_grad, factors, 3,
        momentum=momentum, nesterov=momentum > 0, weight_decay=0.1,
    )  # fmt: skip
    memory = torch.zeros(SIZE)
    update = SgdUpdate(buffers, memory, recipe, factors)
    for _ in range(3):
        update(torch.tensor(LR))
    assert torch.allclose(buffers.theta, expected, rtol=1e-5, atol=1e-6)
    assert bool(memory.any()) == (momentum > 0)


def test_factors_lie_where_their_students_numbers_do():
    students = fresh(MLP)
    bundle = bundle_of(students, round_to=16)
    table = factor_table(bundle, [float(i) for i in range(len(students))])
    for piece in bundle.pieces():
        if piece.cut.start % 16 == 0 and piece.cut.stop % 16 == 0:
            factors = table[piece.cut.start // 16 : piece.cut.stop // 16]
            assert (factors == piece.student).all()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_proximal_step_is_that_of_torch(buffers, optimizer):
    """Rows that live, die, lie apart, have many numbers, are zero, or are not finite."""
    recipe = Recipe(optimizer=optimizer, beta2=0.9, momentum=0.8)
    second = 0.1 + torch.rand(SIZE, generator=torch.Generator().manual_seed(2))
    updates = torch.tensor(4.0)
    theta = buffers.theta
    wide, narrow = theta[:1200].view(6, 200), theta[1200:1600].view(25, 16)[:, :13]
    wide[1] *= 1e-3
    wide[2] = 0
    wide[3, 5] = torch.nan
    narrow[::3] *= 0.01
    before = theta.clone()

    if optimizer == "adamw":
        scale = 1 / ((second / (1 - 0.9**4)).sqrt() + 1e-8)
    else:
        scale = torch.full((SIZE,), 1 / (1 - 0.8))
    expected = [
        prox_group_lasso(wide.clone(), scale[:1200].view(6, 200), LR, 0.3),
        prox_group_lasso(narrow.clone(), scale[1200:].view(25, 16)[:, :13], LR, 0.9),
    ]

    units = [PenalizedUnits(wide, 0.3), PenalizedUnits(narrow, 0.9)]
    memory = second if optimizer == "adamw" else None
    Shrinking(buffers, units, recipe, second=memory, updates=updates)(LR)
    for ours, theirs in zip((wide, narrow), expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-7, equal_nan=True)
        assert torch.equal(ours == 0, theirs == 0)
    # some die of each, and what lies between the rows is as it was
    assert (wide == 0).all(1).sum() == 2 and 0 < (narrow == 0).all(1).sum() < 25
    assert torch.equal(theta[1200:].view(25, 16)[:, 13:], before[1200:].view(25, 16)[:, 13:])
