"""Students as people use them: predictions, the two files, and what is refused."""

import dataclasses
import hashlib
import json
import random
import shutil

import numpy as np
import pytest
import torch

from gped_nas.data.base import Normalization
from gped_nas.data.scale import ValueRange
from gped_nas.distill.student import (
    Student,
    StudentSpec,
    load_student,
    save_student,
    seal_student,
)
from gped_nas.errors import ConfigError, DamageError, DataError, UndigestedWarning
from gped_nas.models.base import FAMILIES, STORAGE_DTYPES, Genotype, initialize
from gped_nas.models.storage import decode, encode
from gped_nas.targets.base import parse_targets

BOTH = ("predictive", "expected_entropy")


def make_spec(dtype="float32", shape=(1, 4, 5), targets=BOTH):
    return StudentSpec(
        family="mlp",
        input_shape=shape,
        class_names=("cat", "dög", "0"),
        targets=targets,
        normalization=Normalization(7.5, 2.25),
        storage_dtype=dtype,
        genotype={"family": "mlp", "depth": 2, "width": [6, 3]},
        about={"study": "s", "trial": 3},
    )


def make_params(inputs=20, outputs=4, seed=0):
    shapes = Genotype("mlp", depth=2, width=(6, 3)).shapes((inputs,), outputs)
    params = initialize(shapes, generator=torch.Generator().manual_seed(seed))
    return {name: p + 0.01 if p.dim() == 1 else p for name, p in params.items()}


@pytest.fixture
def raw():
    return torch.randint(
        0, 16, (9, 1, 4, 5), generator=torch.Generator().manual_seed(5), dtype=torch.uint8
    )


@pytest.mark.parametrize("dtype", STORAGE_DTYPES)
def test_what_is_loaded_is_what_the_file_holds(tmp_path, raw, dtype):
    spec, params = make_spec(dtype), make_params()
    size = save_student(tmp_path / "7", spec, params)
    assert size == (tmp_path / "7" / "weights.safetensors").stat().st_size

    student = load_student(tmp_path / "7")
    expected = decode(encode(params, dtype))
    assert student.spec == spec
    assert list(student.params) == list(params)
    assert all(torch.equal(student.params[name], p) for name, p in expected.items())

    predictions = student.predict(raw)
    expected_predictions = Student(spec, expected).predict(raw)
    # a file's tensors lie at other addresses, which may round otherwise
    for name in BOTH:
        torch.testing.assert_close(predictions[name], expected_predictions[name])
    if dtype != "float32":
        unrounded = Student(spec, params).predict(raw)
        assert not torch.equal(predictions["predictive"], unrounded["predictive"])


def test_predictions_are_normalized_by_the_spec(raw):
    params = make_params()
    predicted = Student(make_spec(), params).predict(raw)
    raw_outputs = FAMILIES["mlp"].forward(params, (raw.float() - 7.5) / 2.25)
    torch.testing.assert_close(predicted["predictive"], raw_outputs[:, :3].softmax(-1))
    assert predicted["predictive"].sum(-1) == pytest.approx(torch.ones(9))
    assert predicted["expected_entropy"].shape == (9, 1)


def test_images_may_leave_out_the_channel(raw):
    student = Student(make_spec(), make_params())
    with_channel, without = student.predict(raw), student.predict(raw.squeeze(1))
    for name in BOTH:
        torch.testing.assert_close(with_channel[name], without[name])


@pytest.mark.parametrize("dtype", ["float64", "int16", ">f4", "longdouble"])
def test_numpy_arrays_of_every_layout_are_taken(raw, dtype):
    student = Student(make_spec(), make_params())
    expected = student.predict(raw)
    array = raw.numpy().astype(dtype)
    array.flags.writeable = False
    for layout in (array, np.asfortranarray(array), array[::-1][::-1]):
        predictions = student.predict(layout)
        for name in BOTH:
            torch.testing.assert_close(predictions[name], expected[name])


def test_arrays_of_words_are_refused():
    student = Student(make_spec(), make_params())
    with pytest.raises(DataError, match="found ndarray of dtype <U1, expected a tensor"):
        student.predict(np.full((2, 1, 4, 4), "a"))


def test_parts_make_no_difference(raw):
    student = Student(make_spec(), make_params())
    whole, parts = student.predict(raw), student.predict(raw, batch_size=2)
    assert all(torch.allclose(whole[name], parts[name], atol=1e-6) for name in BOTH)
    empty = student.predict(raw[:0])
    assert empty["predictive"].shape == (0, 3) and empty["expected_entropy"].shape == (0, 1)


@pytest.mark.parametrize(
    "shape", [(4, 5), (9, 20), (9, 1, 5, 4), (9, 3, 4, 5), (9,), (2, 9, 1, 4, 5)]
)
def test_inputs_of_another_shape_are_refused(shape):
    student = Student(make_spec(), make_params())
    with pytest.raises(DataError, match=r"inputs: found shape \(.*\), expected \(N, 1, 4, 5\)"):
        student.predict(torch.zeros(shape))


def test_flat_inputs_have_no_channel_to_leave_out():
    student = Student(make_spec(shape=(20,)), make_params())
    assert student.predict(torch.zeros(3, 20))["predictive"].shape == (3, 3)
    with pytest.raises(DataError, match="inputs: found shape"):
        student.predict(torch.zeros(20))


def without(params, name):
    return {k: p for k, p in params.items() if k != name}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (make_params(inputs=21), "weights do not fit the spec's mlp"),
        (make_params(outputs=3), "weights give 3 outputs, the spec's heads"),
        (without(make_params(), "layers.0.weight"), "weights do not fit"),
        (
            without(without(make_params(), "layers.2.weight"), "layers.2.bias"),
            "weights give 3 outputs",
        ),
        ({}, "weights"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_folder(tmp_path, params, message):
    with pytest.raises(DataError, match=message):
        Student(make_spec(), params)
    save_student(tmp_path / "7", make_spec(), params)
    with pytest.raises(DamageError, match=message) as caught:
        load_student(tmp_path / "7")
    assert str(tmp_path / "7") in str(caught.value)


@pytest.fixture
def folder(tmp_path):
    save_student(tmp_path / "7", make_spec(), make_params())
    return tmp_path / "7"


def test_missing_files_are_named(folder, tmp_path):
    with pytest.raises(
        DataError, match=f"{tmp_path / 'no'}: no spec.json here; expected a student's folder"
    ):
        load_student(tmp_path / "no")
    (folder / "weights.safetensors").unlink()
    with pytest.raises(DataError, match="7/weights.safetensors: no such file"):
        load_student(folder)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04.", b"\xff" * 100])
def test_garbage_weights_are_named(folder, content):
    (folder / "weights.safetensors").write_bytes(content)
    with pytest.raises(DataError, match="7/weights.safetensors: found SHA-256 .*restore"):
        load_student(folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"spec_version": 1}', "{'a': 1}", "NaN", "\udcff"]
)
def test_garbage_specs_are_named(folder, text):
    (folder / "spec.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match="7/spec.json"):
        load_student(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spec_version": 2}, "spec version 2, expected 1"),
        ({"spec_version": None}, "spec version None, expected 1"),
        ({"extra": 1}, "extra: unknown key"),
        ({"family": "mpl"}, "unknown family 'mpl'"),
        (
            {"targets": ["predictive", "expected_entrpy"]},
            "unknown target 'expected_entrpy'; did you mean",
        ),
        ({"targets": ["expected_entropy"]}, "reads the head of 'predictive'"),
        ({"targets": []}, "at least one target"),
        ({"class_names": ["a", "b"]}, "weights give 4 outputs"),
        ({"class_names": "abc"}, "class_names"),
        ({"input_shape": [21]}, "weights do not fit"),
        ({"input_shape": [-1]}, "weights do not fit"),
        ({"normalization": {"mean": 0.0, "std": 0.0}}, "normalization: std: found 0.0"),
        ({"normalization": {"mean": "0", "std": 1.0}}, "normalization: mean: found"),
    ],
)
def test_wrong_specs_are_refused_by_folder(folder, change, message):
    data = json.loads((folder / "spec.json").read_text())
    (folder / "spec.json").write_text(json.dumps(sealed({**data, **change})))
    with pytest.raises(DataError, match=message) as caught:
        load_student(folder)
    assert str(folder) in str(caught.value)


def sealed(data):
    """A spec with its own digest, made as the documentation says."""
    rest = {name: value for name, value in data.items() if name != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return {**rest, "digest": hashlib.sha256(text.encode()).hexdigest()}


def test_files_carry_digests(folder):
    data = json.loads((folder / "spec.json").read_text())
    weights = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    assert data["files"] == {"weights.safetensors": weights}
    assert data == sealed(data)
    assert load_student(folder, spec_sha256=data["digest"]).spec_sha256 == data["digest"]


@pytest.mark.parametrize("file", ["weights.safetensors", "spec.json"])
def test_no_flipped_bit_is_read(folder, file):
    path = folder / file
    whole = path.read_bytes()
    draw = random.Random(7)
    for _ in range(150):
        data = bytearray(whole)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(data))
        with pytest.raises(DataError, match=str(folder)):
            load_student(folder)


def test_another_students_files_are_refused(folder, tmp_path):
    spec_sha256 = load_student(folder).spec_sha256
    params = {name: p + 1 for name, p in make_params().items()}
    save_student(tmp_path / "8", make_spec(), params)
    load_student(tmp_path / "8")
    with pytest.raises(DamageError, match="8/spec.json: .*as in the trial's record"):
        load_student(tmp_path / "8", spec_sha256=spec_sha256)

    shutil.copy(tmp_path / "8" / "weights.safetensors", folder)
    with pytest.raises(DamageError, match="7/weights.safetensors: found SHA-256"):
        load_student(folder)


def test_a_student_of_before_digests_is_read_with_a_warning_and_sealed(folder):
    data = json.loads((folder / "spec.json").read_text())
    before = (folder / "spec.json").read_text()
    spec_sha256 = data.pop("digest")
    (folder / "spec.json").write_text(json.dumps(data))
    with pytest.raises(DamageError, match="digest"):  # half of it was stripped
        load_student(folder)

    del data["files"]
    (folder / "spec.json").write_text(json.dumps(data))
    with pytest.warns(UndigestedWarning, match="read unchecked"):
        load_student(folder)
    with pytest.raises(DamageError, match="digest"):  # the record knows better
        load_student(folder, spec_sha256=spec_sha256)

    with pytest.warns(UndigestedWarning):
        seal_student(folder)
    assert (folder / "spec.json").read_text() == before
    load_student(folder)


def test_the_scale_travels_with_a_student(tmp_path):
    spec = dataclasses.replace(make_spec(), scale=ValueRange(0, 16))
    save_student(tmp_path / "a", spec, make_params())
    assert load_student(tmp_path / "a").spec.scale == ValueRange(0, 16)


def test_a_student_of_before_there_were_scales_has_none(folder):
    assert "scale" not in json.loads((folder / "spec.json").read_text())
    assert load_student(folder).spec.scale is None


def test_a_folder_written_twice_holds_the_second_student(folder, raw):
    spec = dataclasses.replace(make_spec(), targets=("predictive",))
    save_student(folder, spec, make_params(outputs=3))
    assert set(load_student(folder).predict(raw)) == {"predictive"}


def test_a_student_is_a_module_in_evaluation_mode(folder):
    student = load_student(folder)
    assert not student.training and not any(p.requires_grad for p in student.parameters())
    assert student.shapes["layers.0.weight"] == (6, 20)


FACTORS = ("predictive", {"name": "factors", "rank": 2})


def with_factors() -> Student:
    targets = parse_targets(FACTORS, "here")
    return Student(make_spec(targets=targets), make_params(outputs=3 + 4 * 3))


def test_a_draw_is_one_function_of_all_inputs(raw):
    """All inputs have the same loadings here, and next to no rest."""
    student = with_factors()
    params = student.params
    params["layers.2.weight"].zero_()
    params["layers.2.bias"][6:12] = torch.tensor([3.0, -3.0, 0.0, 0.0, 0.0, 0.0])
    params["layers.2.bias"][12:] = -20.0
    drawn = student.draws(raw, 500, seed=3)
    assert drawn.shape == (500, 9, 3)
    torch.testing.assert_close(drawn.exp().sum(-1), torch.ones(500, 9))

    # who says much of one class says it everywhere
    ahead = drawn[..., 0] - drawn[..., 1]
    correlation = torch.corrcoef(ahead.T)
    assert float(correlation.min()) > 0.99
    assert float(ahead.std(0).mean()) == pytest.approx(6, rel=0.2)


def test_draws_are_those_of_the_seed_in_any_batches(raw):
    student = with_factors()
    drawn = student.draws(raw, 4, seed=3)
    torch.testing.assert_close(student.draws(raw, 4, seed=3, batch_size=2), drawn)
    assert not torch.allclose(student.draws(raw, 4, seed=4), drawn, atol=0.1)


def test_draws_without_factors_are_refused(raw):
    student = Student(make_spec(), make_params())
    with pytest.raises(ConfigError, match="expected 'factors' among them; list it"):
        student.draws(raw, 3)


def test_the_distribution_inside_intervals_is_answered_unasked(raw):
    targets = parse_targets(("predictive", "interval"), "here")
    predicted = Student(make_spec(targets=targets), make_params(outputs=9)).predict(raw)
    assert list(predicted) == ["predictive", "interval", "intersection"]
    torch.testing.assert_close(predicted["intersection"].sum(1), torch.ones(9))
