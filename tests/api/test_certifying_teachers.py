"""Certificates of built teachers: stored samples, the served average, and the law behind them."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.api.certifying_teachers import (
    Boxed,
    judge_average,
    judge_last_layer,
    judge_law,
    judge_stream,
)
from gped_nas.api.measuring import ensemble
from gped_nas.api.session import Session
from gped_nas.api.teacher import Teacher, build_teacher
from gped_nas.errors import ConfigError
from gped_nas.evaluate.certify.box import linf_box
from gped_nas.evaluate.certify.verdict import BROKEN, CERTIFIED, UNKNOWN
from gped_nas.evaluate.predictions import Predictions
from gped_nas.search.space_file import load_space
from tests.cli.harness import Home

NUM = 8
RADIUS = 0.02
FIT = {"chains": 2, "num_samples": 6, "steps": 300}
LAWS: dict[str, dict[str, Any]] = {
    "vi": {"name": "vi", **FIT, "initial_std": 0.02},
    "laplace": {"name": "laplace", **FIT},
    "swag": {"name": "swag", **FIT, "collect_every": 2, "collections": 4, "rank": 3},
    "mc_dropout": {"name": "mc_dropout", **FIT, "rate": 0.1},
}


def teacher(home: Home, method: str, **settings: Any) -> Teacher:
    chosen = {"teacher.method": LAWS[method], "teacher.genotype.width": 12, **settings}
    return build_teacher(load_space(home.space, chosen), Session())


def boxed(of: Teacher, radius: float = RADIUS, num: int = NUM) -> Boxed:
    raw = of.dataset.raw("validation")[:num]
    label_N = torch.as_tensor(of.dataset.labels("validation")[:num])
    return Boxed(raw, label_N, linf_box(raw, of.dataset.scale, radius))


def corners(of: Boxed, num: int) -> Tensor:
    """Corners of each box in float32, (num, N, *input_shape)."""
    shape = (num, *of.box.low.shape)
    is_high = torch.rand(shape, generator=rng.generator(0, "corners")) < 0.5
    return torch.where(is_high, of.box.high, of.box.low).float()


def answer_of(predictor: Any, raw: Tensor) -> np.ndarray:
    predictions = predictor.predict(raw)
    assert isinstance(predictions, Predictions)
    return predictions.log_prob_NC.argmax(1)


def generator() -> torch.Generator:
    return rng.generator(0, "certificates")


@pytest.mark.parametrize("calibration", ["temperature", "stacking"])
def test_shares_and_the_average_hold_for_what_is_served(sampled: Home, calibration: str) -> None:
    of = teacher(sampled, "mc_dropout", **{"teacher.calibration": calibration})
    asked = boxed(of)
    verdicts = judge_stream(of, asked, generator=generator())
    judged = judge_average(of, asked, verdicts, generator=generator(), attack="margin")

    assert torch.equal(verdicts.weight_S, of.stream.weight_S)
    shares = judged.share(CERTIFIED), judged.share(BROKEN), judged.share(UNKNOWN)
    assert sum(shares) == pytest.approx(1) and min(shares[:2]) > 0
    assert (verdicts.certified_share_N <= verdicts.unbroken_share_N).all()
    assert 0 < verdicts.certified_share_N.mean() and verdicts.unbroken_share_N.mean() < 1

    certified_N = judged.verdict_N == CERTIFIED
    for raw in corners(asked, 20):
        is_right_N = answer_of(ensemble(of), raw) == asked.label_N.numpy()
        assert is_right_N[certified_N].all()
        for index, is_certified_N in enumerate(verdicts.is_certified_SN.numpy()):
            said = of.forward(of.stream.params(index))(raw).argmax(1).numpy()
            assert (said == asked.label_N.numpy())[is_certified_N].all()

    broken_N = judged.verdict_N == BROKEN
    assert asked.box.holds(judged.inputs).all()
    is_wrong_N = answer_of(ensemble(of), judged.inputs) != asked.label_N.numpy()
    assert is_wrong_N[broken_N].all()


def test_a_wider_box_certifies_less_and_breaks_more(sampled: Home) -> None:
    of = teacher(sampled, "swag")
    shares, verdict_counts = [], []
    for radius in (0.0, 0.02, 0.2):
        asked = boxed(of, radius)
        verdicts = judge_stream(of, asked, generator=generator())
        judged = judge_average(of, asked, verdicts, generator=generator(), attack="margin")
        shares.append((verdicts.certified_share_N.mean(), verdicts.unbroken_share_N.mean()))
        verdict_counts.append((judged.share(CERTIFIED), judged.share(BROKEN)))

    # at a point nothing is unknown
    assert shares[0][0] == pytest.approx(shares[0][1])
    assert sum(verdict_counts[0]) == pytest.approx(1)
    assert shares[0][0] > shares[1][0] > shares[2][0]
    assert shares[0][1] >= shares[1][1] > shares[2][1]
    assert verdict_counts[0][0] >= verdict_counts[1][0] > verdict_counts[2][0]


# a draw of laplace takes longest; its law is asked about with its boxes of weights below
SLOW = pytest.param("laplace", marks=pytest.mark.soak)


@pytest.mark.parametrize("method", ["vi", SLOW, "swag", "mc_dropout"])
def test_draws_of_a_law_are_independent_and_bound_its_share(sampled: Home, method: str) -> None:
    of = teacher(sampled, method)
    asked = boxed(of, 0.03)
    law = judge_law(of, asked, generator=generator(), num_draws=60, attack="none")
    assert law.p_value > 0.01, "draws in the order of drawing pass the test of runs"
    assert (law.low_N <= law.num_certified_N / 60).all()
    assert (1 - law.num_broken_N / 60 <= law.high_N).all()
    assert 0 < law.mean[0] < law.mean[1] < 1

    # the stored samples are six draws of the same law: their share lies well within
    verdicts = judge_stream(of, asked, generator=generator(), attack="none")
    stored = float(verdicts.certified_share_N.mean())
    assert law.mean[0] - 0.2 < stored < law.mean[1] + 0.2


def test_more_draws_bound_the_share_closer(sampled: Home) -> None:
    of = teacher(sampled, "mc_dropout")
    asked = boxed(of, 0.01, num=6)
    few = judge_law(of, asked, generator=generator(), num_draws=20, attack="none")
    many = judge_law(of, asked, generator=generator(), num_draws=80, attack="none")
    assert many.mean[1] - many.mean[0] < few.mean[1] - few.mean[0]
    other = judge_law(of, asked, generator=generator(), num_draws=20, attack="none", seed=1)
    assert (other.num_certified_N != few.num_certified_N).any()


def test_boxes_of_weights_certify_a_last_layer_alone(sampled: Home) -> None:
    """Of laplace, 130 parameters: no more than draws do. Of all weights of vi there is no box."""
    of = teacher(sampled, "laplace", **{"teacher.prior.precision": 30.0})
    asked = boxed(of, 0.002)
    mass_N = 10 ** judge_last_layer(of, asked)
    law = judge_law(of, asked, generator=generator(), num_draws=100)
    assert (mass_N <= law.high_N).all()
    assert 0.05 < mass_N.max() <= 1

    with pytest.raises(
        ConfigError, match=r"found 'vi', expected laplace, .*of 910 independent weights .* 10\^-0"
    ):
        judge_last_layer(teacher(sampled, "vi"), asked)


def test_the_law_behind_a_chain_is_refused_with_the_reason(sampled: Home) -> None:
    of = build_teacher(load_space(sampled.space), Session())
    asked = boxed(of)
    assert judge_stream(of, asked, generator=generator()).certified_share_N.max() > 0
    with pytest.raises(
        ConfigError, match="found method 'sgld', .*repeat each other, and an interval that counts"
    ):
        judge_law(of, asked, generator=generator())
