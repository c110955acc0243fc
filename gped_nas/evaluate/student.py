"""What a student says about raw inputs, in the form that metrics read."""

import torch
from torch import Tensor

from gped_nas.distill.student import Student
from gped_nas.evaluate.predictions import AnyPredictions, Predictions
from gped_nas.evaluate.teacher import normal_predictions
from gped_nas.targets.base import TARGETS, log_softmax, split_heads


@torch.no_grad()
def student_predictions(
    student: Student, raw_inputs: Tensor, *, batch_size: int = 512
) -> AnyPredictions:
    """A student's log-probabilities and, where it has that head, expected entropies; or means and
    variances.

    Args:
        student: read back from its file.
        raw_inputs: (N, *input_shape) in the dataset's own range.
        batch_size: inputs at a time.
    """
    spec = student.spec
    raw = torch.cat([student(part) for part in torch.split(raw_inputs, batch_size)])
    heads = {
        name: head.double()
        for name, head in split_heads(raw, spec.targets, spec.num_classes).items()
    }
    if spec.label_normalization:
        normal = TARGETS["predictive_normal"].predict(heads["predictive_normal"], heads)
        return normal_predictions(normal[:, 0], normal[:, 1], spec.label_normalization)
    log_prob = log_softmax(heads["predictive"]).numpy()
    if "expected_entropy" not in heads:
        return Predictions(log_prob)
    entropy = TARGETS["expected_entropy"].predict(heads["expected_entropy"], heads)
    return Predictions(log_prob, entropy.squeeze(-1).numpy())
