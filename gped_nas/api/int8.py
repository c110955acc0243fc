"""What an export that computes in int8 is worth: its answers, its metrics and its time.

The ranges of what flows between layers are those of training inputs. The answers are compared with
the live student's on validation, and so are the metrics that say what the student is worth; both
graphs are timed in turn.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.api.conclusion import COMPARED
from gped_nas.api.latency import costs_of, machine_of
from gped_nas.api.timing import probe, time_all, time_graph
from gped_nas.data.base import Dataset
from gped_nas.distill.student import Student
from gped_nas.evaluate.judging import evaluate_or_explain
from gped_nas.evaluate.latency import LatencyConfig
from gped_nas.evaluate.predictions import AnyPredictions, NormalPredictions, Predictions
from gped_nas.evaluate.resamples import draw_resamples
from gped_nas.export.folder import Int8
from gped_nas.export.graph import Inputs, as_bytes
from gped_nas.export.onnx import onnx_predict
from gped_nas.export.parity import check_int8_parity

NUM_CALIBRATION = 512
_BATCHES = (1, 256)


def int8_of(dataset: Dataset) -> Int8:
    """How a student of a dataset computes in int8."""

    def check(
        student: Student, in_float: bytes, in_int8: bytes, inputs: Inputs
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        raw = dataset.raw("validation").float()
        predict = onnx_predict(in_int8)

        def ask(x: Tensor) -> dict[str, Tensor]:
            return predict(as_bytes(x) if inputs == "bytes" else x)

        parity = check_int8_parity(student, ask, "student.onnx", raw)
        facts = {
            "compute": "int8",
            "validation": {
                "n": len(raw),
                "int8": _metrics(ask(raw), dataset),
                "float32": _metrics(student.predict(raw), dataset),
            },
            "latency": _times(student, {"float32": in_float, "int8": in_int8}, inputs),
        }
        return parity, facts

    return Int8(_calibration(dataset), check)


def _calibration(dataset: Dataset) -> Tensor:
    """Training inputs, drawn; all of them where there are few."""
    num = len(dataset.train)
    drawn = torch.randperm(num, generator=rng.generator(0, "export", "int8"))[:NUM_CALIBRATION]
    return dataset.raw("train")[drawn.sort().values].float()


def _metrics(said: Mapping[str, Tensor], dataset: Dataset) -> dict[str, float | None]:
    """The usual metrics of answers on validation; None where one is not finite."""
    labels = dataset.labels("validation")
    resamples = draw_resamples(len(labels), root=0, part="validation")
    measures = evaluate_or_explain(_predictions(said), labels, resamples=resamples)
    values = {key.metric: measured.value for key, measured in measures.items()}
    return {name: values[name] for name in COMPARED[dataset.task]}


def _predictions(said: Mapping[str, Tensor]) -> AnyPredictions:
    """Answers of a graph in the form that metrics read; a probability of zero stays zero."""
    if "predictive_normal" in said:
        mean, variance = said["predictive_normal"].double().unbind(-1)
        return NormalPredictions(mean.numpy(), variance.numpy())
    with np.errstate(divide="ignore"):
        return Predictions(np.log(said["predictive"].double().numpy()))


def _times(student: Student, graphs: Mapping[str, bytes], inputs: Inputs) -> dict[str, Any]:
    """The latency of each graph by its batch, all of a batch timed in turn; and the machine."""
    spec = student.spec
    times: dict[str, Any] = {}
    for batch in _BATCHES:
        cfg = LatencyConfig(batch=batch)
        raw = probe(spec.input_shape, spec.normalization, batch)
        if inputs == "bytes":
            raw = as_bytes(raw.round().clamp(0, 255))
        timed = [time_graph(data, raw, cfg) for data in graphs.values()]
        latencies = zip(graphs, time_all(timed, cfg), strict=True)
        times[f"batch_{batch}"] = {name: costs_of(latency) for name, latency in latencies}
    return {**times, "machine": machine_of(LatencyConfig())}
