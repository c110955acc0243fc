"""The task ``scaling``: what a teacher's samples take, and what more of them and wider ones give.

It is measured of the teacher at three widths: half of its own, its own and twice it; ``scaling:4``
is four times its own. A teacher of another width is sampled by the same settings, and kept like any
other. The rows of a width:

* ``seconds_a_sample`` and ``seconds_an_effective_sample``: the time of sampling over the number of
  samples, and over the effective sample size that half of the probabilities on validation reach,
  all chains together.
* Of 1, 2, 4 and so on up to all S samples, in the order in which they were drawn: ``nll_of_4`` on
  the part, ``peak_bytes_of_4`` of tensors while so many networks are loaded and answer a batch of
  256, and ``latency_ms_of_4`` of their average over a batch of 1, by torch on the session's device.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from gped_nas.api.diagnosis import diagnose
from gped_nas.api.latency import costs_of, machine_of
from gped_nas.api.measuring import ensemble
from gped_nas.api.tasks.base import OPTION, Row, add_task
from gped_nas.api.tasks.bench import TEACHER, Answers, Bench, Subject
from gped_nas.api.tasks.latency import WHY
from gped_nas.api.teacher import Teacher, sample_teacher
from gped_nas.api.timing import MOST_NETWORKS, probe, time_all, time_predictor
from gped_nas.api.tuned import with_teacher
from gped_nas.errors import ConfigError
from gped_nas.evaluate.conditions import Forward, Predictor
from gped_nas.evaluate.latency import LatencyConfig
from gped_nas.evaluate.measured import Key, Measured
from gped_nas.evaluate.memory import PeakMemory
from gped_nas.evaluate.teacher import averaged

FACTORS = (0.5, 1.0, 2.0)
_WIDTHS = ("width", "head_width")
_MEMORY_BATCH = 256
_TIMED = LatencyConfig(runtime="torch")
_NO_INTERVAL = "one run of sampling has none"


def _expand(argument: str) -> list[str]:
    return [argument] if argument else [f"{factor:g}" for factor in FACTORS]


def _factor(argument: str) -> float:
    """By what the widths are multiplied.

    Raises:
        ConfigError: it is no positive number.
    """
    try:
        factor = float(argument)
    except ValueError:
        factor = math.nan
    if not 0 < factor < math.inf:
        raise ConfigError(
            f"{OPTION}: found 'scaling:{argument}', expected by what the teacher's widths are "
            "multiplied, such as 0.5"
        )
    return factor


def _check(bench: Bench, argument: str) -> None:
    """Refuse what has no samples, or no width that could be another one."""
    factor = _factor(argument)
    if bench.teacher is None:
        raise ConfigError(f"{OPTION}: found 'scaling' of a student alone, expected a teacher")

    space = bench.teacher.space
    if not bench.teacher.stream.has_weights or not bench.teacher.stream.is_stored:
        raise ConfigError(
            f"{OPTION}: found 'scaling', but the teacher's samples are not stored as weights; "
            "leave it out"
        )
    is_bound = space.module is not None or space.method.name == "import"
    if factor != 1 and is_bound:
        raise ConfigError(
            f"{OPTION}: found 'scaling:{argument}', but this teacher has one width; write scaling:1"
        )


def _machine(bench: Bench, argument: str) -> dict[str, Any]:
    return machine_of(_TIMED, bench.session.device)


@add_task(
    "scaling",
    "what samples and widths of the teacher take and give",
    argument="FACTOR",
    default="",
    is_together=True,
    metrics=("seconds_a", "nll_of_", "peak_bytes_of_", "latency_ms_of_"),
    check=_check,
    expand=_expand,
    settings=_machine,
)
def scaling(bench: Bench, argument: str) -> list[Row]:
    """What sampling took, and NLL, memory and latency by the number of samples."""
    subject = next((each for each in bench.subjects if each.kind == TEACHER), None)
    assert bench.teacher is not None, "it was checked"
    if subject is None:
        bench.leave_out(bench.subjects[0], "it is of the teacher alone")
        return []

    teacher = at_width(bench.teacher, _factor(argument))
    extra = {
        "genotype": str(teacher.space.genotype),
        "device": str(bench.session.device),
        "machine": _machine(bench, argument),
    }
    table = bench.rows(subject, _seconds(bench, teacher), **extra)
    for num in numbers_of_samples(teacher.stream.num_samples):
        bench.session.raise_if_stopped()
        table += bench.rows(
            subject, _of_samples(bench, subject, teacher, num), **extra, samples=num
        )
    return table


def numbers_of_samples(num: int) -> list[int]:
    """1, 2, 4 and so on, and all of them."""
    return sorted({2**i for i in range(num.bit_length())} | {num})


def at_width(teacher: Teacher, factor: float) -> Teacher:
    """The teacher whose widths are multiplied; it is sampled if it is not there.

    Raises:
        Interrupted: the session said stop; the next call goes on from there.
        ConfigError: a network of that width cannot be built.
        GpedError: see ``sample_teacher``.
    """
    if factor == 1:
        return teacher
    space = teacher.space
    settings = space.resolved["teacher"]
    block = {**settings, "genotype": wider(settings["genotype"], factor)}
    return sample_teacher(with_teacher(space, block), teacher.session, dataset=teacher.dataset)


def wider(genotype: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """The values of a genotype with its widths multiplied, whole and at least 1."""

    def scaled(width: Any) -> Any:
        if isinstance(width, list | tuple):
            return [scaled(each) for each in width]
        return max(1, round(width * factor))

    widths = {name: scaled(genotype[name]) for name in _WIDTHS if genotype.get(name)}
    return {**genotype, **widths}


def _seconds(bench: Bench, teacher: Teacher) -> dict[Key, Measured]:
    """What sampling took for a sample, and for an effective one."""
    stream = teacher.stream
    seconds = stream.sampling_seconds * stream.num_samples / stream.num_sealed
    why = "" if seconds else "its samples were not timed"
    a_sample = seconds / stream.num_samples if seconds else None

    diagnosis = diagnose(teacher)
    mixing = diagnosis.mixing.get("probabilities") or diagnosis.mixing.get("means")
    an_effective_sample = None
    why_effective = why or diagnosis.missing.get("R-hat and ESS", "no quantity could be looked at")
    if seconds and mixing is not None and mixing.ess is not None:
        an_effective_sample, why_effective = seconds / mixing.ess[0], _NO_INTERVAL

    def measured(value: float | None, why: str) -> Measured:
        return Measured(value, n=stream.num_samples, why=why)

    return {
        Key("seconds_a_sample", part=bench.part): measured(a_sample, why or _NO_INTERVAL),
        Key("seconds_an_effective_sample", part=bench.part): measured(
            an_effective_sample, why_effective
        ),
    }


def _of_samples(bench: Bench, subject: Subject, teacher: Teacher, num: int) -> dict[Key, Measured]:
    """NLL, memory and latency of the average of the first samples."""
    predicted = teacher.predicted(bench.part)[:num]
    average = averaged(
        predicted, teacher.stream.weight_S[:num], teacher.dataset.label_normalization
    )
    answers = Answers(subject, bench.examples.of(average), None, bench.raw)
    measures = bench.measures(answers, ["nll"])
    nll = next(iter(measures.values()))

    first = _First(teacher, num)
    raw = probe(teacher.dataset.raw_shape, teacher.dataset.normalization, _MEMORY_BATCH)
    is_log = teacher.dataset.task == "classification"
    timed = time_predictor(first, raw[:1], num, _TIMED, is_log=is_log)
    (latency,) = time_all([timed], _TIMED)
    median_ms = costs_of(latency)["latency_ms"]
    return {
        Key(f"nll_of_{num}", part=bench.part): nll,
        Key(f"peak_bytes_of_{num}", part=bench.part): Measured(
            peak_bytes(first, raw, num), n=num, why="it is counted"
        ),
        Key(f"latency_ms_of_{num}", part=bench.part): Measured(
            median_ms, n=latency.repeats, why=WHY
        ),
    }


@dataclass(frozen=True)
class _First:
    """The first samples of a teacher, each with its own copy of its weights."""

    teacher: Teacher
    num: int

    def networks(self) -> Iterator[tuple[float, Forward]]:
        """Them, weighted alike: what is measured does not depend on weights."""
        for index in range(self.num):
            params = self.teacher.stream.params(index)
            copies = {name: value.clone() for name, value in params.items()}
            yield 1 / self.num, self.teacher.forward(copies)

    def predict(self, raw: Tensor) -> Any:
        """Their average."""
        return ensemble(self.teacher, range(self.num)).predict(raw)


@torch.no_grad()
def peak_bytes(predictor: Predictor, raw: Tensor, num: int) -> int:
    """Bytes of tensors while all networks are loaded and answer, one after another.

    More than ``MOST_NETWORKS`` of them are not loaded: each further one has as many bytes as the
    last.
    """
    loaded, sizes = min(num, MOST_NETWORKS), [0]
    with PeakMemory() as memory:
        networks = []
        for network in islice(predictor.networks(), loaded):
            networks.append(network)
            sizes.append(memory.bytes)
        average = torch.zeros(())
        for weight, forward in networks:
            average = average.to(raw.device) + weight * forward(raw).to(raw.device)
    return int(memory.peak) + (num - loaded) * (sizes[-1] - sizes[-2])
