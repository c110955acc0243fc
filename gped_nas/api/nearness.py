"""How far the students of a front are from its best one, on the same validation examples."""

from collections.abc import Sequence

import numpy as np

from gped_nas.api.students import Trainer
from gped_nas.evaluate.base import METRICS
from gped_nas.evaluate.judging import resampled
from gped_nas.evaluate.measured import parse_name
from gped_nas.evaluate.predictions import Floats
from gped_nas.search.choice import FrontDifferences, StudentDifference
from gped_nas.search.ledger import Ledger
from gped_nas.search.record import TrialRecord


def compare_with_best(ledger: Ledger, trainer: Trainer, front: Sequence[TrialRecord]) -> None:
    """Write the paired differences of the front's students to its best one; see ``search.choice``.

    Those that are known are kept as long as the best student is the same. There are none where the
    first objective is no quality, and none of students that are not in the folder.

    Args:
        ledger: the study's.
        trainer: that of the study.
        front: the fixed front, best by the first objective first.

    Raises:
        Interrupted: the session said stop; nothing was written.
    """
    document = ledger.document
    quality = document.objectives[0]
    if not front or quality.kind != "metric" or not trainer.has(front[0]):
        return

    best, *others = front
    earlier = document.front_differences
    known: dict[int, StudentDifference] = {}
    if earlier is not None and (earlier.metric, earlier.best) == (quality.name, best.trial):
        known = {row.trial: row for row in earlier.students}

    at_hand = [record for record in others if trainer.has(record)]
    missing = [record for record in at_hand if record.trial not in known]
    for row in _differences(trainer, quality.name, best, missing):
        known[row.trial] = row

    differences = FrontDifferences(
        metric=quality.name,
        best=best.trial,
        n=trainer.resamples.n,
        students=tuple(known[record.trial] for record in others if record.trial in known),
    )
    if differences != earlier:
        ledger.change(front_differences=differences)


def _differences(
    trainer: Trainer, name: str, best: TrialRecord, others: Sequence[TrialRecord]
) -> list[StudentDifference]:
    """Each of ``others`` less ``best`` in the metric of a public name."""
    if not others:
        return []

    best_value, best_R = _resampled(trainer, name, best)
    rows = []
    for record in others:
        trainer.session.raise_if_stopped()
        value, value_R = _resampled(trainer, name, record)
        row = StudentDifference(
            trial=record.trial,
            difference=value - best_value,
            error=standard_error(value_R - best_R),
        )
        rows.append(row)
    return rows


def standard_error(difference_R: Floats) -> float:
    """The standard deviation of a difference over the bootstrap's resamples.

    Those on which a metric has no value, such as one that no wrong example was drawn into, say
    nothing of its spread.

    Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, algorithm 6.1.
    """
    return float(np.nanstd(difference_R, ddof=1))


def _resampled(trainer: Trainer, name: str, record: TrialRecord) -> tuple[float, Floats]:
    """A student's metric on validation by its public name, and on each resample, (R,)."""
    key = parse_name(name)
    predictor = trainer.predictor(trainer.load(record))
    if METRICS[key.metric].task == "ood":
        outside = trainer.conditions.outside(key.condition)
        both = trainer.conditions.detect(predictor, "validation", outside)
        return resampled(key.metric, both.predictions, both.labels, resamples=both.resamples)

    predictions, teacher = trainer.conditions.predict(predictor, "validation", key.condition)
    labels = trainer.teacher.dataset.labels("validation")
    return resampled(key.metric, predictions, labels, teacher, resamples=trainer.resamples)
