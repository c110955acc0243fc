"""A student of int8 weights as an ONNX graph that computes in int8: QDQ by ONNX Runtime's tools.

The weights are the student's own int8 numbers with its own scales. What flows between layers is
rounded to int8 too, with one range a tensor, which training inputs show. Pairs of QuantizeLinear
and DequantizeLinear (QDQ) around the products say so, and runtimes compute the products of
integers. Normalization and heads stay float32.
"""

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from gped_nas.distill.student import StudentSpec
from gped_nas.errors import ConfigError
from gped_nas.export.graph import INPUT, Inputs, as_bytes
from gped_nas.export.onnx import finish, metadata, onnx_bytes, require_onnx
from gped_nas.models.storage import decode

_PRODUCTS = ["Conv", "Gemm", "MatMul"]


def check_is_int8(spec: StudentSpec) -> None:
    """Refuse a student whose weights are no int8 numbers.

    Raises:
        ConfigError: they are others.
    """
    if spec.storage_dtype != "int8":
        raise ConfigError(
            f"--compute int8: this student's weights are {spec.storage_dtype}, expected int8: "
            "others would be other weights than those that were measured; choose a student of "
            "storage_dtype int8, or leave --compute out"
        )


def int8_bytes(
    spec: StudentSpec, stored: dict[str, Tensor], calibration: Tensor, inputs: Inputs = "float32"
) -> bytes:
    """The file of a student that computes in int8.

    Args:
        spec: of a student of int8 weights.
        stored: its tensors, as its weights file holds them.
        calibration: raw inputs (N, *input_shape) that show how large numbers become.
        inputs: what the graph takes.

    Raises:
        ConfigError: its weights are no int8 numbers.
        EnvironmentProblem: the extra is not installed.
    """
    check_is_int8(spec)
    require_onnx()
    import onnx
    from onnxruntime import quantization

    whole = onnx.load_from_string(onnx_bytes(spec, decode(stored), inputs))
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "student.onnx"
        quantization.quantize_static(
            whole,
            path,
            _reader(calibration, inputs),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=_PRODUCTS,
            per_channel=True,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        quantized = onnx.load(path)
    return finish(quantized, {**metadata(spec, inputs), "compute": "int8"})


def _reader(calibration: Tensor, inputs: Inputs) -> Any:
    """Inputs as ONNX Runtime's tools read them: all in one batch."""
    from onnxruntime.quantization import CalibrationDataReader

    x = as_bytes(calibration) if inputs == "bytes" else calibration.float()
    batches = iter([{INPUT: x.numpy()}])

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # it has no types
        def get_next(self) -> dict[str, Any] | None:
            return next(batches, None)

    return Reader()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep advice of the tools, which is about other models, off the user's screen."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
