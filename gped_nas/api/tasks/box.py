"""The task ``box:FILE``: whether all answers in a box of the user's own are safe.

``evaluate/certify/box_file.py`` says what the file holds. Each subject is *certified*, *broken* by
an input of the box, or *unknown*. Of a teacher that is asked of its average, and of each sample
under the condition ``FILE-samples``: those shares are of the samples' weight, and ``p_safe_low``
and ``p_safe_high`` bound the probability, under them, that all answers are safe. Of real labels
``mean_low``, ``mean_high``, ``std_low`` and ``std_high`` say between what answers lie, in the
label's own unit.

Rows beside those of ``evaluate.measured.rows`` have ``box``, ``safe``, ``of`` (``network``,
``average`` or ``samples``), ``parts`` that the box was split into, ``volume`` of it that is
certified, ``seconds``, and that of a broken one ``witness``: an input whose answer is not safe.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gped_nas.api.asked_networks import asked_samples, asked_student
from gped_nas.api.tasks.base import OPTION, LeftOut, Row, add_task
from gped_nas.api.tasks.bench import TEACHER, Bench, Subject
from gped_nas.data.columns import TableColumns
from gped_nas.errors import ConfigError
from gped_nas.evaluate.certify.asked import Asked, AskedNetwork
from gped_nas.evaluate.certify.asked_average import AskedAverage
from gped_nas.evaluate.certify.box_answers import (
    BoxAnswer,
    answer_box,
    check_middle,
    safe_probability,
    share_of,
    widest,
)
from gped_nas.evaluate.certify.box_file import BoxQuestion, read_box
from gped_nas.evaluate.certify.region import Quantity, Region, stays
from gped_nas.evaluate.certify.splitting import Enclosure, Judged
from gped_nas.evaluate.certify.verdict import VERDICTS
from gped_nas.evaluate.measured import Key, Measured
from gped_nas.evaluate.predictions import Predictions
from gped_nas.io import sha256_arrays
from gped_nas.models.base import num_params

TASK = "box"
_BOUND = "it is a bound, and no estimate"
_MOST_NUMBERS = 2**26
"""Parameters of all samples together whose average is asked: 512 MiB in float64."""
_TOO_LARGE = "the average is left out: all its samples would have to be in memory"
_PROVEN = "it is proven, and no estimate"


def _settings(bench: Bench, file: str) -> Any:
    """What the rows follow from beside the subject: the content of the file, not its name."""
    question = read_box(file, bench.dataset)
    corners = [question.boxes.low.numpy(), question.boxes.high.numpy()]
    text = None if question.region is None else question.region.text
    return [sha256_arrays(*corners), text, question.most_parts]


def _check(bench: Bench, file: str) -> None:
    question = read_box(file, bench.dataset)
    if bench.dataset.task == "classification":
        check_middle(question, f"{OPTION}: {file}")


@add_task(
    TASK,
    "answers anywhere in a box of inputs",
    argument="FILE",
    example="box.yaml",
    metrics=(*VERDICTS, "p_safe", "mean_low", "mean_high", "std_low", "std_high"),
    check=_check,
    settings=_settings,
)
def box(bench: Bench, file: str) -> list[Row]:
    """What is known of each subject in the box of a file."""
    question = read_box(file, bench.dataset)
    for note in question.notes:
        bench.notes.append(f"{bench.task}: {note}")

    table: list[Row] = []
    for subject in bench.subjects:
        try:
            asking = _Asking(bench, subject, file, question, _region(subject, question, bench))
            table += asking.teacher() if subject.kind == TEACHER else asking.network()
        except ConfigError as why:  # its layers, or one of them, have no bounds
            raise LeftOut(str(why)) from None
    return table


def _region(subject: Subject, question: BoxQuestion, bench: Bench) -> Region | None:
    """The safe answers; of a classifier of which nothing is said, the one in the middle."""
    if question.region is not None or bench.dataset.task == "regression":
        return question.region
    predictions = subject.asked().predict(question.boxes.middle)
    assert isinstance(predictions, Predictions), "labels are classes"
    return stays(int(predictions.log_prob_NC[0].argmax()), bench.dataset.class_names)


@dataclass(frozen=True, eq=False)
class _Asking:
    """A subject that is asked, and its rows.

    Attributes:
        bench: where rows are made.
        subject: who is asked.
        file: as the task was asked with it.
        question: what it holds.
        region: the safe answers.
    """

    bench: Bench
    subject: Subject
    file: str
    question: BoxQuestion
    region: Region | None

    @property
    def of_samples(self) -> str:
        """The condition of rows of all samples."""
        return f"{self.file}-samples"

    def network(self) -> list[Row]:
        """The rows of a subject that is one network."""
        started = time.monotonic()
        answer = self._answer(self._one_network(), "network")
        return self._rows_of_one(answer, "network", time.monotonic() - started)

    def _one_network(self) -> AskedNetwork:
        """A student, or another network of classes.

        Raises:
            LeftOut: it is neither.
            ConfigError: its family has no bounds.
        """
        if self.subject.student is not None:
            return asked_student(self.subject.student)
        if self.subject.certifiable is None or self.bench.dataset.task == "regression":
            raise LeftOut("of real labels students and teachers are asked about boxes")
        ((_, forward),) = self.subject.asked().networks()
        return AskedNetwork(self.subject.certifiable(), forward)

    def teacher(self) -> list[Row]:
        """The rows of a teacher's average, and of its samples."""
        teacher = self.bench.teacher
        assert teacher is not None, "it is the subject"
        self.subject.asked()
        started = time.monotonic()
        answers: list[tuple[float, BoxAnswer]] = []
        members: list[tuple[float, AskedNetwork]] = []
        num_samples = teacher.stream.num_samples
        num_weights = num_params(teacher.stream.key.shapes)
        is_small = num_samples * num_weights <= _MOST_NUMBERS
        for index, (weight, asked) in enumerate(asked_samples(teacher)):
            self.bench.session.progress(self.bench.task, index, num_samples + 1)
            if weight > 0:
                answers.append((weight, self._answer(asked, "sample", index)))
                if is_small:
                    members.append((weight, asked))
        table = self._rows_of_samples(answers, time.monotonic() - started)

        self.bench.session.progress(self.bench.task, num_samples, num_samples + 1)
        if not is_small:
            self.bench.notes.append(f"{self.bench.task}: {_TOO_LARGE}")
            return table
        average = AskedAverage(members, teacher.stream.calibration.temperature)
        started = time.monotonic()
        answer = self._answer(average, "average")
        self.bench.session.progress(self.bench.task, num_samples + 1, num_samples + 1)
        return [*self._rows_of_one(answer, "average", time.monotonic() - started), *table]

    def _rows_of_samples(
        self, answers: Sequence[tuple[float, BoxAnswer]], seconds: float
    ) -> list[Row]:
        weights = [weight for weight, _ in answers]
        num, more = len(answers), {"of": "samples", "seconds": round(seconds, 4)}
        table: list[Row] = []
        if self.region is not None:
            verdicts = [answer.judged.verdict for _, answer in answers if answer.judged is not None]
            for verdict in VERDICTS:
                share = share_of(verdict, weights, verdicts)
                table += self._row(verdict, share, self.of_samples, num, why=_PROVEN, **more)
            low, high = safe_probability(weights, verdicts)
            for name, value in (("p_safe_low", low), ("p_safe_high", high)):
                table += self._row(name, value, self.of_samples, num, why=_BOUND, **more)
        for quantity in answers[0][1].intervals:
            interval = widest([answer.intervals[quantity] for _, answer in answers])
            table += self._interval(quantity, interval, self.of_samples, num, more)
        return table

    def _answer(self, asked: Asked, *path: str | int) -> BoxAnswer:
        generator = self.bench.generator("box", *path)
        return answer_box(
            asked,
            self.question,
            self.region,
            generator=generator,
            between=self.bench.session.raise_if_stopped,
        )

    def _rows_of_one(self, answer: BoxAnswer, of: str, seconds: float) -> list[Row]:
        more: dict[str, Any] = {"of": of, "seconds": round(seconds, 4)}
        table: list[Row] = []
        if answer.judged is not None:
            for verdict in VERDICTS:
                value = float(answer.judged.verdict == verdict)
                details = self._details(answer.judged, verdict)
                table += self._row(verdict, value, self.file, 1, why=_PROVEN, **more, **details)
        for quantity, interval in answer.intervals.items():
            table += self._interval(quantity, interval, self.file, 1, more)
        return table

    def _details(self, judged: Judged, verdict: str) -> dict[str, Any]:
        """What else a row of a verdict says."""
        details: dict[str, Any] = {"parts": judged.num_parts}
        if judged.certified_share is not None:
            details["volume"] = judged.certified_share
        if judged.witness is not None and verdict == "broken":
            details["witness"] = self._named(judged.witness)
        return details

    def _named(self, witness: Tensor) -> Any:
        """An input: numbers by column, or a list."""
        preparation = self.bench.dataset.preparation
        if isinstance(preparation, TableColumns):
            return dict(zip(preparation.labels, witness.tolist(), strict=True))
        return witness.tolist()

    def _interval(
        self,
        quantity: Quantity,
        interval: Enclosure,
        condition: str,
        n: int,
        more: Mapping[str, Any],
    ) -> list[Row]:
        ends = {"low": (interval.low, interval.reached_low)}
        ends["high"] = (interval.high, interval.reached_high)
        table: list[Row] = []
        for end, (value, reached) in ends.items():
            name = f"{quantity}_{end}"
            table += self._row(name, value, condition, n, why=_BOUND, reached=reached, **more)
        return table

    def _row(
        self, metric: str, value: float, condition: str, n: int, *, why: str, **more: Any
    ) -> list[Row]:
        key = Key(metric, condition, self.bench.part)
        measured = Measured(value, n=n, why=why)
        if self.region is not None:
            more["safe"] = self.region.text
        return self.bench.rows(self.subject, {key: measured}, box=self.question.name, **more)
