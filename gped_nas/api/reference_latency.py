"""The latency of what a front is compared with: a teacher's average, a network of it, a student."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from gped_nas.api.latency import costs_of
from gped_nas.api.measuring import can_be_asked, ensemble
from gped_nas.api.references import Contender
from gped_nas.api.teacher import Teacher
from gped_nas.api.timing import Timed, probe, time_all, time_predictor, time_student
from gped_nas.errors import ConfigError
from gped_nas.evaluate.latency import LatencyConfig
from gped_nas.evaluate.student import StudentPredictor

_NETWORK = "network"
"""One of the teacher's networks; so is the MAP network, which has the same genotype."""


def time_references(contenders: Sequence[Contender], teacher: Teacher) -> list[Contender]:
    """References with the latency of those that can be served, where the space asks for it.

    A teacher's networks are of one size, so one time is that of the single sample and of the MAP
    network. The guess has none, and neither have a teacher that cannot be asked, whose samples are
    not stored for example, and its networks.

    Args:
        contenders: of a study, its teacher's average among them.
        teacher: the study's.

    Raises:
        EnvironmentProblem: ONNX Runtime is asked for and not installed.
    """
    cfg = teacher.space.latency
    if cfg is None:
        return list(contenders)

    timed: dict[str, Timed] = {}
    for contender in contenders:
        predictor = contender.predictor
        if isinstance(predictor, StudentPredictor):
            timed[contender.name] = time_student(predictor.student, cfg)
    problem = ""
    try:
        timed |= _networks(teacher, cfg)
    except ConfigError as error:  # a user's module that torch cannot export
        problem = f" Its latency is not known: {error}."

    latencies = dict(zip(timed, time_all(list(timed.values()), cfg), strict=True))
    results = []
    for contender in contenders:
        name = _NETWORK if contender.name in ("single_sample", "map") else contender.name
        if name in timed:
            note = timed[name].note
            costs = {**contender.costs, **costs_of(latencies[name])}
            text = contender.note + (f" For its latency {note}." if note else "")
            contender = replace(contender, costs=costs, note=text)
        elif contender.name == "teacher":
            contender = replace(contender, note=contender.note + problem)
        results.append(contender)
    return results


def _networks(teacher: Teacher, cfg: LatencyConfig) -> dict[str, Timed]:
    """The teacher's average and its single networks, to be timed on the processor."""
    if not can_be_asked(teacher):
        return {}

    dataset = teacher.dataset
    on_cpu = replace(teacher, session=replace(teacher.session, device=torch.device("cpu")))
    raw = probe(dataset.raw_shape, dataset.normalization, cfg.batch)
    is_log = dataset.task == "classification"
    num = teacher.stream.num_samples
    average = time_predictor(ensemble(on_cpu), raw, num, cfg, is_log=is_log)
    network = time_predictor(ensemble(on_cpu, [0]), raw, 1, cfg, is_log=is_log)
    return {"teacher": average, _NETWORK: network}
