"""The latency of a study's students: measured alone, on one machine, where the space asks for it.

A latency holds for the machine that it was measured on. A study that has some says which one, and
goes on nowhere else: its front would compare students by the machines they met.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from gped_nas.api.timing import time_all, time_student
from gped_nas.data.base import Dataset
from gped_nas.distill.student import Student, StudentSpec
from gped_nas.errors import StudyError
from gped_nas.evaluate.latency import Latency, LatencyConfig, differences, machine
from gped_nas.export.onnx import require_onnx
from gped_nas.models.base import Genotype
from gped_nas.models.costs import genotype_cost
from gped_nas.models.labels import TIMED_COSTS
from gped_nas.search.document import Description, LatencyFacts
from gped_nas.search.record import TrialRecord
from gped_nas.search.space import SearchSpace

_MARGIN = 3.0
"""How far the ends of an axis of latencies are from those of the space's corners: pruning makes a
student smaller than any, and no corner need be the slowest one."""


def costs_of(latency: Latency) -> dict[str, float]:
    """The costs that a latency is, by name, in ms."""
    seconds = (latency.median_s, latency.p95_s)
    return {name: _ms(value) for name, value in zip(TIMED_COSTS, seconds, strict=True)}


def with_latency(
    records: Sequence[TrialRecord], load: Callable[[TrialRecord], Student], cfg: LatencyConfig
) -> list[TrialRecord]:
    """Records with the latency of their students, all of them timed in turn.

    Args:
        records: of a population, with their variants; those that failed stay as they are.
        load: the student of a record.
        cfg: how they are timed.

    Raises:
        EnvironmentProblem: ONNX Runtime is asked for and not installed.
    """
    complete = []
    for record in records:
        if record.state == "complete":
            complete += [record, *record.variants]
    timed = [time_student(load(record), cfg) for record in complete]
    latencies = iter(time_all(timed, cfg))

    results = []
    for record in records:
        if record.state == "complete":
            variants = record.variants
            record = _add(record, next(latencies))
            timed_variants = tuple(_add(variant, next(latencies)) for variant in variants)
            record = record.replace(variants=timed_variants)
        results.append(record)
    return results


def _add(record: TrialRecord, latency: Latency) -> TrialRecord:
    facts = {"repeats": latency.repeats, "blocks_ms": [_ms(block) for block in latency.blocks_s]}
    return record.replace(
        costs={**record.costs, **costs_of(latency)}, extra={**record.extra, "latency": facts}
    )


def _ms(seconds: float) -> float:
    """To four digits: more of them are never the same twice."""
    return float(f"{1000 * seconds:.4g}")


def latency_facts(space: SearchSpace) -> dict[str, LatencyFacts]:
    """What a study's description says of latencies: nothing where none are measured."""
    cfg = space.latency
    if cfg is None:
        return {}
    return {"latency": LatencyFacts(settings=cfg.model_dump(mode="json"), machine=machine_of(cfg))}


def machine_of(cfg: LatencyConfig, device: torch.device | None = None) -> dict[str, Any]:
    """What latencies that are measured here hold for.

    Raises:
        EnvironmentProblem: ONNX Runtime is asked for and not installed.
    """
    if cfg.runtime == "onnx":
        require_onnx()
    return machine(cfg.runtime, device)


def check_machine(study: str, description: Description | None) -> None:
    """Refuse to go on with a study whose latencies were measured on another machine.

    Raises:
        StudyError: it is one.
        EnvironmentProblem: ONNX Runtime is asked for and not installed.
    """
    if description is None or description.latency is None:
        return
    facts = description.latency
    differing = differences(facts.machine, machine_of(LatencyConfig(**facts.settings)))
    if differing:
        raise StudyError(
            f"study '{study}': its latencies were measured on another machine: found "
            f"{', '.join(differing)}; go on with it there, or choose another --study-name here"
        )


def latency_ends(space: SearchSpace, dataset: Dataset) -> Mapping[str, tuple[float, float]]:
    """The best and the worst latency that a front counts, by cost, ms; none if it is not asked.

    They are those of the genotypes that cost least and most, untrained, with a margin.

    Raises:
        EnvironmentProblem: ONNX Runtime is asked for and not installed.
    """
    if space.latency is None:
        return {}

    shape, num_outputs = dataset.input_shape, space.num_outputs(dataset.num_outputs)
    corners = sorted(space.corners(), key=lambda g: genotype_cost(g, shape, num_outputs).macs)
    students = [_untrained(genotype, space, dataset) for genotype in (corners[0], corners[-1])]
    timed = [time_student(student, space.latency) for student in students]
    costs = [costs_of(latency) for latency in time_all(timed, space.latency)]

    ends = {}
    for name in TIMED_COSTS:
        values = [cost[name] for cost in costs]
        ends[name] = (min(values) / _MARGIN, max(values) * _MARGIN)
    return ends


def _untrained(genotype: Genotype, space: SearchSpace, dataset: Dataset) -> Student:
    """A student of zeros: its answers are none, its time is a student's."""
    layout = space.layout(dataset.num_outputs, dataset.label_normalization)
    spec = StudentSpec(
        family=genotype.family,
        input_shape=dataset.raw_shape,
        class_names=dataset.class_names,
        targets=layout.targets,
        normalization=dataset.normalization,
        label_normalization=dataset.label_normalization,
        preparation=dataset.preparation,
        storage_dtype=genotype["storage_dtype"],
        genotype=genotype.to_json(),
    )
    shapes = genotype.shapes(dataset.input_shape, layout.num_outputs)
    student: Student = Student(spec, {name: torch.zeros(s) for name, s in shapes.items()}).eval()
    return student
