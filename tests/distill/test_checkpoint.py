"""Students in training on disk: what is read is what was written, and nothing else is read."""

import dataclasses
import json
import math

import pytest
import safetensors.torch
import torch

from gped_nas.distill import checkpoint
from gped_nas.distill.checkpoint import load_trainee, save_trainee
from gped_nas.distill.course import begin
from gped_nas.distill.kernel import train
from gped_nas.errors import StudyError, exit_code
from tests.distill.populations import CPU, MIXED, MLP, make_data
from tests.distill.test_resume import course_of, recipe_of

COURSE = course_of(recipe_of(components=5, centered=True, average=0.5))


@pytest.fixture
def student():
    return train(COURSE, begin(COURSE, MLP[4:5], device=CPU), until=25, device=CPU)[0]


@pytest.fixture
def path(tmp_path, student):
    save_trainee(tmp_path / "student", student, COURSE)
    return tmp_path / "student"


def is_equal(value, expected):
    """Whether two values are the same, tensors to the bit and in their dtype."""
    if isinstance(value, torch.Tensor):
        return torch.equal(value, expected) and value.dtype == expected.dtype
    if dataclasses.is_dataclass(value) and not hasattr(value, "architecture"):
        return is_equal(vars(value), vars(expected))
    if isinstance(value, dict):
        if value.keys() != expected.keys():
            return False
        return all(is_equal(part, expected[key]) for key, part in value.items())
    if isinstance(value, tuple):
        return len(value) == len(expected) and all(map(is_equal, value, expected))
    return value == expected


def test_everything_comes_back_as_it_was(student, path):
    assert student.frame and student.centers and student.average and student.position
    assert student.num_dead and student.rungs and student.losses

    loaded = load_trainee(path, COURSE)
    for field in dataclasses.fields(student):
        assert is_equal(getattr(loaded, field.name), getattr(student, field.name)), field.name
    assert list(loaded.params) == list(student.params), "in the family's order"


def test_losses_that_are_not_finite_come_back(student, path):
    student.losses = ((0, math.inf), (1, math.nan), (2, -0.1))
    save_trainee(path, student, COURSE)
    losses = load_trainee(path, COURSE).losses
    assert str(losses) == str(student.losses)


def test_the_same_student_is_the_same_file(student, path):
    before = path.read_bytes()
    save_trainee(path, student, COURSE)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name], "nothing is left behind"


def refusal(path, course=COURSE):
    """The message with which a file is refused."""
    with pytest.raises(StudyError) as caught:
        load_trainee(path, course)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message.split("(")[0]
    assert exit_code(caught.value) == 4
    return message


def test_every_damaged_byte_is_seen(path):
    """A byte in 97, header and tensors alike."""
    whole = path.read_bytes()
    for position in range(0, len(whole), 97):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        assert "delete it to train the student from the beginning" in refusal(path), position


@pytest.mark.parametrize("change", [{"step": 24}, {"seed": 1}, {"has_left": True}], ids=str)
def test_a_changed_state_is_seen(path, change):
    """The file stays one that can be read, and its tensors are whole."""
    whole = path.read_bytes()
    stop = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:stop])
    state = json.loads(header["__metadata__"]["trainee"])
    header["__metadata__"]["trainee"] = json.dumps({**state, **change})
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + whole[stop:])
    assert "its digest does not fit what it holds" in refusal(path)


def test_tensors_of_other_shapes_are_refused(path, student):
    name = "layers.0.bias"
    student.average = {**student.average, name: student.average[name][:1]}
    save_trainee(path, student, COURSE)
    assert "layers.0.bias: found shape (1,) beside its parameter" in refusal(path)


@pytest.mark.parametrize("size", [0, 4, 8, 100, -1])
def test_a_shortened_file_is_refused(path, size):
    path.write_bytes(path.read_bytes()[:size])
    assert "cannot be read as a safetensors file" in refusal(path)


def test_another_file_is_refused(path):
    path.write_bytes(safetensors.torch.save({"a": torch.ones(2)}))
    assert "found format None, expected 'gped-nas trainee'" in refusal(path)
    path.write_bytes(b"not at all")
    assert "cannot be read as a safetensors file" in refusal(path)
    assert "no such file" in refusal(path.with_name("nobody"))
    assert "not a plain file" in refusal(path.parent)


@pytest.mark.parametrize(
    "header",
    [
        '{"__metadata__": null}',
        '{"a": {"dtype": "F4", "shape": [0], "data_offsets": [0, 0]}}',
    ],
    ids=["no-metadata", "numbers-that-torch-lacks"],
)
def test_a_header_of_another_kind_is_refused(path, header):
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode())
    refusal(path)


@pytest.mark.parametrize("text", ["[1]", "{", '{"format": "gped-nas trainee", "version": NaN}'])
def test_metadata_of_another_kind_is_refused(path, text):
    path.write_bytes(safetensors.torch.save({"a": torch.ones(2)}, {"trainee": text}))
    refusal(path)


def test_a_number_that_is_none_is_refused(path):
    written = '{"format": "gped-nas trainee", "version": 1, "step": NaN}'
    path.write_bytes(safetensors.torch.save({"a": torch.ones(2)}, {"trainee": written}))
    assert "it is damaged" in refusal(path)


def test_another_version_is_refused(path, student, monkeypatch):
    monkeypatch.setattr(checkpoint, "VERSION", 2)
    save_trainee(path, student, COURSE)
    monkeypatch.undo()
    assert "found version 2, expected 1" in refusal(path)


@pytest.mark.parametrize(
    ("course", "message"),
    [
        (
            course_of(recipe_of(components=5, centered=True, average=0.5, lr=0.03)),
            "recipe.lr 0.02, expected 0.03",
        ),
        (
            course_of(recipe_of(components=5, centered=True)),
            "recipe.average 0.5, expected left out",
        ),
        (dataclasses.replace(COURSE, seed=1), "found seed 0, expected 1"),
        (dataclasses.replace(COURSE, data=make_data(59)), "found data "),
        (dataclasses.replace(COURSE, validation=make_data(36)), "found validation "),
    ],
    ids=["lr", "average", "seed", "data", "validation"],
)
def test_a_student_of_another_course_is_refused(path, course, message):
    text = refusal(path, course)
    assert "trained on another course" in text and message in text


def test_an_equal_course_is_the_same(path, student):
    loaded = load_trainee(path, course_of(recipe_of(components=5, centered=True, average=0.5)))
    assert all(torch.equal(loaded.params[name], p) for name, p in student.params.items())


def test_a_student_before_his_first_step_is_stored_too(tmp_path):
    course = course_of(recipe_of())
    for i, student in enumerate(begin(course, MIXED, device=CPU)):
        save_trainee(tmp_path / str(i), student, course)
        loaded = load_trainee(tmp_path / str(i), course)
        assert loaded.step == 0 and loaded.position == {} and loaded.memory == {}
        assert all(torch.equal(loaded.params[name], p) for name, p in student.params.items())
