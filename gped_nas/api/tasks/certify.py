"""The task ``certify:linf-RADIUS``: answers that no input within a radius can change.

Each input is certified, broken or unknown, see ``evaluate.certify.verdict``; the shares of the
three sum to 1. ``certify:linf-0.01..0.1`` is a curve, and ``certify:linf-0.03-exact`` decides what
bounds leave open, see ``api.certify_names``.

Rows beside those of ``evaluate.measured.rows`` have ``epsilon``, ``radius`` (in the data's unit),
``bounds``, ``of`` (``network``, or of a teacher ``average``, ``samples`` or ``law``) and
``seconds``. That of the metric ``certified`` has ``each``: what is known of every input.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gped_nas.api.certify_names import CROWN, EXACT, TASK, CertifyName, Word, parse_names
from gped_nas.api.session import Session
from gped_nas.api.tasks.base import OPTION, LeftOut, Row, add_task
from gped_nas.api.tasks.bench import TEACHER, Bench, Subject
from gped_nas.api.tasks.certify_shares import rows_of_verdicts
from gped_nas.api.tasks.certify_teacher import teacher_rows
from gped_nas.errors import ConfigError
from gped_nas.evaluate.certify.bounds import Bounds
from gped_nas.evaluate.certify.box import Box, linf_box
from gped_nas.evaluate.certify.breaking import Attack
from gped_nas.evaluate.certify.exact import exact_settings
from gped_nas.evaluate.certify.networks import CertifiableNetwork
from gped_nas.evaluate.certify.verdict import BROKEN, UNKNOWN, VERDICTS, Judged, judge
from gped_nas.evaluate.conditions import Forward, Predictor
from gped_nas.evaluate.predictions import AnyPredictions

ATTACK: Attack = "apgd"
"""What looks for inputs that break answers: gradients, towards the nine likeliest classes."""
_TOGETHER = 500
"""Inputs that are judged at a time: between them it is asked whether to stop."""


def _parse(argument: str) -> CertifyName:
    (name,) = parse_names(argument, OPTION)
    return name


def _check(bench: Bench, argument: str) -> None:
    """Refuse a radius, or inputs, that have no box."""
    linf_box(bench.raw[:], bench.dataset.scale, _parse(argument).epsilon)


@add_task(
    TASK,
    "answers that no input within a radius can change",
    argument="linf-RADIUS",
    example="linf-0.03",
    kinds=("classification",),
    metrics=VERDICTS,
    check=_check,
    expand=lambda argument: [name.text for name in parse_names(argument, OPTION)],
)
def certify(bench: Bench, argument: str) -> list[Row]:
    """The shares of inputs that are certified, broken and unknown, by each kind of bounds."""
    name = _parse(argument)
    table: list[Row] = []
    for subject in bench.subjects:
        try:
            table += _of_subject(bench, subject, name)
        except ConfigError as why:  # its layers, or one of them, have no bounds
            raise LeftOut(str(why)) from None
    return table


def _of_subject(bench: Bench, subject: Subject, name: CertifyName) -> list[Row]:
    """The rows of one subject.

    Raises:
        LeftOut: it cannot be asked.
        ConfigError: it has no bounds.
    """
    subject.asked()
    if subject.kind == TEACHER:
        return teacher_rows(bench, subject, name)
    if subject.certifiable is None:
        raise LeftOut("it is no network whose layers are known")

    table: list[Row] = []
    judging = _Judging(bench, subject, subject.certifiable(), name.epsilon)
    for word in name.bounds:
        judged = judging.by(word, name.time_limit)
        bench.save(subject, judged.inputs, name.under(word))
        table += rows_of_verdicts(bench, subject, name, word, judged, "network")
    return table


@dataclass(frozen=True, eq=False)
class _Judging:
    """One network within a radius. Its attack is made once, whatever bounds are asked for.

    Attributes:
        bench: whose examples are judged.
        subject: who answers.
        network: it, as layers.
        epsilon: the radius.
    """

    bench: Bench
    subject: Subject
    network: CertifiableNetwork
    epsilon: float

    def by(self, word: Word, time_limit: float) -> Judged:
        """The verdicts by some bounds.

        Args:
            word: which ones.
            time_limit: seconds an input, of exact ones.
        """
        if word == CROWN:
            return self._attacked()
        if word == EXACT:
            return self._closed(time_limit)

        # no input that is broken can be certified, so that what broke holds whatever the bounds
        attacked = self._attacked()
        judged = self._judge(word, "none")
        judged.verdict_N[attacked.verdict_N == BROKEN] = BROKEN
        judged.seconds["attack"] = attacked.seconds["attack"]
        return replace(judged, inputs=attacked.inputs, notes=attacked.notes)

    def _attacked(self) -> Judged:
        """By CROWN, and attacked where that proves nothing."""
        key = f"{TASK} {self.subject.digest} {self.epsilon}"
        if key not in self.bench.memory:
            self.bench.memory[key] = self._judge("crown", ATTACK)
        known: Judged = self.bench.memory[key]
        return known

    def _judge(self, bounds: Bounds, attack: Attack) -> Judged:
        """Some inputs at a time."""
        bench = self.bench
        box = self._box()
        generator = bench.generator(TASK, str(self.epsilon))
        parts = []
        for rows in self._batches(len(box)):
            some = judge(
                self.network,
                self.subject.asked(),
                bench.raw[rows],
                bench.labels[rows],
                Box(box.low[rows], box.high[rows]),
                generator=generator,
                bounds=bounds,
                attack=attack,
            )
            parts.append(some)
        return _joined(parts)

    def _closed(self, time_limit: float) -> Judged:
        """By a programme for each input that is unknown."""
        known, box = self._attacked(), self._box()
        places = known.places(UNKNOWN)
        closed = judge(
            self.network,
            _Watched(self.subject.asked(), self.bench.session),
            self.bench.raw[places],
            self.bench.labels[places],
            Box(box.low[places], box.high[places]),
            generator=self.bench.generator(TASK, str(self.epsilon)),
            attack="none",
            exact=exact_settings(time_limit),
        )

        verdict_N, lead_N = known.verdict_N.copy(), known.lead_N.copy()
        inputs = known.inputs.clone()
        verdict_N[places], lead_N[places] = closed.verdict_N, closed.lead_N
        inputs[places] = closed.inputs
        seconds = {**known.seconds, "exact": closed.seconds["exact"]}
        return Judged(verdict_N, lead_N, inputs, seconds, [*known.notes, *closed.notes])

    def _box(self) -> Box:
        return linf_box(self.bench.raw[:], self.bench.dataset.scale, self.epsilon)

    def _batches(self, num: int) -> Iterator[slice]:
        """Some inputs at a time; before each it is asked whether to stop."""
        bench = self.bench
        for start in range(0, num, _TOGETHER):
            bench.session.raise_if_stopped()
            bench.session.progress(bench.task, start, num)
            yield slice(start, start + _TOGETHER)
        bench.session.progress(bench.task, num, num)


@dataclass(frozen=True, eq=False)
class _Watched:
    """A predictor that asks whether to stop before it is asked: a programme may take a minute.

    Attributes:
        predictor: who answers.
        session: whom it asks.
    """

    predictor: Predictor
    session: Session

    def networks(self) -> Iterator[tuple[float, Forward]]:
        """See ``conditions.Predictor``."""
        self.session.raise_if_stopped()
        return self.predictor.networks()

    def predict(self, raw: Tensor) -> AnyPredictions:
        """See ``conditions.Predictor``."""
        self.session.raise_if_stopped()
        return self.predictor.predict(raw)


def _joined(parts: Sequence[Judged]) -> Judged:
    """What is known of some inputs after the other, as of all together."""
    seconds = Counter[str]()
    for part in parts:
        seconds.update(part.seconds)
    notes = dict.fromkeys(note for part in parts for note in part.notes)
    return Judged(
        np.concatenate([part.verdict_N for part in parts]),
        np.concatenate([part.lead_N for part in parts]),
        torch.cat([part.inputs for part in parts]),
        dict(seconds),
        list(notes),
    )
