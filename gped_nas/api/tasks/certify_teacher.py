"""What the task ``certify`` says of a teacher: of its average, its stored samples, and their law.

* Of the ``average``, the answer that is served, as of any network: certified, broken or unknown.
* Of the stored ``samples`` the exact weighted share that is certified, and that is broken, on
  average over the inputs. They are sums, and no estimates of other samples.
* Of the ``law`` behind the samples, where they are independent draws of one: with a confidence, how
  large a share of its draws is certified at least, and how large a one is broken.
* Of the ``weights`` of a Gaussian over the last layer, how much of its mass boxes certify.
"""

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from gped_nas.api.certify_names import CROWN, EXACT, TASK, CertifyName, Word
from gped_nas.api.certifying_teachers import (
    FRESH_DRAWS,
    Boxed,
    judge_average,
    judge_last_layer,
    judge_law,
    judge_stream,
)
from gped_nas.api.tasks.base import LeftOut, Row
from gped_nas.api.tasks.bench import Bench, Subject
from gped_nas.api.tasks.certify_shares import rows_of_shares, rows_of_verdicts
from gped_nas.api.teacher import Teacher
from gped_nas.errors import ConfigError
from gped_nas.evaluate.certify.box import linf_box
from gped_nas.evaluate.certify.breaking import Attack
from gped_nas.evaluate.certify.stream import SampleVerdicts
from gped_nas.evaluate.certify.verdict import BROKEN, Judged
from gped_nas.posterior.draws import check_law
from gped_nas.posterior.laplace import LaplaceConfig

ATTACK: Attack = "apgd"
"""What looks for inputs that break the average."""
DRAWS = FRESH_DRAWS
_DEPENDENT = 0.05
"""The p-value of the test of runs below which it is said that draws do not look independent."""


@dataclass(frozen=True, eq=False)
class _Known:
    """What is known by some bounds.

    Attributes:
        samples: of each stored sample.
        average: of the answer that is served.
        seconds: that the samples took.
    """

    samples: SampleVerdicts
    average: Judged
    seconds: float


def teacher_rows(bench: Bench, subject: Subject, name: CertifyName) -> list[Row]:
    """The rows of the teacher.

    Raises:
        LeftOut: exact bounds are asked for.
        ConfigError: its networks have no bounds.
        Interrupted: the session said stop.
    """
    assert bench.teacher is not None, "it is the subject"
    if name.bounds == (EXACT,):
        raise LeftOut("a programme decides single networks, and its answer is an average of them")

    table: list[Row] = []
    for word in name.bounds:
        known = _known(bench, bench.teacher, name, word)
        bench.save(subject, known.average.inputs, name.under(word))
        table += rows_of_verdicts(bench, subject, name, word, known.average, "average")
        table += rows_of_shares(
            bench,
            subject,
            name,
            word,
            (known.samples.certified_share_N, 1 - known.samples.unbroken_share_N),
            of="samples",
            seconds=known.seconds,
            samples=len(known.samples.weight_S),
        )
    table += _law_rows(bench, subject, bench.teacher, name)
    return table + _weight_rows(bench, subject, bench.teacher, name)


def _known(bench: Bench, teacher: Teacher, name: CertifyName, word: Word) -> _Known:
    """What some bounds prove. What is broken is looked for once, where CROWN proves nothing."""
    key = f"{TASK} of the teacher {name.epsilon} {word}"
    if key not in bench.memory:
        if word == CROWN:
            bench.memory[key] = _judged(bench, teacher, name, word)
        else:
            broken = _known(bench, teacher, name, CROWN)
            bench.memory[key] = _judged(bench, teacher, name, word, broken)
    known: _Known = bench.memory[key]
    return known


def _judged(
    bench: Bench, teacher: Teacher, name: CertifyName, word: Word, broken: _Known | None = None
) -> _Known:
    assert word != EXACT, "it was left out"
    boxed, generator = _boxed(bench, name), bench.generator(TASK, str(name.epsilon))
    started = time.monotonic()
    if broken is None:
        samples = judge_stream(teacher, boxed, generator=generator, bounds=word)
        seconds = time.monotonic() - started
        average = judge_average(teacher, boxed, samples, generator=generator, attack=ATTACK)
        return _Known(samples, average, seconds)

    samples = judge_stream(teacher, boxed, generator=generator, bounds=word, attack="none")
    samples = replace(samples, is_broken_SN=broken.samples.is_broken_SN)
    seconds = time.monotonic() - started
    average = judge_average(teacher, boxed, samples, generator=generator, attack="none")
    average.verdict_N[broken.average.verdict_N == BROKEN] = BROKEN
    average.seconds["attack"] = broken.average.seconds["attack"]
    average = replace(average, inputs=broken.average.inputs, notes=broken.average.notes)
    return _Known(samples, average, seconds)


def _boxed(bench: Bench, name: CertifyName) -> Boxed:
    raw = bench.raw[:]
    label_N = torch.as_tensor(bench.labels, dtype=torch.int64)
    return Boxed(raw, label_N, linf_box(raw, bench.dataset.scale, name.epsilon))


def _law_rows(bench: Bench, subject: Subject, teacher: Teacher, name: CertifyName) -> list[Row]:
    """The rows of the law by the last kind of bounds that is asked for; of a chain why not."""
    space, word = teacher.space, name.bounds[-1]
    assert word != EXACT, "it was left out"
    try:
        check_law(space.method, space.source)
    except ConfigError as why:
        bench.notes.append(f"{subject.name}: there is no row of a law: {why}")
        return []

    started = time.monotonic()
    law = judge_law(
        teacher,
        _boxed(bench, name),
        generator=bench.generator(TASK, "law", str(name.epsilon)),
        num_draws=DRAWS,
        bounds=word,
    )
    about: dict[str, Any] = {
        "draws": law.num_draws,
        "confidence": law.confidence,
        "p_value": law.p_value,
    }
    if law.p_value < _DEPENDENT:
        about["note"] = f"draws do not look independent: a test of runs gives p {law.p_value:.3g}"
    return rows_of_shares(
        bench,
        subject,
        name,
        word,
        (law.low_N, 1 - law.high_N),
        of="law",
        seconds=time.monotonic() - started,
        why=f"certified and broken are bounds that hold with confidence {law.confidence:g}",
        **about,
    )


def _weight_rows(bench: Bench, subject: Subject, teacher: Teacher, name: CertifyName) -> list[Row]:
    """The rows of a Gaussian over the last layer; none of any other law."""
    word = name.bounds[-1]
    assert word != EXACT, "it was left out"
    if not isinstance(teacher.space.method, LaplaceConfig):
        return []

    started = time.monotonic()
    log10_N = judge_last_layer(teacher, _boxed(bench, name), bounds=word)
    largest = float(log10_N.max())
    log10_mean = None
    if largest > -np.inf:
        log10_mean = largest + float(np.log10(np.mean(10 ** (log10_N - largest))))
    return rows_of_shares(
        bench,
        subject,
        name,
        word,
        (10**log10_N, np.zeros_like(log10_N)),
        of="weights",
        seconds=time.monotonic() - started,
        why="certified is a lower bound of a mass, by boxes of weights, and no estimate",
        log10_mass=log10_mean,
    )
