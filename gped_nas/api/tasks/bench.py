"""Where tasks measure: examples of a part, subjects, and the teacher they are compared with."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from gped_nas import rng
from gped_nas.api.measuring import can_be_asked, ensemble
from gped_nas.api.session import Session
from gped_nas.api.tasks.base import LeftOut, Row
from gped_nas.api.teacher import Teacher
from gped_nas.data.base import Dataset, Part
from gped_nas.distill.student import Student
from gped_nas.errors import ConfigError, DamageError, DataError
from gped_nas.evaluate.base import METRICS, Metric
from gped_nas.evaluate.certify.networks import CertifiableNetwork
from gped_nas.evaluate.condition_names import parse_condition
from gped_nas.evaluate.conditions import Condition, Predictor
from gped_nas.evaluate.judging import evaluate_or_explain
from gped_nas.evaluate.measured import CLEAN, Key, Measured, rows
from gped_nas.evaluate.predictions import AnyPredictions, Labels, subset
from gped_nas.evaluate.resamples import Resamples, draw_resamples
from gped_nas.io import sha256_arrays

TEACHER, SAMPLE, MAP, LABEL_TWIN, UNPRUNED, STUDENT = SUBJECTS = (
    "teacher",
    "single_sample",
    "map",
    "label_twin",
    "unpruned",
    "student",
)
"""Who can be judged, by the names that a study's references have."""


@dataclass(frozen=True, eq=False)
class Subject:
    """Who is judged.

    Attributes:
        name: one of ``SUBJECTS``; a trial's student is called ``trial 3``.
        kind: one of ``SUBJECTS``.
        digest: of all that its answers follow from.
        predictor: itself, to be asked anywhere; None where it has no answers but those that are
            kept.
        kept: what is known of it at the inputs of whole parts, where that is not asked of it.
        why_kept: why it cannot be asked elsewhere; empty where it can.
        trial: number of its trial; None of all others.
        student: it, where it is a student.
        folder: where the student's files lie.
        certifiable: its one network as layers that bounds are carried through, or a ``ConfigError``
            where it has none; None of an average.
    """

    name: str
    kind: str
    digest: str
    predictor: Predictor | None
    kept: Any = None
    why_kept: str = ""
    trial: int | None = None
    student: Student | None = None
    folder: Path | None = None
    certifiable: Callable[[], CertifiableNetwork] | None = None

    def asked(self) -> Predictor:
        """Itself, to be asked at inputs of the task's own.

        Raises:
            LeftOut: it cannot be.
        """
        if self.predictor is None:
            raise LeftOut(self.why_kept)
        return self.predictor


@dataclass(frozen=True, eq=False)
class Answers:
    """What a subject says of the bench's examples under a condition.

    Attributes:
        subject: who.
        predictions: what it says.
        teacher: what the teacher's average says at the same inputs; None of the teacher itself, and
            where it is not known.
        raw: the inputs (N, *input_shape), raw.
        condition: what was done to them.
    """

    subject: Subject
    predictions: AnyPredictions
    teacher: AnyPredictions | None
    raw: Tensor
    condition: str = CLEAN


@dataclass(frozen=True, eq=False)
class Examples:
    """The examples that are answered.

    Attributes:
        dataset: whose.
        part: of which part.
        seed: root of what is drawn.
        limit: how many, drawn by the seed; None for all.
    """

    dataset: Dataset
    part: Part
    seed: int
    limit: int | None = None

    @cached_property
    def index(self) -> Tensor | None:
        """Which ones of the part, (N,) in their order; None for all."""
        num = len(self.dataset.split(self.part))
        if self.limit is None or self.limit >= num:
            return None
        generator = rng.generator(self.seed, "evaluate", self.part)
        return torch.randperm(num, generator=generator)[: self.limit].sort().values

    @cached_property
    def raw(self) -> Tensor:
        """Their raw inputs, (N, *input_shape)."""
        raw = self.dataset.raw(self.part)
        return raw if self.index is None else raw[self.index]

    @cached_property
    def labels(self) -> Labels:
        """Their labels, (N,)."""
        labels = self.dataset.labels(self.part)
        return labels if self.index is None else labels[self.index.numpy()]

    @cached_property
    def resamples(self) -> Resamples:
        """Bootstrap draws of them, the same for every subject."""
        return draw_resamples(len(self.labels), root=self.seed, part=self.part)

    def of(self, predictions: AnyPredictions) -> AnyPredictions:
        """Predictions of the whole part, of these examples alone."""
        return predictions if self.index is None else subset(predictions, self.index.numpy())


@dataclass(frozen=True, eq=False)
class Bench:
    """See the module.

    Attributes:
        examples: that are answered.
        teacher: whom subjects are compared with; None where a student is judged alone.
        subjects: whose rows are asked for.
        session: how to run; tasks tell it their progress and ask it whether to stop.
        metrics: names of those that are asked for; none leaves it to the task.
        task: what is measured just now, as it was asked for.
        notes: what was left out, filled while the task measures.
        inputs: changed inputs by ``subject@condition``; None where nobody wants them.
        memory: what a task found of a subject, for what else it is asked of the same one.
    """

    examples: Examples
    teacher: Teacher | None
    subjects: tuple[Subject, ...]
    session: Session
    metrics: tuple[str, ...] = ()
    task: str = ""
    notes: list[str] = field(default_factory=list)
    inputs: dict[str, np.ndarray[Any, Any]] | None = None
    memory: dict[str, Any] = field(default_factory=dict)
    _answers: dict[str, AnyPredictions] = field(default_factory=dict)
    _teacher_at: dict[str, tuple[str, AnyPredictions]] = field(default_factory=dict)

    def of(self, subjects: tuple[Subject, ...], task: str) -> "Bench":
        """The same bench for these subjects and this task."""
        return replace(self, subjects=subjects, task=task, notes=[])

    # -- the examples

    @property
    def dataset(self) -> Dataset:
        """Whose examples are answered."""
        return self.examples.dataset

    @property
    def part(self) -> Part:
        """The part that they are of."""
        return self.examples.part

    @property
    def seed(self) -> int:
        """Root of all that is drawn."""
        return self.examples.seed

    @property
    def raw(self) -> Tensor:
        """Raw inputs of the examples, (N, *input_shape)."""
        return self.examples.raw

    @property
    def labels(self) -> Labels:
        """Labels of the examples, (N,)."""
        return self.examples.labels

    @property
    def resamples(self) -> Resamples:
        """Bootstrap draws of the examples, the same for every subject."""
        return self.examples.resamples

    def generator(self, *path: str | int) -> Generator:
        """A generator of the task's own; the same for every subject."""
        return rng.generator(self.seed, "evaluate", *path)

    # -- who says what

    def answers(self, subject: Subject, condition: Condition | None = None) -> Answers:
        """What a subject, and beside it the teacher, say of the examples.

        Args:
            subject: who.
            condition: what is done to the inputs first; nothing by default.

        Raises:
            LeftOut: the subject cannot be asked under a condition.
            DataError: the condition made inputs that cannot be used.
        """
        self.session.raise_if_stopped()
        if condition is None or condition.name == CLEAN:
            teacher = None if subject.kind == TEACHER else self._clean_teacher()
            return Answers(subject, self._clean(subject), teacher, self.raw)

        raw = self.changed(condition, subject.asked())
        self.save(subject, raw, condition.name)
        return self.answers_at(subject, raw, condition.name)

    def answers_at(self, subject: Subject, raw: Tensor, condition: str) -> Answers:
        """What a subject, and beside it the teacher, say at inputs of the task's own.

        Args:
            subject: who.
            raw: inputs (N, *input_shape) in the place of the examples'.
            condition: what rows call them.

        Raises:
            LeftOut: the subject cannot be asked there.
        """
        predictions = subject.asked().predict(raw)
        is_teacher = subject.kind == TEACHER
        teacher = None if is_teacher else self.teacher_at(raw, condition)
        return Answers(subject, predictions, teacher, raw, condition)

    def changed(self, condition: Condition, predictor: Predictor) -> Tensor:
        """The raw inputs under a condition; its draws are those of the study's own conditions."""
        return condition.apply(
            self.raw,
            predictor=predictor,
            labels=self.labels,
            generator=rng.generator(self.seed, "condition", condition.name, self.part),
            scale=self.dataset.scale,
        )

    def condition(self, text: str, where: str = "--tasks") -> Condition:
        """A condition of the teacher's space by its name there, or any other one.

        Raises:
            RegistryError, ConfigError: see ``parse_condition``.
        """
        if self.teacher is not None:
            for condition in self.teacher.space.conditions:
                if condition.name == text:
                    return condition
        return parse_condition(text, where)

    def teacher_at(self, raw: Tensor, name: str) -> AnyPredictions | None:
        """What the teacher's average says at raw inputs; None where it cannot be asked.

        Args:
            raw: (N, *input_shape).
            name: of the inputs. The last answer is kept under each: a shift gives every subject the
                same ones.
        """
        if self.teacher is None or not can_be_asked(self.teacher):
            return None

        digest = sha256_arrays(raw.numpy())
        last_digest, answer = self._teacher_at.get(name, ("", None))
        if answer is None or last_digest != digest:
            answer = ensemble(self.teacher).predict(raw)
            self._teacher_at[name] = digest, answer
        return answer

    def _clean(self, subject: Subject) -> AnyPredictions:
        if subject.digest not in self._answers:
            if subject.kept is not None:
                with _left_out_where_absent():
                    self._answers[subject.digest] = self.examples.of(subject.kept(self.part))
            else:
                self._answers[subject.digest] = subject.asked().predict(self.raw)
        return self._answers[subject.digest]

    def _clean_teacher(self) -> AnyPredictions | None:
        if self.teacher is None:
            return None
        try:
            with _left_out_where_absent():
                return self.examples.of(self.teacher.averaged(self.part))
        except LeftOut:  # subjects are judged without it
            return None

    def save(self, subject: Subject, raw: Tensor, condition: str) -> None:
        """Keep inputs that were made for a subject, where somebody wants them."""
        if self.inputs is not None:
            self.inputs[f"{subject.name}@{condition}"] = raw.numpy()

    # -- rows

    def measures(
        self, answers: Answers, asked: Collection[str | Metric] = ()
    ) -> dict[Key, Measured]:
        """The metrics of some answers that apply.

        Args:
            answers: of one subject.
            asked: metrics, registered ones by name; those of every trial by default.
        """
        measures = evaluate_or_explain(
            answers.predictions,
            self.labels,
            answers.teacher,
            resamples=self.resamples,
            condition=answers.condition,
            part=self.part,
            asked=asked,
        )
        if not asked:
            return measures
        names = {each if isinstance(each, str) else each.name for each in asked}
        return {key: measured for key, measured in measures.items() if key.metric in names}

    def metrics_or(self, names: Collection[str]) -> list[str]:
        """The metrics that are asked for; these names where none are."""
        return list(self.metrics or names)

    def settings_of(self, names: Collection[str]) -> list[Any]:
        """Conditions as plain data, for ``Task.settings``."""
        return [self.condition(name).to_json() for name in names]

    def rows(self, subject: Subject, measures: dict[Key, Measured], **extra: Any) -> list[Row]:
        """Measures of a subject as rows of the task, with what else they say.

        Args:
            subject: who was measured.
            measures: of it.
            extra: further keys of each row: ``note`` for what a reader must know.
        """
        table = rows(measures, predictor=subject.name, task=self.task)
        return [{**row, **extra} for row in table]

    def leave_out(self, subject: Subject, why: str) -> None:
        """Say that a subject has no rows of this task, or fewer."""
        self.notes.append(f"{self.task}: {subject.name} is left out: {why}")


@contextmanager
def _left_out_where_absent() -> Iterator[None]:
    """Leave out whoever has no predictions at these examples: an import may cover others alone.

    Raises:
        LeftOut: it does.
    """
    try:
        yield
    except DamageError:
        raise
    except DataError as why:
        raise LeftOut(str(why)) from None


def metrics_named(prefix: str) -> list[str]:
    """The names of registered metrics that begin so."""
    return [name for name in METRICS if name.startswith(prefix)]


def check_limit(limit: int | None) -> None:
    """Refuse a number of examples that is none.

    Raises:
        ConfigError: it is below 1, or not whole.
    """
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise ConfigError(f"--limit: found {limit!r}, expected at least 1 example")
