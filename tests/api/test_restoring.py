"""A student that is trained again is put back where it is the one of its record."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gped_nas.api.restoring import RETRAINED, _put_back
from gped_nas.data.base import Normalization
from gped_nas.data.scale import ValueRange
from gped_nas.distill.student import StudentSpec, load_student, save_student
from gped_nas.models.base import Genotype
from gped_nas.search.record import TrialRecord

GENOTYPE = Genotype("mlp", depth=1, width=3)


def _spec() -> StudentSpec:
    return StudentSpec(
        family="mlp",
        input_shape=(4,),
        class_names=("a", "b"),
        targets=("predictive",),  # type: ignore[arg-type]
        normalization=Normalization(0, 1),
        storage_dtype="float32",
        genotype=GENOTYPE.to_json(),
        scale=ValueRange(0, 16),
    )


@pytest.mark.parametrize("of", ["this version", "before there were scales", "another machine"])
def test_a_student_of_its_record_is_put_back(tmp_path: Path, of: str) -> None:
    params = {name: torch.ones(shape) for name, shape in GENOTYPE.shapes((4,), 2).items()}
    spec = replace(_spec(), scale=None) if of == "before there were scales" else _spec()
    save_student(tmp_path / "before", spec, params)
    digest = load_student(tmp_path / "before").spec_sha256
    if of == "another machine":
        digest = "0" * 64

    trainer: Any = SimpleNamespace(
        folder_of=lambda record: tmp_path / "students" / "3",
        spec=lambda genotype, **about: _spec(),
    )
    record = TrialRecord(3, "complete", GENOTYPE.to_json(), spec_sha256=digest)
    trained: Any = SimpleNamespace(failure="", params=params)
    _put_back(trainer, record, trained, {})

    folder = tmp_path / "students" / "3"
    is_back = of != "another machine"
    assert (folder / "spec.json").is_file() == is_back
    assert (folder / RETRAINED).is_file() != is_back
    if is_back:
        assert load_student(folder).spec_sha256 == digest
