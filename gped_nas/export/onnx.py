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
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from gped_nas.distill.answers import output_names
from gped_nas.distill.student import StudentSpec
from gped_nas.errors import EnvironmentProblem
from gped_nas.export.graph import INPUT, Inputs, trace
from gped_nas.export.parity import Predict

BATCH = "batch"


def onnx_bytes(spec: StudentSpec, stored: dict[str, Tensor], inputs: Inputs = "float32") -> bytes:
    """The file of a student with these stored tensors.

    Raises:
        EnvironmentProblem: the extra is not installed.
    """
    _require("onnx", "onnxscript", "onnxruntime")
    with _quiet():
        program = torch.onnx.export(
            trace(spec, stored, inputs),
            dynamo=True,
            optimize=False,
            verbose=False,
            input_names=[INPUT],
            output_names=list(output_names(spec)),
            external_data=False,
        )
    assert program is not None, "the dynamo exporter returns its program"

    model = program.model_proto
    _strip(model)
    model.producer_name, model.producer_version = "gped-nas", version("gped-nas")
    for key, value in metadata(spec, inputs).items():
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
    onnxruntime = _require("onnxruntime")
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def predict(x: Tensor) -> dict[str, Tensor]:
        arrays = session.run(names, {INPUT: x.numpy()})
        return {name: torch.from_numpy(array) for name, array in zip(names, arrays, strict=True)}

    return predict


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
            f"--to onnx: {error.name} is not installed; run `pip install 'gped-nas[onnx]'`"
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
