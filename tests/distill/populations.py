"""Small populations of every family, what they learn from, and plain autograd beside the kernel."""

import dataclasses

import torch
from torch import Tensor

from gped_nas.distill.bundle import Bundle, InTurn
from gped_nas.distill.feed import Batch, DistillationSet
from gped_nas.distill.fused_mlp import FusedMlp
from gped_nas.distill.recipe import Recipe
from gped_nas.distill.trainee import Trainee
from gped_nas.distill.training import TrainedBundle
from gped_nas.models.base import FAMILIES, Genotype, Params, initialize, shapes_of
from gped_nas.targets.layout import HeadLayout

CPU = torch.device("cpu")
CLASSES = 3
TARGETS = ("predictive", "expected_entropy")
LAYOUT = HeadLayout(TARGETS, CLASSES)
MLP = [
    Genotype("mlp", depth=0),
    Genotype("mlp", depth=1, width=1, group_penalty=0.02),
    Genotype("mlp", depth=1, width=6),
    Genotype("mlp", depth=1, width=6, group_penalty=0.1),
    Genotype("mlp", depth=2, width=[4, 6], group_penalty=0.05),
    Genotype("mlp", depth=2, width=[9, 6], group_penalty=0.2),
    Genotype("mlp", depth=3, width=[3, 5, 4], group_penalty=0.02),
]
OTHERS = ("tanh", "silu", "gelu")
"""Activations that are no ReLUs."""
BY_ACTIVATION = {
    name: [
        Genotype("mlp", depth=1, width=1, activation=name, group_penalty=0.02),
        Genotype("mlp", depth=1, width=6, activation=name),
        Genotype("mlp", depth=1, width=6, activation=name, group_penalty=0.1),
        Genotype("mlp", depth=3, width=[3, 5, 4], activation=name, group_penalty=0.02),
    ]
    for name in OTHERS
}
CNN = [
    Genotype("cnn", depth=1, width=4, kernel=3, group_penalty=0.1),
    Genotype("cnn", depth=2, width=[2, 3], kernel=2, pool=[2, 1], head_width=[5]),
    Genotype("cnn", depth=2, width=[4, 3], kernel=3, padding="same", group_penalty=0.05),
]
RESNET = [
    Genotype("resnet", stages=1, depth=1, width=3),
    Genotype("resnet", stages=2, depth=1, width=[2, 4], group_penalty=0.05),
]
FAMILIES_OF = {"mlp": MLP, "cnn": CNN, "resnet": RESNET}
MIXED = [MLP[4], CNN[0], MLP[2], RESNET[1], MLP[0], MLP[5]]
DEEP = {"depth": 3, "width": [4, 3, 5], "kernel": 3, "padding": "same", "head": "global_average"}
NORMED = [
    Genotype("cnn", depth=2, width=[3, 4], kernel=3, norm="batch", group_penalty=0.01),
    Genotype("cnn", norm="batch", group_penalty=0.02, **DEEP),
    Genotype("cnn", norm="batch", block="separable", group_penalty=0.02, **DEEP),
    Genotype("cnn", depth=2, width=[3, 4], kernel=3, norm="weight", group_penalty=0.02),
    Genotype("cnn", norm="weight", block="separable", group_penalty=0.02, **DEEP),
]
PADDED = CNN[2]


def make_data(size: int = 60, seed: int = 0) -> DistillationSet:
    """Images of 6x6 pixels whose class a linear rule tells, softly."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((size, 1, 6, 6), generator=generator)
    # one rule for every seed, so that another set is of the same task
    rule = torch.randn((36, CLASSES), generator=torch.Generator().manual_seed(9))
    soft = (0.5 * x.flatten(1) @ rule).softmax(-1)
    entropy = 0.5 * torch.rand((size, 1), generator=generator)
    return DistillationSet(x, {"predictive": soft, "expected_entropy": entropy}, LAYOUT)


def batch(size: int = 24, seed: int = 0) -> Batch:
    """Inputs and what the teacher says there."""
    return make_data(seed=seed).batch(torch.arange(size))


def value_of(raw_PBU: Tensor, expectations: dict[str, Tensor]) -> Tensor:
    """The loss of a bundle."""
    return LAYOUT.loss(raw_PBU, expectations, {"expected_entropy": 2.0})


def fresh(
    genotypes: list[Genotype], *, factors: list[float] | None = None, seed: int = 0
) -> list[Trainee]:
    """Students with drawn weights, and biases that are not zero."""
    data = make_data(1)
    students = []
    for i, genotype in enumerate(genotypes):
        generator = torch.Generator().manual_seed(100 * seed + i)
        params = initialize(data.shapes(genotype), generator=generator)
        for name, p in params.items():
            params[name] = p + 0.1 * torch.randn(p.shape, generator=generator)
        factor = factors[i] if factors else 1.0
        students.append(Trainee(genotype, factor, params))
    return students


def bundle_of(
    students: list[Trainee], *, dtype: torch.dtype = torch.float32, round_to: int = 1
) -> Bundle:
    """An empty bundle for students of one family."""
    shapes = [shapes_of(student.params) for student in students]
    family = students[0].genotype.family
    if family != "mlp":
        return InTurn(FAMILIES[family], shapes, value_of, dtype=dtype, device=CPU)
    return FusedMlp(
        shapes,
        [s.chain for s in students],
        value_of,
        dtype=dtype,
        device=CPU,
        round_to=round_to,
        centers=[s.centers for s in students],
    )


def training_of(
    students: list[Trainee], recipe: Recipe, *, updates: int = 0, **more
) -> TrainedBundle:
    """A bundle in training; the students are taken as they are."""
    return TrainedBundle(bundle_of(students, **more), students, recipe, updates=updates)


def gradients(
    students: list[Trainee], x: Tensor, expectations: dict[str, Tensor], **more
) -> tuple[list[Params], Tensor, Bundle]:
    """Gradients of a bundle of these students, its losses, and the bundle itself."""
    bundle = bundle_of(students, **more)
    for views, student in zip(bundle.views(bundle.buffers.theta), students, strict=True):
        for name, p in student.params.items():
            views[name].copy_(p)
    bundle.buffers.refresh()

    losses_P = bundle.compute(x, expectations)
    grad_views = bundle.views(bundle.buffers.work_grad.float())
    copied = [{name: g.clone() for name, g in views.items()} for views in grad_views]
    return copied, losses_P, bundle


def copies(students: list[Trainee]) -> list[Trainee]:
    """Students that share nothing with these."""

    def copy(params: Params) -> Params:
        return {name: p.clone() for name, p in params.items()}

    copied = []
    for student in students:
        memory = {part: copy(params) for part, params in student.memory.items()}
        copied.append(
            dataclasses.replace(
                student,
                params=copy(student.params),
                memory=memory,
                average=copy(student.average),
            )
        )
    return copied


def autograd(
    student: Trainee,
    x: Tensor,
    expectations: dict[str, Tensor],
    *,
    dtype: torch.dtype = torch.float64,
) -> Params:
    """The gradient of one student's loss, by torch alone."""
    leaves = {name: p.to(dtype, copy=True).requires_grad_() for name, p in student.params.items()}
    raw = FAMILIES[student.genotype.family].forward(leaves, x.to(dtype))
    value = value_of(raw, {name: e.to(dtype) for name, e in expectations.items()})
    return dict(zip(leaves, torch.autograd.grad(value, list(leaves.values())), strict=True))


def relative_difference(params: Params, expected: Params) -> float:
    """The largest difference over all parameters, each over its parameter's largest number."""
    assert {k: p.shape for k, p in params.items()} == {k: p.shape for k, p in expected.items()}
    # muon has no first moment of matrices, adamw no momentum: what is zero must be zero
    return max(
        float((params[name] - p).abs().max() / p.abs().max().clamp_min(1e-30))
        for name, p in expected.items()
    )


def weights(params: Params) -> Params:
    """The weights among parameters: neither biases nor gains."""
    return {name: p for name, p in params.items() if p.dim() > 1}
