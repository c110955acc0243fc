"""Deep students with batch norm under AdamW, step by step against the oracle.

After 50 steps in float32 they are far from it: by .3 of their largest number at some step sizes.
What a gain or a weight multiplies is normalized again behind it, so that its gradient is nearly
zero: of 1e-7 to 1e-5 of the largest one, where rounding is of 1e-7. AdamW divides by the size of
gradients and makes whole steps of that. So steps are compared here, and whole runs in float64.
"""

import pytest
import torch

from gped_nas.distill.bundle import InTurn
from gped_nas.distill.course import student_seed
from gped_nas.distill.feed import CachedFeed
from gped_nas.distill.training import TrainedBundle
from gped_nas.models.base import FAMILIES, shapes_of
from tests.distill import reference_norms
from tests.distill.populations import (
    CPU,
    NORMED,
    fresh,
    make_data,
    relative_difference,
    value_of,
)
from tests.distill.test_kernel_families import recipe_of

CNN = FAMILIES["cnn"]
DEEP = [NORMED[1], NORMED[2]]
RECIPE = recipe_of("adamw", lr=0.001)


def begun(genotype):
    """A student's first parameters, plain."""
    generator = torch.Generator().manual_seed(student_seed(0, genotype))
    return CNN.initialize(make_data().shapes(genotype), generator=generator)


def gradients_of(forward, params, x, expectations):
    """In float64, of the loss that a bundle has."""
    leaves = {name: p.detach().double().requires_grad_() for name, p in params.items()}
    exact = {name: e.double() for name, e in expectations.items()}
    value = value_of(forward(leaves, x.double()), exact)
    return dict(zip(leaves, torch.autograd.grad(value, list(leaves.values())), strict=True))


@pytest.mark.parametrize("genotype", DEEP, ids=["plain", "separable"])
def test_each_step_of_deep_batch_norms_is_the_oracles_but_for_rounding(genotype):
    """Gradients at the parameters that AdamW has brought the kernel to."""
    (student,) = fresh([genotype])
    student.params, student.constants = genotype.form.begin(begun(genotype))
    bundle = InTurn(
        CNN,
        [shapes_of(student.params)],
        value_of,
        dtype=torch.float32,
        device=CPU,
        forwards=[student.forward],
    )
    training = TrainedBundle(bundle, [student], RECIPE, updates=0)
    oracle = reference_norms.of(genotype)

    feed = CachedFeed(make_data(), RECIPE, 0)
    for step in range(RECIPE.steps):
        x, expectations = next(feed)
        training.unload()
        expected = gradients_of(oracle.forward, student.params, x, expectations)
        training.step(x, expectations, RECIPE.lr_at(step))

        (grads,) = bundle.views(bundle.buffers.work_grad)
        largest = max(float(gradient.abs().max()) for gradient in expected.values())
        for name, gradient in expected.items():
            # of sums over 16 pictures of 36 pixels; 3e-6 on the processor that this was written on
            assert float((grads[name] - gradient).abs().max()) < 1e-5 * largest, (step, name)


@pytest.mark.parametrize("genotype", DEEP, ids=["plain", "separable"])
def test_runs_of_deep_batch_norms_are_the_oracles_in_float64(genotype):
    runs = []
    norm = reference_norms.of(genotype)
    for forward in (lambda p, x: genotype.form.forward(p, {}, x), norm.forward):
        leaves = {name: p.double() for name, p in norm.begin(begun(genotype)).items()}
        optimizer = torch.optim.AdamW(leaves.values(), lr=RECIPE.lr)
        feed = CachedFeed(make_data(), RECIPE, 0)
        for _ in range(RECIPE.steps):
            for name, gradient in gradients_of(forward, leaves, *next(feed)).items():
                leaves[name].grad = gradient
            optimizer.step()
        runs.append(leaves)
    assert relative_difference(*runs) < 1e-8
