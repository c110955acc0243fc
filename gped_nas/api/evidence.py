"""What the cards of front students show beyond their records.

It is measured on validation and kept beside the study, see ``api.evidence_files`` and
``evaluate.evidence``. An example that is a picture has it as ``picture``, a PNG in base64.
"""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gped_nas.api.evidence_files import FOLDER, identify, is_sealed
from gped_nas.api.students import Trainer
from gped_nas.data.base import Dataset
from gped_nas.data.picture import is_picture, png
from gped_nas.data.rows import chunks
from gped_nas.evaluate.evidence import evidence
from gped_nas.io import environment, make_dir, write_sealed
from gped_nas.search.record import TrialRecord


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
        if path.exists() and is_sealed(path, record):
            continue
        if not trainer.has(record):
            continue  # the notes say so
        trainer.session.raise_if_stopped()
        predictions = trainer.predictor(trainer.load(record)).predict(raw)
        content = evidence(predictions, trainer.validation, labels)
        examples = _with_pictures(content.get("examples", []), dataset)
        write_sealed(path, {**content, "examples": examples, **identify(record)})


def _with_pictures(examples: Sequence[dict[str, Any]], dataset: Dataset) -> list[dict[str, Any]]:
    if not is_picture(dataset.input_shape):
        return list(examples)

    raw = dataset.raw("validation")
    darkest = min(float(chunk.min()) for chunk in chunks(raw))
    brightest = max(float(chunk.max()) for chunk in chunks(raw))
    with_pictures = []
    for example in examples:
        picture = png(raw[example["index"]], darkest, brightest)
        with_pictures.append({**example, "picture": base64.b64encode(picture).decode()})
    return with_pictures
