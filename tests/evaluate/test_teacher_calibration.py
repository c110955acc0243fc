"""What is fitted to validation: a temperature with a known answer, weights with a certificate."""

import numpy as np
import pytest
import torch

from gped_nas.data.base import Normalization
from gped_nas.evaluate.teacher_calibration import (
    CalibrationFit,
    LabeledAnswers,
    fit_calibration,
    fit_stacking,
    fit_temperature,
    stack,
)
from gped_nas.search.teacher_words import calibration_text, describe_calibration
from gped_nas.stream.calibration import RAW, Calibration

UNIT = Normalization(mean=3.0, std=2.0)


def equal(num: int) -> torch.Tensor:
    return torch.full((num,), 1 / num, dtype=torch.float64)


def drawn(num_examples: int, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Logits (N, C), and labels that were drawn from their softmax."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(num_examples, 4, generator=generator)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(1)
    return logits, labels.numpy()


def test_a_sharpness_that_was_put_in_is_taken_out() -> None:
    """20,000 labels see a temperature to 2 %: five standard errors of its estimate."""
    logits, labels = drawn(20_000)
    for factor in (0.5, 1.0, 3.0):
        log_prob = (factor * logits).log_softmax(-1)[None].expand(3, -1, -1)
        answers = LabeledAnswers(log_prob, equal(3), labels)
        assert fit_temperature(answers) == pytest.approx(factor, rel=0.02)


def test_no_temperature_of_a_fine_grid_is_better() -> None:
    logits, labels = drawn(200)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(5, *logits.shape, generator=generator)
    answers = LabeledAnswers((2 * logits + noise).log_softmax(-1), equal(5), labels)

    best = answers.nll(Calibration(temperature=fit_temperature(answers)))
    grid = [answers.nll(Calibration(temperature=float(t))) for t in np.geomspace(0.1, 10, 400)]
    assert best <= min(grid) + 1e-6


def test_the_temperature_of_a_normal_is_its_variance_beside_the_residuals() -> None:
    """One sample of variance v: the likeliest T v is the mean squared residual, so T = that / v."""
    generator = torch.Generator().manual_seed(0)
    mean, residual = torch.randn(2, 500, generator=generator, dtype=torch.float64)
    predicted = torch.stack([mean, torch.full_like(mean, 0.25)], -1)[None]
    labels = ((mean + residual) * UNIT.std + UNIT.mean).numpy()

    expected = float(residual.square().mean()) / 0.25
    answers = LabeledAnswers(predicted, equal(1), labels, UNIT)
    assert fit_temperature(answers) == pytest.approx(expected, rel=1e-3)


def test_where_nothing_is_better_the_temperature_stays_one() -> None:
    """Every temperature gives a uniform average the same NLL."""
    log_prob = torch.zeros(2, 10, 4).log_softmax(-1)
    answers = LabeledAnswers(log_prob, equal(2), np.arange(10) % 4)
    assert fit_temperature(answers) == 1.0

    # a label without probability makes every NLL infinite
    without = torch.tensor([[0.0, -torch.inf]]).expand(1, 10, 2)
    assert fit_temperature(LabeledAnswers(without, equal(1), np.arange(10) % 2)) == 1.0


@pytest.mark.parametrize("num", [2, 3, 40])
def test_stacking_ends_where_no_weight_can_gain(num: int) -> None:
    """The score is concave: its gradient nowhere above 1 bounds what any weights could gain."""
    generator = np.random.default_rng(num)
    log_density = generator.normal(size=(num, 300)) + generator.normal(size=(num, 1))
    weights = stack(log_density)
    assert weights.sum() == pytest.approx(1) and (weights >= 0).all()

    density = np.exp(log_density)
    gradient = (density / (weights @ density)).mean(axis=1)
    assert gradient.max() < 1 + 1e-6

    if num == 2:
        grid = np.linspace(0, 1, 2001)
        scores = [np.log(w * density[0] + (1 - w) * density[1]).mean() for w in grid]
        assert weights[0] == pytest.approx(grid[np.argmax(scores)], abs=1e-3)


def test_the_chain_that_labels_come_from_gets_the_weight() -> None:
    """Two chains, their samples interleaved, of weights 1, 2, 3, ...; the second one is true."""
    logits, labels = drawn(2000)
    wrong = -logits
    predicted = torch.stack([wrong, logits] * 3).log_softmax(-1)
    weight = torch.arange(1, 7, dtype=torch.float64) / 21
    answers = LabeledAnswers(predicted, weight, labels)

    weights = fit_stacking(answers, 2)
    assert weights[1] > 0.95 and sum(weights) == pytest.approx(1, abs=1e-12)
    # within a chain samples share as before: 2, 4 and 6 parts of 12
    read = Calibration(weights=weights).weigh(weight)
    assert read[1::2].tolist() == pytest.approx([weights[1] * part / 12 for part in (2, 4, 6)])


def test_an_example_that_nobody_gives_any_probability_says_nothing() -> None:
    log_density = np.log(np.array([[0.9, 0.8, 1.0], [0.1, 0.2, 1.0]]))
    log_density[:, 2] = -np.inf
    assert stack(log_density) == pytest.approx([1.0, 0.0], abs=1e-6)
    assert stack(np.full((2, 3), -np.inf)).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("kind", ["temperature", "stacking"])
@pytest.mark.parametrize("unit", [None, UNIT])
def test_a_fit_says_what_it_is_worth_where_it_was_fitted_and_elsewhere(
    kind: str, unit: Normalization | None
) -> None:
    generator = torch.Generator().manual_seed(0)
    if unit is None:
        logits, labels = drawn(100)
        predicted = (2 * logits + torch.randn(6, 100, 4, generator=generator)).log_softmax(-1)
    else:
        mean = torch.randn(6, 100, generator=generator, dtype=torch.float64)
        predicted = torch.stack([mean, torch.full_like(mean, 0.2)], -1)
        labels = np.linspace(-2, 8, 100)
    answers = LabeledAnswers(predicted, equal(6), labels, unit)
    fit = fit_calibration(kind, answers, num_groups=6)  # type: ignore[arg-type]

    assert (fit.kind, fit.n) == (kind, 100)
    assert fit.nll_raw == pytest.approx(answers.nll(RAW))
    assert fit.nll == pytest.approx(answers.nll(fit.calibration))
    if kind == "temperature" or unit is None:  # metrics see no mixture of normals
        assert fit.nll <= fit.nll_raw

    halves = answers.every_second(0), answers.every_second(1)
    held_out = []
    for on, at in (halves, halves[::-1]):
        other = fit_calibration(kind, on, num_groups=6)  # type: ignore[arg-type]
        held_out.append(at.nll(other.calibration))
    assert fit.nll_held_out == pytest.approx(np.mean(held_out))
    assert CalibrationFit.from_json(fit.to_json()) == fit
    assert not fit.is_at_end


def test_a_temperature_at_an_end_of_its_range_is_said_to_be_there() -> None:
    certain = torch.tensor([[2.0, 0.0], [0.0, 2.0]]).log_softmax(-1)[None].repeat(2, 5, 1)
    labels = np.arange(10) % 2  # always right: the sharper the better
    fit = fit_calibration("temperature", LabeledAnswers(certain, equal(2), labels), num_groups=2)
    assert fit.calibration.temperature == 0.1 and fit.is_at_end
    assert calibration_text(fit.to_json()) == "temperature 0.1 at an end of its range"
    assert "before (n = 10)" in describe_calibration(fit.to_json())
