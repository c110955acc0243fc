"""Students that are no trial's, in a study's folder: each under a digest in its document."""

from collections.abc import Sequence
from pathlib import Path

from gped_nas.api.evidence_files import REMADE
from gped_nas.api.kept import KeptFiles
from gped_nas.distill.student import (
    SPEC_FILE,
    Student,
    StudentSpec,
    load_student,
    save_student,
    seal_student,
)
from gped_nas.errors import DamageError
from gped_nas.models.base import Params

Written = tuple[Path, StudentSpec, Params]
"""A folder, and the student to be written there."""


def write_kept(kept: KeptFiles, students: Sequence[Written]) -> None:
    """Write students whose digests the study's document has."""
    spec_paths = [folder / SPEC_FILE for folder, _, _ in students]
    kept.remember_all(dict.fromkeys(spec_paths, ""))

    digests = {}
    for folder, spec, params in students:
        save_student(folder, spec, params)
        digests[folder / SPEC_FILE] = load_student(folder).spec_sha256
    kept.remember_all(digests)


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
