"""What follows once a front is fixed: its students are tested, once each, and compared."""

from collections.abc import Sequence
from pathlib import Path

from gped_nas.api.kept import KeptFiles
from gped_nas.api.prediction_verdict import WITHOUT_NETWORK, PredictionVerdict, judge_beside
from gped_nas.api.reference_latency import time_references
from gped_nas.api.references import Contender, average_of, guess_of, others
from gped_nas.api.students import Trainer
from gped_nas.data.base import Part, Task
from gped_nas.errors import DivergenceError
from gped_nas.evaluate.base import METRICS, Resamples, draw_resamples
from gped_nas.evaluate.judging import evaluate_or_explain, paired_difference
from gped_nas.evaluate.measured import CLEAN, TEST, Key, Measured, parse_name
from gped_nas.search.document import References, StudentTest
from gped_nas.search.ledger import Ledger
from gped_nas.search.record import TrialRecord
from gped_nas.search.snapshot import PairedDifference, Reference

COMPARED: dict[Task, tuple[str, ...]] = {
    "classification": ("nll", "accuracy"),
    "regression": ("nll", "rmse"),
}
"""Metrics whose paired difference to the teacher is always shown, beside the objectives."""


def conclude(
    ledger: Ledger,
    folder: Path,
    trainer: Trainer,
    front: Sequence[TrialRecord],
) -> None:
    """Test new members of the front that are at hand, and make references that are missing.

    The references are made and compared anew where ``baseline`` is not the one that they were made
    with.

    Args:
        ledger: the study's; tests and references are written to it.
        folder: the study's folder.
        trainer: that of the study.
        front: the fixed front.

    Raises:
        DamageError: a student's or a reference's file is not what was written.
        Interrupted: the session said stop; what was measured is kept.
    """
    tests = ledger.tests()
    untested = [r for r in front if r.trial not in tests and trainer.has(r)]

    baseline = trainer.teacher.space.baseline.model_dump(mode="json")
    earlier = ledger.document.references
    has_references = earlier is not None and earlier.baseline == baseline
    if has_references and not untested:
        return

    dataset, seed = trainer.teacher.dataset, trainer.teacher.space.seed
    device = trainer.session.accelerator
    resamples = draw_resamples(len(dataset.test), root=seed, part="test", device=device)
    teacher = average_of(trainer.teacher)

    compared = others(trainer, teacher.predictions, KeptFiles(folder, ledger))
    controls = [contender for contender in compared if contender.is_control]
    if not has_references:
        if trainer.guess is not None:
            compared.append(guess_of(trainer.teacher))
        paired: list[PairedDifference] = []
        for contender in compared:
            paired += _compare(contender, teacher, trainer, resamples)
        references = []
        for contender in time_references([teacher, *compared], trainer.teacher):
            references.append(_measure(contender, teacher, trainer, resamples))
        verdict = _judge_predictions(teacher, compared, trainer)
        ledger.change(references=References.of(references, paired, baseline, verdict.to_json()))

    for record in untested:
        trainer.session.raise_if_stopped()
        test = _test(record, teacher, controls, trainer, resamples)
        ledger.write_test(record.trial, test)


def _judge_predictions(
    teacher: Contender, compared: Sequence[Contender], trainer: Trainer
) -> PredictionVerdict:
    """Whether the teacher predicts better than the MAP networks of the references."""
    of_map = next((contender for contender in compared if contender.name == "map"), None)
    if of_map is None:
        return WITHOUT_NETWORK
    networks = [of_map.predictions["validation"], *of_map.further]
    return judge_beside(trainer.teacher, teacher.predictions["validation"], networks)


def _test(
    record: TrialRecord,
    teacher: Contender,
    controls: Sequence[Contender],
    trainer: Trainer,
    resamples: Resamples,
) -> StudentTest:
    """The test of a trial's student, and its paired differences to the teacher and to controls.

    The student was finite where it was chosen: what is not on test says so.
    """
    student = _student(record, trainer)
    assert student.predictor is not None, "a student can be asked"

    measures = evaluate_or_explain(
        student.predictions["test"],
        trainer.teacher.dataset.labels("test"),
        teacher.predictions.get("test"),
        resamples=resamples,
        part=TEST,
        asked=trainer.conditions.asked(),
    )
    measures |= trainer.conditions.measure(
        student.predictor, "test", resamples=resamples, evaluate=evaluate_or_explain
    )
    paired = _compare_with_all(student, (teacher, *controls), trainer, resamples)
    return StudentTest.of(measures, paired)


def _student(record: TrialRecord, trainer: Trainer) -> Contender:
    """The student of a trial, with its predictions on test."""
    predictor = trainer.predictor(trainer.load(record))
    predictions = predictor.predict(trainer.teacher.dataset.raw("test"))
    name, label = "student", f"trial {record.trial}"
    return Contender(name, label, "", {"test": predictions}, costs={}, predictor=predictor)


def _compare_with_all(
    contender: Contender, others: Sequence[Contender], trainer: Trainer, resamples: Resamples
) -> list[PairedDifference]:
    """See ``_compare``."""
    rows = []
    for other in others:
        rows += _compare(contender, other, trainer, resamples)
    return rows


def _measure(
    contender: Contender, teacher: Contender, trainer: Trainer, test_resamples: Resamples
) -> Reference:
    """A contender's measures on validation and, where the teacher is known there, on test."""
    resamples: dict[Part, Resamples] = {"validation": trainer.resamples, "test": test_resamples}
    is_compared = contender.name != teacher.name

    measures: dict[Key, Measured] = {}
    for part, teacher_predictions in teacher.predictions.items():
        measures |= evaluate_or_explain(
            contender.predictions[part],
            trainer.teacher.dataset.labels(part),
            teacher_predictions if is_compared else None,
            resamples=resamples[part],
            part=part,
            asked=trainer.conditions.asked(),
        )
        if contender.predictor is not None:
            measures |= trainer.conditions.measure(
                contender.predictor,
                part,
                resamples=resamples[part],
                is_compared=is_compared,
                evaluate=evaluate_or_explain,
            )

    return Reference(
        contender.name,
        contender.label,
        measures,
        contender.costs,
        contender.note,
        is_control=contender.is_control,
    )


def compared_metrics(trainer: Trainer) -> list[str]:
    """Metrics whose paired difference is made: the usual ones, and objectives that have one."""
    names = dict.fromkeys(COMPARED[trainer.teacher.dataset.task])
    for goal in trainer.teacher.space.objectives:
        key = parse_name(goal.name)
        if goal.kind != "metric" or key.condition != CLEAN:
            continue

        metric = METRICS[key.metric]
        if metric.has_differences and not (metric.needs_teacher or metric.needs_samples):
            names[key.metric] = None
    return list(names)


def _compare(
    contender: Contender, other: Contender, trainer: Trainer, resamples: Resamples
) -> list[PairedDifference]:
    """Paired test differences to another predictor; none where that is not known on test.

    A metric that is not finite for either has none.
    """
    if "test" not in other.predictions:
        return []

    dataset = trainer.teacher.dataset
    labels = dataset.labels("test")
    mine, theirs = contender.predictions["test"], other.predictions["test"]
    rows = []
    for metric in compared_metrics(trainer):
        try:
            paired = paired_difference(metric, mine, theirs, labels, resamples=resamples)
        except DivergenceError:
            continue
        row = PairedDifference(
            first=contender.name,
            second=other.name,
            metric=metric,
            part="test",
            difference=paired.value,
            interval=paired.interval,
            n=resamples.n,
            why=paired.why,
            p_value=paired.p_value,
        )
        rows.append(row)
    return rows
