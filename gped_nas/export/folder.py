"""An exported student: a folder with ``spec.json``, a model card and one file for each format.

* ``safetensors``: ``weights.safetensors``, the study's own bytes; ``load_student`` reads the
  folder.
* ``pt2``: ``student.pt2``, a graph for ``torch.export.load``.
* ``onnx``: ``student.onnx``, the same graph for ONNX runtimes.

Nothing is written before every file has answered as the live student does; how near it came, and
how large it is beside its weights, stands in ``spec.json`` under ``about.files``. An export over
another one replaces it as a whole.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from gped_nas.data.normalization import may_be_of_bytes
from gped_nas.distill.student import (
    SPEC_FILE,
    WEIGHTS_FILE,
    Student,
    StudentSpec,
    load_student,
    spec_text,
)
from gped_nas.errors import ConfigError
from gped_nas.export.graph import Inputs
from gped_nas.export.onnx import onnx_bytes, onnx_predict
from gped_nas.export.parity import TOLERANCE, Predict, check_parity
from gped_nas.export.placing import place
from gped_nas.export.pt2 import pt2_bytes, pt2_predict
from gped_nas.export.quantized import check_is_int8, int8_bytes
from gped_nas.export.safetensors import safetensors_predict
from gped_nas.models.storage import parse_tensors, read_bytes

CARD_FILE = "README.md"
Stored = dict[str, Tensor]


Compute = Literal["float32", "int8"]
"""What the products of an ONNX graph are computed in."""
Check = Callable[[Student, bytes, bytes, Inputs], tuple[dict[str, Any], dict[str, Any]]]


@dataclass(frozen=True)
class Int8:
    """How an ONNX graph computes in int8.

    Attributes:
        calibration: raw training inputs that show how large numbers become.
        check: of the live student, the float32 graph, the int8 graph and what they take makes the
            parity, and what else is to be said of the file. It raises ``GateError``.
    """

    calibration: Tensor
    check: Check


@dataclass(frozen=True)
class Format:
    """One way to take a student home.

    Attributes:
        file: its name in the folder.
        build: makes the bytes of this file of spec, stored tensors, the study's own bytes and what
            a graph takes.
        predict: makes of spec and bytes a function of what the file takes, which answers as it.
        tolerance: how far from the live student it may be.
        is_graph: whether it is a graph, which may take bytes.
    """

    file: str
    build: Callable[[StudentSpec, Stored, bytes, Inputs], bytes]
    predict: Callable[[StudentSpec, bytes], Predict]
    tolerance: float
    is_graph: bool


FORMATS: dict[str, Format] = {
    "safetensors": Format(
        WEIGHTS_FILE,
        lambda spec, stored, weights, inputs: weights,
        safetensors_predict,
        0.0,
        is_graph=False,
    ),
    "pt2": Format(
        "student.pt2",
        lambda spec, stored, weights, inputs: pt2_bytes(spec, stored, inputs),
        lambda spec, data: pt2_predict(data),
        TOLERANCE,
        is_graph=True,
    ),
    "onnx": Format(
        "student.onnx",
        lambda spec, stored, weights, inputs: onnx_bytes(spec, stored, inputs),
        lambda spec, data: onnx_predict(data),
        TOLERANCE,
        is_graph=True,
    ),
}


def check_formats(formats: Sequence[str]) -> None:
    """Refuse a format that there is not.

    Raises:
        ConfigError: an unknown one, none, or one twice.
    """
    for name in formats:
        if name not in FORMATS:
            raise ConfigError(
                f"--to: found '{name}', expected one of {', '.join(FORMATS)}; a folder to write to "
                "is given with --into"
            )
    if not formats or len(set(formats)) != len(formats):
        raise ConfigError(
            f"--to: found {list(formats)}, expected at least one format and none twice"
        )


def check_compute(compute: str, formats: Sequence[str]) -> None:
    """Refuse a way to compute that no format has.

    Raises:
        ConfigError: it is unknown, or int8 without ``onnx``.
    """
    if compute not in get_args(Compute):
        raise ConfigError(
            f"--compute: found '{compute}', expected one of {', '.join(get_args(Compute))}"
        )
    if compute == "int8" and "onnx" not in formats:
        raise ConfigError(
            f"--compute int8: found --to {', '.join(formats)}, expected onnx; add --to onnx"
        )


def check_inputs(inputs: str, formats: Sequence[str]) -> None:
    """Refuse inputs that no format has.

    Raises:
        ConfigError: they are unknown, or bytes for a file without a graph.
    """
    if inputs not in get_args(Inputs):
        raise ConfigError(
            f"--inputs: found '{inputs}', expected one of {', '.join(get_args(Inputs))}"
        )
    if inputs == "bytes" and not any(FORMATS[name].is_graph for name in formats):
        raise ConfigError(
            f"--inputs bytes: found --to {', '.join(formats)}, expected a graph; add --to onnx or "
            "--to pt2"
        )


def _check_takes_bytes(spec: StudentSpec) -> None:
    """Refuse a student of anything but pictures, or of pictures of other numbers.

    Raises:
        ConfigError: it is one.
    """
    if len(spec.input_shape) != 3:
        raise ConfigError(
            f"--inputs bytes: this student takes inputs of shape {spec.input_shape}, expected "
            "pictures; leave --inputs out"
        )
    if not may_be_of_bytes(spec.normalization):
        raise ConfigError(
            "--inputs bytes: this student was trained on pictures whose numbers are no bytes, "
            f"{spec.normalization.describe()}; leave --inputs out"
        )


def write_export(
    source: Path,
    folder: Path,
    formats: Sequence[str],
    card: Callable[[StudentSpec], str],
    *,
    inputs: Inputs = "float32",
    spec_sha256: str = "",
    int8: Int8 | None = None,
    about: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Write a student's export.

    Args:
        source: the student's folder in its study.
        folder: the folder to write.
        formats: names of ``FORMATS``.
        card: the exported student's spec, files included, to its model card.
        inputs: what graphs take: float32 as the student's own, or bytes of pictures.
        spec_sha256: the digest of the student's spec in its trial's record; empty where it has
            none.
        int8: how ``onnx`` computes in int8; None for float32.
        about: what else is to be known of the student, for its spec.

    Returns:
        Of each file by name: ``bytes``, ``weights_bytes``, ``overhead_bytes``, ``sha256``,
            ``parity``, and ``inputs`` where it takes bytes; where it computes in int8 also
            ``compute`` and what ``int8.check`` said.

    Raises:
        ConfigError: an unknown format, inputs that the student does not have, or the folder holds a
            student already that this one would be mixed with.
        DataError: the student is damaged.
        GateError: a file does not predict what the live student does.
        EnvironmentProblem: an extra is not installed, or the folder cannot be written.
    """
    check_formats(formats)
    check_inputs(inputs, formats)
    _check_folder(source, folder, formats)

    student = load_student(source, spec_sha256=spec_sha256)
    if inputs == "bytes":
        _check_takes_bytes(student.spec)
    if int8 is not None:
        check_is_int8(student.spec)
    path = source / WEIGHTS_FILE
    weights = read_bytes(path)
    stored = parse_tensors(weights, path)
    weights_bytes = sum(tensor.numel() * tensor.element_size() for tensor in stored.values())

    built: dict[str, bytes] = {}
    files: dict[str, dict[str, Any]] = {}
    for name in formats:
        file_format = FORMATS[name]
        taken: Inputs = inputs if file_format.is_graph else "float32"
        data = file_format.build(student.spec, stored, weights, taken)
        parity = check_parity(
            student,
            file_format.predict(student.spec, data),
            file_format.file,
            tolerance=file_format.tolerance,
            inputs=taken,
        )
        quantized: dict[str, Any] = {}
        if int8 is not None and name == "onnx":
            in_float, data = data, int8_bytes(student.spec, stored, int8.calibration, taken)
            parity, quantized = int8.check(student, in_float, data, taken)
        built[file_format.file] = data
        files[file_format.file] = {
            "bytes": len(data),
            "weights_bytes": weights_bytes,
            "overhead_bytes": len(data) - weights_bytes,
            "sha256": hashlib.sha256(data).hexdigest(),
            "parity": parity,
            **({"inputs": taken} if taken == "bytes" else {}),
            **quantized,
        }

    # all that can fail comes before the first file is written
    spec = replace(student.spec, about={**student.spec.about, **(about or {}), "files": files})
    text = card(spec)

    contents = {
        **built,
        CARD_FILE: text.encode(),
        SPEC_FILE: spec_text(spec, built).encode(),
    }
    names = [*(file_format.file for file_format in FORMATS.values()), CARD_FILE, SPEC_FILE]
    place(contents, folder, first=SPEC_FILE, ours=names)
    return files


def _check_folder(source: Path, folder: Path, formats: Sequence[str]) -> None:
    if folder.resolve() == source.resolve():
        raise ConfigError(f"{folder}: the student's own folder in its study; choose another --into")

    others = [file_format.file for name, file_format in FORMATS.items() if name not in formats]
    present = [file for file in others if (folder / file).exists()]
    if present:
        raise ConfigError(
            f"{folder}: holds {', '.join(present)} of another export; choose another --into, "
            "delete it, or name its format with a second --to"
        )
