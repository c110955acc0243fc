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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from gped_nas.distill.student import (
    SPEC_FILE,
    WEIGHTS_FILE,
    StudentSpec,
    load_student,
    spec_text,
)
from gped_nas.errors import ConfigError
from gped_nas.export.onnx import onnx_bytes, onnx_predict
from gped_nas.export.parity import TOLERANCE, Predict, check_parity
from gped_nas.export.placing import place
from gped_nas.export.pt2 import pt2_bytes, pt2_predict
from gped_nas.export.safetensors import safetensors_predict
from gped_nas.models.storage import parse_tensors, read_bytes

CARD_FILE = "README.md"
Stored = dict[str, Tensor]


@dataclass(frozen=True)
class Format:
    """One way to take a student home.

    Attributes:
        file: its name in the folder.
        build: makes the bytes of this file of spec, stored tensors and the study's own bytes.
        predict: makes of spec and bytes a function of raw inputs, which answers as the file does.
        tolerance: how far from the live student it may be.
    """

    file: str
    build: Callable[[StudentSpec, Stored, bytes], bytes]
    predict: Callable[[StudentSpec, bytes], Predict]
    tolerance: float


FORMATS: dict[str, Format] = {
    "safetensors": Format(
        WEIGHTS_FILE, lambda spec, stored, weights: weights, safetensors_predict, 0.0
    ),
    "pt2": Format(
        "student.pt2",
        lambda spec, stored, weights: pt2_bytes(spec, stored),
        lambda spec, data: pt2_predict(data),
        TOLERANCE,
    ),
    "onnx": Format(
        "student.onnx",
        lambda spec, stored, weights: onnx_bytes(spec, stored),
        lambda spec, data: onnx_predict(data),
        TOLERANCE,
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


def write_export(
    source: Path,
    folder: Path,
    formats: Sequence[str],
    card: Callable[[StudentSpec], str],
    *,
    spec_sha256: str = "",
) -> dict[str, dict[str, Any]]:
    """Write a student's export.

    Args:
        source: the student's folder in its study.
        folder: the folder to write.
        formats: names of ``FORMATS``.
        card: the exported student's spec, files included, to its model card.
        spec_sha256: the digest of the student's spec in its trial's record; empty where it has
            none.

    Returns:
        Of each file by name: ``bytes``, ``weights_bytes``, ``overhead_bytes``, ``sha256`` and
            ``parity``.

    Raises:
        ConfigError: an unknown format, or the folder holds a student already that this one would be
            mixed with.
        DataError: the student is damaged.
        GateError: a file does not predict what the live student does.
        EnvironmentProblem: an extra is not installed, or the folder cannot be written.
    """
    check_formats(formats)
    _check_folder(source, folder, formats)

    student = load_student(source, spec_sha256=spec_sha256)
    path = source / WEIGHTS_FILE
    weights = read_bytes(path)
    stored = parse_tensors(weights, path)
    weights_bytes = sum(tensor.numel() * tensor.element_size() for tensor in stored.values())

    built: dict[str, bytes] = {}
    files: dict[str, dict[str, Any]] = {}
    for name in formats:
        file_format = FORMATS[name]
        data = file_format.build(student.spec, stored, weights)
        predict = file_format.predict(student.spec, data)
        parity = check_parity(student, predict, file_format.file, tolerance=file_format.tolerance)
        built[file_format.file] = data
        files[file_format.file] = {
            "bytes": len(data),
            "weights_bytes": weights_bytes,
            "overhead_bytes": len(data) - weights_bytes,
            "sha256": hashlib.sha256(data).hexdigest(),
            "parity": parity,
        }

    # all that can fail comes before the first file is written
    spec = replace(student.spec, about={**student.spec.about, "files": files})
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
