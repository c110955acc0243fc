"""The students of a front that are not in the study's folder: trained again, or said to be missing.

A copy of a study may come without its large folders. Genotype and seed of a student are known, and
so is who was trained beside it: together they are trained again, which on the same kind of machine
gives the same bits. The digest in the trial's record tells whether it did. If not, it is another
student than the one that was measured: it is not kept, ``retrained.json`` in its place says so, and
the study goes on with what is known of the first one.
"""

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gped_nas import device as devices
from gped_nas.api.students import Trainer, origin_of
from gped_nas.distill.kernel import TrainedStudent
from gped_nas.distill.student import load_student, save_student
from gped_nas.errors import StreamError
from gped_nas.io import environment, read_json, write_json
from gped_nas.models.base import Genotype
from gped_nas.search.record import TrialRecord

RETRAINED = "retrained.json"
"""Beside no other file: what came out when a student was trained again, and on which machine."""


def restore(
    trainer: Trainer, front: Sequence[TrialRecord], records: Sequence[TrialRecord]
) -> tuple[str, ...]:
    """Train what is missing of a front again; a note of those that came out otherwise.

    Args:
        trainer: that of the study.
        front: the fixed front.
        records: of all trials, by number.

    Raises:
        Interrupted: the session said stop; students that are back are kept.
        EnvironmentProblem: a file cannot be written.
    """
    missing = [record for record in front if not trainer.has(record)]
    machine = devices.fingerprint(trainer.session.device)
    for record in missing:
        trainer.session.raise_if_stopped()
        if not trainer.has(record) and _read_machine(trainer, record) != machine:
            _train_again(trainer, record, missing, records, machine)

    elsewhere = [str(record.trial) for record in missing if not trainer.has(record)]
    if not elsewhere:
        return ()
    return (
        f"The students of trials {', '.join(elsewhere)} are not in this study's folder, and "
        "trained again here they are not the same to the bit: their figures are those of the "
        "first ones, and what was not measured of these is missing.",
    )


def _read_machine(trainer: Trainer, record: TrialRecord) -> Any:
    """The machine on which a student was trained again in vain; None where it was not."""
    with contextlib.suppress(StreamError, KeyError, TypeError):
        return read_json(trainer.folder_of(record) / RETRAINED)["machine"]
    return None


def _train_again(
    trainer: Trainer,
    record: TrialRecord,
    missing: Sequence[TrialRecord],
    records: Sequence[TrialRecord],
    machine: dict[str, Any],
) -> None:
    """Train a student with those that it was trained beside, and put back whoever is missing."""
    # Studies of earlier versions do not say who was trained beside whom.
    beside = record.extra.get("trained_with", [record.trained_in])
    genotypes = [Genotype.from_json(records[trial].genotype) for trial in beside]
    by_training: dict[int, list[TrialRecord]] = {}
    for member in missing:
        by_training.setdefault(member.trained_in, []).append(member)
    for trial, student in zip(beside, trainer.distill(genotypes), strict=True):
        for member in by_training.get(trial, ()):
            _put_back(trainer, member, student, machine)


def _put_back(
    trainer: Trainer, record: TrialRecord, trained: TrainedStudent, machine: dict[str, Any]
) -> None:
    """Keep a student if it is the one of the record, to the bit."""
    folder = trainer.folder_of(record)
    building = folder.with_name(f"again-{record.trial}")
    genotype = Genotype.from_json(record.genotype)
    spec_sha256 = ""
    if not trained.failure:
        origin = origin_of(record.trained_in, is_variant=record.variant_of is not None)
        spec = trainer.spec(genotype, **origin)
        # that of an earlier version says nothing of the scale
        for candidate in (replace(spec, scale=None), spec):
            save_student(building, candidate, trained.params)
            spec_sha256 = load_student(building).spec_sha256
            if spec_sha256 == record.spec_sha256:
                break

    with environment("put back the student", folder):
        shutil.rmtree(folder, ignore_errors=True)
        if spec_sha256 and spec_sha256 == record.spec_sha256:
            building.rename(folder)
            return
        shutil.rmtree(building, ignore_errors=True)
        folder.mkdir()
    write_json(folder / RETRAINED, {"machine": machine, "spec_sha256": spec_sha256})
