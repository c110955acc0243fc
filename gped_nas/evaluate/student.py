"""What a student says about raw inputs, in the form that metrics read."""

import torch
import torch.nn.functional as F
from torch import Tensor

from gped_nas.distill.student import Student
from gped_nas.distill.targets import TARGETS, split_heads
from gped_nas.evaluate.base import Predictions


@torch.no_grad()
def student_predictions(student: Student, raw_inputs: Tensor, *, batch_size: int = 4096) -> Predictions:
    """A student's log-probabilities and, where it has that head, expected entropies.

    Args:
        student: read back from its file.
        raw_inputs: (N, *input_shape) in the dataset's own range.
        batch_size: inputs at a time.
    """
    spec = student.spec
    raw = torch.cat([student(part) for part in torch.split(raw_inputs, batch_size)])
    heads = split_heads(raw, spec.targets, len(spec.class_names))
    log_prob = F.log_softmax(heads["predictive"].double(), -1).numpy()
    if "expected_entropy" not in heads:
        return Predictions(log_prob)
    doubles = {name: head.double() for name, head in heads.items()}
    entropy = TARGETS["expected_entropy"].predict(doubles["expected_entropy"], doubles)
    return Predictions(log_prob, entropy.squeeze(-1).numpy())
