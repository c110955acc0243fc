"""A stream that is read as calibrated: what changes, and that nothing on disk does."""

import numpy as np
import pytest
import torch

from gped_nas.stream.calibration import RAW, Calibration
from gped_nas.stream.reader import Stream
from gped_nas.targets.expectations import expect_all, stream_expectations
from tests.scenarios import tree
from tests.stream.test_writer import build, view

VIEW = "pool-clean-0"
BOTH = Calibration(temperature=2.0, weights=(0.25, 0.75))


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    """Two chains of 3 samples each, with a view."""
    folder = build(tmp_path_factory.mktemp("streams"), 6)
    stream = Stream(folder)
    view(stream, name=VIEW, about={"view": {}, "inputs": "0" * 64})
    return stream


def test_each_sample_is_tempered_and_each_chain_weighed(stream):
    read = stream.calibrated(BOTH)

    # p^(1/2), normalized again, of every sample by itself
    root = stream.predictions(VIEW).double().exp().sqrt()
    expected = (root / root.sum(-1, keepdim=True)).log()
    torch.testing.assert_close(read.predictions(VIEW).double(), expected, atol=1e-6, rtol=0)

    raw_S = stream.weight_S
    shares = [raw_S[chain::2] / raw_S[chain::2].sum() for chain in (0, 1)]
    assert torch.allclose(read.weight_S[0::2], 0.25 * shares[0])
    assert torch.allclose(read.weight_S[1::2], 0.75 * shares[1])
    assert torch.equal(read.theta(3), stream.theta(3))


def test_a_temperature_multiplies_the_variance_of_a_normal():
    normal = torch.tensor([[[1.0, 0.5], [2.0, 3.0]]])
    tempered = Calibration(temperature=4.0).temper(normal, "normal")
    assert tempered.tolist() == [[[1.0, 2.0], [2.0, 12.0]]]


def test_averages_are_cached_apart_and_what_is_sealed_stays(stream):
    sealed = {name: data for name, data in tree(stream.folder).items() if "derived" not in name}
    targets = ["predictive", "expected_entropy"]
    raw = stream_expectations(stream, targets, VIEW)
    read = stream.calibrated(BOTH)
    calibrated = stream_expectations(read, targets, VIEW)

    again = expect_all(targets, read.predictions(VIEW).double(), read.weight_S)
    for name in targets:
        assert not torch.allclose(raw[name], calibrated[name], atol=1e-3)
        torch.testing.assert_close(calibrated[name], again[name].float())
        assert torch.equal(stream_expectations(stream, targets, VIEW)[name], raw[name])

    after = tree(stream.folder)
    assert {name: after[name] for name in sealed} == sealed
    assert read.digest == stream.digest != read.digest_as_read
    assert stream.digest_as_read == stream.digest
    assert not read.verify()


def test_a_raw_one_is_read_bit_for_bit(stream):
    read = stream.calibrated(BOTH).calibrated(RAW)
    assert torch.equal(read.weight_S, stream.weight_S)
    for mine, theirs in zip(read.prediction_maps(VIEW), stream.prediction_maps(VIEW), strict=True):
        assert np.array_equal(mine, theirs)
