"""Targets that are averaged: bounds by construction, costs, and new ones from Python."""

import pytest
import torch

from gped_nas.distill.feed import DistillationSet, check_update
from gped_nas.distill.kernel import distill
from gped_nas.distill.recipe import Recipe
from gped_nas.errors import ConfigError, RegistryError
from gped_nas.models.base import Genotype
from gped_nas.targets.base import TARGETS, parse_targets
from gped_nas.targets.expectations import expect, expect_all
from gped_nas.targets.layout import HeadLayout
from gped_nas.targets.mean import mean_target


@pytest.fixture
def registry(monkeypatch):
    """The registry, which forgets afterwards what a test registered."""
    len(TARGETS)  # the built-in ones are there
    monkeypatch.setattr(TARGETS, "_items", dict(TARGETS._items))
    return TARGETS


def test_a_new_target_in_five_lines(registry):
    """The probability of the most probable class, defined, registered and distilled for."""

    def top(log_prob):
        return log_prob.exp().amax(-1, keepdim=True)

    registry.add(mean_target("top", top, link=torch.sigmoid))

    # Teacher: at half of the inputs the samples say (.9, .1) and (.1, .9), at the others (.5, .5)
    # twice. The average alone cannot tell them apart.
    sure = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
    unsure = torch.full((2, 2), 0.5)
    log_prob = torch.stack([sure, unsure] * 30, 1).log()
    expectations = expect_all(["predictive", "top"], log_prob, torch.ones(2))
    assert expectations["predictive"].sub(0.5).abs().max() < 1e-6

    inputs = torch.tensor([[1.0], [-1.0]] * 30)
    data = DistillationSet(inputs, expectations, HeadLayout(("predictive", "top"), 2))
    recipe = Recipe(steps=300, batch_size=30, warmup=0, lr=0.05)
    genotypes = [Genotype("mlp", depth=0)]
    (student,) = distill(genotypes, data, recipe, seed=0, device=torch.device("cpu")).students

    raw = inputs @ student.params["layers.0.weight"].mT + student.params["layers.0.bias"]
    predicted = data.layout.predict(raw)["top"]
    assert predicted[0].item() == pytest.approx(0.9, abs=0.02)
    assert predicted[1].item() == pytest.approx(0.5, abs=0.02)
    assert registry["top"].label == "top"
    assert registry["top"].to_json() == "top"


def test_an_absolute_error_is_refused_on_single_samples(registry):
    def absolute(predicted, expectation):
        return (predicted - expectation).abs().sum(-1)

    registry.add(mean_target("median", torch.exp, error=absolute))
    targets = parse_targets(["predictive", "median"], "f")
    with pytest.raises(ConfigError) as caught:
        check_update(targets, "newest", "f: recipe.update")
    message = str(caught.value)
    assert message.startswith(
        "f: recipe.update: found newest, expected averaged or running_mean for the target"
    )
    assert "'median': its loss is not affine" in message
    assert "learns the median" in message

    check_update(targets, "averaged", "f")
    check_update(targets, "running_mean", "f")


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_second_moments_lie_between_their_bounds(scale):
    names = ("predictive", "second_moment", "variance")
    generator = torch.Generator().manual_seed(0)
    raw = scale * torch.randn((500, 8), generator=generator, dtype=torch.float64)
    predicted = HeadLayout(names, 4).predict(raw)
    q = predicted["predictive"]
    second_moment = predicted["second_moment"]
    variance = predicted["variance"]

    assert (q.square() <= second_moment + 1e-15).all()
    assert (second_moment <= q + 1e-15).all()
    assert (variance >= 0).all()
    assert (variance <= q * (1 - q) + 1e-15).all()


def test_the_loss_of_the_second_moment_leaves_the_predictive_head_alone():
    raw = torch.randn((5, 6), generator=torch.Generator().manual_seed(0)).requires_grad_()
    heads = {"predictive": raw[:, :3], "second_moment": raw[:, 3:]}
    expectation = torch.full((5, 3), 0.2)
    losses = TARGETS["second_moment"].loss(heads["second_moment"], heads, expectation)
    losses.sum().backward()
    assert raw.grad[:, :3].abs().max() == 0
    assert raw.grad[:, 3:].abs().min() > 0


COSTS = [[0.0, 1.0, 0.2], [10.0, 0.0, 0.2]]


def test_expected_costs_by_hand():
    """Classes ill and well; actions: say well, say ill, ask again.

    At p = (.6, .4) they cost 4, .6 and .2 on average.
    """
    (_, target) = parse_targets(["predictive", {"name": "utility", "costs": COSTS}], "f")
    log_prob = torch.tensor([[[0.9, 0.1]], [[0.1, 0.9]], [[0.8, 0.2]]], dtype=torch.float64).log()
    assert expect(target, log_prob, torch.ones(3))[0].tolist() == pytest.approx([4.0, 0.6, 0.2])

    # There is no head: costs are those of the predictive head.
    targets = parse_targets(["predictive", target.to_json()], "f")
    layout = HeadLayout(targets, 2)
    assert layout.num_outputs == 2
    raw = torch.tensor([[0.6, 0.4]]).log().requires_grad_()
    assert layout.predict(raw)["utility"][0].tolist() == pytest.approx([4.0, 0.6, 0.2])

    # Where the teacher's costs are lower, the loss asks for less of the dear class, though the
    # predictive is right.
    expectations = {
        "predictive": torch.tensor([[0.6, 0.4]]),
        "utility": torch.tensor([[3.0, 0.6, 0.2]]),
    }
    layout.loss(raw, expectations, {}).backward()
    assert raw.grad[0, 1] > 0
    check_update(targets, "newest", "f")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            {"name": "utility", "costs": [[1.0, 2.0], [3.0]]},
            r"f\[1\]: utility: costs: found rows of \[1, 2\] entries",
        ),
        (
            {"name": "utility", "costs": [[]]},
            r"f\[1\]: utility: costs: found rows of \[0\] entries",
        ),
        (
            {"name": "utility", "costs": [["a"]]},
            r"f\[1\]: utility: costs.0.0: found the text 'a', expected a number",
        ),
        (
            {"name": "utility", "cost": [[1.0]]},
            r"f\[1\]: utility: cost: unknown key; did you mean 'costs'",
        ),
        (
            {"name": "second_moment", "costs": 1},
            r"f\[1\]: target 'second_moment' takes no settings; found costs",
        ),
        ({"costs": [[1.0]]}, r"f\[1\]: found .*, expected the name of a"),
        (3, r"f\[1\]: found 3, expected the name of a"),
        (
            "variance",
            "f: 'variance' is computed from 'second_moment'; list 'second_moment' before it",
        ),
        (
            {"name": "quantile", "levels": [0.5, 0.1]},
            r"f\[1\]: quantile: levels: found \[0.5, 0.1\], expected rising",
        ),
        (
            {"name": "quantile", "levels": [1.0]},
            r"f\[1\]: quantile: levels.0: found 1.0, expected less than 1",
        ),
    ],
)
def test_wrong_targets_are_refused(written, message):
    with pytest.raises(ConfigError, match=message):
        parse_targets(["predictive", written], "f")


def test_costs_for_other_classes_are_refused():
    targets = parse_targets(["predictive", {"name": "utility", "costs": COSTS}], "f")
    message = "target 'utility': its settings are for 2 classes, expected 10"
    with pytest.raises(ConfigError, match=message):
        HeadLayout(targets, 10)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (lambda log_prob: log_prob.amax(-1), r"found values \(1,\) .*; .*unsqueeze\(-1\)$"),
        (
            lambda log_prob: log_prob.topk(9).values,
            r"its function raised RuntimeError: .*; mend it",
        ),
        (lambda log_prob: None, "found values of type NoneType, expected a tensor"),
    ],
)
def test_a_function_that_gives_something_else_is_refused_before_any_work(values, message) -> None:
    target = mean_target("broken", values)
    with pytest.raises(RegistryError, match=rf"^target 'broken': {message}"):
        HeadLayout([target], 3)
