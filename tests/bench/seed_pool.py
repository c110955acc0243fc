"""Random genotypes of a space, each trained with several seeds: what was measured of them, as JSON.

Seeds are roots: initialization and the order of batches. A seed that is trained is written at once,
so that whoever was stopped goes on with the next one.
"""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna

from gped_nas import rng
from gped_nas.api.guess import guess_predictor
from gped_nas.api.lessons import distillation_set, rung_set
from gped_nas.api.session import new_session
from gped_nas.api.students import Trainer
from gped_nas.api.teacher import sample_teacher
from gped_nas.distill.student import load_student, save_student
from gped_nas.evaluate.base import METRICS
from gped_nas.evaluate.resamples import draw_resamples
from gped_nas.io import read_json, write_json
from gped_nas.models.base import Genotype
from gped_nas.models.costs import cost_of
from gped_nas.search.draws import pack_draws
from gped_nas.search.space import SearchSpace

AT_ONCE = 16


def draw_genotypes(space: SearchSpace, num: int) -> list[Genotype]:
    """Genotypes at random, none twice."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=space.seed))
    drawn: dict[Genotype, None] = {}
    while len(drawn) < num:
        drawn[space.draw(study.ask())] = None
    return list(drawn)


def make_trainer(space: SearchSpace, folder: Path) -> Trainer:
    """Who trains students of the space outside a study."""
    teacher = sample_teacher(space, new_session("cpu"))
    data = distillation_set(teacher)
    validation = teacher.averaged("validation")
    return Trainer(
        teacher=teacher,
        data=data,
        recipe=space.recipe,
        rung_set=rung_set(teacher, data.layout),
        validation=validation,
        resamples=draw_resamples(len(validation), root=space.seed, part="validation"),
        folder=folder,
        about={},
    )


def measure(trainer: Trainer, genotype: Genotype, params: Any) -> dict[str, Any]:
    """NLL on validation of a stored student, its costs, and its draws."""
    dataset = trainer.teacher.dataset
    with tempfile.TemporaryDirectory() as folder:
        save_student(Path(folder) / "student", trainer.spec(genotype), params)
        student = load_student(Path(folder) / "student")
    predictions = trainer.predictor(student).predict(dataset.raw("validation"))

    nll = METRICS["nll"]
    terms_NT = nll.checked_terms(predictions, dataset.labels("validation"), None)
    cost = cost_of(genotype.family, student.shapes, dataset.input_shape, genotype["storage_dtype"])
    return {
        "nll": nll.total(terms_NT),
        **{name: asdict(cost)[name] for name in ("flops", "storage_bytes")},
        "draws": pack_draws(nll.on_resamples(terms_NT, trainer.resamples)),
    }


def build(space: SearchSpace, path: Path, *, num: int, seeds: int) -> dict[str, Any]:
    """The pool in a file, with what is missing trained.

    Returns:
        ``genotypes``, ``teacher`` and ``guess`` (NLL on validation), and ``rows``: by seed, a row a
        genotype as ``measure`` makes it; None where the student failed.
    """
    pool: dict[str, Any] = read_json(path) if path.exists() else {"rows": {}}
    missing = [seed for seed in range(seeds) if str(seed) not in pool["rows"]]
    if not missing:
        return pool

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(space, Path(folder))
        labels = trainer.teacher.dataset.labels("validation")
        genotypes = draw_genotypes(space, num)
        pool["genotypes"] = [genotype.to_json() for genotype in genotypes]
        pool["teacher"] = METRICS["nll"].value(trainer.validation, labels)
        raw = trainer.teacher.dataset.raw("validation")
        guess = guess_predictor(trainer.teacher).predict(raw)
        pool["guess"] = METRICS["nll"].value(guess, labels)
        for seed in missing:
            rows: list[Any] = []
            root = rng.seed(space.seed, "seed pool", seed) if seed else space.seed
            for start in range(0, num, AT_ONCE):
                some = genotypes[start : start + AT_ONCE]
                for genotype, trained in zip(some, trainer.distill(some, seed=root), strict=True):
                    row = None if trained.failure else measure(trainer, genotype, trained.params)
                    rows.append(row)
            pool["rows"][str(seed)] = rows
            write_json(path, pool)
    return pool
