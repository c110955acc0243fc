"""What follows once a front is fixed: its students are tested, once each, and compared with the
references.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gped_nas.api.references import Contender, of_stream, trained
from gped_nas.api.students import Trainer
from gped_nas.data.base import Part, Task
from gped_nas.distill.student import load_student
from gped_nas.evaluate.base import Resamples, draw_resamples, evaluate, paired_difference
from gped_nas.evaluate.measured import TEST, Key, Measured, to_public
from gped_nas.evaluate.student import student_predictions
from gped_nas.search.record import TrialRecord
from gped_nas.search.snapshot import PairedDifference, Reference
from gped_nas.search.study import Store

COMPARED: dict[Task, tuple[str, ...]] = {
    "classification": ("nll", "accuracy"),
    "regression": ("nll", "rmse"),
}
"""Metrics whose paired difference to the teacher is shown."""


def conclude(store: Store, folder: Path, trainer: Trainer, front: Sequence[TrialRecord]) -> None:
    """Make the test predictions that are still missing: of new front members, and of references at
        first.

    The references are made and compared anew where ``baseline`` is not the one that they were made
    with.

    Args:
        store: the study; ``test`` and ``references`` are written to it.
        folder: the study's folder.
        trainer: that of the study.
        front: the fixed front.

    Raises:
        Interrupted: the session said stop; what was measured is kept.
    """
    tested: dict[str, Any] = dict(store.get("test", {}))
    new = [record.trial for record in front if str(record.trial) not in tested]
    baseline = trainer.teacher.space.baseline.model_dump(mode="json")
    is_compared = store.get("references", {}).get("baseline") == baseline
    if not new and is_compared:
        return
    dataset = trainer.teacher.dataset
    test = draw_resamples(len(dataset.test), root=trainer.teacher.space.seed, part="test")
    teacher, single = of_stream(trainer)
    if not is_compared:
        contenders = [teacher, single, *trained(trainer, folder / "references")]
        store.put(
            "references",
            {
                "baseline": baseline,
                "references": [_measured(c, teacher, trainer, test).to_json() for c in contenders],
                "comparisons": [
                    asdict(row)
                    for c in contenders[1:]
                    for row in _compared(c, teacher, trainer, test)
                ],
            },
        )
    for trial in new:
        trainer.session.raise_if_stopped()
        student = load_student(trainer.folder / str(trial))
        predictions = student_predictions(student, dataset.raw("test"))
        measures = evaluate(
            predictions,
            dataset.labels("test"),
            teacher.predictions.get("test"),
            resamples=test,
            part=TEST,
        )
        contender = Contender("student", f"trial {trial}", "", {"test": predictions}, {})
        tested[str(trial)] = {
            **to_public(measures),
            "comparisons": [asdict(row) for row in _compared(contender, teacher, trainer, test)],
        }
    store.put("test", tested)


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
