"""MC dropout: samples are masked networks, masks have their law, and training descends."""

import dataclasses
import itertools

import pytest
import torch
import torch.nn.functional as F

from gped_nas import rng
from gped_nas.config import parse
from gped_nas.errors import ConfigError, DivergenceError
from gped_nas.models.base import FAMILIES, Genotype, Group
from gped_nas.posterior.base import unflatten
from gped_nas.posterior.mc_dropout import McDropoutConfig, draw_masks, fold, mc_dropout
from tests.posterior.chains import take
from tests.scenarios import GENOTYPES, INPUT_SHAPE, NUM_CLASSES, classifier, unstructured

GENOTYPE = Genotype("mlp", depth=3, width=[6, 5, 4])
PROBLEM = classifier(GENOTYPE)


def steps(num, *, state=None, seed=0, problem=PROBLEM, **settings):
    cfg = McDropoutConfig(
        name="mc_dropout", **{"steps": 200, "batch_size": 4, "rate": 0.4, **settings}
    )
    return take(mc_dropout(problem, cfg, generator=rng.generator(seed, "d"), state=state), num)


def masked_forward(params, x, masks):
    hidden = x.flatten(1)
    for i in range(4):
        hidden = F.linear(hidden, params[f"layers.{i}.weight"], params[f"layers.{i}.bias"])
        if i < 3:
            hidden = F.relu(hidden) * masks[i]
    return hidden


def test_samples_are_the_masked_network():
    chain = steps(6)
    trained = unflatten(chain[1].state["theta"], PROBLEM.shapes)
    generator = rng.generator(0, "other")
    seen_masks = set()
    for before, step in itertools.pairwise(chain[1:]):
        generator.set_state(before.state["rng"])
        masks = draw_masks([6, 5, 4], 0.4, generator=generator)
        plain = FAMILIES["mlp"].forward(unflatten(step.sample.theta_W, PROBLEM.shapes), PROBLEM.x)
        masked = masked_forward(trained, PROBLEM.x, masks)
        torch.testing.assert_close(plain, masked, rtol=1e-5, atol=1e-6)
        seen_masks.add(tuple(torch.cat(masks).tolist()))
    assert len(seen_masks) == 4


def test_masks_keep_the_mean_and_drop_at_the_rate():
    # 90,000 units: four standard errors of the share of dropped ones are 0.6 percentage points
    (mask,) = draw_masks([90_000], 0.3, generator=rng.generator(0, "masks"))
    torch.testing.assert_close(mask.unique(), torch.tensor([0.0, 1 / 0.7]))
    assert abs(float(mask.eq(0).float().mean()) - 0.3) < 4 * (0.3 * 0.7 / 90_000) ** 0.5


def test_a_reader_behind_a_flattening_loses_the_block_of_a_channel():
    generator = rng.generator(0, "conv")
    shapes = {
        "a.weight": (3, 1, 3, 3),
        "a.bias": (3,),
        "b.weight": (2, 3, 3, 3),
        "b.bias": (2,),
        "c.weight": (4, 32),
    }
    params = {n: torch.randn(s, generator=generator) for n, s in shapes.items()}
    groups = (
        Group("a", weights=("a.weight",), readers=("b.weight",), followers=("a.bias",)),
        Group("b", weights=("b.weight",), readers=("c.weight",), followers=("b.bias",)),
    )
    masks = draw_masks([3, 2], 0.5, generator=rng.generator(4, "masks"))
    x = torch.randn(5, 1, 4, 4, generator=generator)

    def forward(params, masks):
        hidden = x
        for layer, mask in zip("ab", masks, strict=True):
            weight, bias = params[f"{layer}.weight"], params[f"{layer}.bias"]
            hidden = F.relu(F.conv2d(hidden, weight, bias, padding=1)) * mask[:, None, None]
        return F.linear(hidden.flatten(1), params["c.weight"])

    plain = forward(fold(params, groups, masks), [torch.ones(3), torch.ones(2)])
    torch.testing.assert_close(plain, forward(params, masks), rtol=1e-4, atol=1e-5)
    assert 0 < sum(int(m.eq(0).sum()) for m in masks) < 5


def test_training_descends_the_masked_potential():
    # The mean over 200 masks of U after training is below that of fresh weights, and not by the
    # masks' luck.
    fresh = PROBLEM.initialize(rng.generator(0, "d"))
    trained = unflatten(steps(10, steps=1000, lr=0.01)[-1].state["theta"], PROBLEM.shapes)
    everything = torch.arange(PROBLEM.num_examples)
    generator = rng.generator(0, "masks")

    def potentials(params):
        values = []
        for _ in range(200):
            masks = draw_masks([6, 5, 4], 0.4, generator=generator)
            folded = fold(params, PROBLEM.network.hidden, masks)
            values.append(PROBLEM.potential(folded, everything))
        return torch.stack(values)

    before = potentials(fresh)
    after = potentials(trained)
    standard_error = float((before.var() + after.var()).div(200).sqrt())
    assert float(before.mean() - after.mean()) > 4 * standard_error


def test_gradients_are_finite_even_when_every_unit_is_dropped():
    params = {n: p.requires_grad_() for n, p in PROBLEM.initialize(rng.generator(0, "d")).items()}
    none = [torch.zeros(n) for n in (6, 5, 4)]
    PROBLEM.potential(fold(params, PROBLEM.network.hidden, none), torch.arange(4)).backward()
    assert all(p.grad.isfinite().all() for p in params.values())


def test_a_network_without_hidden_units_is_refused():
    linear = classifier(Genotype("mlp", depth=0))
    for problem in (linear, unstructured(PROBLEM)):
        with pytest.raises(ConfigError, match="no hidden units"):
            steps(1, problem=problem)
    assert linear.shapes == Genotype("mlp", depth=0).shapes(INPUT_SHAPE, NUM_CLASSES)


def test_divergence_is_an_error():
    broken = dataclasses.replace(PROBLEM, x=PROBLEM.x * float("inf"))
    with pytest.raises(DivergenceError, match=r"mc_dropout: .*teacher\.method\.lr"):
        steps(1, problem=broken)


@pytest.mark.parametrize(
    "wrong", [{"rate": 0.0}, {"rate": 1.0}, {"temperature": 1.0}, {"steps": 150}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"here: {next(iter(wrong))}"):
        parse(McDropoutConfig, {"name": "mc_dropout", **wrong}, "here")


@pytest.mark.parametrize("genotype", [*GENOTYPES["cnn"], *GENOTYPES["resnet"]], ids=str)
def test_what_is_dropped_is_a_unit_that_one_layer_reads(genotype):
    # A reader's columns of dropped units are zero. With a mask of ones for the others the outputs
    # are the same as without those units at all: the residual stream, which goes on beside its
    # readers, is not among them.
    problem = classifier(genotype)
    params = problem.initialize(rng.generator(0, "d"))
    hidden = problem.network.hidden
    assert hidden
    masks = [torch.arange(group.num_units(problem.shapes)).remainder(2).float() for group in hidden]
    folded = fold(params, hidden, masks)

    silenced = dict(params)
    for group, mask in zip(hidden, masks, strict=True):
        for name in group.rows:
            silenced[name] = silenced[name] * mask.view(-1, *[1] * (silenced[name].dim() - 1))

    forward = problem.network.forward
    torch.testing.assert_close(forward(folded, problem.x), forward(silenced, problem.x))
