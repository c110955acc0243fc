"""Graphs that compute in int8: the student's own integers, and rounding between its layers."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import gped_nas as gn
from gped_nas.api import timing
from gped_nas.distill.student import load_student
from gped_nas.errors import ConfigError, GateError
from gped_nas.evaluate.latency import Latency
from gped_nas.export.onnx import onnx_predict
from gped_nas.export.parity import INT8_TOLERANCE, check_int8_parity
from gped_nas.export.quantized import int8_bytes
from gped_nas.models.base import Genotype
from gped_nas.models.storage import read_tensors
from tests.cli.harness import Home, accepted, refused
from tests.export.students import WIDE, make_student, raw_inputs

SMALL = Genotype("mlp", depth=1, width=5)


def quantized(folder: Path, genotype: Genotype):
    """A student, its stored tensors and its graph."""
    make_student(folder, genotype, dtype="int8")
    student = load_student(folder)
    stored = read_tensors(folder / "weights.safetensors")
    return student, stored, int8_bytes(student.spec, stored, raw_inputs(512))


def numbers_of(data: bytes) -> dict[str, np.ndarray]:
    """The constants of a graph by name."""
    graph = onnx.load_from_string(data).graph
    return {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}


def check_integers(stored, data: bytes) -> None:
    """The graph multiplies with the integers and the scales that the student's file holds."""
    numbers = numbers_of(data)
    weights = [name for name, tensor in stored.items() if tensor.dtype == torch.int8]
    assert weights
    for name in weights:
        buffer = name.replace(".", "/")
        np.testing.assert_array_equal(numbers[f"{buffer}_quantized"], stored[name].numpy())
        scale = stored[f"{name}.scale"].numpy()
        np.testing.assert_allclose(numbers[f"{buffer}_scale"], scale, rtol=1e-6)
        assert not numbers[f"{buffer}_zero_point"].any()


def test_a_graph_is_the_reference_with_rounded_numbers(tmp_path):
    student, stored, data = quantized(tmp_path, SMALL)
    check_integers(stored, data)

    numbers = numbers_of(data)
    raw = raw_inputs(64)

    def rounded(values: np.ndarray, name: str) -> np.ndarray:
        scale, zero = numbers[f"{name}_scale"], int(numbers[f"{name}_zero_point"])
        steps = np.clip(np.round(values / scale) + zero, -128, 127)
        return (steps - zero) * scale

    # the network by hand: between its layers numbers are one of 256
    params = {name: p.numpy() for name, p in student.params.items()}
    x = student.spec.normalization(raw).flatten(1).numpy()
    hidden = rounded(x, "view_1") @ params["layers.0.weight"].T + params["layers.0.bias"]
    hidden = rounded(np.maximum(rounded(hidden, "linear"), 0), "relu")
    out = hidden @ params["layers.1.weight"].T + params["layers.1.bias"]
    logits = torch.tensor(rounded(out, "linear_1"))[:, :3]

    expected = torch.softmax(logits, 1).numpy()
    exported = onnx_predict(data)(raw)["predictive"].numpy()
    # biases are rounded too, to the products' own steps, which may move a number by one step
    assert np.abs(exported - expected).mean() < 1e-3
    live = student.predict(raw)["predictive"].numpy()
    assert np.abs(exported - live).mean() > np.abs(exported - expected).mean()


@pytest.mark.soak
@pytest.mark.parametrize("family", WIDE)
def test_every_family_computes_with_its_own_integers(tmp_path, family):
    student, stored, data = quantized(tmp_path, WIDE[family])
    check_integers(stored, data)
    parity = check_int8_parity(student, onnx_predict(data), "student.onnx", raw_inputs(500))
    assert max(parity["average"].values()) < INT8_TOLERANCE


def test_answers_too_far_from_the_students_are_refused(tmp_path):
    student = load_student(make_student(tmp_path, SMALL, dtype="int8"))
    raw = raw_inputs(20)

    def moved(by):
        return lambda x: {name: value + by for name, value in student.predict(x).items()}

    parity = check_int8_parity(student, moved(0.04), "student.onnx", raw)
    assert parity["tolerance"] == INT8_TOLERANCE
    assert parity["average"] == pytest.approx(dict.fromkeys(parity["average"], 0.04), abs=1e-3)

    for by in (0.06, float("nan"), float("inf")):
        with pytest.raises(GateError, match=r"student\.onnx: .* on average over 20"):
            check_int8_parity(student, moved(by), "student.onnx", raw)
    with pytest.raises(GateError, match="expected"):
        check_int8_parity(student, lambda x: {"predictive": x}, "student.onnx", raw)

    # one answer of twenty may be far
    def one_far(x):
        said = student.predict(x)
        said["expected_entropy"][0] += 0.9
        return said

    assert check_int8_parity(student, one_far, "student.onnx", raw)["average"][
        "expected_entropy"
    ] == pytest.approx(0.045, abs=0.01)


def test_other_weights_are_refused(tmp_path):
    student = load_student(make_student(tmp_path, SMALL))
    with pytest.raises(ConfigError, match="float32, expected int8"):
        int8_bytes(student.spec, dict(student.params), raw_inputs(4))


def test_an_export_says_what_int8_costs_and_gains(
    finished: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = iter([[0.002, 0.001], [0.03, 0.01]])
    monkeypatch.setattr(
        timing,
        "time_calls",
        lambda calls, **kw: [Latency(s, 2 * s, 30) for s in next(timed)],
    )
    front = gn.open_study(finished.study).front_records()
    (trial, *_) = [r.trial for r in front if r.genotype["storage_dtype"] == "int8"]
    result = accepted(
        *("export", finished.study, trial, "--to", "onnx", "--compute", "int8"),
        *("--into", tmp_path / "x"),
    )
    for text in ("computes in int8", "in float32", "1 ms a call of batch 1, 2 ms in float32"):
        assert text in result.err
    facts = json.loads((tmp_path / "x" / "spec.json").read_text())["about"]["files"]["student.onnx"]
    assert facts["compute"] == "int8"
    assert facts["latency"]["batch_256"]["int8"]["latency_ms"] == 10.0
    assert facts["latency"]["machine"]["onnxruntime"]

    dataset = gn.load_dataset(gn.load_space(finished.space))
    raw, labels = dataset.raw("validation").float(), dataset.labels("validation")
    said = onnx_predict((tmp_path / "x" / "student.onnx").read_bytes())(raw)["predictive"]
    nll = -np.log(said.double().numpy()[np.arange(len(labels)), labels]).mean()
    assert facts["validation"]["int8"]["nll"] == pytest.approx(nll)
    record = gn.open_study(finished.study).record(trial)
    live = facts["validation"]["float32"]
    assert live["nll"] == pytest.approx(record.metrics["nll"], abs=1e-6)
    assert facts["validation"]["n"] == len(labels)
    assert "## In int8" in (tmp_path / "x" / "README.md").read_text()


def test_int8_is_refused_where_it_cannot_be(finished: Home) -> None:
    study = finished.study
    refused(2, "export", study, "--compute", "int8", says=("--compute int8", "onnx"))
    refused(2, "export", study, "--to", "onnx", "--compute", "int4", says=("found 'int4'",))
    front = gn.open_study(study).front_records()
    (trial, *_) = [r.trial for r in front if r.genotype["storage_dtype"] == "float32"]
    asked = ("export", study, trial, "--to", "onnx", "--compute", "int8")
    refused(2, *asked, says=("float32, expected int8",))
