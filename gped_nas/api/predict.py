"""Ask a student about files: one row an input, for people and for notebooks."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gped_nas.api.note import STUDENTS, STUDY_FILE
from gped_nas.data.inputs import read_inputs
from gped_nas.distill.student import SPEC_FILE, WEIGHTS_FILE, Student
from gped_nas.distill.student import load_student as load_files
from gped_nas.errors import DamageError, DataError


def predict_files(
    student: Student | str | Path, files: Sequence[str | Path]
) -> list[dict[str, Any]]:
    """What a student says of the inputs in files.

    Args:
        student: a loaded one, or its folder: in a study, or exported as safetensors.
        files: arrays, images or tables, see ``gped_nas.data.inputs``.

    Returns:
        One row an input: ``input`` (file, and place in it where it holds several), then for classes
        ``class``, ``probabilities`` by class name, ``entropy`` in nats, and by name every other
        target that the student was distilled for; for real labels ``mean`` and ``variance`` in
        their own unit.

    Raises:
        DataError: the student or a file cannot be used.
        EnvironmentProblem: a file cannot be read.
    """
    if not isinstance(student, Student):
        student = _load_weighted(Path(student))
    spec = student.spec

    rows: list[dict[str, Any]] = []
    for file in files:
        path = Path(file)
        inputs = read_inputs(path, spec.input_shape, spec.normalization, spec.preparation)
        names = [str(path)] if len(inputs) == 1 else [f"{path}[{i}]" for i in range(len(inputs))]

        predicted = student.predict(inputs)
        if spec.label_normalization:
            answers = _describe_normal(predicted)
        else:
            answers = _describe_classes(predicted, spec.class_names)
        for name, answer in zip(names, answers, strict=True):
            rows.append({"input": name, **answer})
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


def _describe_classes(
    predicted: dict[str, Tensor], names: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """A row an input: its likeliest class, its probabilities, and its other targets."""
    prob_NC = predicted["predictive"]
    columns = {"entropy": torch.special.entr(prob_NC).sum(-1)}
    for name, values in predicted.items():
        if name != "predictive":
            # a single number stands alone, several are a list
            columns[name] = values[:, 0] if values.shape[1] == 1 else values

    for i, prob in enumerate(prob_NC.tolist()):
        likeliest = prob.index(max(prob))
        yield {
            "class": names[likeliest],
            "probabilities": dict(zip(names, prob, strict=True)),
            **{name: column[i].tolist() for name, column in columns.items()},
        }


def _describe_normal(predicted: dict[str, Tensor]) -> Iterator[dict[str, Any]]:
    """A row an input: mean and variance of its label, in the label's own unit."""
    for mean, variance in predicted["predictive_normal"].tolist():
        yield {"mean": mean, "variance": variance}
