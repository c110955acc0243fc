"""What of a folder of streams can go, and what must stay."""

import fcntl
import os
import threading

import pytest
import torch

from gped_nas.errors import EnvironmentProblem
from gped_nas.io import lock
from gped_nas.stream.inventory import (
    leftovers_of,
    remove_leftover,
    remove_part,
    remove_stream,
    streams_of,
)
from gped_nas.stream.reader import Stream
from tests.scenarios import stream_key, tree
from tests.stream.test_writer import after, build, sealed, view


def whole(root):
    """A stream with a view, a derived file and an unfinished build."""
    folder = build(root)
    view(Stream(folder))
    Stream(folder).cache("average", "0" * 64, torch.ones(2, 3))
    with pytest.raises(Exception, match="stopped"):
        build(root, 12, should_stop=after(2))
    return folder


def num_bytes_of(files):
    return sum(len(content) for content in files.values())


def test_sizes_are_those_of_the_files(tmp_path):
    folder = whole(tmp_path)
    (stream,) = streams_of(tmp_path)
    assert stream.num_bytes == num_bytes_of(tree(folder))
    for part, num_bytes in stream.part_bytes.items():
        assert num_bytes == num_bytes_of(tree(folder / part)), part
        assert num_bytes > 0, part

    assert stream.key is not None
    assert stream.key.digest == stream_key().digest
    assert (stream.num_samples, stream.is_busy, stream.problem) == (8, False, "")
    assert stream.written == max(p.lstat().st_mtime for p in [folder, *folder.rglob("*")])


@pytest.mark.parametrize("part", ["building", "derived", "views"])
def test_a_part_goes_alone_and_is_made_again(tmp_path, part):
    folder = whole(tmp_path)
    before = tree(folder)
    removed = {name: content for name, content in before.items() if name.startswith(f"{part}/")}
    views = tree(folder / "views")
    derived = tree(folder / "derived")

    assert remove_part(folder, part) == num_bytes_of(removed)
    assert tree(folder).keys() == before.keys() - removed.keys()
    assert not list(folder.glob(".*"))

    view(Stream(folder))
    Stream(folder).cache("average", "0" * 64, torch.ones(2, 3))
    assert tree(folder / "views") == views
    assert tree(folder / "derived") == derived
    assert remove_part(tmp_path, part) == 0


def test_a_stream_goes_whole_and_is_built_again(tmp_path):
    folder = build(tmp_path)
    before = sealed(folder)
    num_bytes = num_bytes_of(tree(folder))
    assert remove_stream(folder) == num_bytes
    assert streams_of(tmp_path) == []
    assert not list(tmp_path.iterdir())
    assert sealed(build(tmp_path)) == before


def test_a_stream_that_is_written_stays(tmp_path):
    folder = whole(tmp_path)
    before = tree(folder)
    with lock(folder / "lock", wait=False):
        assert streams_of(tmp_path)[0].is_busy
        with pytest.raises(EnvironmentProblem, match="another process is working here"):
            remove_stream(folder)
        with pytest.raises(EnvironmentProblem, match="another process is working here"):
            remove_part(folder, "building")
    assert tree(folder) == before


def test_links_are_not_followed(tmp_path):
    folder = whole(tmp_path / "streams")
    outside = tmp_path / "outside"
    (folder / "views").rename(outside)
    (folder / "views").symlink_to(outside)
    (tmp_path / "streams" / ("0" * 32)).symlink_to(outside)
    before = tree(outside)

    (stream,) = streams_of(tmp_path / "streams")
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert stream.folder == folder
    assert stream.part_bytes["views"] == 0
    assert stream.num_bytes == sum(path.lstat().st_size for path in files)

    assert remove_part(folder, "views") == 0
    remove_stream(folder)
    assert tree(outside) == before


def test_a_removal_that_was_cut_short_is_finished(tmp_path):
    folder = build(tmp_path)
    leftover = folder.rename(folder.with_name(f".gone-{folder.name}"))
    num_bytes = num_bytes_of(tree(leftover))
    assert streams_of(tmp_path) == []
    assert leftovers_of(tmp_path) == [(leftover, num_bytes)]
    assert remove_leftover(leftover) == num_bytes
    assert leftovers_of(tmp_path) == []


def test_what_cannot_be_read_is_listed_with_the_reason(tmp_path):
    folder = build(tmp_path)
    os.truncate(folder / "segments/000000/params-000000.npy", 3)
    (stream,) = streams_of(tmp_path)
    assert stream.key is not None
    assert "params-000000.npy" in stream.problem

    (folder / "key.json").unlink()
    (stream,) = streams_of(tmp_path)
    assert stream.key is None
    assert stream.num_samples == 0
    assert stream.num_bytes > 0
    assert streams_of(tmp_path / "absent") == []


def test_a_builder_that_waited_for_a_removal_builds_anew(tmp_path, monkeypatch):
    folder = build(tmp_path, 4)
    expected = sealed(build(tmp_path / "b", 8))
    is_waiting = threading.Event()
    flock = fcntl.flock
    builder = threading.Thread(target=build, args=(tmp_path, 8))

    def announce(fd, operation):
        if threading.current_thread() is builder:
            is_waiting.set()
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", announce)
    with lock(folder / "lock", wait=False):
        builder.start()
        assert is_waiting.wait(60)
        folder.rename(tmp_path / "gone")
    builder.join(60)

    assert not builder.is_alive()
    assert Stream(folder).num_sealed == 8
    assert sealed(folder) == expected
