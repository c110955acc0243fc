"""From genotypes to trial records: distil a population, write each student, and measure it."""

import itertools
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from gped_nas import device as devices
from gped_nas.api.drawing import NotedDraws
from gped_nas.api.guess import above_guess
from gped_nas.api.latency import with_latency
from gped_nas.api.measuring import Conditions
from gped_nas.api.online import online_feed
from gped_nas.api.session import Session
from gped_nas.api.teacher import Teacher
from gped_nas.distill.feed import DistillationSet
from gped_nas.distill.kernel import TrainedStudent, distill
from gped_nas.distill.recipe import Recipe
from gped_nas.distill.student import (
    SPEC_FILE,
    WEIGHTS_FILE,
    Student,
    StudentSpec,
    load_student,
    save_student,
    seal_student,
)
from gped_nas.errors import DivergenceError, GpedError
from gped_nas.evaluate.base import Resamples
from gped_nas.evaluate.metrics import reliability
from gped_nas.evaluate.predictions import AnyPredictions
from gped_nas.evaluate.student import StudentPredictor, population_predictions
from gped_nas.io import environment
from gped_nas.models.base import FAMILIES, Genotype, Shapes
from gped_nas.models.costs import budgeted_cost, cost_of, macs_by_operator
from gped_nas.search.ledger import Claim
from gped_nas.search.record import Above, TrialRecord

CURVE_POINTS = 24
_WRITERS, _JUDGES = 8, 4
"""Threads that write the students of a population on a device, and that measure them."""


@dataclass(frozen=True, eq=False)
class Trainer:
    """Distils and measures the students of one study.

    Attributes:
        teacher: whom they imitate.
        data: what they learn from.
        recipe: how they are trained, nothing left to be decided.
        validation: the teacher's predictions on validation.
        resamples: bootstrap draws of validation.
        folder: where students are written, one folder a trial.
        about: what each student's spec says of where it comes from.
        guess: what the guess says of validation, see ``api.guess``; None in studies that were begun
            before there was one.
        rung_set: what rungs look at; None where the recipe has none.
        alive: called all along while students are trained and measured.
        layout_workers: threads that a population is shared out over, see ``distill.layout``; one a
            core by default.
    """

    teacher: Teacher
    data: DistillationSet
    recipe: Recipe
    validation: AnyPredictions
    resamples: Resamples
    folder: Path
    about: dict[str, str]
    guess: AnyPredictions | None = None
    rung_set: DistillationSet | None = None
    alive: Callable[[], None] = lambda: None
    layout_workers: int | None = None

    @property
    def session(self) -> Session:
        """How to run."""
        return self.teacher.session

    @cached_property
    def conditions(self) -> Conditions:
        """The conditions under which everybody is measured besides the clean one."""
        return Conditions(self.teacher)

    def __call__(self, claims: Sequence[Claim]) -> list[TrialRecord]:
        """See ``search.engine.DistilAndEvaluate``.

        Raises:
            Interrupted: the session said stop.
        """
        return list(self.records(claims))

    def records(self, claims: Sequence[Claim]) -> Iterator[TrialRecord]:
        """One record each, in order, as soon as its student is measured. Raises as a call."""
        started = time.monotonic()
        students = self.distill([claim.genotype for claim in claims])
        seconds_each = (time.monotonic() - started) / len(claims)

        together = [claim.number for claim in claims]
        trials = []
        for claim, student in zip(claims, students, strict=True):
            trials.append(_Trial(claim, student, together, seconds_each))
        cfg = self.teacher.space.latency
        records = self._with_variants(trials)
        # Whoever is timed has the machine alone: all are trained and judged before the first one.
        yield from records if cfg is None else with_latency(list(records), self.load, cfg)

    def _with_variants(self, trials: Sequence["_Trial"]) -> Iterator[TrialRecord]:
        """The records of a population with those of their students in other storage types.

        A student that another type makes useless has no such variant. What it takes to measure
        them is time of the trial that was trained.
        """
        all_trials = []
        for trial in trials:
            all_trials += [trial, *trial.variants()]
        records = self._records(all_trials)

        for trial in trials:
            record = next(records)
            measured = list(itertools.islice(records, len(trial.claim.dtypes)))
            variants = []
            for variant in measured:
                if record.state == variant.state == "complete":
                    variants.append(variant.replace(seconds=0.0))
            seconds = record.seconds + sum(variant.seconds for variant in measured)
            yield record.replace(seconds=round(seconds, 4), variants=tuple(variants))

    def _records(self, trials: Sequence["_Trial"]) -> Iterator[TrialRecord]:
        """The records of a population whose students are trained."""
        if self.session.accelerator is not None:
            yield from self._records_together(trials, self.session.accelerator)
            return
        for trial in trials:
            yield self._record(trial)

    def distill(
        self,
        genotypes: Sequence[Genotype],
        *,
        seed: int | None = None,
        ridges: Sequence[float] = (),
    ) -> tuple[TrainedStudent, ...]:
        """Students of these genotypes, trained together.

        Args:
            genotypes: theirs.
            seed: root of initializations and batches; the space's by default.
            ridges: of each, see ``Trainee``; none by default.
        """
        session = self.session
        is_online = self.recipe.mode == "online"
        feed = online_feed(self.teacher, self.data.inputs, self.data.labels) if is_online else None
        return distill(
            genotypes,
            self.data,
            self.recipe,
            seed=self.teacher.space.seed if seed is None else seed,
            ridges=ridges,
            device=session.device,
            validation=self.rung_set,
            feed=feed,
            workers=self.layout_workers,
            progress=session.progress,
            should_stop=self._should_stop,
        ).students

    def _should_stop(self) -> bool:
        self.alive()  # a population may train longer than a claim lives
        return self.session.should_stop()

    def distill_sound(self, genotypes: Sequence[Genotype]) -> tuple[TrainedStudent, ...]:
        """Students that everything else is compared with.

        Raises:
            DivergenceError: one is of no use.
        """
        students = self.distill(genotypes)
        for student in students:
            if student.failure:
                raise DivergenceError(
                    f"the student {student.genotype}, which others are compared with: "
                    f"{student.failure}; change recipe (a smaller lr, fewer steps) or "
                    "search.students_at_once"
                )
        return students

    def spec(self, genotype: Genotype, **about: str) -> StudentSpec:
        """The spec of a student of this genotype."""
        dataset = self.teacher.dataset
        return StudentSpec(
            family=genotype.family,
            input_shape=dataset.raw_shape,
            class_names=dataset.class_names,
            targets=self.data.layout.targets,
            normalization=dataset.normalization,
            label_normalization=dataset.label_normalization,
            preparation=dataset.preparation,
            scale=dataset.scale,
            storage_dtype=genotype["storage_dtype"],
            genotype=genotype.to_json(),
            about={**self.about, **about},
        )

    def load(self, record: TrialRecord) -> Student:
        """The student of a trial that was kept, checked against its record.

        Raises:
            DataError: its files are missing or damaged.
        """
        return load_student(self.folder_of(record), spec_sha256=record.spec_sha256)

    def folder_of(self, record: TrialRecord) -> Path:
        """Where the student of a trial lies, if it was kept."""
        if record.trial == record.variant_of:
            return self.folder / _name_of_variant(record)
        return self.folder / str(record.trial)

    def put_in_place(self, record: TrialRecord) -> None:
        """Move the student of a variant, written before its trial had a number, to that number.

        Nothing happens where it lies there already, or was not kept.
        """
        if record.variant_of is None or record.trial == record.variant_of:
            return
        written = self.folder / _name_of_variant(record)
        if (written / SPEC_FILE).is_file() and not self.has(record):
            folder = self.folder_of(record)
            with environment("put the student in", folder):
                shutil.rmtree(folder, ignore_errors=True)
                written.rename(folder)

    def has(self, record: TrialRecord) -> bool:
        """Whether the files of a trial's student are there."""
        folder = self.folder_of(record)
        return (folder / SPEC_FILE).is_file() and (folder / WEIGHTS_FILE).is_file()

    def seal(self, records: Iterable[TrialRecord]) -> None:
        """Give the kept students of these trials the digests that earlier versions did not write.

        Raises:
            DataError: one is damaged.
        """
        for record in records:
            folder = self.folder / str(record.trial)
            if (folder / SPEC_FILE).is_file() and not record.spec_sha256:
                seal_student(folder)

    def predictor(self, student: Student) -> StudentPredictor:
        """A student as it is judged, on the session's device."""
        return StudentPredictor(student, self.session.accelerator)

    def _records_together(
        self, trials: Sequence["_Trial"], device: torch.device
    ) -> Iterator[TrialRecord]:
        """The records of a population whose students predict together, on a device."""
        started = time.monotonic()
        sound = [trial for trial in trials if not trial.trained.failure]
        with devices.one_thread():
            # to write is mostly to wait for the disk
            with ThreadPoolExecutor(_WRITERS) as pool:
                kept = list(pool.map(self._keep, sound))
            students = [student for student, _ in kept]
            raw = self.teacher.dataset.raw("validation")
            predictions = population_predictions(students, raw, device)
            seconds_each = (time.monotonic() - started) / len(trials)

            with ThreadPoolExecutor(_JUDGES) as pool:
                sizes = [num_bytes for _, num_bytes in kept]
                measured = pool.map(self._measure, sound, students, sizes, predictions)
                for trial in trials:
                    self.alive()
                    if trial.trained.failure:
                        yield trial.failed(trial.trained.failure)
                        continue
                    record = next(measured)
                    yield record.replace(seconds=round(record.seconds + seconds_each, 4))

    def _record(self, trial: "_Trial") -> TrialRecord:
        """Write a student, read it back, and measure what was read."""
        self.alive()
        if trial.trained.failure:
            return trial.failed(trial.trained.failure)

        started = time.monotonic()
        student, num_bytes = self._keep(trial)
        predictions = self.predictor(student).predict(self.teacher.dataset.raw("validation"))
        trial.seconds += time.monotonic() - started
        return self._measure(trial, student, num_bytes, predictions)

    def _keep(self, trial: "_Trial") -> tuple[Student, int]:
        """Write a student; itself, read back, and the size of its weights file."""
        folder = self.folder_of(trial.failed(""))
        spec = self.spec(trial.claim.genotype, **trial.origin)
        num_bytes = save_student(folder, spec, trial.trained.params)
        return load_student(folder), num_bytes

    def _measure(
        self, trial: "_Trial", student: Student, num_bytes: int, predictions: AnyPredictions
    ) -> TrialRecord:
        """The record of a student that was read back.

        Args:
            trial: what it is of.
            student: the student.
            num_bytes: size of its weights file.
            predictions: what it says of validation as it is.
        """
        started = time.monotonic()
        trained, genotype = trial.trained, trial.claim.genotype
        dataset = self.teacher.dataset
        labels = dataset.labels("validation")
        predictor = self.predictor(student)
        noted = NotedDraws(self.teacher.space.objectives)
        try:
            measures = noted.evaluate(
                predictions,
                labels,
                self.validation,
                resamples=self.resamples,
                asked=self.conditions.asked(),
            )
            measures |= self.conditions.measure(
                predictor, "validation", resamples=self.resamples, evaluate=noted.evaluate
            )
        except DivergenceError as error:
            return trial.failed(str(error))

        compared: dict[str, Above] = {}
        if self.guess is not None:
            compared = above_guess(
                self.guess, predictor, predictions, self.conditions, self.resamples
            )

        shapes = student.shapes
        cost = cost_of(genotype.family, shapes, dataset.input_shape, genotype["storage_dtype"])
        counted_macs = macs_by_operator(genotype.family, shapes, dataset.input_shape)
        # the rules are checked against the operators that ran and the file that was written
        if sum(counted_macs.values()) != cost.macs or cost.storage_bytes != num_bytes:
            raise GpedError(
                f"trial {trial.claim.number}: counted {counted_macs} and {num_bytes} bytes, "
                f"expected {cost}; the cost rules of family '{genotype.family}' are wrong"
            )

        family = FAMILIES[genotype.family]
        extra = {
            "reliability": reliability(predictions, labels),
            "macs_by_operator": counted_macs,
            "dead_units": trained.num_dead,
            **_budget(genotype, shapes, dataset.input_shape),
            "seed": trained.seed,
            "trained_with": list(trial.together),
            "recipe": self.recipe.to_record(),
            "rungs": [list(point) for point in trained.rungs],
            "loss": [list(point) for point in _thin(trained.losses)],
        }
        return TrialRecord(
            trial=trial.claim.number,
            variant_of=trial.variant_of,
            spec_sha256=student.spec_sha256,
            state="complete",
            genotype=genotype.to_json(),
            measures=measures,
            costs=asdict(cost),
            layers=tuple(family.describe(shapes)),
            layers_drawn=tuple(family.describe(self.data.shapes(genotype))),
            extra=extra,
            above_guess=compared,
            draws=noted.draws,
            seconds=round(trial.seconds + time.monotonic() - started, 4),
        )


@dataclass(eq=False)
class _Trial:
    """A trial whose student is trained.

    Attributes:
        claim: the trial.
        trained: its student.
        together: trials whose students were trained beside it, itself included, in order.
        seconds: that it took so far; of what was done for several, its share.
        is_variant: whether it is another trial's student in another storage type. Its own trial is
            yet to be made, so that the claim's number is that of the other one.
    """

    claim: Claim
    trained: TrainedStudent
    together: Sequence[int]
    seconds: float
    is_variant: bool = False

    @property
    def variant_of(self) -> int | None:
        """The trial that the student was trained for, if that is another one."""
        return self.claim.number if self.is_variant else None

    @property
    def origin(self) -> dict[str, str]:
        """What the student's spec says of it."""
        return origin_of(self.claim.number, is_variant=self.is_variant)

    def variants(self) -> list["_Trial"]:
        """The same student in its other storage types."""
        trials = []
        for dtype in self.claim.dtypes:
            genotype = self.claim.genotype.replace(storage_dtype=dtype)
            claim = replace(self.claim, genotype=genotype, dtypes=())
            trials.append(_Trial(claim, self.trained, self.together, 0.0, is_variant=True))
        return trials

    def failed(self, reason: str) -> TrialRecord:
        """The record of a failure."""
        genotype = self.claim.genotype.to_json()
        return TrialRecord(
            self.claim.number, "failed", genotype, reason=reason, variant_of=self.variant_of
        )


def origin_of(trained_in: int, *, is_variant: bool) -> dict[str, str]:
    """What a student's spec says of the trial it is of.

    Args:
        trained_in: the trial that it was trained for.
        is_variant: whether it is that of another trial, which had no number when it was written.
    """
    return {"trained_in" if is_variant else "trial": str(trained_in)}


def _name_of_variant(record: TrialRecord) -> str:
    """The folder of a variant's student while its trial has no number."""
    return f"{record.variant_of}-{record.genotype['storage_dtype']}"


def _thin(curve: tuple[tuple[int, float], ...]) -> Iterable[tuple[int, float]]:
    """At most about ``CURVE_POINTS`` points of a curve, its last one among them."""
    step = max(1, len(curve) // CURVE_POINTS)
    return [*curve[:-1:step], curve[-1]]


def _budget(
    genotype: Genotype, shapes: Shapes, input_shape: tuple[int, ...]
) -> dict[str, dict[str, Any]]:
    """What a record says of a student's budget: how near below it the network is."""
    budget = genotype.budget
    if budget is None:
        return {}
    reached = budgeted_cost(budget, genotype.family, shapes, input_shape)
    return {"budget": {**asdict(budget), "reached": reached}}


def keep_only(folder: Path, trials: Iterable[int]) -> None:
    """Delete the students of all other trials; a killed run may have left some half written."""
    names = {str(trial) for trial in trials}
    for path in folder.glob("*"):
        if path.name not in names:
            shutil.rmtree(path, ignore_errors=True)
