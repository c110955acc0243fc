"""The task ``latency``: how long teacher, networks and students take to answer, side by side.

``latency`` times ONNX Runtime and torch with batches of 1 and 256, ``latency:onnx`` the first of
them, and ``latency:onnx-32`` a batch of 32. Every subject answers inputs of the training part's
spread, none of them an example of a part; all of them are timed in turn, see
``evaluate.latency``.
"""

import re
from functools import partial
from typing import Any, get_args

import torch

from gped_nas.api.latency import costs_of, machine_of
from gped_nas.api.tasks.base import OPTION, LeftOut, Row, add_task
from gped_nas.api.tasks.bench import TEACHER, Bench, Subject
from gped_nas.api.timing import Timed, probe, time_all, time_predictor, time_student
from gped_nas.config import parse
from gped_nas.errors import ConfigError
from gped_nas.evaluate.latency import LatencyConfig, Runtime
from gped_nas.evaluate.measured import Key, Measured

BATCHES = (1, 256)
"""Inputs of a call: one, as a user waits for it, and many, as a server gathers them."""
WHY = "calls on one machine have none"
_ASKED = re.compile(r"(?P<runtime>[a-z0-9]+)-(?P<batch>[1-9]\d{0,5})")
_EXPECTED = "expected onnx or torch, alone or with a batch such as onnx-32"


def _expand(argument: str) -> list[str]:
    """Each runtime and batch by itself."""
    if not argument:
        return [text for runtime in get_args(Runtime) for text in _expand(runtime)]
    if argument not in get_args(Runtime):
        return [argument]
    return [f"{argument}-{batch}" for batch in BATCHES]


def parse_argument(argument: str) -> LatencyConfig:
    """How predictors are timed.

    Args:
        argument: ``"onnx-1"``.

    Raises:
        ConfigError: it is no runtime and batch.
    """
    match = _ASKED.fullmatch(argument)
    if match is None:
        raise ConfigError(f"{OPTION}: found 'latency:{argument}', {_EXPECTED}")
    asked = {"runtime": match["runtime"], "batch": int(match["batch"])}
    return parse(LatencyConfig, asked, f"{OPTION}: latency:{argument}")


def _check(bench: Bench, argument: str) -> None:
    """Refuse an argument that is none, or a runtime that is not installed."""
    machine_of(parse_argument(argument))


def _machine(bench: Bench, argument: str) -> dict[str, Any]:
    """What latencies hold for: on another machine they are measured anew."""
    cfg = parse_argument(argument)
    return machine_of(cfg, _device(bench, cfg))


def _device(bench: Bench, cfg: LatencyConfig) -> torch.device:
    """Where a runtime computes."""
    return bench.session.device if cfg.runtime == "torch" else torch.device("cpu")


@add_task(
    "latency",
    "how long an answer takes",
    argument="RUNTIME[-BATCH]",
    default="",
    is_together=True,
    metrics=("latency_",),
    check=_check,
    expand=_expand,
    settings=_machine,
)
def latency(bench: Bench, argument: str) -> list[Row]:
    """The median time of a call in ms, and the 95th percentile, of every subject."""
    cfg = parse_argument(argument)
    device = _device(bench, cfg)
    timed: list[tuple[Subject, Timed]] = []
    for subject in bench.subjects:
        bench.session.raise_if_stopped()
        try:
            timed.append((subject, _timed(bench, subject, cfg, device)))
        except LeftOut as why:
            bench.leave_out(subject, str(why))
        except ConfigError as error:  # a user's module that torch cannot export
            bench.leave_out(subject, str(error))

    latencies = time_all([item for _, item in timed], cfg)
    table: list[Row] = []
    for (subject, item), measured in zip(timed, latencies, strict=True):
        measures = {
            Key(name, part=bench.part): Measured(value, n=measured.repeats, why=WHY)
            for name, value in costs_of(measured).items()
        }
        extra: dict[str, Any] = {
            "runtime": cfg.runtime,
            "batch": cfg.batch,
            "threads": cfg.threads,
            "machine": machine_of(cfg, device),
        }
        if item.note:
            extra["note"] = item.note
        table += bench.rows(subject, measures, **extra)
    return table


def _timed(bench: Bench, subject: Subject, cfg: LatencyConfig, device: torch.device) -> Timed:
    """A subject as a call.

    Raises:
        LeftOut: it cannot be asked.
        ConfigError: it cannot be exported.
    """
    if subject.student is not None:
        return time_student(subject.student, cfg, device)

    dataset = bench.dataset
    raw = probe(dataset.raw_shape, dataset.normalization, cfg.batch)
    num = 1
    if subject.kind == TEACHER and bench.teacher is not None:
        num = bench.teacher.stream.num_samples
    ask = partial(time_predictor, subject.asked(), raw, num, cfg)
    return ask(is_log=dataset.task == "classification")
