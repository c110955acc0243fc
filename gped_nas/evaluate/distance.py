"""How far a student's distributions over classes are from the teacher's."""

import numpy as np

from gped_nas.evaluate.base import add_metric
from gped_nas.evaluate.predictions import Floats, Labels, Predictions


@add_metric(
    "total_variation_to_teacher",
    "minimize",
    "total variation to teacher (share)",
    always=False,
    reads=("predictive",),
    needs_teacher=True,
    unit="share",
    worst=1.0,
    best=0.0,
    bounds={"classification": 0.0},
)
def _total_variation(predictions: Predictions, labels_N: Labels, teacher: Predictions) -> Floats:
    """Mean of half the absolute differences of the two distributions, summed over classes.

    It is the largest difference of the probabilities of any set of classes.
    """
    difference_NC = predictions.expectations["predictive"] - teacher.expectations["predictive"]
    terms_N1: Floats = np.abs(difference_NC).sum(axis=1, keepdims=True) / 2
    return terms_N1
