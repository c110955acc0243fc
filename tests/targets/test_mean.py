"""Targets that are averaged: bounds by construction, costs, and new ones from Python."""

import pytest
import torch

from gped_nas.distill.feed import DistillationSet, check_update
from gped_nas.distill.kernel import distill
from gped_nas.distill.recipe import Recipe
from gped_nas.errors import ConfigError
from gped_nas.models.base import Genotype
from gped_nas.targets.base import TARGETS, parse_targets
from gped_nas.targets.expectations import expect
from gped_nas.targets.layout import HeadLayout
from gped_nas.targets.mean import mean_target


@pytest.fixture
def registry(monkeypatch):
    """The registry, which forgets afterwards what a test registered."""
    len(TARGETS)  # the built-in ones are there
    monkeypatch.setattr(TARGETS, "_items", dict(TARGETS._items))
    return TARGETS


def test_a_new_target_in_five_lines(registry):
    """The average of the most probable class's probability, defined, registered and distilled for."""

    def top(log_prob):
        return log_prob.exp().amax(-1, keepdim=True)

    registry.add(mean_target("top", top, link=torch.sigmoid))

    # Teacher: at half of the inputs the samples say (.9, .1) and (.1, .9), at the others (.5, .5)
    # twice.
    sure = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
    unsure = torch.full((2, 2), 0.5)
    log_prob = torch.stack([sure, unsure] * 30, 1).log()
    expectations = {
        name: expect(registry[name], log_prob, torch.ones(2)) for name in ("predictive", "top")
    }
    assert (
        expectations["predictive"].sub(0.5).abs().max() < 1e-6
    )  # which the average alone cannot tell
    inputs = torch.tensor([[1.0], [-1.0]] * 30)
    data = DistillationSet(inputs, expectations, HeadLayout(("predictive", "top"), 2))
    recipe = Recipe(steps=300, batch_size=30, warmup=0, lr=0.05)
    (student,) = distill(
        [Genotype("mlp", depth=0)], data, recipe, seed=0, device=torch.device("cpu")
    ).students
    raw = inputs @ student.params["layers.0.weight"].mT + student.params["layers.0.bias"]
    found = data.layout.predict(raw)["top"]
    assert found[0].item() == pytest.approx(0.9, abs=0.02) and found[1].item() == pytest.approx(
        0.5, abs=0.02
    )
    assert registry["top"].label == "top" and registry["top"].to_json() == "top"


def test_an_absolute_error_is_refused_on_single_samples(registry):
    def absolute(predicted, expectation):
        return (predicted - expectation).abs().sum(-1)

    registry.add(mean_target("median", torch.exp, error=absolute))
    targets = parse_targets(["predictive", "median"], "f")
    with pytest.raises(ConfigError) as caught:
        check_update(targets, "newest", "f: recipe.update")
    assert str(caught.value).startswith(
        "f: recipe.update: found newest, expected averaged or running_mean for the target"
    )
    assert "'median': its loss is not affine" in str(caught.value)
    assert "learns the median" in str(caught.value)
    check_update(targets, "averaged", "f")
    check_update(targets, "running_mean", "f")


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_second_moments_lie_between_their_bounds(scale):
    names = ("predictive", "second_moment", "variance")
    raw = scale * torch.randn(
        (500, 8), generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    found = HeadLayout(names, 4).predict(raw)
    q, second = found["predictive"], found["second_moment"]
    assert (q.square() <= second + 1e-15).all() and (second <= q + 1e-15).all()
    assert (found["variance"] >= 0).all() and (found["variance"] <= q * (1 - q) + 1e-15).all()


def test_the_loss_of_the_second_moment_leaves_the_predictive_head_alone():
    raw = torch.randn((5, 6), generator=torch.Generator().manual_seed(0)).requires_grad_()
    heads = {"predictive": raw[:, :3], "second_moment": raw[:, 3:]}
    TARGETS["second_moment"].loss(
        heads["second_moment"], heads, torch.full((5, 3), 0.2)
    ).sum().backward()
    assert raw.grad[:, :3].abs().max() == 0 and raw.grad[:, 3:].abs().min() > 0


COSTS = [[0.0, 1.0, 0.2], [10.0, 0.0, 0.2]]


def test_expected_costs_by_hand():
    """Classes ill and well; actions: say well, say ill, ask again. p = (.6, .4): 4, .6 and .2 on
    average.
    """
    (_, target) = parse_targets(["predictive", {"name": "utility", "costs": COSTS}], "f")
    log_prob = torch.tensor([[[0.9, 0.1]], [[0.1, 0.9]], [[0.8, 0.2]]], dtype=torch.float64).log()
    assert expect(target, log_prob, torch.ones(3))[0].tolist() == pytest.approx([4.0, 0.6, 0.2])
    targets = parse_targets(["predictive", target.to_json()], "f")
    layout = HeadLayout(targets, 2)
    assert layout.num_outputs == 2  # there is no head: costs are those of the predictive head
    raw = torch.tensor([[0.6, 0.4]]).log().requires_grad_()
    assert layout.predict(raw)["utility"][0].tolist() == pytest.approx([4.0, 0.6, 0.2])
    expectations = {
        "predictive": torch.tensor([[0.6, 0.4]]),
        "utility": torch.tensor([[3.0, 0.6, 0.2]]),
    }
    layout.loss(raw, expectations, {}).backward()
    assert (
        raw.grad[0, 1] > 0
    )  # fewer of the dear class, says the cost, though the predictive is right
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
    with pytest.raises(
        ConfigError, match="target 'utility': its settings are for 2 classes, expected 10"
    ):
        HeadLayout(targets, 10)
