"""What the cards of front students show beyond their records.

It is measured on validation and kept beside the study, one file a student,
``evidence/<trial>.json``, with its digest and its student's: see ``evaluate.evidence``. An example
that is a picture has it as ``picture``, a PNG in base64.
"""

import base64
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gped_nas.api.kept import REMADE
from gped_nas.api.students import Trainer
from gped_nas.data.base import Dataset
from gped_nas.data.picture import is_picture, png
from gped_nas.errors import StreamError, UndigestedWarning
from gped_nas.evaluate.evidence import evidence
from gped_nas.evaluate.student import student_predictions
from gped_nas.io import environment, make_dir, read_json, read_sealed, write_sealed
from gped_nas.search.record import TrialRecord

FOLDER = "evidence"


def gather(study: Path, trainer: Trainer, front: Sequence[TrialRecord]) -> None:
    """Write the evidence that front members still lack, and delete that of all other students.

    Args:
        study: the study's folder.
        trainer: that of the study.
        front: the fixed front.

    Raises:
        Interrupted: the session said stop; what was written is kept.
        EnvironmentProblem: a file cannot be written.
    """
    folder = make_dir(study / FOLDER)
    files = {folder / f"{record.trial}.json": record for record in front}
    with environment("clean", folder):
        for path in folder.glob("*.json"):
            if path not in files:
                path.unlink()

    dataset = trainer.teacher.dataset
    raw = dataset.raw("validation")
    labels = dataset.labels("validation")
    for path, record in files.items():
        if path.exists() and _is_sealed(path, record):
            continue
        trainer.session.raise_if_stopped()
        student = trainer.load(record)
        content = evidence(student_predictions(student, raw), trainer.validation, labels)
        examples = _with_pictures(content.get("examples", []), dataset)
        write_sealed(path, {**content, "examples": examples, **_identify(record)})


def read(study: Path, front: Sequence[TrialRecord]) -> dict[int, Any]:
    """The evidence there is of these trials; a study made before it was gathered has none.

    Raises:
        StreamError: a file is damaged, or of another student.
    """
    paths = {study / FOLDER / f"{record.trial}.json": record for record in front}
    return {record.trial: _read(path, record) for path, record in paths.items() if path.exists()}


def _read(path: Path, record: TrialRecord) -> dict[str, Any]:
    """The evidence in one file, without what it says of itself.

    Raises:
        StreamError: it is damaged, or of another student.
    """
    remedy = f"delete it, and {REMADE}"
    data = read_sealed(path, remedy)
    identity = _identify(record)
    # Earlier versions wrote less of this beside it.
    for name in identity.keys() & data.keys():
        if data.pop(name) != identity[name]:
            raise StreamError(f"{path}: of another student than trial {record.trial}'s; {remedy}")
    return data


def _identify(record: TrialRecord) -> dict[str, Any]:
    """Whose evidence it is."""
    return {"trial": record.trial, "student": record.spec_sha256}


def _is_sealed(path: Path, record: TrialRecord) -> bool:
    """Whether the evidence there is whole, and all of it is under a digest."""
    try:
        with warnings.catch_warnings(action="error", category=UndigestedWarning):
            _read(path, record)
        stored = read_json(path)
    except (StreamError, UndigestedWarning):
        return False
    return all(name in stored for name in _identify(record))


def _with_pictures(examples: Sequence[dict[str, Any]], dataset: Dataset) -> list[dict[str, Any]]:
    if not is_picture(dataset.input_shape):
        return list(examples)

    raw = dataset.raw("validation")
    darkest, brightest = float(raw.min()), float(raw.max())
    with_pictures = []
    for example in examples:
        picture = png(raw[example["index"]], darkest, brightest)
        with_pictures.append({**example, "picture": base64.b64encode(picture).decode()})
    return with_pictures
