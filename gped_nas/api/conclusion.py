"""What follows once a front is fixed: its students are tested, once each, and compared with the
references.
"""

from collections.abc import Sequence
from pathlib import Path

from gped_nas.api.references import Contender, of_stream, trained
from gped_nas.api.students import Trainer
from gped_nas.data.base import Part, Task
from gped_nas.distill.student import load_student
from gped_nas.evaluate.base import Resamples, draw_resamples, evaluate, paired_difference
from gped_nas.evaluate.measured import TEST, Key, Measured
from gped_nas.evaluate.student import StudentPredictor
from gped_nas.search.document import References, StudentTest
from gped_nas.search.ledger import Ledger
from gped_nas.search.record import TrialRecord
from gped_nas.search.snapshot import PairedDifference, Reference

COMPARED: dict[Task, tuple[str, ...]] = {
    "classification": ("nll", "accuracy"),
    "regression": ("nll", "rmse"),
}
"""Metrics whose paired difference to the teacher is shown."""


def conclude(ledger: Ledger, folder: Path, trainer: Trainer, front: Sequence[TrialRecord]) -> None:
    """Make the test predictions that are still missing: of new front members, and of references at
        first.

    The references are made and compared anew where ``baseline`` is not the one that they were made
    with.

    Args:
        ledger: the study's; tests and references are written to it.
        folder: the study's folder.
        trainer: that of the study.
        front: the fixed front.

    Raises:
        Interrupted: the session said stop; what was measured is kept.
    """
    tests = ledger.tests()
    new = [record.trial for record in front if record.trial not in tests]
    baseline = trainer.teacher.space.baseline.model_dump(mode="json")
    compared = ledger.document.references
    is_compared = compared is not None and compared.baseline == baseline
    if not new and is_compared:
        return
    dataset = trainer.teacher.dataset
    test = draw_resamples(len(dataset.test), root=trainer.teacher.space.seed, part="test")
    teacher, single = of_stream(trainer)
    if not is_compared:
        contenders = [teacher, single, *trained(trainer, folder / "references")]
        paired: list[PairedDifference] = []
        for contender in contenders[1:]:
            paired += _compared(contender, teacher, trainer, test)
        references = [_measured(c, teacher, trainer, test) for c in contenders]
        ledger.change(references=References.of(references, paired, baseline))

    for trial in new:
        trainer.session.raise_if_stopped()
        student = load_student(trainer.folder / str(trial))
        predictor = StudentPredictor(student)
        predictions = predictor.predict(dataset.raw("test"))
        measures = evaluate(
            predictions,
            dataset.labels("test"),
            teacher.predictions.get("test"),
            resamples=test,
            part=TEST,
        )
        measures |= trainer.conditions.measure(predictor, "test", resamples=test)
        contender = Contender("student", f"trial {trial}", "", {"test": predictions}, {})
        paired = _compared(contender, teacher, trainer, test)
        ledger.write_test(trial, StudentTest.of(measures, paired))


def _measured(
    contender: Contender, teacher: Contender, trainer: Trainer, test: Resamples
) -> Reference:
    """A contender's measures on validation and, where the teacher is known there, on test."""
    resamples: dict[Part, Resamples] = {"validation": trainer.resamples, "test": test}
    measures: dict[Key, Measured] = {}
    for part, against in teacher.predictions.items():
        labels = trainer.teacher.dataset.labels(part)
        known = None if contender is teacher else against
        measures |= evaluate(
            contender.predictions[part], labels, known, resamples=resamples[part], part=part
        )
        if contender.predictor is not None:
            measures |= trainer.conditions.measure(
                contender.predictor,
                part,
                resamples=resamples[part],
                is_compared=contender is not teacher,
            )
    return Reference(contender.name, contender.label, measures, contender.costs, contender.note)


def _compared(
    first: Contender, teacher: Contender, trainer: Trainer, test: Resamples
) -> list[PairedDifference]:
    """Paired test differences to the teacher's average; none where that is not known on test."""
    if "test" not in teacher.predictions:
        return []
    labels = trainer.teacher.dataset.labels("test")
    rows = []
    for metric in COMPARED[trainer.teacher.dataset.task]:
        mine, theirs = first.predictions["test"], teacher.predictions["test"]
        difference, interval, n = paired_difference(metric, mine, theirs, labels, resamples=test)
        rows.append(
            PairedDifference(first.name, teacher.name, metric, "test", difference, interval, n)
        )
    return rows
