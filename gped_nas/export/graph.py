"""A student as one graph from raw inputs to everything it predicts.

Its weights are inside as they lie on disk.

Normalization, the dequantizing of int8 and float16 weights, the family's forward and the heads are
all part of it, so whoever runs the graph needs neither this package nor a second file. Its input is
float32 (B, *input_shape) in the dataset's own range; its outputs are named by ``output_names``,
each (B, G). The batch may have any size.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from gped_nas.distill.answers import answers
from gped_nas.distill.student import StudentSpec
from gped_nas.models.base import FAMILIES
from gped_nas.models.storage import decode

INPUT = "inputs"
_DEBUGGING = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")


class StudentGraph(nn.Module):
    """What is exported.

    Args:
        spec: what the student is.
        stored: its tensors as its weights file holds them.
    """

    def __init__(self, spec: StudentSpec, stored: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.spec = spec
        # a buffer's name holds no dot
        self._buffers_of = {name: name.replace(".", "/") for name in stored}
        for name, tensor in stored.items():
            self.register_buffer(self._buffers_of[name], tensor)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Raw inputs (B, *input_shape) to every output by name, each (B, G)."""
        stored = {name: self.get_buffer(buffer) for name, buffer in self._buffers_of.items()}
        family = FAMILIES[self.spec.family]
        raw = family.forward(decode(stored), self.spec.normalization(inputs))
        return answers(self.spec, raw)


def trace(spec: StudentSpec, stored: Mapping[str, Tensor]) -> ExportedProgram:
    """The graph for batches of any size, without the paths and source lines of tracing."""
    graph = StudentGraph(spec, stored).eval()
    example = torch.zeros((2, *spec.input_shape))
    with torch.no_grad():
        program = torch.export.export(
            graph, (example,), dynamic_shapes={INPUT: {0: Dim("batch")}}, strict=False
        )

    for node in program.graph.nodes:
        for key in _DEBUGGING:
            node.meta.pop(key, None)
    return program
