"""Take a student of a study home: files in the formats asked for, checked, and a model card."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gped_nas.api.int8 import int8_of
from gped_nas.api.note import STUDENTS
from gped_nas.api.opening import open_study
from gped_nas.api.study import Study
from gped_nas.api.teacher import load_dataset
from gped_nas.data.base import Dataset, Part
from gped_nas.distill.student import SPEC_FILE, WEIGHTS_FILE
from gped_nas.errors import ConfigError, GpedError, StudyError
from gped_nas.evaluate.post_hoc import KEY, PostHoc, fit_post_hoc
from gped_nas.evaluate.student import student_predictions
from gped_nas.export.card import card
from gped_nas.export.folder import (
    Compute,
    check_compute,
    check_formats,
    check_inputs,
    write_export,
)
from gped_nas.export.graph import Inputs
from gped_nas.search.record import TrialRecord
from gped_nas.search.space_file import parse_space


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        folder: where.
        files: of each file by name: ``bytes``, ``weights_bytes``, ``overhead_bytes``, ``sha256``
            and ``parity``, the largest ``difference`` of each output from the live student.
    """

    folder: Path
    files: dict[str, dict[str, Any]]


def export_student(
    study: Study | str | Path,
    trial: int | str = "chosen",
    folder: str | Path | None = None,
    *,
    to: str | Sequence[str] = "safetensors",
    inputs: Inputs = "float32",
    compute: Compute = "float32",
    post_hoc: bool = False,
    storage: str | None = None,
    out: str | Path = "reports",
) -> Export:
    """Write a student of the front to a folder of its own.

    Args:
        study: an open study, or its name or folder.
        trial: its number, ``"chosen"`` or ``"best"``, see ``Study.find``.
        folder: ``<study>-<trial>`` by default; other formats than safetensors are named at its end.
        to: ``safetensors``, ``pt2``, ``onnx``, or several of them.
        inputs: what the graphs of ``pt2`` and ``onnx`` take: ``"float32"`` (N, channels, height,
            width), or ``"bytes"``: pictures as uint8 (N, height, width, channels).
        compute: what the products of ``onnx`` are computed in: ``"float32"``, or ``"int8"`` for a
            student whose weights are int8, see ``api.int8``.
        post_hoc: whether a temperature and thresholds of conformal sets are fitted, which
            ``predict_files`` can use: on the calibration part, or on validation without one.
        storage: where the study lies, if not in its folder.
        out: folder of all studies.

    Raises:
        ConfigError: an unknown format or trial, bytes for other inputs than pictures of bytes, int8
            for other weights, a trial whose weights were not kept, or a folder that holds another
            export.
        StudyError: the student of the front is not in the study's folder, or ``post_hoc`` and int8
            find other data than it was distilled on.
        DataError: the student is damaged.
        EnvironmentProblem: the extra ``onnx`` is missing, or the folder cannot be written.
        GateError: the front is empty, or a file does not predict what the live student does.
    """
    formats = [to] if isinstance(to, str) else list(to)
    check_formats(formats)
    check_inputs(inputs, formats)
    check_compute(compute, formats)
    if not isinstance(study, Study):
        study = open_study(study, storage=storage, out=out)

    record = study.find(trial)
    source = study.path / STUDENTS / str(record.trial)
    if not all((source / name).is_file() for name in (SPEC_FILE, WEIGHTS_FILE)):
        raise _refuse(study, record, source)

    if folder is None:
        suffix = [] if "safetensors" in formats else formats
        if compute == "int8":
            suffix = [*suffix, "int8"]
        folder = "-".join([study.name, str(record.trial), *suffix])
    target = Path(folder)

    snapshot = study.snapshot()
    paired = study.paired_differences(record.trial)
    verdict = study.verdict(record.trial).text

    int8, about = None, None
    if post_hoc or compute == "int8":
        dataset = _dataset_of(study)
        int8 = int8_of(dataset) if compute == "int8" else None
        about = {KEY: _fitted(study, record, dataset).to_json()} if post_hoc else None

    files = write_export(
        source,
        target,
        formats,
        lambda spec: card(spec, record, snapshot, paired, verdict=verdict),
        inputs=inputs,
        spec_sha256=record.spec_sha256,
        int8=int8,
        about=about,
    )
    return Export(target, files)


def _dataset_of(study: Study) -> Dataset:
    """What the study's students were distilled on.

    Raises:
        StudyError: other data lie in its place by now.
        DataError, EnvironmentProblem: it cannot be used, or is not there.
    """
    description = study.ledger.document.description
    assert description is not None, "a study with a front has a teacher"
    dataset = load_dataset(parse_space(description.config, f"study '{study.name}'"))

    expected = str(description.provenance.get("dataset sha256", dataset.digest))
    if dataset.digest != expected:
        raise StudyError(
            f"study '{study.name}': found other data than its students were distilled on "
            f"(dataset '{dataset.name}', SHA-256 {dataset.digest[:16]}, expected {expected[:16]}); "
            "restore them, or leave out --post-hoc and --compute int8"
        )
    return dataset


def _fitted(study: Study, record: TrialRecord, dataset: Dataset) -> PostHoc:
    """What held-out labels ask of a trial's student after its training."""
    part: Part = "validation" if dataset.calibration is None else "calibration"
    predictions = student_predictions(study.load_student(record.trial), dataset.raw(part))
    return fit_post_hoc(predictions, dataset.labels(part), part)


def _refuse(study: Study, record: TrialRecord, source: Path) -> GpedError:
    """Why there is no student to export."""
    front = [member.trial for member in study.front_records()]
    if record.trial in front:
        return StudyError(
            f"study '{study.name}': trial {record.trial} is on the front, and its student is not "
            f"in {source}; restore it, or repeat the study's `gped-search run`, which trains it "
            "again"
        )
    numbers = ", ".join(map(str, front))
    return ConfigError(
        f"study '{study.name}': trial {record.trial} is {record.state} and its weights were not "
        f"kept; the front's are: {numbers or 'none'}"
    )
