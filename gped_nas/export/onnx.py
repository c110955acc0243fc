"""Export as ``student.onnx`` for ONNX runtimes.

The graph has one input, ``inputs``, one output for each name, and the batch axis ``batch``. What a
user must know to feed it stands in the file's metadata, see ``metadata``.

Nothing is folded on the way: an optimizer would multiply int8 weights out to float32 and quadruple
the file. Runtimes fold when they load it. Notes of the exporter (source lines, paths) are left out.
"""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from gped_nas.distill.answers import output_names
from gped_nas.distill.student import StudentSpec
from gped_nas.errors import ConfigError, EnvironmentProblem
from gped_nas.export.graph import INPUT, Inputs, trace
from gped_nas.export.parity import Predict

BATCH = "batch"


def onnx_bytes(spec: StudentSpec, stored: dict[str, Tensor], inputs: Inputs = "float32") -> bytes:
    """The file of a student with these stored tensors.

    Raises:
        EnvironmentProblem: the extra is not installed.
    """
    require_onnx()
    model = _model_of(trace(spec, stored, inputs), output_names(spec))
    return finish(model, metadata(spec, inputs))


def forward_bytes(forward: Callable[[Tensor], Tensor], example: Tensor) -> bytes:
    """The file of a function of raw inputs, for batches of the example's size.

    Args:
        forward: what networks of a predictor are, see ``evaluate.conditions``.
        example: raw inputs (B, *input_shape).

    Raises:
        EnvironmentProblem: the extra is not installed.
        ConfigError: torch cannot trace the function.
    """
    require_onnx()
    try:
        with torch.no_grad():
            program = torch.export.export(_Function(forward).eval(), (example,), strict=False)
        return finish(_model_of(program, ["outputs"]), {})
    except Exception as error:  # torch's exporters raise whatever a user's module raises in them
        reason = str(error).strip().split("\n")[0][:200]
        raise ConfigError(
            f"ONNX: this network cannot be exported: {reason}; take the runtime torch"
        ) from None


class _Function(nn.Module):
    """A function as the module that exporters take."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, inputs: Tensor) -> Tensor:
        return self._function(inputs)


def _model_of(program: ExportedProgram, names: Iterable[str]) -> Any:
    """A traced graph as ONNX, with these names of its outputs."""
    with _quiet():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            optimize=False,
            verbose=False,
            input_names=[INPUT],
            output_names=list(names),
            external_data=False,
        )
    assert exported is not None, "the dynamo exporter returns its program"

    return exported.model_proto


def finish(model: Any, metadata: Mapping[str, str]) -> bytes:
    """The bytes of an ONNX model that says these things of itself, without notes of its makers."""
    _strip(model)
    model.producer_name, model.producer_version = "gped-nas", version("gped-nas")
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def metadata(spec: StudentSpec, inputs: Inputs = "float32") -> dict[str, str]:
    """What the file says of itself: text, or JSON where it is no single word.

    ``classes`` (names in the order of the outputs, a list; empty for a real label),
    ``input_layout``, ``input_dtype``, ``input_shape`` of one input (a list), ``input_range``,
    ``normalization`` that the graph applies itself (``mean`` and ``std``), ``outputs`` (a list) and
    the ``version`` of gped-nas.
    """
    layout = "NCHW" if len(spec.input_shape) == 3 else "ND"
    dtype, shape = "float32", spec.input_shape
    if inputs == "bytes":
        channels, height, width = shape
        layout, dtype, shape = "NHWC", "uint8", (height, width, channels)
    return {
        "version": version("gped-nas"),
        "classes": json.dumps(spec.class_names),
        "input_layout": layout,
        "input_dtype": dtype,
        "input_shape": json.dumps(shape),
        "input_range": "raw, as the training data have it; the graph normalizes",
        "normalization": json.dumps(spec.normalization.to_json()),
        "outputs": json.dumps(output_names(spec)),
    }


def _strip(model: Any) -> None:
    """Drop notes, and name the one free axis."""
    graph = model.graph
    del graph.value_info[:]
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]
        part.doc_string = ""

    for value in (*graph.input, *graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_param = BATCH


def onnx_predict(data: bytes) -> Predict:
    """What the file says of raw inputs, on the CPU."""
    session = onnx_session(data)
    names = [output.name for output in session.get_outputs()]

    def predict(x: Tensor) -> dict[str, Tensor]:
        arrays = session.run(names, {INPUT: x.numpy()})
        return {name: torch.from_numpy(array) for name, array in zip(names, arrays, strict=True)}

    return predict


def onnx_session(data: bytes, threads: int | None = None) -> Any:
    """A session of ONNX Runtime on the CPU, with so many threads or as many as it likes.

    Raises:
        EnvironmentProblem: it is not installed.
    """
    onnxruntime = _require("onnxruntime")
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def require_onnx() -> None:
    """Refuse where the extra is not installed.

    Raises:
        EnvironmentProblem: it is not.
    """
    _require("onnx", "onnxscript", "onnxruntime")


def _require(*names: str) -> Any:
    """Import all the modules and return the last one.

    Raises:
        EnvironmentProblem: one of them is not installed.
    """
    import importlib

    try:
        modules = [importlib.import_module(name) for name in names]
        return modules[-1]
    except ImportError as error:
        raise EnvironmentProblem(
            f"ONNX: {error.name} is not installed; run `pip install 'gped-nas[onnx]'`"
        ) from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress lines and warnings about its own parts off the user's screen."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
