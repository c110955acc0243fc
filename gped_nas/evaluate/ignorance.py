"""What somebody would predict who knows the labels of training and no input."""

import numpy as np
import torch
from torch import Tensor

from gped_nas.evaluate.predictions import AnyPredictions, NormalPredictions, Predictions


def know_nothing(labels_N: Tensor, num_outputs: int, num_examples: int) -> AnyPredictions:
    """The class frequencies, or the mean and variance of real labels, at every example.

    A class without an example in training gets no probability.

    Args:
        labels_N: labels of the training part: int64 classes, or float64 numbers in their own unit.
        num_outputs: C; without meaning for real labels.
        num_examples: for how many examples.
    """
    if labels_N.is_floating_point():
        mean = np.full(num_examples, float(labels_N.mean()))
        variance = np.full(num_examples, float(labels_N.var(correction=0)))
        return NormalPredictions(mean, variance, is_point=True)

    share_C = torch.bincount(labels_N, minlength=num_outputs).double() / len(labels_N)
    log_prob_C = share_C.log().numpy()
    return Predictions(np.tile(log_prob_C, (num_examples, 1)), is_point=True)
