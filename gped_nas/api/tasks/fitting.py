"""On which answers post-hoc options are fitted, and what is said of that.

They are fitted on the calibration part, which chose nothing (``data.calibration_share``). Where
there is none, one part serves both the choice of students and the fit, and rows say so:

* what is measured on test is fitted on validation;
* what is measured on validation is fitted on one half of it for the other, by a seeded draw.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from gped_nas.api.tasks.base import LeftOut
from gped_nas.api.tasks.bench import SAMPLE, TEACHER, Answers, Bench, Subject
from gped_nas.data.base import Part
from gped_nas.errors import DataError
from gped_nas.evaluate.predictions import AnyPredictions, Floats, Labels, subset

APPROXIMATE = "approximate: chosen on the same examples"
Fit = Callable[[AnyPredictions, Labels], float]
"""One number of answers whose labels are known."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Answers to measure, and those to fit on.

    Attributes:
        measured: of the bench's examples.
        predictions, labels: all that may be fitted on.
        note: for readers.
        is_first_N: where one half is fitted for the other, which of the measured examples are of
            the first one; None where something else is fitted on.
    """

    measured: Answers
    predictions: AnyPredictions
    labels: Labels
    note: str
    is_first_N: np.ndarray[tuple[int], np.dtype[np.bool_]] | None = None

    @property
    def num_fitted(self) -> int:
        """On how many examples each number is fitted, at least."""
        n = len(self.labels)
        return n if self.is_first_N is None else n // 2

    def each(self, fit: Fit) -> Floats:
        """What is fitted for each measured example, (N,)."""
        if self.is_first_N is None:
            return np.full(len(self.measured.predictions), fit(self.predictions, self.labels))

        fitted_N = np.empty(len(self.labels))
        for is_mine_N in (self.is_first_N, ~self.is_first_N):
            others = np.flatnonzero(~is_mine_N)
            fitted_N[is_mine_N] = fit(subset(self.predictions, others), self.labels[others])
        return fitted_N


def held_out(bench: Bench, subject: Subject) -> HeldOut:
    """What a subject says where post-hoc options are fitted and measured.

    Raises:
        LeftOut: it has no answers there.
    """
    measured = bench.answers(subject)
    if bench.dataset.calibration is None and bench.part == "validation":
        order = torch.randperm(len(bench.labels), generator=bench.generator("halves")).numpy()
        is_first_N = np.zeros(len(order), bool)
        is_first_N[order[: len(order) // 2]] = True
        note = f"{APPROXIMATE}; each half by what was fitted on the other"
        return HeldOut(measured, measured.predictions, bench.labels, note, is_first_N)

    part: Part = "validation" if bench.dataset.calibration is None else "calibration"
    labels = bench.dataset.labels(part)
    note = f"fitted on {len(labels):,} {part} examples"
    if part == "validation" or _was_calibrated_on(part, bench, subject):
        note = f"{APPROXIMATE}; {note}"
    return HeldOut(measured, answers_of(part, bench, subject), labels, note)


def answers_of(part: Part, bench: Bench, subject: Subject) -> AnyPredictions:
    """What a subject says of a whole part.

    Raises:
        LeftOut: nothing is known of it there.
    """
    if subject.kept is None:
        return subject.asked().predict(bench.dataset.raw(part))
    try:
        predictions: AnyPredictions = subject.kept(part)
    except DataError as why:
        raise LeftOut(str(why)) from None
    return predictions


def _was_calibrated_on(part: Part, bench: Bench, subject: Subject) -> bool:
    """Whether the space's own calibration of this teacher has seen these labels."""
    if bench.teacher is None or subject.kind not in (TEACHER, SAMPLE):
        return False
    fit = bench.teacher.calibration
    return fit is not None and fit.part == part
