"""What the cards of front students show beyond their records: measured on validation, kept beside
the study.

One file a student, ``evidence/<trial>.json``: see ``evaluate.evidence``; an example that is a
picture has it as ``picture``, a PNG in base64.
"""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gped_nas.api.students import Trainer
from gped_nas.data.base import Dataset
from gped_nas.data.picture import is_picture, png
from gped_nas.distill.student import load_student
from gped_nas.evaluate.evidence import evidence
from gped_nas.evaluate.student import student_predictions
from gped_nas.io import environment, make_dir, read_json, write_json
from gped_nas.search.record import TrialRecord

FOLDER = "evidence"


def gather(study: Path, trainer: Trainer, front: Sequence[TrialRecord]) -> None:
    """Write the evidence that front members still lack, and delete that of students who left the
    front.

    Args:
        study: the study's folder.
        trainer: that of the study.
        front: the fixed front.

    Raises:
        Interrupted: the session said stop; what was written is kept.
        EnvironmentProblem: a file cannot be written.
    """
    folder, dataset = make_dir(study / FOLDER), trainer.teacher.dataset
    wanted = {f"{record.trial}.json": record.trial for record in front}
    with environment("clean", folder):
        for path in folder.glob("*.json"):
            if path.name not in wanted:
                path.unlink()
    raw, labels = dataset.raw("validation"), dataset.labels("validation")
    for name, trial in wanted.items():
        if (folder / name).exists():
            continue
        trainer.session.raise_if_stopped()
        predictions = student_predictions(load_student(trainer.folder / str(trial)), raw)
        found = evidence(predictions, trainer.validation, labels)
        write_json(
            folder / name, {**found, "examples": _with_pictures(found.get("examples", []), dataset)}
        )


def read(study: Path, trials: Sequence[int]) -> dict[int, Any]:
    """The evidence there is of these trials; a study made before it was gathered has none.

    Raises:
        StreamError: a file is damaged.
    """
    paths = {trial: study / FOLDER / f"{trial}.json" for trial in trials}
    return {trial: read_json(path) for trial, path in paths.items() if path.exists()}


def _with_pictures(examples: Sequence[dict[str, Any]], dataset: Dataset) -> list[dict[str, Any]]:
    if not is_picture(dataset.input_shape):
        return list(examples)
    raw = dataset.raw("validation")
    low, high = float(raw.min()), float(raw.max())
    pictures = [base64.b64encode(png(raw[one["index"]], low, high)).decode() for one in examples]
    return [{**one, "picture": picture} for one, picture in zip(examples, pictures, strict=True)]
