"""The key of a stream: what changes its name, and what does not."""

import json

import pytest

from gped_nas.stream.key import StreamKey
from tests.scenarios import classifier, stream_key


def changed(**values):
    return StreamKey(**{**vars(stream_key()), **values})


@pytest.mark.parametrize(
    "values",
    [
        {"dataset": "e" * 64},
        {"input_shape": (2, 2)},
        {"num_outputs": 4},
        {"genotype": {"family": "mlp", "depth": 1, "width": [6]}},
        {"prior": {"precision": 2.5}},
        {"method": {**stream_key().method, "temperature": 0.5}},
        {"method": {**stream_key().method, "chains": 3}},
        {"seed": 1},
    ],
)
def test_whatever_changes_the_samples_changes_the_name(values, tmp_path):
    assert changed(**values).digest != stream_key().digest
    assert changed(**values).folder(tmp_path) != stream_key().folder(tmp_path)


def test_it_does_not_name_the_number_of_samples():
    assert "num_samples" not in json.dumps(stream_key().to_json())


def test_it_survives_json():
    key = stream_key()
    again = StreamKey.from_json(json.loads(json.dumps(key.to_json())))
    assert again.digest == key.digest
    assert again.input_shape == key.input_shape


def test_order_of_settings_is_no_difference():
    method = dict(reversed(stream_key().method.items()))
    assert changed(method=method).digest == stream_key().digest


def test_it_knows_the_teachers_shapes(tmp_path):
    assert stream_key().shapes == classifier().shapes
    assert stream_key().folder(tmp_path).name == stream_key().digest[:32]


def test_the_name_of_a_stream_is_pinned():
    # changes only with the format version: another name here orphans every stream that exists
    assert stream_key().digest == "576a46bf55332309edc8d4af5c666ca8cd35e525f2c8c56c76037130a41d6bee"
