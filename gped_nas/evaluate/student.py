"""What a student says about raw inputs, in the form that metrics read."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gped_nas.distill.student import Student
from gped_nas.evaluate.conditions import Forward
from gped_nas.evaluate.predictions import AnyPredictions, Predictions
from gped_nas.evaluate.teacher import normal_predictions, with_derived
from gped_nas.targets.formulas import log_softmax
from gped_nas.targets.layout import HeadLayout


@dataclass(frozen=True, eq=False)
class StudentPredictor:
    """A student as conditions ask it, see ``conditions.Predictor``."""

    student: Student

    def networks(self) -> Iterator[tuple[float, Forward]]:
        """Its one network, with weight 1."""
        yield 1.0, self._main_head

    def predict(self, raw: Tensor) -> AnyPredictions:
        """See ``student_predictions``."""
        return student_predictions(self.student, raw)

    def _main_head(self, raw: Tensor) -> Tensor:
        """What it says of the label, (B, G): log-probabilities, or mean and variance."""
        layout = self.student.spec.layout
        heads = layout.split(self.student(raw))
        if self.student.spec.label_normalization:
            return layout.predict_heads(heads)["predictive_normal"]
        return log_softmax(heads["predictive"])


@torch.no_grad()
def student_predictions(
    student: Student, raw_inputs: Tensor, *, batch_size: int = 512
) -> AnyPredictions:
    """What a student says of every target that it was distilled for or that follows from these.

    Args:
        student: read back from its file.
        raw_inputs: (N, *input_shape) in the dataset's own range.
        batch_size: inputs at a time.
    """
    spec = student.spec
    raw = torch.cat([student(part) for part in torch.split(raw_inputs, batch_size)])

    layout = HeadLayout(with_derived(spec.targets), spec.layout.num_classes)
    heads = {name: head.double() for name, head in layout.split(raw).items()}
    predicted = layout.predict_heads(heads)
    expectations = {name: value.numpy() for name, value in predicted.items()}

    if spec.label_normalization:
        mean, variance = predicted["predictive_normal"].unbind(-1)
        return normal_predictions(
            mean,
            variance,
            spec.label_normalization,
            expectations=expectations,
            targets=layout.targets,
        )

    # Log-probabilities come from the raw outputs: the logarithm of a probability that was rounded
    # to zero would be infinite.
    log_prob = log_softmax(heads["predictive"]).numpy()
    return Predictions(log_prob, expectations, layout.targets)
