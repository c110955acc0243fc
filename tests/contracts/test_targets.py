"""Every registered target: averaging first must give the gradient of averaging last."""

import pytest
import torch

from gped_nas.distill.targets import TARGETS, expect, head_slices, loss, num_raw_outputs, predictions

SAMPLES, BATCH, CLASSES = 7, 5, 4


def heads_of(name):
    """A target's heads in order: what it requires, then itself."""
    return (*TARGETS[name].requires, name)


@pytest.fixture
def log_prob():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn((SAMPLES, BATCH, CLASSES), generator=generator, dtype=torch.float64)
    return logits.log_softmax(-1)


@pytest.fixture
def weight():
    return torch.tensor([1.0, 0.0, 2.0, 5.0, 0.5, 1.0, 3.0], dtype=torch.float64)


@pytest.fixture(params=sorted(TARGETS))
def name(request):
    return request.param


def raw_outputs(names, seed=1):
    size = (BATCH, num_raw_outputs(names, CLASSES))
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(names, expectations):
    raw = raw_outputs(names).requires_grad_()
    loss(raw, names, {}, expectations, CLASSES).backward()
    return raw.grad


def test_averaged_gradient_equals_streamed_gradient(name, log_prob, weight):
    target, names = TARGETS[name], heads_of(name)
    if target.kind != "mean":
        pytest.skip("only targets of kind mean are averaged first")
    averaged = gradient(names, {n: expect(TARGETS[n], log_prob, weight) for n in names})
    one_by_one = [gradient(names, {n: TARGETS[n].values(log_prob[s]) for n in names}) for s in range(SAMPLES)]
    streamed = sum(w * g for w, g in zip(weight / weight.sum(), one_by_one, strict=True))
    assert (averaged - streamed).abs().max() < 1e-6
    assert averaged.abs().max() > 1e-3  # the comparison is not of zeros


def test_an_absolute_error_would_fail_this_contract(log_prob, weight):
    value = log_prob.exp()
    raw = torch.full((BATCH, CLASSES), 0.25, dtype=torch.float64)

    def slope(expectation):
        return (raw - expectation).sign()

    share = weight / weight.sum()
    streamed = torch.einsum("s,sbc->bc", share, torch.stack([slope(v) for v in value]))
    averaged = slope(torch.einsum("s,sbc->bc", share, value))
    assert (averaged - streamed).abs().max() > 0.1


def test_values_predictions_and_losses_have_the_promised_shapes(name, log_prob, weight):
    target, names = TARGETS[name], heads_of(name)
    expectation = expect(target, log_prob, weight)
    raw = raw_outputs(names)
    stacked = torch.stack([raw, 2 * raw])
    predicted = predictions(stacked, names, CLASSES)[name]
    assert predicted.shape == (2, *expectation.shape)
    cut = head_slices(names, CLASSES)[name]
    assert cut.stop - cut.start == target.num_outputs(CLASSES)
    expectations = {n: expect(TARGETS[n], log_prob, weight) for n in names}
    losses = loss(stacked, names, {}, expectations, CLASSES)
    assert losses.shape == (2,)
    lone = torch.stack([loss(r, names, {}, expectations, CLASSES) for r in stacked])
    assert losses == pytest.approx(lone)
    assert target.name == name and target.label


def test_one_sample_with_all_the_weight_is_the_expectation(name, log_prob):
    one = torch.zeros(SAMPLES)
    one[3] = 0.2
    found = expect(TARGETS[name], log_prob, one)
    assert found == pytest.approx(TARGETS[name].values(log_prob[3]))
    assert found.dtype == log_prob.dtype
