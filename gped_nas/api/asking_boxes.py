"""Boxes of your own, asked of a student in Python."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gped_nas import rng
from gped_nas.api.asked_networks import asked_student
from gped_nas.api.subjects import check_of_dataset
from gped_nas.data.base import Dataset
from gped_nas.distill.student import Student
from gped_nas.errors import ConfigError
from gped_nas.evaluate.certify.box_answers import BoxAnswer, answer_box, check_middle
from gped_nas.evaluate.certify.box_file import read_box
from gped_nas.evaluate.certify.region import stays

_WHERE = "certify_box"


def certify_box(
    student: Student, box: str | Path | Mapping[str, Any], dataset: Dataset, *, seed: int = 0
) -> BoxAnswer:
    """Whether all answers of a student in a box are safe, and where a real label lies.

    Args:
        student: read back from its file.
        box: a box file, or what it holds: ``{"inputs": {"age": [30, 40]}, "safe": "mean <= 5"}``.
        dataset: what its columns, classes and units are of.
        seed: of the inputs that are tried.

    Returns:
        ``judged`` has ``verdict`` (``"certified"``, ``"broken"`` or ``"unknown"``), the
        ``certified_share`` of the box and, of a broken one, its ``witness``; it is None where no
        answer is said to be safe. ``intervals["mean"]`` has ``low`` and ``high``.

    Raises:
        ConfigError: the box is impossible, or the student's family has no bounds.
        DataError: the student is of another dataset, or a file of arrays cannot be used.
        EnvironmentProblem: a file exists and cannot be read.
    """
    if not isinstance(student, Student):
        raise ConfigError(
            f"{_WHERE}: found {type(student).__name__}, expected a student; ask a teacher by "
            "`gped-search certify SPACE --box FILE`"
        )
    check_of_dataset(student, dataset, _WHERE)

    question = read_box(box, dataset)
    region = question.region
    if region is None and dataset.task == "classification":
        check_middle(question, _WHERE)
        answer = student.predict(question.boxes.middle)["predictive"][0]
        region = stays(int(answer.argmax()), dataset.class_names)

    return answer_box(
        asked_student(student), question, region, generator=rng.generator(seed, _WHERE)
    )
