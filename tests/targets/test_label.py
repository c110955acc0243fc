"""Targets of real labels: their values, losses and heads against torch's distributions."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.distributions import Normal

from gped_nas.data.base import Normalization
from gped_nas.distill.feed import DistillationSet, PosteriorPredictions, check_update
from gped_nas.distill.kernel import distill
from gped_nas.distill.recipe import Recipe
from gped_nas.errors import ConfigError
from gped_nas.evaluate.teacher import averaged
from gped_nas.models.base import Genotype
from gped_nas.targets.base import TARGETS, QuantileTarget, for_labels
from gped_nas.targets.expectations import answer_to_probe, expect
from gped_nas.targets.label import (
    ExceedanceSettings,
    LabelQuantileSettings,
    exceedance,
    label_quantile,
    label_target,
)
from gped_nas.targets.layout import HeadLayout

UNIT = Normalization(mean=100.0, std=20.0)
LEVELS = (0.1, 0.5, 0.9)
# two posterior samples at one input; the second one has three quarters of the weight
SAMPLES = torch.tensor([[[-1.0, 0.04]], [[1.0, 0.36]]], dtype=torch.float64)
WEIGHT = torch.tensor([1.0, 3.0], dtype=torch.float64)
NAMES = ("predictive_normal", "model_variance", "label_quantile", "exceedance")


def cdf(label: float) -> float:
    """Of the mixture of both samples."""
    mean_S, variance_S = SAMPLES[:, 0].unbind(-1)
    below_S = Normal(mean_S, variance_S.sqrt()).cdf(torch.tensor(label).double())
    return float((WEIGHT / 4) @ below_S)


def random_heads(layout: HeadLayout, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    size = (50, layout.num_outputs)
    return layout.split(3 * torch.randn(size, generator=generator, dtype=torch.float64))


def test_the_samples_variance_has_two_parts() -> None:
    # means -1 and 1 with weights 1/4 and 3/4: E = .5, variance 3/4; noise (.04 + 3 * .36) / 4
    said = averaged(
        SAMPLES, WEIGHT, UNIT, [TARGETS["predictive_normal"], TARGETS["model_variance"]]
    )
    assert said.expectations["model_variance"][0, 0] == pytest.approx(0.75 * 400)
    assert said.expectations["noise_variance"][0, 0] == pytest.approx(0.28 * 400)
    assert said.expectations["predictive_normal"][0].tolist() == pytest.approx([110, 1.03 * 400])


def test_a_students_parts_are_never_more_than_the_whole() -> None:
    layout = HeadLayout((*NAMES, "noise_variance"), 1)
    said = layout.predict_heads(random_heads(layout))
    parts = said["model_variance"] + said["noise_variance"]
    assert (said["model_variance"] >= 0).all() and (said["noise_variance"] >= 0).all()
    torch.testing.assert_close(parts[:, 0], said["predictive_normal"][:, 1])


def test_the_loss_of_the_models_variance_is_least_at_it() -> None:
    layout = HeadLayout(NAMES[:2], 1)
    moments = expect(TARGETS["model_variance"], SAMPLES, WEIGHT)
    # the student has the average's mean .5 and variance 1.03; a share of .75 / 1.03 is least
    share = torch.tensor(0.75 / 1.03, dtype=torch.float64)
    normal = torch.tensor([0.5, 1.03]).double()
    raw = torch.stack([normal[0], normal[1].log(), share.logit()])[None].requires_grad_()
    heads = layout.split(raw)
    loss = TARGETS["model_variance"].loss(heads["model_variance"], heads, moments)
    (gradient,) = torch.autograd.grad(loss.sum(), raw)
    # and nothing of it reaches mean and variance of the label
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-8, rtol=0)


def test_quantiles_of_the_label_are_those_of_the_mixture() -> None:
    target = label_quantile(LabelQuantileSettings(levels=LEVELS))
    assert isinstance(target, QuantileTarget) and target.of_samples is not None
    (quantile_L,) = target.of_samples(SAMPLES, WEIGHT)
    assert [cdf(float(quantile)) for quantile in quantile_L] == pytest.approx(LEVELS)

    said = averaged(SAMPLES, WEIGHT, UNIT, [TARGETS["predictive_normal"], target])
    own_unit = 100 + 20 * quantile_L
    assert said.expectations["label_quantile"][0] == pytest.approx(own_unit.numpy())


def test_quantiles_begin_at_those_of_the_students_normal_and_rise() -> None:
    target = label_quantile(LabelQuantileSettings(levels=LEVELS))
    layout = HeadLayout(("predictive_normal", target), 1)
    heads = random_heads(layout)
    zero = torch.zeros_like(heads["label_quantile"])
    mean, log_variance = heads["predictive_normal"].unbind(-1)
    law = Normal(mean[:, None], (0.5 * log_variance).exp()[:, None])
    expected = law.icdf(torch.tensor(LEVELS, dtype=torch.float64).expand(50, 3))
    torch.testing.assert_close(target.predict(zero, heads), expected)

    quantiles = target.predict(heads["label_quantile"], heads)
    assert (quantiles.diff(dim=-1) > 0).all()


def test_quantiles_are_learned_from_single_samples_alone() -> None:
    target = TARGETS["label_quantile"]
    check_update([target], "newest", "here")
    for update in ("averaged", "running_mean"):
        with pytest.raises(ConfigError, match=f"found {update}, expected newest"):
            check_update([target], update, "here")


def test_exceedance_is_in_the_labels_own_unit() -> None:
    target = exceedance(ExceedanceSettings(thresholds=(90.0, 120.0)))
    (bound,) = for_labels([target], UNIT)
    average = expect(bound, SAMPLES, WEIGHT)[0]
    # (90 - 100) / 20 and (120 - 100) / 20
    assert average.tolist() == pytest.approx([1 - cdf(-0.5), 1 - cdf(1.0)])
    assert bound == target and bound.to_json() == target.to_json()
    with pytest.raises(ConfigError, match=r"thresholds in the label's own unit.*for_labels"):
        expect(target, SAMPLES, WEIGHT)


def test_exceedance_without_thresholds_is_of_the_labels_mean() -> None:
    (bound,) = for_labels([TARGETS["exceedance"]], UNIT)
    assert bound.to_json() == {"name": "exceedance", "thresholds": [100.0]}
    assert float(expect(bound, SAMPLES, WEIGHT)) == pytest.approx(1 - cdf(0.0))


def test_a_students_exceedance_falls_with_the_threshold() -> None:
    target = exceedance(ExceedanceSettings(thresholds=(90.0, 120.0, 130.0)))
    layout = HeadLayout(("predictive_normal", target), 1)
    said = layout.predict_heads(random_heads(layout))["exceedance"]
    assert ((said >= 0) & (said <= 1)).all() and (said.diff(dim=-1) <= 0).all()


@pytest.mark.parametrize("thresholds", [(2.0, 1.0), (1.0, 1.0)])
def test_thresholds_must_rise(thresholds: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="expected finite numbers that rise"):
        ExceedanceSettings(thresholds=thresholds)


def test_students_learn_what_a_mixture_says() -> None:
    """The two samples at every input; a student of 700 steps meets them one by one."""
    layout = HeadLayout(for_labels(NAMES, UNIT), 1)
    samples = SAMPLES.float().expand(2, 40, -1)
    inputs = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    predictions = PosteriorPredictions([[samples.numpy()]], (WEIGHT / 4).float())
    data = DistillationSet(0.1 * inputs, {}, layout, predictions)
    recipe = Recipe(update="newest", steps=700, batch_size=40, warmup=0, lr=0.05)
    genotype = Genotype("mlp", depth=0)
    (student,) = distill([genotype], data, recipe, seed=0, device=torch.device("cpu")).students

    bias = student.params["layers.0.bias"].double()[None]
    said = {name: value[0] for name, value in layout.predict(bias).items()}
    assert float(said["model_variance"]) == pytest.approx(0.75, rel=0.05)
    assert [cdf(float(q)) for q in said["label_quantile"]] == pytest.approx(
        (0.05, 0.5, 0.95), abs=0.02
    )
    assert float(said["exceedance"]) == pytest.approx(1 - cdf(0.0), abs=0.01)


def test_a_function_of_a_user_reads_the_labels_own_unit() -> None:
    target = label_target(
        "risk", lambda normal: torch.special.ndtr((normal[..., :1] - 120) / normal[..., 1:].sqrt())
    )
    assert target.num_outputs(1) == 1 and target.prediction == "normal"
    (bound,) = for_labels([target], UNIT)
    assert float(expect(bound, SAMPLES, WEIGHT)) == pytest.approx(1 - cdf(1.0))

    heads = {"risk": torch.tensor([[0.3]])}
    assert bound.predict(heads["risk"], heads) == 0.3
    assert float(bound.loss(heads["risk"], heads, torch.tensor([[0.5]]))) == pytest.approx(0.04)


def test_an_edited_function_of_the_variance_is_told_from_the_one_of_before() -> None:
    stream: Any = SimpleNamespace(key=SimpleNamespace(num_predicted=2))
    functions = [lambda normal: normal[..., 1:].sqrt(), lambda normal: 2 * normal[..., 1:].sqrt()]
    answers = {answer_to_probe(stream, label_target("risk", values)) for values in functions}
    assert len(answers) == 2
