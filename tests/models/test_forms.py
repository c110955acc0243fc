"""Norms of students: what is folded is what was trained, and pruning sees a plain network."""

import pytest
import torch
from torch import nn

from gped_nas import rng
from gped_nas.models.base import FAMILIES, Genotype, shapes_of
from gped_nas.models.compact import compact
from gped_nas.models.forms import FORMS

DEEP = Genotype(
    "cnn",
    **{"depth": 3, "width": [5, 4, 3], "kernel": [3, 3, 1], "stride": [1, 2, 1], "padding": "same"},
    **{"pool": [2, 1, 1], "block": "separable", "head_width": 4},
)
SHAPE, NUM_OUTPUTS = (2, 9, 8), 3
forward = FAMILIES["cnn"].forward


WINDOWED = DEEP.replace(kernel=3)


def drawn(genotype, seed=0):
    """Plain parameters in float64, with biases."""
    shapes = genotype.shapes(SHAPE, NUM_OUTPUTS)
    generator = rng.generator(seed, "forms")
    params = FAMILIES["cnn"].initialize(shapes, generator=generator)
    return {
        name: p.double() + 0.1 * torch.randn(p.shape, generator=generator).double()
        for name, p in params.items()
    }


def inputs(num, seed=0):
    return torch.randn(num, *SHAPE, generator=rng.generator(seed, "inputs"), dtype=torch.float64)


def trained(form, genotype=DEEP, seed=1):
    """Parameters in a form, none of them as it was at the beginning, and constants."""
    params, constants = form.begin(drawn(genotype))
    generator = rng.generator(seed, "trained")
    for name, p in params.items():
        params[name] = p + 0.3 * torch.randn(p.shape, generator=generator).double()
    return params, constants


def test_folded_batch_norm_is_torchs_own_with_the_same_statistics():
    form, batches = FORMS["batch"], [inputs(16, seed) for seed in range(3)]
    genotype = Genotype("cnn", depth=2, width=[4, 5], kernel=3, pool=[2, 1], padding="same")
    params, _ = form.begin(drawn(genotype))
    for name in params:
        if name.endswith("gain"):
            params[name] = torch.linspace(-0.5, 1.5, len(params[name])).double()

    # momentum None is the plain mean over batches; there deviations are of single batches
    with torch.random.fork_rng(devices=[]):
        module = nn.Sequential(
            *(nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4, momentum=None)),
            *(nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1, bias=False)),
            *(nn.BatchNorm2d(5, momentum=None), nn.ReLU(), nn.Flatten(), nn.Linear(80, 3)),
        ).double()
    values = dict(zip(dict(module.named_parameters()), params.values(), strict=True))
    module.load_state_dict(values, strict=False)

    x = batches[0]
    torch.testing.assert_close(form.forward(params, {}, x), module.train()(x))

    constants = form.settle(params, {}, batches)
    for i, layer in ((1, "layers.0.same.pool2"), (5, "layers.1.same")):
        module[i].running_mean = constants[f"{layer}.mean"]
        module[i].running_var = constants[f"{layer}.variance"]
    plain = form.leave(params, constants)
    assert shapes_of(plain) == genotype.shapes(SHAPE, NUM_OUTPUTS)
    torch.testing.assert_close(forward(plain, x), module.eval()(x), rtol=1e-12, atol=1e-12)


def test_statistics_are_those_of_all_batches_together():
    form, params = FORMS["batch"], drawn(DEEP)
    batches = [inputs(8, seed) * (1 + seed) + seed for seed in range(3)]
    constants = form.settle(form.begin(params)[0], {}, batches)

    # the first convolution reads the inputs themselves
    units = nn.functional.conv2d(
        torch.cat(batches), params["layers.0.same.pool2.weight"], padding=1
    )
    mean, variance = units.mean((0, 2, 3)), units.var((0, 2, 3), correction=0)
    torch.testing.assert_close(constants["layers.0.same.pool2.mean"], mean)
    torch.testing.assert_close(constants["layers.0.same.pool2.variance"], variance)


@pytest.mark.parametrize("name", FORMS)
def test_in_one_batch_training_and_the_folded_network_are_the_same_function(name):
    form, x = FORMS[name], inputs(32)
    params, constants = trained(form)
    raw = form.forward(params, constants, x)
    plain = form.leave(params, form.settle(params, constants, [x]))
    torch.testing.assert_close(forward(plain, x), raw, rtol=1e-12, atol=1e-12)
    assert shapes_of(plain) == DEEP.shapes(SHAPE, NUM_OUTPUTS)


@pytest.mark.parametrize("name", FORMS)
def test_a_plain_network_enters_as_it_is_also_after_pruning(name):
    form, x = FORMS[name], inputs(32)
    params, constants = trained(form, WINDOWED)
    for name in list(params)[:-4]:
        # all but the last filters, which the dense layers read
        if name.endswith("gain") and not name.startswith("layers.2.pointwise"):
            params[name][[0, 2]] = 0.0

    plain = form.leave(params, form.settle(params, constants, [x]))
    pruned = compact("cnn", plain)
    sizes = [len(pruned[name]) for name in pruned if name.endswith("bias")]
    assert sizes == [3, 3, 2, 2, 3, 4, 3], "gains of zero are dead units of the plain network"
    torch.testing.assert_close(forward(pruned, x), forward(plain, x), rtol=1e-10, atol=1e-10)

    again, constants = form.enter(pruned, [x])
    raw = form.forward(again, constants, x)
    torch.testing.assert_close(raw, forward(plain, x), rtol=1e-9, atol=1e-9)
    back = form.leave(again, form.settle(again, constants, [x]))
    torch.testing.assert_close(forward(back, x), forward(plain, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", FORMS)
def test_gradients_are_those_of_differences(name):
    form, x = FORMS[name], inputs(3)
    params, constants = trained(form)
    leaves = {key: p.clone().requires_grad_() for key, p in params.items()}

    def raw(*tensors):
        return form.forward(dict(zip(leaves, tensors, strict=True)), constants, x)

    assert torch.autograd.gradcheck(raw, tuple(leaves.values()), fast_mode=True)


@pytest.mark.parametrize("name", FORMS)
def test_the_scale_of_a_filter_is_taken_out_and_its_gain_is_penalized(name):
    form, x = FORMS[name], inputs(4)
    params, constants = trained(form)
    shapes = shapes_of(params)
    raw = form.forward(params, constants, x)
    weight = "layers.1.pointwise.weight"
    rescaled = {**params, weight: 7 * params[weight]}
    # but for what is added to variances
    torch.testing.assert_close(form.forward(rescaled, constants, x), raw, rtol=1e-3, atol=1e-3)

    groups = FAMILIES["cnn"].groups(shapes)
    # a filter of 2 * 9 numbers and its depthwise one of 9: two gains
    assert form.penalty(groups[0], shapes) == (
        ("layers.0.same.pool2.gain", "layers.1.depthwise.same.stride2.gain"),
        pytest.approx((27 / 2) ** 0.5),
    )
    padded = Genotype("cnn", depth=2, width=3, kernel=3, padding="same", norm=name)
    shapes = shapes_of(form.begin({n: p for n, p in drawn(padded).items()})[0])
    (first, _) = FAMILIES["cnn"].groups(shapes)
    assert form.penalty(first, shapes) == (
        ("layers.0.same.gain", "layers.0.same.bias"),
        pytest.approx((19 / 2) ** 0.5),
    )


def test_a_standard_filter_has_no_mean_and_hes_length():
    form = FORMS["weight"]
    params, constants = form.begin(drawn(DEEP))
    rows = form.leave(params, constants)["layers.1.pointwise.weight"].flatten(1)
    torch.testing.assert_close(rows.mean(1), torch.zeros(4).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(rows.square().sum(1), torch.full((4,), 2.0).double())
    # the last depthwise filters are single pixels: there is nothing to standardize
    assert "layers.2.depthwise.same.gain" not in params


def test_a_standard_filter_of_other_units_has_the_length_that_it_is_drawn_with():
    """A fan-in of n weights of variance 1 / (n E[tanh(z)^2]), whose squares sum to 2.536."""
    form = FORMS["weight"]
    params, constants = form.begin(drawn(DEEP.replace(activation="tanh")))
    rows = form.leave(params, constants)["layers.1.pointwise.tanh.weight"].flatten(1)
    torch.testing.assert_close(
        rows.square().sum(1), torch.full((4,), 1 / 0.3942944903978413).double()
    )


def test_a_norm_is_no_part_of_what_a_genotype_costs_and_of_what_a_teacher_is():
    for name in FORMS:
        normed = DEEP.replace(norm=name)
        assert normed.shapes(SHAPE, NUM_OUTPUTS) == DEEP.shapes(SHAPE, NUM_OUTPUTS)
        assert f"norm={name}" in str(normed) and normed.to_json()["norm"] == name
    assert DEEP.form is None and "norm" not in DEEP.to_json()
