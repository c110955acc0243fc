"""Weights files: their sizes, what storage rounds, and files that are none."""

import json
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gped_nas import rng
from gped_nas.errors import DamageError, DataError, EnvironmentProblem
from gped_nas.models.base import STORAGE_DTYPES, Genotype, initialize, shapes_of
from gped_nas.models.storage import (
    decode,
    encode,
    read_tensors,
    read_weights,
    serialize,
    storage_bytes,
    write_weights,
)
from gped_nas.posterior.base import flatten, unflatten


def network(depth: int = 2, width: int = 6):
    shapes = Genotype("mlp", depth=depth, width=width).shapes((5,), 3)
    return initialize(shapes, generator=rng.generator(0, "storage"))


@pytest.mark.parametrize("dtype", STORAGE_DTYPES)
@settings(deadline=None, derandomize=True, max_examples=25, database=None)
@given(
    widths=st.lists(st.integers(1, 30), max_size=5),
    inputs=st.integers(1, 30),
    outputs=st.integers(1, 11),
)
def test_bytes_are_known_without_writing(dtype, widths, inputs, outputs):
    shapes = Genotype("mlp", depth=len(widths), width=widths).shapes((inputs,), outputs)
    params = initialize(shapes, generator=rng.generator(0, "storage"))
    assert storage_bytes(shapes, dtype) == len(serialize(params, dtype))


@pytest.mark.parametrize("dtype", STORAGE_DTYPES)
def test_a_file_has_the_size_that_was_told(tmp_path, dtype):
    params = network()
    size = write_weights(tmp_path / "w.safetensors", params, dtype)
    assert (tmp_path / "w.safetensors").stat().st_size == size
    assert size == storage_bytes(shapes_of(params), dtype)


def test_smaller_types_make_smaller_files():
    shapes = Genotype("mlp", depth=1, width=64).shapes((64,), 10)
    sizes = [storage_bytes(shapes, dtype) for dtype in ("float32", "float16", "int8")]
    assert sizes == sorted(sizes, reverse=True)
    # int8: 64*64 + 10*64 bytes of weights, 74 float32 scales and 74 float32 biases, and a header
    assert 0 < sizes[2] - (4096 + 640 + 74 * 8) < 600


@pytest.mark.parametrize("dtype", STORAGE_DTYPES)
def test_reading_gives_float32_in_the_order_of_the_layers(tmp_path, dtype):
    params = network(depth=11, width=2)  # layers.10 sorts before layers.2 as text
    write_weights(tmp_path / "w.safetensors", params, dtype)
    read = read_weights(tmp_path / "w.safetensors")
    assert list(read) == list(params)
    assert {p.dtype for p in read.values()} == {torch.float32}
    assert [p.shape for p in read.values()] == [p.shape for p in params.values()]


def test_float32_is_exact_and_float16_is_the_nearest_half(tmp_path):
    params = network()
    for dtype, nearest in (("float32", torch.float32), ("float16", torch.float16)):
        write_weights(tmp_path / dtype, params, dtype)
        read = read_weights(tmp_path / dtype)
        for name, p in params.items():
            assert torch.equal(read[name], p.to(nearest).float())


@settings(deadline=None, derandomize=True, max_examples=150, database=None)
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 6)),
        elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False),
    )
)
def test_int8_is_off_by_at_most_half_a_step(array):
    weight = torch.from_numpy(array)
    stored = encode({"layers.0.weight": weight}, "int8")
    decoded = decode(stored)["layers.0.weight"]

    # half a step, and the rounding of the float32 product by a few units in the last place
    bound = stored["layers.0.weight.scale"][:, None].double() * (0.5 + 1e-4)
    assert bool(((decoded.double() - weight.double()).abs() <= bound).all())

    assert stored["layers.0.weight"].dtype == torch.int8
    assert int(stored["layers.0.weight"].min()) >= -127
    assert not decoded[weight == 0].any()  # a pruned weight stays pruned


def test_int8_scales_each_row_by_its_largest_weight():
    weight = torch.tensor([[1.0, -0.5, 0.0], [0.0, 0.0, 0.0], [254.0, 2.0, 1.0]])
    bias = torch.tensor([0.1, 0.2, 0.3])
    stored = encode({"layers.0.weight": weight, "layers.0.bias": bias}, "int8")

    # row 0: 1 is 127 steps, -0.5 rounds from -63.5 to the even -64
    # row 2: steps of 2, and 1 rounds from 0.5 to 0
    assert stored["layers.0.weight"].tolist() == [[127, -64, 0], [0, 0, 0], [127, 1, 0]]
    assert decode(stored)["layers.0.bias"].tolist() == bias.tolist()
    assert not decode(stored)["layers.0.weight"][1].any()


@pytest.mark.parametrize("dtype", STORAGE_DTYPES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_not_made_finite_by_storage(dtype, bad):
    params = {
        "layers.0.weight": torch.tensor([[1.0, bad], [1.0, 2.0]]),
        "layers.0.bias": torch.tensor([bad]),
    }
    decoded = decode(encode(params, dtype))
    assert not decoded["layers.0.weight"][0].isfinite().all()
    assert not decoded["layers.0.bias"].isfinite().all()
    assert decoded["layers.0.weight"][1].isfinite().all()


def test_views_into_one_buffer_are_stored_as_their_own(tmp_path):
    params = network()
    shapes = shapes_of(params)
    parts = unflatten(flatten(params), shapes)
    assert serialize(parts, "float32") == serialize(params, "float32")

    leaves = {name: p.requires_grad_() for name, p in parts.items()}
    write_weights(tmp_path / "w", leaves, "float32")
    for name, p in read_weights(tmp_path / "w").items():
        assert torch.equal(p, params[name])


def test_writing_twice_gives_the_same_bytes():
    assert serialize(network(), "int8") == serialize(network(), "int8")


def test_a_file_that_is_none_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(DataError, match="no such file"):
        read_tensors(path)
    whole = serialize(network(), "float32")
    for content in (b"", b"PK\x03\x04", b"\x80\x04pickle", whole[:-1], whole + b"x", b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(DamageError, match="w.safetensors"):
            read_weights(path)


def described(**tensors):
    """A safetensors file of these dtypes, shapes and sizes in bytes, all zero."""
    header, stop = {}, 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [stop, stop + size]}
        stop += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(stop)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (described(weight=("F4", [8], 4)), "F4"),
        (described(weight=("F8_E8M0", [8], 8)), "F8_E8M0"),
        (described(weight=("F32", [0, 2**63], 0)), "not a readable"),
        (
            described(**{"weight": ("I8", [2, 2], 4), "weight.scale": ("F32", [3], 12)}),
            r"weight.scale: found shape \(3,\), expected \(2,\)",
        ),
    ],
    ids=["four-bits", "exponents", "endless", "scale-of-another-weight"],
)
def test_a_file_of_what_no_student_holds_is_refused(tmp_path, content, problem):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(DamageError, match=f"w.safetensors: .*{problem}"):
        read_weights(path)


@pytest.mark.parametrize("whole", [serialize(network(), "float32"), b""], ids=["whole", "empty"])
def test_a_file_that_grew_beyond_memory_is_refused_unread(tmp_path, whole):
    path = tmp_path / "w.safetensors"
    path.write_bytes(whole)
    os.truncate(path, 2**40)
    with pytest.raises(DamageError, match=f"w.safetensors: found {2**40} bytes, its header says"):
        read_weights(path)


def test_writing_where_nothing_can_be_written_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="cannot write"):
        write_weights(tmp_path / "file" / "w.safetensors", network(), "float32")
