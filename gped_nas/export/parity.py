"""How far an exported student is from the live one.

Both are asked about the same inputs, in batches of several sizes.

A difference counts relative to the largest value of its output where that is above 1
(concentrations of a Dirichlet run into the millions), and as it is where not: for probabilities and
nats it is absolute. What is derived from heads needs no tolerance of its own, as long as it is
computed in a form that amplifies no rounding (``targets.derived``).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.data.normalization import ImputingNormalization
from gped_nas.distill.answers import output_names
from gped_nas.distill.student import Student
from gped_nas.errors import GateError
from gped_nas.export.graph import Inputs, as_bytes

BATCH_SIZES = (1, 7, 64, 928)
NUM_INPUTS = sum(BATCH_SIZES)
TOLERANCE = 1e-5

Predict = Callable[[Tensor], dict[str, Tensor]]


def probe(student: Student, inputs: Inputs = "float32") -> Tensor:
    """Raw inputs (NUM_INPUTS, *input_shape) spread as the training inputs were, always the same.

    For ``bytes`` they are whole numbers from 0 to 255.
    """
    generator = rng.generator(0, "export", "probe")
    noise = torch.randn((NUM_INPUTS, *student.spec.input_shape), generator=generator)
    normalization = student.spec.normalization
    raw = normalization.invert(noise)
    if isinstance(normalization, ImputingNormalization):
        # every column lacks some numbers, not always the same ones
        is_missing = noise > 1.0
        raw = torch.where(is_missing, torch.nan, raw)
    return raw.round().clamp(0, 255) if inputs == "bytes" else raw


def check_parity(
    student: Student,
    predict: Predict,
    what: str,
    *,
    tolerance: float = TOLERANCE,
    inputs: Inputs = "float32",
) -> dict[str, Any]:
    """Compare an export with the live student.

    Args:
        student: the live one.
        predict: what the export takes to its outputs by name.
        what: the export, for messages.
        tolerance: the largest difference allowed; 0 for bit for bit.
        inputs: what it takes.

    Returns:
        Plain data: ``inputs``, ``batch_sizes``, ``tolerance`` and the largest ``difference`` of
            each output.

    Raises:
        GateError: an output is missing or differs by more than the tolerance, or is not finite.
    """
    names = output_names(student.spec)
    differences = dict.fromkeys(names, 0.0)
    for x in probe(student, inputs).split(BATCH_SIZES):  # type: ignore[no-untyped-call]
        expected = student.predict(x)
        exported = predict(as_bytes(x) if inputs == "bytes" else x)
        if set(exported) != set(names):
            raise GateError(
                f"{what}: gives {sorted(exported)}, expected {sorted(names)}; it was not written"
            )
        for name in names:
            difference = _difference(exported[name], expected[name])
            differences[name] = max(differences[name], difference)

    worst = max(names, key=lambda name: differences[name])
    if not differences[worst] <= tolerance:
        raise GateError(
            f"{what}: '{worst}' differs from the live student by {differences[worst]:.3g} on "
            f"{NUM_INPUTS} inputs, expected at most {tolerance:g}; it was not written"
        )

    return {
        "inputs": NUM_INPUTS,
        "batch_sizes": list(BATCH_SIZES),
        "tolerance": tolerance,
        "difference": {name: float(f"{value:.3g}") for name, value in differences.items()},
    }


INT8_TOLERANCE = 0.05
"""How far a graph that computes in int8 may be from the live student: on average over inputs."""


def check_int8_parity(student: Student, predict: Predict, what: str, raw: Tensor) -> dict[str, Any]:
    """Compare an export that computes in int8 with the live student, on real inputs.

    Rounding moves each answer a little and a few of them far, so that the average over the inputs
    is bounded: of each input the largest difference of an output counts.

    Args:
        student: the live one.
        predict: what the export takes to its outputs by name.
        what: the export, for messages.
        raw: raw inputs (N, *input_shape) as the live student takes them.

    Returns:
        As ``check_parity``, and the ``average`` of each output.

    Raises:
        GateError: an output is missing or differs by more than the tolerance, or is not finite.
    """
    names = output_names(student.spec)
    expected, exported = student.predict(raw), predict(raw)
    if set(exported) != set(names):
        raise GateError(
            f"{what}: gives {sorted(exported)}, expected {sorted(names)}; it was not written"
        )

    average = {name: _average_difference(exported[name], expected[name]) for name in names}
    worst = max(names, key=lambda name: average[name])
    if not average[worst] <= INT8_TOLERANCE:
        raise GateError(
            f"{what}: '{worst}' differs from the live student by {average[worst]:.3g} on average "
            f"over {len(raw)} validation inputs, expected at most {INT8_TOLERANCE:g}: this student "
            "does not bear numbers in int8 between its layers; it was not written"
        )
    differences = {name: _difference(exported[name], expected[name]) for name in names}
    return {
        "inputs": len(raw),
        "batch_sizes": [len(raw)],
        "tolerance": INT8_TOLERANCE,
        "average": {name: float(f"{value:.3g}") for name, value in average.items()},
        "difference": {name: float(f"{value:.3g}") for name, value in differences.items()},
    }


def _average_difference(exported: Tensor, expected: Tensor) -> float:
    """As ``_difference``, of each input, and the mean of these."""
    if not _difference(exported, expected) < float("inf"):
        return float("inf")
    scale = expected.abs().max().clamp_min(1)
    return float(((exported - expected).abs().flatten(1).amax(1) / scale).mean())


def _difference(exported: Tensor, expected: Tensor) -> float:
    """The largest one; infinite where shapes differ or either is not finite."""
    if exported.shape != expected.shape:
        return float("inf")
    if not (exported.isfinite().all() and expected.isfinite().all()):
        return float("inf")
    return float((exported - expected).abs().max() / expected.abs().max().clamp_min(1))
