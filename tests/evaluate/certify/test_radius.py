"""The condition that states a radius, and what is measured under it."""

import numpy as np
import pytest
import torch

from gped_nas import rng
from gped_nas.data.scale import ValueRange
from gped_nas.errors import ConfigError
from gped_nas.evaluate.base import METRICS, draw_resamples
from gped_nas.evaluate.certify.box import linf_box
from gped_nas.evaluate.certify.networks import margins
from gped_nas.evaluate.certify.radius import predict_proven, states_radius
from gped_nas.evaluate.condition_names import named_condition, parse_condition
from gped_nas.evaluate.judging import evaluate
from gped_nas.evaluate.measured import Key
from gped_nas.evaluate.predictions import Predictions, joined, subset
from gped_nas.evaluate.student import StudentPredictor
from tests.evaluate.certify.small_networks import small_student

RAW = 16 * torch.rand((40, 4), generator=torch.Generator().manual_seed(7))
PREDICTOR = StudentPredictor(small_student(4, [12], 3, seed=2))
RANGE = ValueRange(0, 16)


def _labels() -> np.ndarray:
    """Answers, and five that are not."""
    labels = PREDICTOR.student(RAW).argmax(1).numpy()
    labels[:5] = (labels[:5] + 1) % 3
    return labels


def _proven(text: str = "linf-0.05") -> Predictions:
    condition = parse_condition(text, "here")
    predictions = predict_proven(PREDICTOR, RAW, _labels(), condition, RANGE)
    assert isinstance(predictions, Predictions)
    return predictions


def test_inputs_stay_as_they_are_and_the_radius_is_said() -> None:
    condition = parse_condition("linf-0.05", "here")
    changed = condition.apply(
        RAW, predictor=PREDICTOR, labels=_labels(), generator=rng.generator(0), scale=RANGE
    )
    assert torch.equal(changed, RAW)
    assert states_radius(condition)
    assert not states_radius(parse_condition("clean", "here"))
    assert condition.describe(RANGE).endswith("a radius, 0.05, epsilon 0.05 (of 0..16: 0.8)")

    settings = {"name": "linf", "epsilon": 0.05, "bounds": "ibp"}
    assert named_condition("loose", settings, "here").describe(RANGE).endswith(", bounds ibp")


def test_what_is_certified_is_what_bounds_prove_of_right_answers() -> None:
    labels = _labels()
    box = linf_box(RAW, RANGE, 0.05)
    label_N = torch.from_numpy(labels)
    margin_NC = margins(PREDICTOR.certifiable(), box.low, box.high, label_N)
    lead_N = margin_NC.scatter(1, label_N[:, None], torch.inf).amin(1)

    certified_N = _proven().certified_N
    assert certified_N is not None
    assert np.array_equal(certified_N, (lead_N > 0).numpy())
    assert 5 < certified_N.sum() < 30
    assert not certified_N[:5].any()


def test_a_larger_radius_and_looser_bounds_prove_less() -> None:
    def share(predictions: Predictions) -> float:
        assert predictions.certified_N is not None
        return float(predictions.certified_N.mean())

    loose = named_condition("loose", {"name": "linf", "epsilon": 0.05, "bounds": "ibp"}, "here")
    by_ibp = predict_proven(PREDICTOR, RAW, _labels(), loose, RANGE)
    assert isinstance(by_ibp, Predictions)
    assert share(_proven("linf-0.1")) < share(by_ibp) < share(_proven()) < share(_proven("linf-0"))
    assert share(_proven("linf-0")) == 35 / 40


def test_certified_accuracy_is_measured_within_a_radius_alone() -> None:
    resamples = draw_resamples(40, root=0, part="validation", num_resamples=50)
    proven, labels = _proven(), _labels()
    measures = evaluate(
        proven,
        labels,
        resamples=resamples,
        condition="linf-0.05",
        asked=["certified_accuracy"],
        task="certificate",
    )

    assert [*measures] == [Key("certified_accuracy", "linf-0.05")]
    measured = measures[Key("certified_accuracy", "linf-0.05")]
    assert proven.certified_N is not None and measured.value is not None
    assert measured.value == proven.certified_N.mean()
    assert measured.interval is not None and measured.n == 40
    assert 0 < measured.interval[0] < measured.value < measured.interval[1] < 1

    metric = METRICS["certified_accuracy"]
    plain = PREDICTOR.predict(RAW)
    assert not metric.applies(plain, None)
    others = evaluate(plain, labels, resamples=resamples, asked=["certified_accuracy"])
    assert Key("certified_accuracy") not in others and Key("accuracy") in others


def test_a_wrong_answer_is_never_counted() -> None:
    proven = _proven()
    assert proven.certified_N is not None
    answers = proven.answer_N
    value = METRICS["certified_accuracy"].value(proven, (answers + 1) % 3)
    assert value == 0


def test_what_is_proven_goes_along_with_its_examples() -> None:
    proven = _proven()
    assert proven.certified_N is not None
    index = np.array([7, 3, 30])
    some = subset(proven, index)
    assert isinstance(some, Predictions) and some.certified_N is not None
    assert np.array_equal(some.certified_N, proven.certified_N[index])

    both = joined(proven, proven)
    assert isinstance(both, Predictions) and both.certified_N is None


def test_missing_numbers_have_no_radius() -> None:
    raw = RAW.clone()
    raw[2, 1] = torch.nan
    with pytest.raises(ConfigError, match="missing numbers, expected none"):
        parse_condition("linf-0.05", "here").apply(
            raw, predictor=PREDICTOR, labels=_labels(), generator=rng.generator(0), scale=RANGE
        )
