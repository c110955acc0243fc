"""A plain network beside the students of a teacher whose own networks nobody knows.

It has the genotype of a student, and is trained on labels alone: by the kernel, the recipe and the
views that students are trained with. If a student is no better, its teacher did not help.
"""

from dataclasses import replace
from pathlib import Path

from gped_nas.api.evidence_files import REMADE
from gped_nas.api.kept import KeptFiles
from gped_nas.api.lessons import label_set
from gped_nas.api.students import Trainer
from gped_nas.distill.student import (
    SPEC_FILE,
    WEIGHTS_FILE,
    Student,
    StudentSpec,
    load_student,
    save_student,
    seal_student,
)
from gped_nas.errors import DamageError
from gped_nas.io import canonical_json, sha256_text
from gped_nas.models.base import Genotype, Params

NAME = "plain"


def plain_network(
    trainer: Trainer, kept: KeptFiles, folder: Path, genotype: Genotype
) -> Student | None:
    """The network of a genotype that learned from labels alone, trained unless that is done.

    Args:
        trainer: that of the study.
        kept: has the digests of its files.
        folder: of all such networks.
        genotype: a student's.

    Returns:
        The network; None where no label is known at the inputs, or its training failed.

    Raises:
        DamageError: one of its files is not what was written.
        Interrupted: the session said stop.
    """
    folder = folder / sha256_text(canonical_json(genotype.to_json()))[:16]
    if not (folder / WEIGHTS_FILE).exists():
        made = _train(trainer, genotype)
        if made is None:
            return None
        write_kept(kept, folder, *made)
    return read_kept(kept, folder)


def _train(trainer: Trainer, genotype: Genotype) -> tuple[StudentSpec, Params] | None:
    data = label_set(trainer.teacher, trainer.data)
    if data is None:
        return None

    # labels are one answer, and averages of one are what every rule would show
    recipe = trainer.recipe.model_copy(update={"update": "averaged", "rungs": 0, "patience": 0})
    alone = replace(trainer, data=data, recipe=recipe, rung_set=None)
    (network,) = alone.distill([genotype])
    if network.failure:
        return None
    return alone.spec(genotype, reference=NAME), network.params


def write_kept(kept: KeptFiles, folder: Path, spec: StudentSpec, params: Params) -> None:
    """Write a student that is no trial's, whose digest the study's document has."""
    kept.remember(folder / SPEC_FILE, "")
    save_student(folder, spec, params)


def read_kept(kept: KeptFiles, folder: Path) -> Student:
    """A student that is no trial's, checked against the digest in the study's document.

    Raises:
        DamageError: it is not what was written.
    """
    spec_path = folder / SPEC_FILE
    expected = kept.digest_of(spec_path)
    try:
        if not expected:  # a digest that is known is never issued anew
            seal_student(folder)
        student = load_student(folder, spec_sha256=expected)
    except DamageError as error:
        damage, _, _ = str(error).rpartition("; ")
        raise DamageError(f"{damage}; delete {folder}, and {REMADE}") from None

    kept.remember(spec_path, student.spec_sha256)
    return student
