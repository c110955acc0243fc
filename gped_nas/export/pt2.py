"""Export as ``student.pt2``, which ``torch.export.load`` reads.

``module()`` of what it loads takes raw inputs to a dictionary.
"""

import io

import torch
from torch import Tensor
from torch.export import ExportedProgram

from gped_nas.distill.student import StudentSpec
from gped_nas.export.graph import Inputs, trace
from gped_nas.export.parity import Predict


def pt2_bytes(spec: StudentSpec, stored: dict[str, Tensor], inputs: Inputs = "float32") -> bytes:
    """The file of a student with these stored tensors."""
    program = trace(spec, stored, inputs)
    program.example_inputs = None  # the only part of the file that would be pickled
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def pt2_predict(data: bytes) -> Predict:
    """What the file says of raw inputs."""
    program: ExportedProgram = torch.export.load(io.BytesIO(data))
    module = program.module()
    return lambda x: dict(module(x))
