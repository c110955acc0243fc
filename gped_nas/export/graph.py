"""A student as one graph from raw inputs to everything it predicts.

Its weights are inside as they lie on disk.

Normalization, the dequantizing of int8 and float16 weights, the family's forward and the heads are
all part of it, so whoever runs the graph needs neither this package nor a second file. Its input is
float32 (B, *input_shape) in the dataset's own range, or bytes of pictures as cameras and files give
them, uint8 (B, height, width, channels); its outputs are named by ``output_names``, each (B, G).
The batch may have any size.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from gped_nas.distill.answers import answers
from gped_nas.distill.student import StudentSpec
from gped_nas.models.base import FAMILIES
from gped_nas.models.storage import decode

INPUT = "inputs"
Inputs = Literal["float32", "bytes"]
"""What a graph takes: see the module."""
_DEBUGGING = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")


class StudentGraph(nn.Module):
    """What is exported.

    Args:
        spec: what the student is.
        stored: its tensors as its weights file holds them.
        inputs: what it takes.
    """

    def __init__(self, spec: StudentSpec, stored: Mapping[str, Tensor], inputs: Inputs) -> None:
        super().__init__()
        self.spec, self.inputs = spec, inputs
        # a buffer's name holds no dot
        self._buffers_of = {name: name.replace(".", "/") for name in stored}
        for name, tensor in stored.items():
            self.register_buffer(self._buffers_of[name], tensor)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Raw inputs (B, *input_shape), or bytes, to every output by name, each (B, G)."""
        if self.inputs == "bytes":
            inputs = inputs.permute(0, 3, 1, 2)  # normalization casts
        stored = {name: self.get_buffer(buffer) for name, buffer in self._buffers_of.items()}
        family = FAMILIES[self.spec.family]
        raw = family.forward(decode(stored), self.spec.normalization(inputs))
        return answers(self.spec, raw)


def as_bytes(raw: Tensor) -> Tensor:
    """Raw pictures (B, channels, height, width) of whole numbers as a graph of bytes takes them."""
    return raw.permute(0, 2, 3, 1).to(torch.uint8).contiguous()


def trace(
    spec: StudentSpec, stored: Mapping[str, Tensor], inputs: Inputs = "float32"
) -> ExportedProgram:
    """The graph for batches of any size, without the paths and source lines of tracing."""
    graph = StudentGraph(spec, stored, inputs).eval()
    example = torch.zeros((2, *spec.input_shape))
    if inputs == "bytes":
        example = as_bytes(example)
    with torch.no_grad():
        program = torch.export.export(
            graph, (example,), dynamic_shapes={INPUT: {0: Dim("batch")}}, strict=False
        )

    for node in program.graph.nodes:
        for key in _DEBUGGING:
            node.meta.pop(key, None)
    return program
