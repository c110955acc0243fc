"""Ask a student about files: one row an input, for people and for notebooks."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gped_nas.data.inputs import read_inputs
from gped_nas.distill.student import SPEC_FILE, WEIGHTS_FILE, Student, load_student
from gped_nas.errors import DataError
from gped_nas.export.graph import predict_all


def predict_files(
    student: Student | str | Path, files: Sequence[str | Path]
) -> list[dict[str, Any]]:
    """What a student says of the inputs in files.

    Args:
        student: a loaded one, or its folder: in a study, or exported as safetensors.
        files: arrays or images, see ``gped_nas.data.inputs``.

    Returns:
        One row an input: ``input`` (file, and place in it where it holds several), then for classes
        ``class``, ``probabilities`` by class name, ``entropy`` and, where the student predicts
        them, ``expected_entropy`` and ``mutual_information``, nats; for real labels ``mean`` and
        ``variance`` in their own unit.

    Raises:
        DataError: the student or a file cannot be used.
        EnvironmentProblem: a file cannot be read.
    """
    found = student if isinstance(student, Student) else _load(Path(student))
    spec = found.spec
    rows: list[dict[str, Any]] = []
    for path in map(Path, files):
        inputs = read_inputs(path, spec.input_shape, spec.normalization)
        names = [str(path)] if len(inputs) == 1 else [f"{path}[{i}]" for i in range(len(inputs))]
        answers = predict_all(found, inputs)
        told = _normal(answers) if spec.label_normalization else _classes(answers, spec.class_names)
        rows += [{"input": name, **row} for name, row in zip(names, told, strict=True)]
    return rows


def _load(folder: Path) -> Student:
    if (folder / SPEC_FILE).is_file() and not (folder / WEIGHTS_FILE).is_file():
        raise DataError(
            f"{folder}: found a {SPEC_FILE} without {WEIGHTS_FILE}, expected both; export the "
            "student with "
            "`--to safetensors`"
        )
    return load_student(folder)


def _classes(answers: dict[str, Tensor], names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    prob = answers["predictive"]
    columns = {"entropy": torch.special.entr(prob).sum(-1)}
    for name, values in answers.items():
        if name != "predictive":
            # a single number stands alone, several are a list
            columns[name] = values[:, 0] if values.shape[1] == 1 else values
    for i, row in enumerate(prob.tolist()):
        yield {
            "class": names[max(range(len(row)), key=row.__getitem__)],
            "probabilities": dict(zip(names, row, strict=True)),
            **{name: column[i].tolist() for name, column in columns.items()},
        }


def _normal(answers: dict[str, Tensor]) -> Iterator[dict[str, Any]]:
    for mean, variance in answers["predictive_normal"].tolist():
        yield {"mean": mean, "variance": variance}
