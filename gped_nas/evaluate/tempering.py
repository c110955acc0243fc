"""One temperature for a predictor's answers, fitted after the fact.

It is that of ``stream.calibration``, of the average in place of every sample: probabilities p
become p^(1/T) / sum p^(1/T), and the variance of a normal is multiplied by T. What is said of other
targets, expected entropy for example, is left out: a temperature of the average says nothing of
single samples.

Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
"""

import numpy as np
import torch

from gped_nas.data.base import Normalization
from gped_nas.evaluate.predictions import (
    AnyPredictions,
    Floats,
    Labels,
    NormalPredictions,
    Predictions,
)
from gped_nas.evaluate.teacher_calibration import LabeledAnswers, fit_temperature


def fitted_temperature(predictions: AnyPredictions, labels_N: Labels) -> float:
    """The temperature with the lowest NLL, between 1/10 and 10, to four digits."""
    weight_S = torch.ones(1)
    if isinstance(predictions, Predictions):
        answers = LabeledAnswers(torch.as_tensor(predictions.log_prob_NC)[None], weight_S, labels_N)
    else:
        said = np.stack([predictions.mean_N, predictions.variance_N], axis=1)
        own_unit = Normalization(0.0, 1.0)
        answers = LabeledAnswers(torch.as_tensor(said)[None], weight_S, labels_N, own_unit)
    return fit_temperature(answers)


def at_temperature(predictions: AnyPredictions, temperature_N: Floats | float) -> AnyPredictions:
    """The same answers at a temperature, of each example its own where several are given."""
    if isinstance(predictions, NormalPredictions):
        return NormalPredictions(predictions.mean_N, predictions.variance_N * temperature_N)
    scaled_NC = predictions.log_prob_NC / np.reshape(temperature_N, (-1, 1))
    log_prob_NC = torch.as_tensor(scaled_NC).log_softmax(-1).numpy()
    return Predictions(log_prob_NC)
