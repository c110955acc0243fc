"""What a student says about raw inputs, in the form that metrics read."""

import torch
from torch import Tensor

from gped_nas.distill.student import Student
from gped_nas.evaluate.predictions import AnyPredictions, Predictions
from gped_nas.evaluate.teacher import normal_predictions
from gped_nas.targets.formulas import log_softmax


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
    heads = {name: head.double() for name, head in spec.layout.split(raw).items()}
    predicted = spec.layout.predict_heads(heads)

    if spec.label_normalization:
        mean, variance = predicted["predictive_normal"].unbind(-1)
        return normal_predictions(mean, variance, spec.label_normalization)
    log_prob = log_softmax(heads["predictive"]).numpy()
    if "expected_entropy" not in predicted:
        return Predictions(log_prob)
    return Predictions(log_prob, predicted["expected_entropy"].squeeze(-1).numpy())
