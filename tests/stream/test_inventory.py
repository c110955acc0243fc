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


def test_sizes_are_those_of_the_files(tmp_path):
    folder = whole(tmp_path)
    (found,) = streams_of(tmp_path)
    files = tree(folder)
    assert found.num_bytes == sum(map(len, files.values()))
    for part, num_bytes in found.part_bytes.items():
        assert (
            num_bytes == sum(len(c) for name, c in files.items() if name.startswith(f"{part}/")) > 0
        ), part
    assert found.key is not None and found.key.digest == stream_key().digest
    assert (found.num_samples, found.is_busy, found.problem) == (8, False, "")
    assert found.written == max(p.lstat().st_mtime for p in [folder, *folder.rglob("*")])


@pytest.mark.parametrize("part", ["building", "derived", "views"])
def test_a_part_goes_alone_and_is_made_again(tmp_path, part):
    folder = whole(tmp_path)
    before = tree(folder)
    freed = remove_part(folder, part)
    gone = {name: content for name, content in before.items() if name.startswith(f"{part}/")}
    assert (
        freed == sum(map(len, gone.values())) and tree(folder).keys() == before.keys() - gone.keys()
    )
    assert not list(folder.glob(".*"))
    view(Stream(folder))
    Stream(folder).cache("average", "0" * 64, torch.ones(2, 3))
    assert {k: v for k, v in tree(folder).items() if k.startswith(("views", "derived"))} == {
        k: v for k, v in before.items() if k.startswith(("views", "derived"))
    }
    assert remove_part(tmp_path, part) == 0


def test_a_stream_goes_whole_and_is_built_again(tmp_path):
    folder = build(tmp_path)
    before = sealed(folder)
    freed = sum(map(len, tree(folder).values()))
    assert remove_stream(folder) == freed
    assert streams_of(tmp_path) == [] and not list(tmp_path.iterdir())
    assert sealed(build(tmp_path)) == before


def test_a_stream_that_is_written_stays(tmp_path):
    folder = whole(tmp_path)
    before = tree(folder)
    with lock(folder / "lock", wait=False):
        assert streams_of(tmp_path)[0].is_busy
        for remove in (lambda: remove_stream(folder), lambda: remove_part(folder, "building")):
            with pytest.raises(EnvironmentProblem, match="another process is working here"):
                remove()
    assert tree(folder) == before


def test_links_are_not_followed(tmp_path):
    folder = whole(tmp_path / "streams")
    outside = tmp_path / "outside"
    (folder / "views").rename(outside)
    (folder / "views").symlink_to(outside)
    (tmp_path / "streams" / ("0" * 32)).symlink_to(outside)
    before = tree(outside)
    (found,) = streams_of(tmp_path / "streams")
    assert found.folder == folder and found.part_bytes["views"] == 0
    assert found.num_bytes == sum(
        p.lstat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink()
    )
    assert remove_part(folder, "views") == 0
    remove_stream(folder)
    assert tree(outside) == before


def test_a_removal_that_was_cut_short_is_finished(tmp_path):
    folder = build(tmp_path)
    gone = folder.rename(folder.with_name(f".gone-{folder.name}"))
    size = sum(map(len, tree(gone).values()))
    assert streams_of(tmp_path) == [] and leftovers_of(tmp_path) == [(gone, size)]
    assert remove_leftover(gone) == size and leftovers_of(tmp_path) == []


def test_what_cannot_be_read_is_listed_with_the_reason(tmp_path):
    folder = build(tmp_path)
    os.truncate(folder / "segments/000000/params-000000.npy", 3)
    (found,) = streams_of(tmp_path)
    assert found.key is not None and "params-000000.npy" in found.problem
    (folder / "key.json").unlink()
    (found,) = streams_of(tmp_path)
    assert found.key is None and found.num_samples == 0 and found.num_bytes > 0
    assert streams_of(tmp_path / "absent") == []


def test_a_builder_that_waited_for_a_removal_builds_anew(tmp_path, monkeypatch):
    folder = build(tmp_path, 4)
    expected = sealed(build(tmp_path / "b", 8))
    waits, flock = threading.Event(), fcntl.flock
    builder = threading.Thread(target=build, args=(tmp_path, 8))

    def announced(fd, operation):
        if threading.current_thread() is builder:
            waits.set()
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", announced)
    with lock(folder / "lock", wait=False):
        builder.start()
        assert waits.wait(60)
        folder.rename(tmp_path / "gone")
    builder.join(60)
    assert not builder.is_alive()
    assert Stream(folder).num_sealed == 8 and sealed(folder) == expected
