"""What is timed is what would be served: each call gives the predictor's own answer."""

import numpy as np
import pytest
import torch

import gped_nas as gn
from gped_nas.api import timing
from gped_nas.api.measuring import ensemble
from gped_nas.api.timing import MOST_NETWORKS, probe, time_all, time_predictor, time_student
from gped_nas.data.normalization import Normalization
from gped_nas.distill.student import load_student
from gped_nas.errors import ConfigError
from gped_nas.evaluate.latency import Latency, LatencyConfig
from tests.cli.harness import Home
from tests.export.students import GENOTYPES, make_student

RUNTIMES = ("torch", "onnx")


def config(runtime, batch=3):
    return LatencyConfig(runtime=runtime, batch=batch)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_teachers_call_is_its_average(finished: Home, runtime):
    teacher = gn.load_teacher(finished.space)
    predictor = ensemble(teacher)
    raw = probe(teacher.dataset.raw_shape, teacher.dataset.normalization, 3)
    one = time_predictor(ensemble(teacher, [0]), raw, 1, config(runtime), is_log=True)
    expected = np.exp(ensemble(teacher, [0]).predict(raw).log_prob_NC)
    np.testing.assert_allclose(np.asarray(one.call()), expected, atol=1e-5)

    timed = time_predictor(predictor, raw, 8, config(runtime), is_log=True)
    assert (timed.factor, timed.note) == (1.0, "")
    if runtime == "torch":  # ONNX sessions all have one network's numbers, which cost the same
        expected = np.exp(predictor.predict(raw).log_prob_NC)
    np.testing.assert_allclose(np.asarray(timed.call()), expected, atol=1e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_students_call_gives_all_its_outputs(tmp_path, runtime):
    folder = make_student(tmp_path, GENOTYPES["mlp"][0], dtype="int8")
    student = load_student(folder)
    raw = probe(student.spec.input_shape, student.spec.normalization, 3)
    said = time_student(student, config(runtime)).call()
    expected = student.predict(raw)
    arrays = [*said.values()] if isinstance(said, dict) else said
    assert len(arrays) == len(expected)
    for array, answer in zip(arrays, expected.values(), strict=True):
        np.testing.assert_allclose(np.asarray(array), answer, atol=1e-5)


def test_of_many_networks_some_are_timed_and_the_time_is_multiplied(monkeypatch):
    class Many:
        def networks(self):
            for _ in range(100):
                yield 0.01, lambda raw: asked.append(len(raw)) or torch.zeros(len(raw), 2)

    asked: list[int] = []
    raw = torch.zeros(4, 5)
    timed = time_predictor(Many(), raw, 100, config("torch"), is_log=True)
    timed.call()
    assert asked == [4] * MOST_NETWORKS
    assert timed.note == "20 of 100 networks were timed"

    monkeypatch.setattr(timing, "time_calls", lambda calls, **kw: [Latency(0.001, 0.002, 30)])
    assert time_all([timed], config("torch")) == [Latency(0.005, 0.01, 30)]


def test_a_network_that_cannot_be_exported_says_so():
    class Broken:
        def networks(self):
            yield 1.0, lambda raw: raw if float(raw.sum()) > 0 else -raw

    with pytest.raises(ConfigError, match="ONNX: this network cannot be exported"):
        time_predictor(Broken(), torch.ones(1, 5), 1, config("onnx"), is_log=False)


def test_inputs_are_spread_as_the_training_inputs_and_always_the_same():
    raw = probe((4, 4), Normalization(90.0, 70.0), 256)
    assert raw.shape == (256, 4, 4) and raw.dtype == torch.float32
    assert float(raw.mean()) == pytest.approx(90.0, abs=5)
    assert float(raw.std()) == pytest.approx(70.0, abs=5)
    assert torch.equal(raw, probe((4, 4), Normalization(90.0, 70.0), 256))
