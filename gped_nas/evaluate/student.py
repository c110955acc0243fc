"""What students say about raw inputs, in the form that metrics read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gped_nas.distill.student import Student, StudentSpec
from gped_nas.evaluate.certify.networks import CertifiableNetwork, network_of_student
from gped_nas.evaluate.conditions import Forward
from gped_nas.evaluate.predictions import AnyPredictions, Predictions
from gped_nas.evaluate.teacher import in_own_unit, normal_predictions, with_derived
from gped_nas.targets.base import for_labels
from gped_nas.targets.formulas import log_softmax
from gped_nas.targets.layout import HeadLayout

_ON_DEVICE = 8192
"""Inputs at a time on a device that is not the processor."""
_NUMBERS = 2**26
"""Raw outputs of students that are looked at together, at most: 512 MiB in float64."""


@dataclass(frozen=True, eq=False)
class StudentPredictor:
    """A student as conditions ask it, see ``conditions.Predictor``.

    Attributes:
        student: the student, on the processor.
        device: where it is asked; the processor if None.
    """

    student: Student
    device: torch.device | None = None

    def networks(self) -> Iterator[tuple[float, Forward]]:
        """Its one network, with weight 1."""
        yield 1.0, self._main_head

    @property
    def expected_entropy(self) -> Forward | None:
        """What it says of E[H] at raw inputs, (B,) nats; None where it says nothing of it.

        It can be differentiated.
        """
        names = [target.name for target in self.student.spec.targets]
        return self._expected_entropy if "expected_entropy" in names else None

    def certifiable(self) -> CertifiableNetwork:
        """It as layers, see ``certify.radius``. Raises as ``network_of_student``."""
        return network_of_student(self.student)

    def predict(self, raw: Tensor) -> AnyPredictions:
        """See ``student_predictions``, or ``population_predictions`` on a device."""
        if self.device is None:
            return student_predictions(self.student, raw)
        (predictions,) = population_predictions([self.student], raw, self.device)
        return predictions

    def _main_head(self, raw: Tensor) -> Tensor:
        """What it says of the label, (B, G): log-probabilities, or mean and variance."""
        layout = self.student.spec.layout
        heads = layout.split(self.student.to(raw.device)(raw))
        if self.student.spec.label_normalization:
            return layout.predict_heads(heads)["predictive_normal"]
        return log_softmax(heads["predictive"])

    def _expected_entropy(self, raw: Tensor) -> Tensor:
        layout = self.student.spec.layout
        heads = layout.split(self.student.to(raw.device)(raw))
        return layout.predict_heads(heads)["expected_entropy"][:, 0]


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
    raw = torch.cat([student(part) for part in torch.split(raw_inputs, batch_size)])
    (predictions,) = _predictions(student.spec, raw[None])
    return predictions


@torch.no_grad()
def population_predictions(
    students: Sequence[Student], raw_inputs: Tensor, device: torch.device
) -> list[AnyPredictions]:
    """``student_predictions`` of several students of equal heads, made together on a device.

    Args:
        students: read back from their files; they are on the device afterwards.
        raw_inputs: (N, *input_shape) in the dataset's own range, on the processor.
        device: where.
    """
    if not students:
        return []
    num_outputs = students[0].spec.layout.num_outputs
    num_together = max(1, _NUMBERS // (len(raw_inputs) * num_outputs))

    predictions: list[AnyPredictions] = []
    for start in range(0, len(students), num_together):
        group = [student.to(device) for student in students[start : start + num_together]]
        parts = []
        for part in torch.split(raw_inputs, _ON_DEVICE):
            x = part.to(device)
            parts.append(torch.stack([student(x) for student in group]))
        spec = group[0].spec
        predictions += _predictions(spec, _where_answered(spec, torch.cat(parts, 1)))
    return predictions


def _where_answered(spec: StudentSpec, raw_PNU: Tensor) -> Tensor:
    """Raw outputs where all targets, which may be anybody's functions, can be computed of them."""
    try:
        spec.layout.predict(raw_PNU[:1, :1].double())
    except Exception:
        # what is wrong with one is told where it is called
        return raw_PNU.cpu()
    return raw_PNU


def _predictions(spec: StudentSpec, raw_PNU: Tensor) -> Iterator[AnyPredictions]:
    """The predictions of each student of these raw outputs; heads are computed where these lie."""
    targets = for_labels(with_derived(spec.targets), spec.label_normalization)
    layout = HeadLayout(targets, spec.layout.num_classes)
    heads = {name: head.double() for name, head in layout.split(raw_PNU).items()}
    predicted = {name: value.cpu() for name, value in layout.predict_heads(heads).items()}
    # Log-probabilities come from the raw outputs: the logarithm of a probability that was rounded
    # to zero would be infinite.
    log_prob = None if spec.label_normalization else log_softmax(heads["predictive"]).cpu()

    for p in range(len(raw_PNU)):
        expectations = {name: value[p].numpy() for name, value in predicted.items()}
        if log_prob is not None:
            yield Predictions(log_prob[p].numpy(), expectations, layout.targets)
            continue

        assert spec.label_normalization is not None, "labels are real"
        expectations = in_own_unit(expectations, layout.targets, spec.label_normalization)
        mean, variance = predicted["predictive_normal"][p].unbind(-1)
        yield normal_predictions(
            mean,
            variance,
            spec.label_normalization,
            expectations=expectations,
            targets=layout.targets,
        )
