"""Predictors as calls that can be timed: a student, a network, the average of a teacher.

A call takes raw float32 inputs of one batch and ends with all that a server would send. Of a
student these are all its outputs, of other predictors their average. With ONNX Runtime a student is
the graph that ``export --to onnx`` writes. A teacher's average is what it is served as: each of its
networks answers, one after another, and their answers are added up by weight. Of more than
``MOST_NETWORKS`` networks as many are timed, spread evenly, and the time is multiplied; each has
its own weights in memory.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.data.normalization import AnyNormalization
from gped_nas.distill.answers import answers
from gped_nas.distill.student import Student
from gped_nas.evaluate.conditions import Forward, Predictor
from gped_nas.evaluate.latency import Call, Clock, Latency, LatencyConfig, time_calls
from gped_nas.export.graph import INPUT
from gped_nas.export.onnx import forward_bytes, onnx_bytes, onnx_session, require_onnx
from gped_nas.models.storage import encode

MOST_NETWORKS = 20


@dataclass(frozen=True)
class Timed:
    """A call to be timed.

    Attributes:
        call: answers one batch.
        factor: of how many such calls the predictor's answer consists.
        note: what is to be said of the time; empty where it is the predictor's own.
    """

    call: Call
    factor: float = 1.0
    note: str = ""


def time_all(
    timed: Sequence[Timed], cfg: LatencyConfig, clock: Clock | None = None
) -> list[Latency]:
    """The latency of each predictor, all of them timed in turn."""
    clocks: dict[str, Any] = {} if clock is None else {"clock": clock}
    calls = [item.call for item in timed]
    latencies = time_calls(calls, threads=cfg.threads, repeats=cfg.repeats, **clocks)
    return [latency.times(item.factor) for latency, item in zip(latencies, timed, strict=True)]


def probe(shape: Sequence[int], normalization: AnyNormalization, batch: int) -> Tensor:
    """Raw float32 inputs (batch, *shape), spread as the training inputs were; always the same."""
    generator = rng.generator(0, "latency", "probe")
    return normalization.invert(torch.randn((batch, *shape), generator=generator))


def time_student(student: Student, cfg: LatencyConfig, device: torch.device | None = None) -> Timed:
    """A student, from raw inputs to all its outputs.

    Args:
        student: wherever it lies; it stays there.
        cfg: how it is timed.
        device: where torch computes; the processor by default.

    Raises:
        EnvironmentProblem: ONNX Runtime is asked for and not installed.
    """
    spec = student.spec
    raw = probe(spec.input_shape, spec.normalization, cfg.batch)
    if cfg.runtime == "torch":
        asked = copy.deepcopy(student).to(device or torch.device("cpu"))
        return Timed(_predict(asked, raw, device))
    return time_graph(onnx_bytes(spec, encode(student.params, spec.storage_dtype)), raw, cfg)


def _predict(student: Student, raw: Tensor, device: torch.device | None) -> Call:
    """A student's own answer; on a device until it is back on the processor."""
    if device is None or device.type == "cpu":
        return lambda: student.predict(raw, batch_size=len(raw))

    @torch.no_grad()
    def call() -> dict[str, Tensor]:
        said = answers(student.spec, student(raw.to(device)))
        return {name: answer.cpu() for name, answer in said.items()}

    return call


def time_graph(data: bytes, raw: Tensor, cfg: LatencyConfig) -> Timed:
    """An exported graph, asked by ONNX Runtime."""
    session = onnx_session(data, cfg.threads)
    feed = {INPUT: raw.numpy()}
    return Timed(lambda: session.run(None, feed))


def time_predictor(
    predictor: Predictor, raw: Tensor, num: int, cfg: LatencyConfig, *, is_log: bool
) -> Timed:
    """The average over the networks of a predictor.

    Args:
        predictor: who is asked.
        raw: one batch of raw inputs, float32.
        num: how many networks it has.
        cfg: how it is timed.
        is_log: whether they give log-probabilities.

    Raises:
        EnvironmentProblem: ONNX Runtime is asked for and not installed.
        ConfigError: its networks cannot be exported.
    """
    num_timed = min(num, MOST_NETWORKS)
    networks = list(islice(predictor.networks(), num_timed))
    weights = [weight for weight, _ in networks]
    forwards = [forward for _, forward in networks]
    if cfg.runtime == "torch":
        call = _torch_average(forwards, weights, raw, is_log)
    else:
        call = _onnx_average(forwards[0], weights, raw, cfg, is_log)

    note = f"{num_timed} of {num} networks were timed" if num > num_timed else ""
    return Timed(call, num / num_timed, note)


def _torch_average(
    forwards: Sequence[Forward], weights: Sequence[float], raw: Tensor, is_log: bool
) -> Call:
    @torch.no_grad()
    def call() -> Tensor:
        average = torch.zeros(())
        for weight, forward in zip(weights, forwards, strict=True):
            answer = forward(raw)
            average = average.to(answer.device) + weight * (answer.exp() if is_log else answer)
        return average.cpu()  # waits for a device

    return call


def _onnx_average(
    forward: Forward,
    weights: Sequence[float],
    raw: Tensor,
    cfg: LatencyConfig,
    is_log: bool,
) -> Call:
    """The average by ONNX Runtime, a session a network.

    The time does not depend on the values of weights, but on whether they lie in the caches: so all
    sessions are of one network's file, and each reads it into memory of its own.
    """
    require_onnx()
    data = forward_bytes(forward, raw)
    sessions = [onnx_session(data, cfg.threads) for _ in weights]
    feed = {INPUT: raw.numpy()}

    def call() -> object:
        average = 0.0
        for weight, session in zip(weights, sessions, strict=True):
            (answer,) = session.run(None, feed)
            average += weight * (np.exp(answer) if is_log else answer)
        return average

    return call
