"""The condition ``linf-0.03`` and the metric ``certified_accuracy`` that is measured under it.

The condition leaves inputs as they are and states a radius. Under it the answers of a network are
proven within that radius where they can be, and nothing else is measured: all other metrics are
those of ``clean``.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from gped_nas.config import Config
from gped_nas.data.scale import Scale
from gped_nas.errors import ConfigError
from gped_nas.evaluate.base import METRICS, LabelMeaning, add_metric
from gped_nas.evaluate.certify.bounds import Bounds
from gped_nas.evaluate.certify.box import linf_box
from gped_nas.evaluate.certify.networks import CertifiableNetwork
from gped_nas.evaluate.certify.verdict import CERTIFIED, judge
from gped_nas.evaluate.conditions import Condition, Predictor, add_condition
from gped_nas.evaluate.predictions import AnyPredictions, Floats, Labels, Predictions


class RadiusSettings(Config):
    """Settings of ``linf``.

    Attributes:
        epsilon: the radius.
        bounds: what proves.
    """

    epsilon: float = Field(
        ge=0,
        description="radius: a share of the range of pictures, or of each column's standard "
        "deviation in a table",
    )
    bounds: Bounds = Field("crown", description="how answers are proven")

    def describe(self, scale: Scale) -> str:
        """The radius for people: ``epsilon 0.03 (of 0..255: 7.65)``."""
        proven_by = "" if self.bounds == "crown" else f", bounds {self.bounds}"
        return f"epsilon {scale.describe(self.epsilon)}{proven_by}"


@add_condition(
    "linf",
    "inputs as they are, answers proven within a radius",
    settings=RadiusSettings,
    main="epsilon",
    kinds=("classification",),
)
def within_a_radius(raw: Tensor, **_: Any) -> Tensor:
    """The inputs themselves."""
    if bool(raw.isnan().any()):
        raise ConfigError(
            "found inputs with missing numbers, expected none: there is no radius around what is "
            "not known; take another condition"
        )
    return raw


@add_metric(
    "certified_accuracy",
    "maximize",
    "certified accuracy (share)",
    reads=("predictive",),
    task="certificate",
    always=False,
    unit="share",
    worst=0.0,
    best=1.0,
    bounds={"classification": 1.0},
    interval="share",
)
def _certified_accuracy(
    predictions: Predictions, labels_N: Labels, teacher: Predictions | None
) -> Floats:
    """Share of examples that are answered rightly, provably at every input within the radius."""
    assert predictions.certified_N is not None, "else it does not apply"
    is_right_N = predictions.certified_N & (predictions.answer_N == labels_N)
    terms_N = np.where(predictions.is_nan_N, np.nan, is_right_N.astype(np.float64))
    return terms_N[:, None]


def certificate_metrics() -> frozenset[str]:
    """The metrics that are measured under conditions that state a radius."""
    return frozenset(name for name, metric in METRICS.items() if metric.task == "certificate")


def states_radius(condition: Condition | None) -> bool:
    """Whether a condition leaves inputs as they are and states a radius."""
    return condition is not None and isinstance(condition.chosen, RadiusSettings)


def meaning_of_labels(condition: Condition | None) -> LabelMeaning:
    """Which metrics are measured under a condition."""
    return "certificate" if states_radius(condition) else "prediction"


def network_of(predictor: Predictor) -> CertifiableNetwork | None:
    """A predictor as layers; None where it is no network whose layers are known and have bounds.

    Students without bounds are refused before any work; a reference may be of another family.
    """
    certifiable = getattr(predictor, "certifiable", None)
    if certifiable is None:
        return None
    try:
        network: CertifiableNetwork = certifiable()
    except ConfigError:
        return None
    return network


def predict_proven(
    predictor: Predictor, raw: Tensor, labels: Labels, condition: Condition, scale: Scale
) -> AnyPredictions:
    """What a predictor says of inputs, with what is proven of it within a condition's radius.

    Nothing is said of proofs where its layers are not known, or have no bounds.

    Args:
        predictor: who answers.
        raw: inputs (N, *input_shape).
        labels: their classes.
        condition: that states the radius.
        scale: what the radius is a share of.

    Raises:
        DataError: an input is missing, or outside of the data's declared range.
    """
    assert isinstance(condition.chosen, RadiusSettings), "it states a radius"
    predictions = predictor.predict(raw)
    network = network_of(predictor)
    if network is None:
        return predictions

    assert isinstance(predictions, Predictions), "labels are classes"
    judged = judge(
        network,
        predictor,
        raw,
        labels,
        linf_box(raw, scale, condition.chosen.epsilon),
        generator=torch.Generator(),
        bounds=condition.chosen.bounds,
        attack="none",
    )
    return replace(predictions, certified_N=judged.verdict_N == CERTIFIED)
