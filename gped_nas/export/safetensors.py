"""Export as ``weights.safetensors``: the study's own bytes, read with ``spec.json`` beside them."""

import safetensors.torch

from gped_nas.distill.student import Student, StudentSpec
from gped_nas.export.parity import Predict
from gped_nas.models.storage import decode


def safetensors_predict(spec: StudentSpec, data: bytes) -> Predict:
    """What the file says of raw inputs."""
    student: Student = Student(spec, decode(safetensors.torch.load(data))).eval()
    return student.predict
