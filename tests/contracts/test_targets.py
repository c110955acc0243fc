"""Every registered target: what is averaged, derived or ranked agrees with direct computation from
all samples.
"""

import pytest
import torch

from gped_nas.distill.feed import DistillationSet, PosteriorPredictions, check_update
from gped_nas.distill.kernel import distill
from gped_nas.distill.recipe import Recipe
from gped_nas.errors import ConfigError
from gped_nas.models.base import Genotype
from gped_nas.targets.base import MAIN_TARGET, TARGETS, LearnedTarget, check_targets, parse_targets
from gped_nas.targets.expectations import expect, sample_values
from gped_nas.targets.layout import HeadLayout
from gped_nas.targets.quantile import empirical_quantile

SAMPLES, BATCH, CLASSES = 7, 5, 4


def heads_of(name):
    """What a target requires, then itself."""
    return (*TARGETS[name].requires, name)


def layout_of(name):
    """The heads of a student of a target and of what it requires."""
    return HeadLayout(heads_of(name), CLASSES)


def with_main(name):
    """The shortest list of targets that a student of this one may have."""
    return tuple(dict.fromkeys((MAIN_TARGET[TARGETS[name].prediction], *heads_of(name))))


@pytest.fixture
def log_prob():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn((SAMPLES, BATCH, CLASSES), generator=generator, dtype=torch.float64)
    return logits.log_softmax(-1)


@pytest.fixture
def predicted(name, log_prob):
    """What posterior samples of the target's kind of label predict."""
    if TARGETS[name].prediction == "log_prob":
        return log_prob
    return torch.stack([log_prob[..., 0], log_prob[..., 1].exp()], -1)


@pytest.fixture
def weight():
    return torch.tensor([1.0, 0.0, 2.0, 5.0, 0.5, 1.0, 3.0], dtype=torch.float64)


@pytest.fixture(params=sorted(TARGETS))
def name(request):
    return request.param


def of_kind(kind):
    return pytest.mark.parametrize(
        "name", [name for name in sorted(TARGETS) if TARGETS[name].kind == kind]
    )


def raw_outputs(layout, seed=1):
    size = (BATCH, layout.num_outputs)
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(layout, expectations):
    raw = raw_outputs(layout).requires_grad_()
    layout.loss(raw, expectations, {}).backward()
    return raw.grad


def expectations_of(layout, predicted, weight):
    """What the teacher says of each target that has a loss."""
    expectations = {}
    for target in layout.learned:
        if target.kind == "mean":
            expectations[target.name] = expect(target, predicted, weight)
        else:
            expectations[target.name] = target.values(predicted[0])
    return expectations


@of_kind("mean")
def test_averaged_gradient_equals_streamed_gradient(name, predicted, weight):
    layout = layout_of(name)
    averaged = gradient(layout, expectations_of(layout, predicted, weight))
    one_by_one = [
        gradient(layout, sample_values(layout.targets, predicted[s])) for s in range(SAMPLES)
    ]
    streamed = sum(w * g for w, g in zip(weight / weight.sum(), one_by_one, strict=True))
    assert (averaged - streamed).abs().max() < 1e-6
    assert averaged.abs().max() > 1e-3  # the comparison is not of zeros


@of_kind("mean")
def test_single_samples_bias_no_mean_target(name):
    target = TARGETS[name]
    for update in ("averaged", "newest", "running_mean"):
        check_update([target], update, "f")


@of_kind("quantile")
def test_averages_are_refused_where_quantiles_are_learned(name, log_prob, weight):
    target = TARGETS[name]
    check_update([target], "newest", "f: recipe.update")
    for update in ("averaged", "running_mean"):
        with pytest.raises(
            ConfigError,
            match=f"f: recipe.update: found {update}, expected newest .*'{name}'.* mean",
        ):
            check_update([target], update, "f: recipe.update")
    with pytest.raises(ConfigError, match=f"target '{name}' is of kind quantile; averaging"):
        expect(target, log_prob, weight)


@of_kind("quantile")
def test_quantiles_of_a_student_that_can_fit_are_those_of_the_samples(name):
    """One input, 40 posterior samples: an ideal student's bounds are the empirical ones.

    The pinball gradient at level l vanishes between the order statistics around l: here at levels
    .2, .5, .9 of 40 samples between the 8th and 9th, 20th and 21st, 36th and 37th value, so the
    tolerance is that gap and a hundredth.
    """
    levels = (0.2, 0.5, 0.9)
    target = parse_targets(["predictive", {"name": name, "levels": list(levels)}], "f")[1]
    generator = torch.Generator().manual_seed(0)
    values = torch.rand((40, 1, 2), generator=generator, dtype=torch.float64)
    raw = torch.zeros((1, target.num_outputs(2)), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=0.05)
    for step in range(500):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 500)
        optimizer.zero_grad()
        target.loss(raw.expand(40, -1), {}, values[:, 0]).mean().backward()
        optimizer.step()
    found = target.predict(raw, {}).detach()[0].view(2, 3)
    low = empirical_quantile(values, torch.ones(40), levels)[0].view(2, 3)
    ordered = values[:, 0].sort(0).values.mT
    for c in range(2):
        for i, level in enumerate(levels):
            k = round(40 * level)
            assert low[c, i] == ordered[c, k - 1]
            assert ordered[c, k - 1] - 0.01 < found[c, i] < ordered[c, k] + 0.01
        assert (found[c].diff() > 0).all()


@of_kind("derived")
def test_derived_targets_equal_direct_computation_from_all_samples(name, log_prob, weight):
    prob, share = log_prob.exp(), weight / weight.sum()
    mean = torch.einsum("s,sbc->bc", share, prob)
    direct = {
        "variance": torch.einsum("s,sbc->bc", share, (prob - mean).square()),
        "mutual_information": torch.einsum("s,sbc->b", share, prob * (log_prob - mean.log()))[
            :, None
        ],
    }
    direct["dirichlet"] = mean * (
        (mean * (1 - mean)).sum(-1, keepdim=True) / direct["variance"].sum(-1, keepdim=True) - 1
    )
    assert (expect(TARGETS[name], log_prob, weight) - direct[name]).abs().max() < 1e-12


@of_kind("derived")
def test_a_derived_target_of_a_student_is_that_of_its_heads(name):
    layout, target = layout_of(name), TARGETS[name]
    predicted = layout.predict(raw_outputs(layout))
    derived = target.derive({required: predicted[required] for required in target.requires})
    assert torch.allclose(predicted[name], derived, rtol=1e-12, atol=1e-15)
    assert (predicted[name] >= 0).all() and predicted[name].isfinite().all()
    assert name not in layout.slices and not isinstance(target, LearnedTarget)


def test_an_absolute_error_would_fail_this_contract(log_prob, weight):
    value = log_prob.exp()
    raw = torch.full((BATCH, CLASSES), 0.25, dtype=torch.float64)

    def slope(expectation):
        return (raw - expectation).sign()

    share = weight / weight.sum()
    streamed = torch.einsum("s,sbc->bc", share, torch.stack([slope(v) for v in value]))
    averaged = slope(torch.einsum("s,sbc->bc", share, value))
    assert (averaged - streamed).abs().max() > 0.1


def test_values_predictions_and_losses_have_the_promised_shapes(name, predicted, weight):
    target, layout = TARGETS[name], layout_of(name)
    check_targets(with_main(name), "f")
    assert target.name == name and target.label

    raw = raw_outputs(layout)
    stacked = torch.stack([raw, 2 * raw])
    values = layout.predict(stacked)[name]
    assert values.shape[:2] == (2, BATCH)
    if target.kind != "quantile":  # there are as many quantiles as levels for each value
        assert values.shape == (2, *expect(target, predicted, weight).shape)
    if isinstance(target, LearnedTarget):
        assert target.values(predicted).shape[:2] == (SAMPLES, BATCH)
        columns = layout.slices[name]
        assert columns.stop - columns.start == target.num_outputs(CLASSES)

    expectations = expectations_of(layout, predicted, weight)
    losses = layout.loss(stacked, expectations, {})
    assert losses.shape == (2,)
    lone = torch.stack([layout.loss(r, expectations, {}) for r in stacked])
    assert losses == pytest.approx(lone)


def test_one_sample_with_all_the_weight_is_the_expectation(name, predicted):
    target = TARGETS[name]
    one = torch.zeros(SAMPLES)
    one[3] = 0.2
    if target.kind == "quantile":
        found = empirical_quantile(target.values(predicted), one, (0.1, 0.9)).unflatten(-1, (-1, 2))
        alone = target.values(predicted[3])[..., None].expand_as(found)
        torch.testing.assert_close(found, alone)
        return
    average = expect(target, predicted, one)
    alone = expect(target, predicted[3:4], torch.ones(1))
    assert average == pytest.approx(alone)
    if target.kind == "mean":
        assert average == pytest.approx(target.values(predicted[3]))
    assert average.dtype == predicted.dtype


def test_it_is_written_and_read_again(name):
    read = parse_targets(with_main(name), "f")
    again = parse_targets([target.to_json() for target in read], "f")
    assert again == read and [t.to_json() for t in again] == [t.to_json() for t in read]
    assert read[-1].name == name


def test_students_learn_it(name):
    """The same three posterior samples at every input: what the student predicts comes nearer to
    what they say.
    """
    layout = HeadLayout(with_main(name), CLASSES)
    generator = torch.Generator().manual_seed(0)
    predicted = (
        (2 * torch.randn((3, 1, CLASSES), generator=generator))
        .log_softmax(-1)
        .expand(3, 40, CLASSES)
    )
    if TARGETS[name].prediction == "normal":
        predicted = torch.stack([predicted[..., 0], predicted[..., 1].exp()], -1)
    inputs = 0.1 * torch.randn((40, 6), generator=generator)
    samples = PosteriorPredictions([[predicted.numpy()]], torch.full((3,), 1 / 3))
    data = DistillationSet(inputs, {}, layout, samples)
    target = TARGETS[name]
    if target.kind == "quantile":
        levels = (0.05, 0.5, 0.95)
        wanted = empirical_quantile(target.values(predicted), torch.ones(3), levels)
    else:
        wanted = target.shown(expect(target, predicted, torch.ones(3)))
    errors = []
    for steps in (1, 600):
        recipe = Recipe(update="newest", steps=steps, batch_size=40, warmup=0, lr=0.05)
        (student,) = distill(
            [Genotype("mlp", depth=0)], data, recipe, seed=0, device=torch.device("cpu")
        ).students
        raw = inputs @ student.params["layers.0.weight"].mT + student.params["layers.0.bias"]
        errors.append((layout.predict(raw)[name] - wanted).abs().mean().item())
    assert errors[1] < 0.2 * errors[0], errors
