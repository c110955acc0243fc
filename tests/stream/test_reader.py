"""Opening a stream: whatever was done to its files is refused, with the name of the file."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from gped_nas.api import TeacherStream
from gped_nas.errors import StreamError
from gped_nas.io import canonical_json, sha256_file
from gped_nas.stream.reader import Stream
from gped_nas.stream.writer import write_view
from tests.scenarios import NUM_EXAMPLES, Chains, predict, stream_key, tree
from tests.stream.test_writer import build, view

VIEW = "pool-clean-0"
ABOUT = {"view": {"policy": "clean"}, "inputs": "0" * 64}
SEGMENT = "segments/000000/"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A stream of two segments, of 4 and 2 samples, with a view."""
    root = tmp_path_factory.mktemp("streams")
    for num_samples in (4, 6):
        folder = build(root, num_samples)
    view(Stream(folder), name=VIEW, about=ABOUT)
    return folder


@pytest.fixture
def folder(built, tmp_path):
    copy = tmp_path / built.name
    shutil.copytree(built, copy)
    return copy


def read_everything(folder):
    """Open a stream and use each of its bytes."""
    stream = Stream(folder)
    for segment in stream.segments:
        for name in segment._shards:
            segment.read(name)
    _ = stream.weight_S
    for sample in range(stream.num_sealed):
        stream.theta(sample)
    stream.predictions(VIEW)
    return stream


def refused(folder, *names):
    """The stream is refused with a message that holds each of ``names``, by no other error."""
    with pytest.raises(StreamError) as caught:
        read_everything(folder)
    for name in names:
        assert name in str(caught.value), str(caught.value)


def test_what_was_written_is_read(folder):
    stream = read_everything(folder)
    assert stream.num_samples == 6
    assert stream.verify() == []
    assert stream.nbytes() == sum(len(content) for content in tree(folder).values())
    assert Stream(folder).digest == stream.digest


SHARDS = [
    "segments/000000/params-000000.npy",
    "segments/000001/params-000000.npy",
    "segments/000000/weight-000000.npy",
    "segments/000001/state-01-theta.npy",
    f"views/{VIEW}/000001/log_prob-000000.npy",
]


@pytest.mark.parametrize("shard", SHARDS)
class TestShards:
    def test_a_flipped_byte(self, folder, shard):
        size = (folder / shard).stat().st_size
        whole = (folder / shard).read_bytes()
        for position in (0, 6, 10, 60, 128, size // 2 + 64, size - 1):
            content = bytearray(whole)
            content[position] ^= 0x10
            (folder / shard).write_bytes(content)
            refused(folder, str(folder / shard))

    def test_truncated(self, folder, shard):
        whole = (folder / shard).read_bytes()
        for size in (0, 5, 127, 128, len(whole) - 1):
            (folder / shard).write_bytes(whole[:size])
            refused(folder, str(folder / shard))

    def test_extended(self, folder, shard):
        with (folder / shard).open("ab") as file:
            file.write(b"\0")
        refused(folder, str(folder / shard))

    def test_missing(self, folder, shard):
        (folder / shard).unlink()
        refused(folder, str(folder / shard))

    def test_a_link_even_to_the_same_bytes(self, folder, shard, tmp_path):
        (folder / shard).rename(tmp_path / "elsewhere.npy")
        (folder / shard).symlink_to(tmp_path / "elsewhere.npy")
        refused(folder, str(folder / shard))

    def test_a_folder(self, folder, shard):
        (folder / shard).unlink()
        (folder / shard).mkdir()
        refused(folder, str(folder / shard))

    def test_other_numbers_of_the_same_shape(self, folder, shard):
        array = np.load(folder / shard)
        np.save(folder / shard, np.roll(array, 1) + array.dtype.type(1))
        refused(folder, str(folder / shard), "corrupt")

    def test_another_order_in_memory(self, folder, shard):
        array = np.load(folder / shard)
        if array.ndim > 1:
            np.save(folder / shard, np.asfortranarray(array))
            refused(folder, str(folder / shard))
        else:
            assert array.flags.c_contiguous


def test_verify_names_every_corrupt_shard(folder):
    for shard in SHARDS:
        content = bytearray((folder / shard).read_bytes())
        content[-1] ^= 1
        (folder / shard).write_bytes(content)
    problems = Stream(folder).verify()
    assert len(problems) == len(SHARDS)
    for shard in SHARDS:
        assert sum(str(folder / shard) in problem for problem in problems) == 1


def test_corruption_after_a_first_check_is_found_by_verify(folder):
    stream = read_everything(folder)
    content = bytearray((folder / SHARDS[0]).read_bytes())
    content[-1] ^= 1
    (folder / SHARDS[0]).write_bytes(content)
    assert len(stream.verify()) == 1


def test_swapped_shards(folder):
    a, b = (folder / "segments" / "000000" / f"state-{chain:02d}-theta.npy" for chain in (0, 1))
    a.rename(a.with_name("x"))
    b.rename(a)
    a.with_name("x").rename(b)
    refused(folder, "state-0", "corrupt")


def test_swapped_segments(folder):
    segments = folder / "segments"
    (segments / "000000").rename(segments / "x")
    (segments / "000001").rename(segments / "000000")
    (segments / "x").rename(segments / "000001")
    refused(folder, "segments/000000")


def test_a_segment_of_another_stream(folder, tmp_path):
    other = build(tmp_path / "other", 4, run=Chains(seed=1), key=stream_key(seed=1))
    shutil.rmtree(folder / "segments" / "000000")
    shutil.copytree(other / "segments" / "000000", folder / "segments" / "000000")
    refused(folder, "segments/000000/manifest.json", "belongs to stream")


def edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(canonical_json(data) + "\n")


def first(data, prefix):
    return next(shard for shard in data["shards"] if shard["file"].startswith(prefix))


EDITS = {
    "fewer samples": lambda d: d.update(num_samples=d["num_samples"] - 1),
    "more samples": lambda d: d.update(num_samples=d["num_samples"] + 1),
    "negative samples": lambda d: d.update(num_samples=-1),
    "samples as text": lambda d: d.update(num_samples="4"),
    "other first sample": lambda d: d.update(first_sample=2),
    "another kind": lambda d: d.update(kind="predictions"),
    "kind of a chunk": lambda d: d.update(kind="chunk"),
    "kind of a view": lambda d: d.update(kind="view"),
    "unknown kind": lambda d: d.update(kind="pickle"),
    "another stream": lambda d: d.update(stream="0" * 64),
    "future version": lambda d: d.update(format_version=2),
    "no version": lambda d: d.pop("format_version"),
    "version as text": lambda d: d.update(format_version="1"),
    "unknown entry": lambda d: d.update(extra=1),
    "missing entry": lambda d: d.pop("about"),
    "no shards": lambda d: d.update(shards=[]),
    "shards not a list": lambda d: d.update(shards={"a": 1}),
    "params forgotten": lambda d: d["shards"].remove(first(d, "params")),
    "weights forgotten": lambda d: d["shards"].remove(first(d, "weight")),
    "params twice": lambda d: d["shards"].append(
        {**first(d, "params"), "file": "params-000001.npy"}
    ),
    "another digest": lambda d: first(d, "params").update(sha256="0" * 64),
    "another shape": lambda d: first(d, "params").update(shape=[1, 1]),
    "huge shape": lambda d: first(d, "params").update(shape=[2**62, 2**62]),
    "negative shape": lambda d: first(d, "params").update(shape=[-4, -43]),
    "no shape": lambda d: first(d, "params").update(shape=None),
    "another dtype": lambda d: first(d, "params").update(dtype="<f8"),
    "object dtype": lambda d: first(d, "params").update(dtype="|O"),
    "path upwards": lambda d: first(d, "params").update(file="../000001/params-000000.npy"),
    "absolute path": lambda d: first(d, "params").update(file="/etc/passwd"),
    "very long name": lambda d: first(d, "params").update(file="a" * 300 + "-000000.npy"),
    "a shard twice": lambda d: d["shards"].append(first(d, "params")),
    "very many axes": lambda d: first(d, "params").update(shape=[1] * 20_000),
    "so deep that it cannot be shown": lambda d: d.update(
        num_samples=json.loads("[" * 900 + "]" * 900)
    ),
    "name with a newline": lambda d: first(d, "params").update(file="params-000000.npy\n"),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_manifest(folder, name):
    edit(folder / SEGMENT / "manifest.json", EDITS[name])
    refused(folder, str(folder / SEGMENT))


@pytest.mark.parametrize(
    "name", ["fewer samples", "more samples", "other first sample", "another kind"]
)
def test_an_edited_manifest_of_a_view(folder, name):
    edit(folder / "views" / VIEW / "000000" / "manifest.json", EDITS[name])
    refused(folder, f"views/{VIEW}/000000")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "1",
        '"text"',
        "{}",
        "[" * 50_000,
        '{"format_version": NaN}',
        "\x00",
        "1" * 5000,
    ],
)
@pytest.mark.parametrize("file", ["key.json", SEGMENT + "manifest.json"])
def test_files_that_are_no_manifest(folder, file, text):
    (folder / file).write_text(text)
    refused(folder, str(folder / file))


@pytest.mark.parametrize("file", ["key.json", SEGMENT + "manifest.json"])
def test_a_manifest_that_is_a_folder_or_too_large_or_not_text(folder, file):
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content + b" " * 17 * 2**20)
    refused(folder, str(folder / file), "larger than")
    (folder / file).write_bytes(b"\xff\xfe" + content)
    refused(folder, str(folder / file))
    (folder / file).unlink()
    (folder / file).mkdir()
    refused(folder, str(folder / file))


def test_a_future_format_says_so(folder):
    edit(folder / "key.json", lambda d: d.update(format_version=7))
    refused(folder, str(folder / "key.json"), "format version 7", "newer")


KEY_EDITS = {
    "another seed": lambda d: d["key"].update(seed=1),
    "another dataset": lambda d: d["key"].update(dataset="e" * 64),
    "another prior": lambda d: d["key"]["prior"].update(precision=3.0),
    "missing entry": lambda d: d["key"].pop("seed"),
    "unknown entry": lambda d: d["key"].update(extra=1),
    "no key": lambda d: d.pop("key"),
    "key not a mapping": lambda d: d.update(key=[1]),
    "shape not a list": lambda d: d["key"].update(input_shape=4),
    "genotype not a mapping": lambda d: d["key"].update(genotype="mlp"),
    "prior not a mapping": lambda d: d["key"].update(prior=[[1, 2, 3]]),
    "another digest": lambda d: d.update(digest="0" * 64),
    "no digest": lambda d: d.pop("digest"),
}


@pytest.mark.parametrize("name", KEY_EDITS)
def test_an_edited_key(folder, name):
    edit(folder / "key.json", KEY_EDITS[name])
    refused(folder, str(folder / "key.json"))


def test_a_number_that_overflows_to_infinity_in_the_key(folder):
    text = (folder / "key.json").read_text()
    (folder / "key.json").write_text(text.replace('"precision":2.0', '"precision":1e999'))
    refused(folder, str(folder / "key.json"))


def test_a_stream_under_another_name(folder):
    moved = folder.with_name("0" * 32)
    folder.rename(moved)
    refused(moved, "key.json", "does not hash to its name")


def test_a_stream_is_opened_from_inside_its_own_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert Stream(Path()).num_samples == 6


def test_nothing_there_and_too_few_samples(folder, tmp_path):
    with pytest.raises(StreamError, match="no stream here"):
        Stream(tmp_path / "absent")
    with pytest.raises(StreamError, match="holds 6 samples, expected at least 7"):
        Stream(folder, num_samples=7)
    shutil.rmtree(folder / "segments")
    with pytest.raises(StreamError, match="holds 0 samples, expected at least 1"):
        Stream(folder)


@pytest.mark.parametrize("file", ["key.json", SEGMENT + "manifest.json", SHARDS[0], SHARDS[-1]])
def test_a_pipe_or_a_device_is_refused_at_once(folder, file):
    (folder / file).unlink()
    os.mkfifo(folder / file)  # opening it would wait for a writer
    refused(folder, str(folder / file))
    (folder / file).unlink()
    (folder / file).symlink_to("/dev/zero")  # reading it would never end
    refused(folder, str(folder / file))


def test_a_message_does_not_repeat_a_hostile_text(folder):
    edit(folder / SEGMENT / "manifest.json", lambda d: d.update(num_samples="x" * 100_000))
    with pytest.raises(StreamError, match="found the text 'xxx") as caught:
        Stream(folder)
    assert len(str(caught.value)) < 1000


def test_a_key_twice_in_one_manifest(folder):
    path = folder / SEGMENT / "manifest.json"
    path.write_text(path.read_text().replace('"num_samples":', '"num_samples":4,"num_samples":'))
    refused(folder, str(path), "a key appears twice")


def other_view(folder, name="pool-noise-1"):
    write_view(
        Stream(folder),
        name,
        {**ABOUT, "view": {"policy": "noise"}},
        lambda theta: predict(theta).flip(0),
        num_inputs=NUM_EXAMPLES,
        progress=lambda what, done, total: None,
        should_stop=lambda: False,
    )
    return name


def test_a_view_over_another(folder):
    name = other_view(folder)
    shutil.rmtree(folder / "views" / VIEW)
    shutil.copytree(folder / "views" / name, folder / "views" / VIEW)
    refused(folder, f"views/{VIEW}/000000", f"predictions of view '{name}'")
    assert len(Stream(folder).verify()) == 2  # one for each segment


def test_nothing_is_written_through_a_link(folder, tmp_path):
    outside = tmp_path / "outside"
    (folder / "views").rename(outside)
    (folder / "views").symlink_to(outside)
    (folder / "derived").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    before = tree(outside)

    stream = Stream(folder)
    stream.cache("average", "0" * 64, stream.predictions(VIEW)[0])  # is read all the same
    with pytest.raises(StreamError, match="a link; nothing is written"):
        other_view(folder)
    assert tree(outside) == before
    assert not tree(tmp_path / "elsewhere")


def test_a_stream_without_views_says_so(folder):
    shutil.rmtree(folder / "views")
    with pytest.raises(StreamError, match="holds no predictions yet"):
        _ = TeacherStream(Stream(folder)).log_prob
    with pytest.raises(StreamError, match="holds no predictions yet"):
        TeacherStream(Stream(folder)).expectation("predictive")


def test_reading_leaves_every_file_alone(folder):
    before = {path: sha256_file(path) for path in folder.rglob("*") if path.is_file()}
    read_everything(folder)
    assert {path: sha256_file(path) for path in folder.rglob("*") if path.is_file()} == before


def test_maps_are_read_only(folder):
    array = Stream(folder).segments[0].read("params-000000.npy")
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1.0
    theta = Stream(folder).theta(0)
    theta[:] = 0.0  # a fresh copy
    assert Stream(folder).theta(0).any()
