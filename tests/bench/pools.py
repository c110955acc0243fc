"""Pools of one teacher: the students of a study, trained again with other seeds."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import gped_nas as gn
from gped_nas.api.lessons import distillation_set
from gped_nas.api.places import study_teacher
from gped_nas.api.preparing import prepare_trainer
from gped_nas.api.replaying import file_of
from gped_nas.api.students import Trainer
from gped_nas.io import make_dir
from gped_nas.models.base import Genotype
from gped_nas.search.ledger import Claim
from gped_nas.search.record import TrialRecord
from gped_nas.search.replaying.file import PoolFile
from gped_nas.search.replaying.pool import Recorded


def with_seeds(study: gn.Study, seeds: Sequence[int], at_once: int = 12) -> PoolFile:
    """The pool of a study whose students are trained again, from the same teacher.

    Every student is measured in all storage types, also where the study trained for one of them.

    Args:
        study: whose genotypes are trained.
        seeds: roots of initializations and batches; the study's own come first.
        at_once: students of a population.
    """
    file = file_of([study])
    first = file.studies[0]
    teacher = study_teacher(study, gn.new_session("cpu"))
    data = distillation_set(teacher)
    trainer = prepare_trainer(study, teacher, data, teacher.averaged("validation"))
    trained = [r for r in first.records if r.variant_of is None and r.state == "complete"]

    recorded = [first]
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            space = replace(teacher.space, seed=seed)
            again = replace(
                trainer,
                teacher=replace(teacher, space=space),
                folder=make_dir(Path(folder) / str(seed)),
            )
            records = _train(again, first, trained, at_once)
            recorded.append(Recorded(f"seed {seed}", records, first.params, first.drawn_macs))
    return file.model_copy(update={"studies": tuple(recorded)})


def _train(
    trainer: Trainer, study: Recorded, trained: Sequence[TrialRecord], at_once: int
) -> list[TrialRecord]:
    space = trainer.teacher.space
    search = space.search.model_copy(update={"every_dtype": True})
    every = replace(space, search=search)
    records: list[TrialRecord] = []
    for start in range(0, len(trained), at_once):
        claims = []
        for record in trained[start : start + at_once]:
            genotype = Genotype.from_json(record.genotype)
            dtypes = every.other_dtypes(study.params[record.trial])
            claims.append(Claim(record.trial, genotype, dtypes=dtypes))
        for record in trainer(claims):
            if record.state == "complete":
                records += [record.replace(variants=()), *record.variants]
    return records
