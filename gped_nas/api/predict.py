"""Ask a student about files: one row an input, for people and for notebooks.

A teacher's rows are made here too.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gped_nas.api.after import After
from gped_nas.api.note import STUDENTS, STUDY_FILE
from gped_nas.data.inputs import read_inputs
from gped_nas.data.normalization import AnyNormalization
from gped_nas.data.preparation import AnyPreparation
from gped_nas.distill.student import SPEC_FILE, WEIGHTS_FILE, Student
from gped_nas.distill.student import load_student as load_files
from gped_nas.errors import DamageError, DataError

BOUNDS = ("low", "high")
"""What a teacher says of each class beside its probability."""


def predict_files(
    student: Student | str | Path,
    files: Sequence[str | Path],
    *,
    calibrated: bool = False,
    set_level: float | None = None,
    set_rule: str = "split",
) -> list[dict[str, Any]]:
    """What a student says of the inputs in files.

    Args:
        student: a loaded one, or its folder: in a study, or exported as safetensors.
        files: arrays, images or tables, see ``gped_nas.data.inputs``.
        calibrated: whether probabilities, or variances, are those at the temperature that was
            fitted with ``post_hoc=True`` of ``export_student``.
        set_level: with which probability conformal sets hold the label; None for no sets. They
            take the answers as they are without a temperature.
        set_rule: ``"split"`` or ``"aps"``, see ``evaluate.conformal``.

    Returns:
        One row an input: ``input`` (file, and place in it where it holds several), then for classes
        ``class``, ``probabilities`` by class name, ``entropy`` in nats, and by name every other
        target that the student was distilled for; for real labels ``mean`` and ``variance`` in
        their own unit. With ``set_level`` also ``set``, names of classes, the likeliest first, or
        the interval's ends ``low`` and ``high``; None where it has none.

    Raises:
        ConfigError: a level or rule that is none.
        DataError: the student or a file cannot be used, or nothing was fitted to it.
        EnvironmentProblem: a file cannot be read.
    """
    where = "student"
    if not isinstance(student, Student):
        where, student = str(student), _load_weighted(Path(student))
    spec = student.spec
    after = After(student, where, calibrated=calibrated, set_level=set_level, set_rule=set_rule)

    rows: list[dict[str, Any]] = []
    for names, inputs in inputs_of(files, spec.input_shape, spec.normalization, spec.preparation):
        answers, sets = after.rows(inputs, student.predict(inputs))
        of_file = answer_rows(names, answers, spec.class_names)
        rows += [{**row, **more} for row, more in zip(of_file, sets, strict=True)]
    return rows


def load_student(folder: str | Path) -> Student:
    """The student in a folder, ready to predict.

    Raises:
        DamageError: a file is not what was written, or those of a study are another trial's.
        DataError: its files are missing.
    """
    student = load_files(Path(folder))

    path = Path(os.path.abspath(folder))
    is_of_study = path.parent.name == STUDENTS and (path.parents[1] / STUDY_FILE).is_file()
    trial = student.spec.about.get("trial", path.name)
    if is_of_study and trial != path.name:
        raise DamageError(
            f"{folder}: found the files of trial {trial}; restore them from a copy, or ask the "
            "student in the folder of its own number"
        )
    return student


def _load_weighted(folder: Path) -> Student:
    if (folder / SPEC_FILE).is_file() and not (folder / WEIGHTS_FILE).is_file():
        raise DataError(
            f"{folder}: found a {SPEC_FILE} without {WEIGHTS_FILE}, expected both; export the "
            "student with `--to safetensors`"
        )
    return load_student(folder)


def inputs_of(
    files: Sequence[str | Path],
    input_shape: tuple[int, ...],
    normalization: AnyNormalization,
    preparation: AnyPreparation | None,
    *,
    asked: str = "student",
) -> Iterator[tuple[list[str], Tensor]]:
    """Of each file the names of its inputs, and these: raw, (N, *input_shape)."""
    for file in files:
        path = Path(file)
        inputs = read_inputs(path, input_shape, normalization, preparation, asked=asked)
        names = [str(path)] if len(inputs) == 1 else [f"{path}[{i}]" for i in range(len(inputs))]
        yield names, inputs


def answer_rows(
    names: Sequence[str], predicted: dict[str, Tensor], class_names: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """A row an input: its name, and what is predicted of it."""
    describe = _describe_classes if class_names else _describe_normal
    for name, answer in zip(names, describe(predicted, class_names), strict=True):
        yield {"input": name, **answer}


def _describe_classes(
    predicted: dict[str, Tensor], names: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """A row an input: its likeliest class, its probabilities, and what else is said of it."""
    prob_NC = predicted["predictive"]
    columns = {"entropy": torch.special.entr(prob_NC).sum(-1)}
    columns |= _columns(predicted, except_for=("predictive", *BOUNDS))

    for i, prob in enumerate(prob_NC.tolist()):
        likeliest = prob.index(max(prob))
        row = {"class": names[likeliest], "probabilities": dict(zip(names, prob, strict=True))}
        for bound in BOUNDS:
            if bound in predicted:
                row[bound] = dict(zip(names, predicted[bound][i].tolist(), strict=True))
        yield row | {name: column[i].tolist() for name, column in columns.items()}


def _describe_normal(
    predicted: dict[str, Tensor], names: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """A row an input: mean and variance of its label in its own unit, and what else is said."""
    columns = _columns(predicted, except_for=("predictive_normal",))
    for i, (mean, variance) in enumerate(predicted["predictive_normal"].tolist()):
        row = {name: column[i].tolist() for name, column in columns.items()}
        yield {"mean": mean, "variance": variance, **row}


def _columns(predicted: dict[str, Tensor], *, except_for: tuple[str, ...]) -> dict[str, Tensor]:
    """Answers by name; a single number an input stands alone, several are a list."""
    return {
        name: values[:, 0] if values.shape[1] == 1 else values
        for name, values in predicted.items()
        if name not in except_for
    }
