"""The task ``active``: how few labels a predictor needs where it says which ones to buy.

The training part without its labels is a pool. A few labels of each class are known at first. In
each round the teacher is sampled anew from what is known, and the examples of the pool that rank
highest are labeled next::

    active:random     drawn, whoever asks
    active:entropy    of the largest entropy of the prediction
    active:bald       of the largest mutual information of label and parameters

``active`` alone is all three, and ``active:bald-200`` goes on to 200 labels in place of ten a
class. The teacher asks for itself. A student asks by what it says: in each round one of its
genotype is distilled from the round's teacher, on all inputs, and ranks the pool.

All begin at the same labels, seed by seed, and end at as many. A row is the mean over the seeds,
with its interval over examples and seeds. Batches are the highest scores, which may be alike.

Source: Houlsby et al. 2011, arXiv:1112.5745 (BALD); Gal, Islam & Ghahramani 2017, arXiv:1703.02910.
"""

import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.api.lessons import distillation_set
from gped_nas.api.measuring import average_predictor
from gped_nas.api.recipes import with_step_size
from gped_nas.api.tasks.base import OPTION, LeftOut, Row, add_task
from gped_nas.api.tasks.bench import STUDENT, TEACHER, Bench, Subject
from gped_nas.api.teacher import Teacher, sample_teacher
from gped_nas.data.base import Dataset
from gped_nas.data.dials import keep_labels
from gped_nas.distill.kernel import distill
from gped_nas.distill.student import load_student, save_student
from gped_nas.errors import ConfigError, DivergenceError
from gped_nas.evaluate.base import METRICS
from gped_nas.evaluate.conditions import Predictor
from gped_nas.evaluate.measured import Key
from gped_nas.evaluate.predictions import AnyPredictions
from gped_nas.evaluate.scores import find_score
from gped_nas.evaluate.seeds import means, sample_metrics
from gped_nas.evaluate.student import StudentPredictor
from gped_nas.models.base import Genotype

SCORES = {"random": "", "entropy": "total", "bald": "model"}
"""The uncertainty score that each acquisition ranks by; ``random`` has none."""
FIRST_A_CLASS, LAST_A_CLASS = 2, 10
"""Labels a class that are known at first; and in the last round, all classes together."""
ROUNDS, SEEDS = 8, 3
"""Times that labels are bought, and how often all of it is done."""
LARGEST_POOL = 10_000
"""Examples of the training part that may be bought; drawn where there are more."""
USUAL = ("accuracy", "nll")
"""Metrics that are measured where nothing else is asked for."""
_ASKED = re.compile(r"(?P<acquisition>[a-z]+)(?:-(?P<labels>[1-9]\d{0,6}))?")


@dataclass(frozen=True)
class Plan:
    """What is bought.

    Attributes:
        acquisition: how examples are ranked.
        num_labels: known labels in each round, rising.
    """

    acquisition: str
    num_labels: tuple[int, ...]


def plan_of(argument: str, dataset: Dataset) -> Plan:
    """What an argument asks for.

    Args:
        argument: ``"bald"`` or ``"bald-200"``.
        dataset: whose training part is bought.

    Raises:
        ConfigError: an unknown acquisition, or a number of labels that cannot be bought.
    """
    match = _ASKED.fullmatch(argument)
    if match is None or match["acquisition"] not in SCORES:
        raise ConfigError(
            f"{OPTION}: found 'active:{argument}', expected one of {', '.join(SCORES)}, alone or "
            "with a number of labels such as bald-200"
        )

    first = FIRST_A_CLASS * dataset.num_classes
    most = min(LARGEST_POOL, len(dataset.train)) - 1
    last = int(match["labels"] or min(most, LAST_A_CLASS * dataset.num_classes))
    if not first + ROUNDS <= last <= most:
        raise ConfigError(
            f"{OPTION}: found 'active:{argument}' with {last} labels, expected {first + ROUNDS} to "
            f"{most:,}: it begins at {FIRST_A_CLASS} a class, buys {ROUNDS} times, and leaves some "
            "of the pool"
        )
    counts = [first + (last - first) * i // ROUNDS for i in range(ROUNDS + 1)]
    return Plan(match["acquisition"], tuple(counts))


def _check(bench: Bench, argument: str) -> None:
    plan_of(argument, bench.dataset)


def _expand(argument: str) -> list[str]:
    return [argument] if argument else list(SCORES)


def _settings(bench: Bench, argument: str) -> list[Any]:
    """What rows follow from beside the argument."""
    recipe = None if bench.teacher is None else bench.teacher.space.recipe.to_record()
    return [list(plan_of(argument, bench.dataset).num_labels), SEEDS, LARGEST_POOL, recipe]


@add_task(
    "active",
    "how few labels are enough where predictors say which",
    argument="ACQUISITION[-LABELS]",
    default="",
    kinds=("classification",),
    needs_teacher=True,
    takes_metrics=True,
    check=_check,
    expand=_expand,
    settings=_settings,
)
def active(bench: Bench, argument: str) -> list[Row]:
    """The metrics at each number of labels, mean over seeds."""
    (subject,) = bench.subjects
    _refuse_who_cannot(bench, subject)
    plan = plan_of(argument, bench.dataset)
    names = bench.metrics_or(USUAL)

    compared = [name for name in names if METRICS[name].needs_teacher]
    if compared:
        bench.notes.append(
            f"{bench.task}: {', '.join(compared)} is not measured: each round has another teacher"
        )

    by_seed = [_Course(bench, subject, plan, number).run() for number in range(SEEDS)]
    table: list[Row] = []
    for i, num_labels in enumerate(plan.num_labels):
        answers = [said_by_round[i] for said_by_round in by_seed]
        nobody = [None] * SEEDS
        sampled = sample_metrics(
            answers, bench.labels, nobody, resamples=bench.resamples, asked=names
        )
        measures = {
            Key(name, f"{num_labels}-labels", bench.part): measured
            for name, measured in means(sampled, root=bench.seed).items()
            if name in names
        }
        table += bench.rows(
            subject,
            measures,
            num_labels=num_labels,
            seeds=SEEDS,
            note=f"mean of {SEEDS} seeds",
        )
    return table


def _refuse_who_cannot(bench: Bench, subject: Subject) -> None:
    """Leave out whoever is not trained anew, or cannot be.

    Raises:
        LeftOut: see there.
    """
    if subject.kind not in (TEACHER, STUDENT):
        raise LeftOut("labels are bought by the teacher and by students")
    teacher = bench.teacher
    assert teacher is not None, "the task needs one"
    if not teacher.stream.has_weights or teacher.running is not None:
        raise LeftOut("a teacher whose samples are not here cannot be sampled anew")
    if subject.kind == STUDENT and teacher.space.recipe.mode == "online":
        raise LeftOut("its recipe learns from a chain of its own, not from the round's teacher")


@dataclass(frozen=True, eq=False)
class _Course:
    """One run through the rounds.

    Attributes:
        bench: where predictors are measured.
        subject: who asks for labels.
        plan: how many.
        number: of the seed, from 0.
    """

    bench: Bench
    subject: Subject
    plan: Plan
    number: int

    def run(self) -> list[AnyPredictions]:
        """What the subject says of the bench's examples in each round."""
        bench, counts = self.bench, self.plan.num_labels
        pool, known = self._begin()
        said: list[AnyPredictions] = []
        for i, num_labels in enumerate(counts):
            done = self.number * len(counts) + i
            bench.session.progress(f"{bench.task}: {self.subject.name}", done, SEEDS * len(counts))

            # samples of a round are of no use to anybody afterwards
            with tempfile.TemporaryDirectory() as folder:
                predictor = self._trained(known, Path(folder))
                said.append(predictor.predict(bench.raw))
                if i + 1 < len(counts):
                    bought = self._best(predictor, pool, counts[i + 1] - num_labels)
                    known = torch.cat([known, bought])
                    pool = pool[~torch.isin(pool, bought)]
        return said

    def _begin(self) -> tuple[Tensor, Tensor]:
        """Places in the training part: of the pool, and of those whose label is known at first."""
        labels = self.bench.dataset.train.y
        order = torch.randperm(len(labels), generator=self._generator("begin"))
        pool = order[:LARGEST_POOL]

        first: list[Tensor] = []
        for label in range(self.bench.dataset.num_classes):
            first.append(pool[labels[pool] == label][:FIRST_A_CLASS])
        known = torch.cat(first)
        pool = pool[~torch.isin(pool, known)]

        # of a class with fewer examples others stand in
        missing = self.plan.num_labels[0] - len(known)
        return pool[missing:], torch.cat([known, pool[:missing]])

    def _best(self, predictor: Predictor, pool: Tensor, num: int) -> Tensor:
        """The places in the pool that are labeled next.

        Raises:
            LeftOut: what the acquisition ranks by is not said.
        """
        # who is alike is drawn
        pool = pool[torch.randperm(len(pool), generator=self._generator("rank", len(pool)))]
        name = SCORES[self.plan.acquisition]
        if not name:
            return pool[:num]

        score = find_score(name)
        predictions = predictor.predict(self.bench.dataset.raw("train")[pool])
        if not score.applies(predictions):
            raise LeftOut(f"it does not say its {score.label}, which ranks the pool")
        values = torch.from_numpy(score.of(predictions))
        return pool[values.argsort(descending=True, stable=True)[:num]]

    def _trained(self, known: Tensor, folder: Path) -> Predictor:
        """The subject as these labels alone make it."""
        teacher = self.bench.teacher
        assert teacher is not None, "the task needs one"
        dataset = keep_labels(self.bench.dataset, known.sort().values, "bought")
        space = replace(teacher.space, seed=self._seed, calibration="none")
        session = replace(self.bench.session, streams=folder / "streams", progress=_tell_nobody)
        trained = sample_teacher(space, session, dataset=dataset)
        if self.subject.kind == TEACHER:
            predictor = average_predictor(trained)
            assert predictor is not None, "its networks are known"
            return predictor
        return self._student(trained, folder)

    def _student(self, teacher: Teacher, folder: Path) -> Predictor:
        """A student of the subject's genotype, as it is read back from its file."""
        student = self.subject.student
        assert student is not None, "the subject is one"
        recipe = with_step_size(teacher.space.recipe, teacher.space.recipe.lr)
        if (
            recipe.precision == "auto"
        ):  # a device's choice by a clock would be another one each time
            recipe = recipe.model_copy(update={"precision": "float32"})

        (trained,) = distill(
            [Genotype.from_json(student.spec.genotype)],
            distillation_set(teacher),
            recipe,
            seed=self._seed,
            device=teacher.session.device,
            should_stop=teacher.session.should_stop,
        ).students
        if trained.failure:
            raise DivergenceError(f"{self.bench.task}: {trained.failure}; change the recipe")
        save_student(folder / "student", student.spec, trained.params)
        return StudentPredictor(load_student(folder / "student"), teacher.session.accelerator)

    @property
    def _seed(self) -> int:
        """Root of all that is trained, the same for every subject and acquisition."""
        return rng.seed(self.bench.seed, "active", self.number)

    def _generator(self, *path: str | int) -> torch.Generator:
        return self.bench.generator("active", self.number, *path)


def _tell_nobody(what: str, done: int, total: int) -> None:
    pass
