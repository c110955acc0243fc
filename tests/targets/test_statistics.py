"""Statistics of all samples: ranges and factors by hand, and those of a stream's views."""

import shutil

import pytest
import torch
from torch import Tensor

from gped_nas.errors import ConfigError, RegistryError
from gped_nas.stream.reader import Stream
from gped_nas.targets import stream_statistics
from gped_nas.targets.base import TARGETS, DerivedTarget, StatisticTarget
from gped_nas.targets.expectations import expect, stream_expectations
from gped_nas.targets.factors import (
    FactorSettings,
    draw_factors,
    factor_scores,
    factors,
    split_factors,
)
from gped_nas.targets.formulas import centered_logits
from gped_nas.targets.interval import IntervalSettings, interval
from gped_nas.targets.layout import HeadLayout
from gped_nas.targets.stream_statistics import stream_fit, stream_statistic
from tests.stream.test_writer import build, view

VIEW = "pool-clean-0"
SAMPLES, INPUTS, CLASSES = 6, 7, 3
WEIGHT = torch.tensor([1.0, 2.0, 0.0, 3.0, 1.0, 3.0], dtype=torch.float64) / 10


def predicted(seed: int = 0, inputs: int = INPUTS) -> Tensor:
    """Log-probabilities of random samples, (S, N, C)."""
    generator = torch.Generator().manual_seed(seed)
    shape = (SAMPLES, inputs, CLASSES)
    return (2 * torch.randn(shape, generator=generator, dtype=torch.float64)).log_softmax(-1)


def covariance(log_prob: Tensor) -> Tensor:
    """Of all logits at all inputs, (N C, N C), sample by sample."""
    logits = centered_logits(log_prob).flatten(1)
    mean = WEIGHT @ logits
    total = torch.zeros((logits.shape[1],) * 2, dtype=torch.float64)
    for weight, row in zip(WEIGHT, logits, strict=True):
        total += weight * torch.outer(row - mean, row - mean)
    return total


# -------------------------------------------------------------------------------- intervals

THREE = torch.tensor([[[0.5, 0.3, 0.2]], [[0.7, 0.2, 0.1]], [[0.1, 0.8, 0.1]]]).double().log()
THIRDS = torch.ones(3).double()


def test_a_range_goes_from_the_least_to_the_largest_sample() -> None:
    ends = expect(TARGETS["interval"], THREE, THIRDS)
    assert ends[0].tolist() == pytest.approx([0.1, 0.7, 0.2, 0.8, 0.1, 0.2])
    # lower ends sum to .4 and widths to 1.3: each class is at 6/13 of its interval
    share = 0.6 / 1.3
    expected = [0.1 + share * 0.6, 0.2 + share * 0.6, 0.1 + share * 0.1]
    intersection = expect(TARGETS["intersection"], THREE, THIRDS)
    assert intersection[0].tolist() == pytest.approx(expected)
    assert sum(expected) == pytest.approx(1)


def test_a_sample_of_no_weight_has_no_place_in_a_range() -> None:
    ends = expect(TARGETS["interval"], THREE, torch.tensor([1.0, 1.0, 0.0]))
    assert ends[0].tolist() == pytest.approx([0.5, 0.7, 0.2, 0.3, 0.1, 0.2])


def test_a_central_part_holds_the_average() -> None:
    """Each of ten samples is sure of another class: nine in ten say 0 of any."""
    sure = torch.eye(10, dtype=torch.float64)[:, None].log()
    central = interval(IntervalSettings(share=0.8))
    ends = expect(central, sure, torch.ones(10))[0].view(10, 2)
    assert ends[:, 0].tolist() == [0.0] * 10
    # the upper quantile is 0 as well; the average is not
    assert ends[:, 1].tolist() == pytest.approx([0.1] * 10)

    target = TARGETS["intersection"]
    assert isinstance(target, DerivedTarget)
    inside = target.derive({"interval": ends.flatten()})
    assert inside.tolist() == pytest.approx([0.1] * 10)


def test_a_central_part_reaches_down_to_the_average_too() -> None:
    """19 of 20 samples are sure of the first class: its lower quantile is 1."""
    sure = torch.eye(2, dtype=torch.float64)[[0] * 19 + [1], None].log()
    ends = expect(interval(IntervalSettings(share=0.8)), sure, torch.ones(20))
    assert ends[0].tolist() == pytest.approx([0.95, 1.0, 0.0, 0.05])


def test_a_central_part_of_many_samples_is_between_their_quantiles() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.rand((1001, 1), generator=generator, dtype=torch.float64)
    log_prob = torch.stack([first, 1 - first], -1).log()
    ends = expect(interval(IntervalSettings(share=0.9)), log_prob, torch.ones(1001))[0]
    ordered = first[:, 0].sort().values
    # of 1,001 equal weights, 50.05 and 950.95 of them are the least to reach the levels
    low, high = float(ordered[50]), float(ordered[950])
    assert ends.tolist() == pytest.approx([low, high, 1 - high, 1 - low])


def test_samples_that_agree_have_their_distribution_inside() -> None:
    same = THREE[:1].expand(3, 1, 3)
    inside = expect(TARGETS["intersection"], same, THIRDS)
    assert inside[0].tolist() == pytest.approx([0.5, 0.3, 0.2])


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_a_students_ends_hold_its_prediction_and_the_distribution_inside(scale: float) -> None:
    layout = HeadLayout(["predictive", "interval", "intersection"], 4)
    generator = torch.Generator().manual_seed(1)
    raw = scale * torch.randn((500, layout.num_outputs), generator=generator)
    said = layout.predict(raw)
    low, high = said["interval"].view(500, 4, 2).unbind(-1)
    inside = said["intersection"]
    assert bool((low >= 0).all() and (high <= 1).all())
    for held in (said["predictive"], inside):
        assert bool((low <= held + 1e-6).all() and (held <= high + 1e-6).all())
    torch.testing.assert_close(inside.sum(1), torch.ones(500))


# ---------------------------------------------------------------------------------- factors


def test_scores_are_standard_and_uncorrelated() -> None:
    scores = factor_scores([centered_logits(predicted())], WEIGHT, 4)
    identity = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close((WEIGHT[:, None] * scores).T @ scores, identity)
    torch.testing.assert_close(WEIGHT @ scores, torch.zeros(4, dtype=torch.float64))


def test_all_factors_are_the_covariance_of_every_pair_of_inputs() -> None:
    """Five samples have weight, so that four factors are all."""
    log_prob = predicted()
    values = expect(factors(FactorSettings(rank=6)), log_prob, WEIGHT)
    mean, loadings, rest = split_factors(values, CLASSES)

    expected_mean = torch.einsum("s,snc->nc", WEIGHT, centered_logits(log_prob))
    torch.testing.assert_close(mean, expected_mean)
    ours = loadings.movedim(1, -1).flatten(0, 1)
    torch.testing.assert_close(ours @ ours.T, covariance(log_prob))
    assert float(rest.max()) < 1e-12
    assert float(loadings[:, 4:].abs().max()) == 0.0


def test_few_factors_leave_out_the_least() -> None:
    """Eckart & Young 1936: what is left in squares are the other eigenvalues'."""
    log_prob = predicted()
    values = expect(factors(FactorSettings(rank=2)), log_prob, WEIGHT)
    _, loadings, rest = split_factors(values, CLASSES)
    whole = covariance(log_prob)
    ours = loadings.movedim(1, -1).flatten(0, 1)

    eigenvalues = torch.linalg.eigvalsh(whole)
    error = (ours @ ours.T - whole).square().sum()
    assert float(error) == pytest.approx(float(eigenvalues[:-2].square().sum()))
    # at each input and class, loadings and rest are the whole variance
    variance = ours.square().sum(1) + rest.flatten()
    torch.testing.assert_close(variance, whole.diagonal())


def test_an_input_alone_gets_the_loadings_that_it_has_among_others() -> None:
    """Scores are of all inputs, once: no sign or rotation is chosen anew."""
    target = factors(FactorSettings(rank=2))
    log_prob = predicted()
    assert target.fit is not None
    fitted = target.fit([centered_logits(log_prob)], WEIGHT)
    together = expect(target, log_prob, WEIGHT)
    alone = target.of_samples(centered_logits(log_prob[:, 3:4]), WEIGHT, fitted)
    torch.testing.assert_close(alone[0], together[3])


def test_loadings_move_smoothly_where_axes_of_one_input_jump() -> None:
    """Two variances cross at t = 0: the first axis of an input alone turns by a right angle."""
    scores = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).double()
    axes = torch.tensor([[1.0, -1.0, 0.0], [1.0, 1.0, -2.0]]).double() / 2
    places = torch.linspace(-0.1, 0.1, 201, dtype=torch.float64)
    sizes = torch.stack([1 + places, 1 - places / 2], -1)
    logits = torch.einsum("sj,nj,jc->snc", scores, sizes, axes)
    weight = torch.full((4,), 0.25, dtype=torch.float64)

    target = factors(FactorSettings(rank=2))
    values = expect(target, logits.log_softmax(-1), weight)
    _, loadings, _ = split_factors(values, 3)
    assert float((loadings[1:] - loadings[:-1]).abs().max()) < 0.01


def test_the_loss_is_minus_the_density_of_samples_given_their_scores() -> None:
    target = factors(FactorSettings(rank=2))
    layout = HeadLayout(["predictive", target], CLASSES)
    log_prob = predicted()
    logits = centered_logits(log_prob)
    scores = factor_scores([logits], WEIGHT, 2)
    generator = torch.Generator().manual_seed(2)
    raw = torch.randn((INPUTS, layout.num_outputs), generator=generator, dtype=torch.float64)
    said = layout.predict(raw)["factors"]
    mean, loadings, rest = split_factors(said, CLASSES)

    total = torch.zeros(INPUTS, dtype=torch.float64)
    for weight, score_J, logit_NC in zip(WEIGHT, scores, logits, strict=True):
        center = mean + torch.einsum("j,njc->nc", score_J, loadings)
        squared = (logit_NC - center).square() / rest
        total += weight * 0.5 * (rest.log() + squared).mean(1)
    heads = layout.split(raw)
    losses = target.loss(heads["factors"], heads, expect(target, log_prob, WEIGHT))
    torch.testing.assert_close(losses, 0.1 * total)


def test_draws_go_together_as_the_loadings_do() -> None:
    """20,000 draws: a correlation is known to .007, four standard errors are .03."""
    loadings = torch.tensor([[1.0, -1.0, 0.0], [0.5, 0.5, -1.0]]).double()
    rest = torch.full((3,), 0.25).double()
    row = torch.cat([torch.zeros(3).double(), loadings.flatten(), rest])
    other = torch.cat([torch.zeros(3).double(), -loadings.flatten(), rest])
    generator = torch.Generator().manual_seed(0)
    drawn = draw_factors(torch.stack([row, row, other]), 3, 20_000, generator=generator)
    torch.testing.assert_close(drawn.exp().sum(-1), torch.ones((20_000, 3)).double())

    logits = centered_logits(drawn).flatten(1)
    correlation = torch.corrcoef(logits.T)
    # the first input goes with the second, and against the third; noise less its mean over three
    # classes has two thirds of its variance
    for c, variance in enumerate(loadings.square().sum(0)):
        expected = float(variance / (variance + 0.25 * 2 / 3))
        assert float(correlation[c, 3 + c]) == pytest.approx(expected, abs=0.03)
        assert float(correlation[c, 6 + c]) == pytest.approx(-expected, abs=0.03)


# ---------------------------------------------------------------------------------- streams


@pytest.fixture
def folder(tmp_path):
    """Two segments of 4 and 2 samples, with a view."""
    for num_samples in (4, 6):
        built = build(tmp_path, num_samples)
    view(Stream(built))
    return built


@pytest.mark.parametrize("name", ["interval", "factors"])
@pytest.mark.parametrize("numbers", [1, 8_000_000])
def test_a_streams_statistic_is_that_of_all_its_samples(folder, monkeypatch, name, numbers):
    """In parts of one input, and of all."""
    monkeypatch.setattr(stream_statistics, "_NUMBERS", numbers)
    stream, target = Stream(folder), TARGETS[name]
    assert isinstance(target, StatisticTarget)
    fitted = stream_fit(stream, target, [VIEW])
    said = stream_statistic(stream, target, VIEW, fitted)

    predictions = stream.predictions(VIEW).double()
    expected = expect(target, predictions, stream.weight_S).float()
    torch.testing.assert_close(said, expected, rtol=1e-5, atol=1e-6)


def test_a_streams_statistic_is_read_once_and_anew_where_it_means_something_else(
    folder, monkeypatch
):
    reads = []
    predictions_at = Stream.predictions_at

    def counted(stream, name, inputs):
        reads.append(name)
        return predictions_at(stream, name, inputs)

    monkeypatch.setattr(Stream, "predictions_at", counted)
    stream = Stream(folder)
    for share in (1.0, 0.5, 1.0, 0.5):
        target = interval(IntervalSettings(share=share))
        stream_statistic(stream, target, VIEW, None)
    assert len(reads) == 2

    target = factors(FactorSettings(rank=1))
    for _ in range(2):
        fitted = stream_fit(stream, target, [VIEW])
        first = stream_statistic(stream, target, VIEW, fitted)
    assert len(reads) == 4
    # other scores, another statistic
    assert fitted is not None
    other = stream_statistic(stream, target, VIEW, -fitted)
    assert len(reads) == 5
    assert not torch.equal(first, other)

    shutil.rmtree(folder / "derived")
    torch.testing.assert_close(stream_statistic(stream, target, VIEW, fitted), first)


def test_averages_are_not_taken_for_statistics(folder):
    stream = Stream(folder)
    for name in ("interval", "intersection"):
        message = "'interval' is a statistic of all samples; found averages alone"
        with pytest.raises(ConfigError, match=message):
            stream_expectations(stream, [name], VIEW)


def test_a_statistic_of_another_shape_is_refused():
    target = StatisticTarget(
        name="flat",
        label="flat",
        values=torch.exp,
        of_samples=lambda values, weight, fitted: values.sum((0, 2)),
        num_outputs=lambda num_classes: 1,
        predict=lambda raw, heads: raw,
        loss=lambda raw, heads, said: (raw - said).square().sum(-1),
    )
    with pytest.raises(RegistryError, match=r"'flat': found a statistic \(7,\) .* an input"):
        expect(target, predicted(), WEIGHT)
