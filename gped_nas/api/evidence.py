"""What the cards of front students show beyond their records.

It is measured on validation and kept beside the study, one file a student,
``evidence/<trial>.json``, with its digest: see ``evaluate.evidence``. An example that is a picture
has it as ``picture``, a PNG in base64.
"""

import base64
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gped_nas.api.students import Trainer
from gped_nas.data.base import Dataset
from gped_nas.data.picture import is_picture, png
from gped_nas.errors import StreamError, UndigestedWarning
from gped_nas.evaluate.evidence import evidence
from gped_nas.evaluate.student import student_predictions
from gped_nas.io import digest_of, environment, make_dir, read_json, write_json
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
        if path.exists() and _is_sealed(path, record.trial):
            continue
        trainer.session.raise_if_stopped()
        student = trainer.load(record)
        content = evidence(student_predictions(student, raw), trainer.validation, labels)
        examples = _with_pictures(content.get("examples", []), dataset)
        sealed = {**content, "examples": examples, "trial": record.trial}
        write_json(path, {**sealed, "digest": digest_of(sealed)})


def read(study: Path, trials: Sequence[int]) -> dict[int, Any]:
    """The evidence there is of these trials; a study made before it was gathered has none.

    Raises:
        StreamError: a file is damaged.
    """
    paths = {trial: study / FOLDER / f"{trial}.json" for trial in trials}
    return {trial: _read(path, trial) for trial, path in paths.items() if path.exists()}


def _read(path: Path, trial: int) -> dict[str, Any]:
    """The evidence in one file, without what it says of itself.

    Raises:
        StreamError: it is damaged, or another trial's.
    """
    remedy = "delete it, and `gped-search run` of its study makes it again"
    try:
        data = read_json(path)
        digest = digest_of(data)
    except (StreamError, ValueError, AttributeError, RecursionError) as error:
        raise StreamError(f"{path}: damaged ({str(error)[:200]}); {remedy}") from None

    if "digest" not in data and "trial" not in data:
        warnings.warn(
            "evidence that was made before it carried digests is read unchecked; `gped-search run` "
            "of its study makes it anew",
            UndigestedWarning,
            stacklevel=2,
        )
        return dict(data)

    if data.get("digest") != digest:
        raise StreamError(f"{path}: its content does not have the digest that it says; {remedy}")
    if data.get("trial") != trial:
        raise StreamError(f"{path}: of trial {data.get('trial')}, expected {trial}; {remedy}")
    return {name: value for name, value in data.items() if name not in ("digest", "trial")}


def _is_sealed(path: Path, trial: int) -> bool:
    """Whether the evidence there is whole, and carries a digest that says so."""
    try:
        with warnings.catch_warnings(action="error", category=UndigestedWarning):
            _read(path, trial)
    except (StreamError, UndigestedWarning):
        return False
    return True


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
