"""What is told of a teacher: the average of its samples, and how many of them it takes."""

import pytest
import torch

from gped_nas.data.base import Normalization
from gped_nas.evaluate.teacher import averaged, samples_to_nll
from gped_nas.targets.base import TARGETS, DerivedTarget, resolve


def samples(num: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(num)
    log_prob = torch.randn((num, 9, 3), generator=generator).log_softmax(-1)
    weight = torch.rand(num, generator=generator) + 0.1
    labels = torch.randint(3, (9,), generator=generator)
    return log_prob, weight, labels


def test_the_average_by_hand() -> None:
    # Two samples, weights 1 and 3: (0.9 + 3 * 0.1) / 4 = 0.3.
    log_prob = torch.tensor([[[0.9, 0.1]], [[0.1, 0.9]]]).log()
    mean = averaged(log_prob, torch.tensor([1.0, 3.0]))
    prob = torch.from_numpy(mean.log_prob_NC).exp()
    assert torch.allclose(prob, torch.tensor([[0.3, 0.7]]).double())
    assert abs(mean.expected_entropy_N[0] - 0.3250830) < 1e-6


def test_what_follows_from_a_derived_target_comes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    spread = DerivedTarget(
        name="spread",
        label="summed variance",
        requires=("variance",),
        derive=lambda mean: mean["variance"].sum(-1, keepdim=True),
    )
    # By name it comes before the target that it is computed from.
    monkeypatch.setattr(TARGETS, "_items", {**TARGETS, "spread": spread})
    log_prob, weight, _ = samples(4)

    targets = resolve(["predictive", "second_moment"])
    expectations = averaged(log_prob, weight, targets=targets).expectations

    sums = expectations["variance"].sum(1, keepdims=True)
    assert expectations["spread"] == pytest.approx(sums)


def test_each_point_of_the_curve_is_the_nll_of_the_average_so_far() -> None:
    for num in (1, 2, 13):
        log_prob, weight, labels = samples(num)
        curve = samples_to_nll(log_prob, weight, labels)
        assert curve[0][0] == 1 and curve[-1][0] == num
        sizes = [int(size) for size, _ in curve]
        assert sizes == sorted(set(sizes))

        for size, (_, nll) in zip(sizes, curve, strict=True):
            mean = averaged(log_prob[:size], weight[:size])
            scores = torch.from_numpy(mean.log_prob_NC).gather(1, labels[:, None])
            assert abs(nll + float(scores.mean())) < 1e-12


@pytest.mark.parametrize("unit", [None, Normalization(mean=1.0, std=2.0)])
def test_the_curve_begins_at_the_first_sample_with_a_weight(unit: Normalization | None) -> None:
    predicted, _, labels = samples(8)
    if unit is not None:  # means and variances
        predicted, labels = predicted[..., :2].exp(), labels.double()
    weight = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0, 2.0, 1.0, 0.0])

    curve = samples_to_nll(predicted, weight, labels.numpy(), unit)

    assert [size for size, _ in curve] == [4, 5, 6, 7, 8]
    for size, nll in curve:
        mean = averaged(predicted[: int(size)], weight[: int(size)], unit)
        assert nll == pytest.approx(-mean.log_score(labels.numpy()).mean())
