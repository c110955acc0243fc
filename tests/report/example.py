"""Hand-made studies of varied records.

They have trials of every state, pruned layers, references, comparisons, evidence and notes.
"""

import base64
import math
import random
from typing import Any

import numpy as np
import torch

from gped_nas.data.picture import png
from gped_nas.evaluate.evidence import evidence
from gped_nas.evaluate.measured import Key, Measured, from_public
from gped_nas.evaluate.predictions import Predictions
from gped_nas.search.goals import Objective
from gped_nas.search.objectives import registered_words
from gped_nas.search.record import State, TrialRecord
from gped_nas.search.snapshot import PairedDifference, Reference, StudySnapshot

NLL = Objective("nll", "minimize", "metric", "NLL (nats)")
FLOPS = Objective("flops", "minimize", "cost", "FLOPs")
STORAGE = Objective("storage_bytes", "minimize", "cost", "storage (bytes)")
N_VALIDATION, N_TEST = 180, 360
NUM_CLASSES = 10
DIAGNOSIS = {
    "chains": 2,
    "target_temperature": 1.0,
    "mixing": {
        "probabilities": {
            "num": 1800,
            "rhat": (1.01, 1.08, 1.3),
            "above": 0.07,
            "ess": (90.0, 40.0, None),
        },
        "weights": {"num": 1000, "rhat": None, "above": 0.0, "ess": None},
    },
    "agreement": 0.98,
    "total_variation": 0.05,
    "kinetic": None,
    "configurational": {"value": 0.9, "low": 0.8, "high": 1.1, "degrees_of_freedom": 16},
    "single": {"nll": 0.31, "accuracy": 0.93},
    "average": {"nll": 0.11, "accuracy": 0.97},
    "missing": {"kinetic temperature": "sgld keeps no momenta"},
}
_STATES: tuple[State, ...] = (
    "complete",
    "complete",
    "infeasible",
    "complete",
    "pruned",
    "complete",
)
_SPECIAL_STATES: dict[int, State] = {0: "failed", 24: "failed", 11: "duplicate", 47: "running"}
_REASONS: dict[str, str] = {
    "failed": "nll is not finite",
    "duplicate": "same genotype as trial 3",
    "running": "",
}
"""Why trials of these states have no numbers."""
_BYTES = {"float32": 4, "float16": 2, "int8": 1}


def make_snapshot(num_trials: int = 48, **changes: Any) -> StudySnapshot:
    """A study of 48 trials and three objectives; any attribute can be given instead."""
    records = tuple(_record(trial) for trial in range(num_trials))
    front = _front(records)
    records = tuple(_tested(r) if r.trial in front else r for r in records)
    growth = [0.9 - math.exp(-4 * (i + 1) / num_trials) * 0.8 for i in range(num_trials)]

    values: dict[str, Any] = {
        "name": "digits_mlp",
        "config": {
            "name": "digits_mlp",
            "dataset": {"name": "digits"},
            "search": {"n_trials": 48, "seed": 0},
        },
        "objectives": (NLL, FLOPS, STORAGE),
        "records": records,
        "front": front,
        "chosen": front[len(front) // 2] if front else None,
        "knee": front[-1] if front else None,
        "rule": "The smallest student whose NLL interval overlaps that of the best one.",
        "references": _references(),
        "paired_differences": _paired_differences(),
        "hypervolume": tuple(growth),
        "random_order": tuple(0.88 * (1 - 0.9 ** (i + 1)) for i in range(num_trials)),
        "best_point": {"nll": 0.0, "flops": 1_000, "storage_bytes": 900},
        "reference_point": {"nll": math.log(10), "flops": 180_000, "storage_bytes": 361_000},
        "importances": {
            "nll": {"width": 0.61, "depth": 0.24, "group_penalty": 0.15},
            "flops": {"width": 0.82, "depth": 0.11, "group_penalty": 0.07},
        },
        "teacher": _teacher(),
        "provenance": {
            "device": "cpu, 2 threads",
            "torch": "2.9.0",
            "seed": 0,
            "dataset_sha256": "c01d" * 16,
        },
        "num_test_evaluations": len(front),
        "metrics": registered_words(),
        "split_text": "1257 training, 180 validation and 360 test examples, stratified by class.",
        "evidence": {trial: make_evidence(trial) for trial in front},
        "class_names": tuple(f"digit {i}" for i in range(NUM_CLASSES)),
        "notes": (
            "Latency was not measured.",
            "The teacher's chains disagree on 2 of 10 classes (R-hat 1.08).",
        ),
    }
    return StudySnapshot(**(values | changes))


def _teacher() -> dict[str, Any]:
    counts = (1, 2, 5, 10, 20, 50, 100, 200)
    return {
        "digest": "3f2a" * 16,
        "num_samples": 200,
        "method": {"name": "sgld", "chains": 2},
        "samples_to_nll": [[n, 0.11 + 0.25 / n**0.7] for n in counts],
        "seconds": 84.2,
        "reliability": _reliability(random.Random(0)),
        "diagnosis": DIAGNOSIS,
        "verdict": {
            "level": "usable with care",
            "sentence": "Usable with care: chains disagree.",
        },
    }


def make_single() -> StudySnapshot:
    """A study of one complete trial."""
    record = _tested(_record(1)).replace(trial=0)
    return make_snapshot(1, records=(record,), front=(0,), chosen=0, knee=0)


def make_evidence(trial: int, num_classes: int = NUM_CLASSES) -> dict[str, Any]:
    """What ``evaluate.evidence`` and ``api.evidence`` would give of 180 images of 8 by 8 pixels."""
    generator = np.random.default_rng(trial)
    labels = generator.integers(num_classes, size=N_VALIDATION)
    logits = generator.normal(size=(2, N_VALIDATION, num_classes)) + 4 * np.eye(num_classes)[labels]
    student, teacher = (Predictions(x - np.log(np.exp(x).sum(1, keepdims=True))) for x in logits)

    made = evidence(student, teacher, labels)
    for example in made["examples"]:
        pixels = torch.from_numpy(generator.random((1, 8, 8)))
        example["picture"] = base64.b64encode(png(pixels, 0.0, 1.0)).decode()
    return made


def _record(trial: int) -> TrialRecord:
    """A trial whose state, genotype and numbers follow from its number alone."""
    rng = random.Random(trial)
    depth = rng.randint(1, 3)
    width = rng.choice([8, 16, 32, 64, 128])
    dtype = rng.choice(sorted(_BYTES))
    genotype = {
        "family": "mlp",
        "depth": depth,
        "width": width,
        "group_penalty": round(10 ** rng.uniform(-4, -1), 6),
        "storage_dtype": dtype,
    }
    state = _SPECIAL_STATES.get(trial, _STATES[trial % 6])
    created = 1_790_000_000.0 + 7 * trial
    if state in _REASONS:
        return TrialRecord(trial, state, genotype, reason=_REASONS[state], created=created)

    pruned_width = max(3, int(width * rng.uniform(0.5, 1.0)))
    layers = _layers(depth, pruned_width)
    macs = sum(layer["inputs"] * layer["outputs"] for layer in layers)
    params = sum(layer["params"] for layer in layers)
    costs = {
        "macs": macs,
        "flops": 2 * macs,
        "params": params,
        "storage_bytes": params * _BYTES[dtype] + 480,
    }
    if state == "pruned":
        reason = "even its smallest reachable network stores 212,480 bytes, limit 200,000"
        return TrialRecord(trial, state, genotype, reason=reason, costs=costs, created=created)

    nll = 0.12 + 1.9 / pruned_width**0.9 + rng.uniform(0, 0.06) + (0.02 if dtype == "int8" else 0)
    measures = _measures(nll, N_VALIDATION, "")
    return TrialRecord(
        trial,
        state,
        genotype,
        reason="stores more than 200,000 bytes" if state == "infeasible" else "",
        measures=measures,
        costs=costs,
        layers=tuple(layers),
        layers_drawn=tuple(_layers(depth, width)),
        extra={
            "reliability": _reliability(rng),
            "macs_by_operator": {"linear": macs},
            "dead_units": (width - pruned_width) * depth,
            "seed": 10_000 + trial,
            "loss": [[step, 2.3 * math.exp(-step / 300) + nll] for step in range(0, 2001, 100)],
        },
        seconds=3.1 + trial / 50,
        created=created,
    )


def _layers(depth: int, width: int) -> list[dict[str, Any]]:
    sizes = [64, *[width] * depth, 11]
    names = [*(f"hidden{i}" for i in range(depth)), "heads"]
    return [
        {"layer": name, "kind": "linear", "inputs": a, "outputs": b, "params": a * b + b}
        for name, a, b in zip(names, sizes[:-1], sizes[1:], strict=True)
    ]


def _measures(nll: float, n: int, prefix: str) -> dict[Key, Measured]:
    accuracy = 1 - 0.26 * nll
    values = {
        "accuracy": accuracy,
        "nll": nll,
        "nll_above_teacher": nll - 0.11,
        "ece": 0.01 + nll / 20,
        "brier": nll / 4,
        "agreement": accuracy,
        "entropy_error": nll / 5,
        "kl_to_teacher": nll / 3,
    }
    metrics: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for name, value in values.items():
        half = 0.02 if name == "accuracy" else 0.35 * value / math.sqrt(n / 60)
        metrics[prefix + name] = value
        intervals[prefix + name] = (max(0.0, value - half), min(value + half, 9.0))
    return from_public(metrics, intervals, dict.fromkeys(metrics, n))


def _reliability(rng: random.Random) -> list[dict[str, float]]:
    accuracies = [min(1.0, 0.3 + 0.11 * i + rng.uniform(-0.05, 0.05)) for i in range(7)]
    return [
        {"confidence": 0.35 + 0.1 * i, "accuracy": a, "count": 3 + i**3}
        for i, a in enumerate(accuracies)
    ]


def _tested(record: TrialRecord) -> TrialRecord:
    tested = _measures(1.04 * record.metrics["nll"], N_TEST, "test_")
    return record.replace(measures={**record.measures, **tested})


def _front(records: tuple[TrialRecord, ...]) -> tuple[int, ...]:
    names = ("nll", "flops", "storage_bytes")
    points = {r.trial: [r.value(name) for name in names] for r in records if r.state == "complete"}

    def is_beaten(point: list[float]) -> bool:
        for other in points.values():
            if other != point and all(a <= b for a, b in zip(other, point, strict=True)):
                return True
        return False

    front = [trial for trial, point in points.items() if not is_beaten(point)]
    return tuple(sorted(front, key=lambda trial: points[trial][0]))


def _references() -> tuple[Reference, ...]:
    average = "Average of 200 SGLD samples of mlp(depth=2, width=128)."
    single = "The posterior sample with the best validation NLL."
    point = "One network of the teacher's genotype, optimized."
    unpruned = "A student of the teacher's genotype, never pruned."
    return (
        _reference("teacher", "teacher average", 0.112, average, num_networks=200),
        _reference("single_sample", "best single sample", 0.181, single),
        _reference("map", "MAP", 0.204, point),
        _reference("unpruned", "unpruned student", 0.131, unpruned),
    )


def _reference(name: str, label: str, nll: float, note: str, *, num_networks: int = 1) -> Reference:
    one_network = {"macs": 26_112, "flops": 52_224, "params": 26_379, "storage_bytes": 105_996}
    costs = {cost: value * num_networks for cost, value in one_network.items()}
    measures = _measures(nll, N_VALIDATION, "") | _measures(1.03 * nll, N_TEST, "test_")
    return Reference(name, label, measures, costs, note)


def _paired_differences() -> tuple[PairedDifference, ...]:
    rows = (
        ("teacher", "student", "nll", -0.043, (-0.061, -0.022)),
        ("teacher", "student", "accuracy", 0.0055, (-0.0028, 0.0139)),
        ("student", "single_sample", "nll", -0.031, (-0.052, -0.008)),
        ("student", "map", "nll", 0.012, (0.002, 0.024)),
    )
    return tuple(
        PairedDifference(first, second, metric, "test", difference, interval, N_TEST)
        for first, second, metric, difference, interval in rows
    )
