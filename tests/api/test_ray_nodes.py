"""What is decided of a Ray cluster without one: who fits where, and what a node must be brought."""

import pytest

from gped_nas.api.engines.on_ray import share_out
from gped_nas.api.engines.placing import PIECE_BYTES, StreamFiles, place
from gped_nas.errors import EnvironmentProblem

NODES = [{"CPU": 3.0}, {"CPU": 3.0}]
CARDS = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 1.0}]


@pytest.mark.parametrize(
    "nodes, num, useful, gpus, expected",
    [
        (NODES, 2, 9, 0.0, (2, 3)),
        (NODES, 3, 9, 0.0, (3, 1)),  # of two cores each, two fit
        (NODES, None, 4, 0.0, (4, 1)),
        (NODES, None, 50, 0.0, (6, 1)),
        (CARDS, None, 50, 1.0, (3, 4)),
        (CARDS, None, 50, 0.5, (6, 2)),
        (CARDS, 2, 50, 2.0, None),
        (NODES, 7, 9, 0.0, None),
        (NODES, 1, 9, 1.0, None),
    ],
)
def test_actors_fit_into_the_nodes(nodes, num, useful, gpus, expected):
    if expected is None:
        with pytest.raises(EnvironmentProblem, match="found a cluster of 2 nodes with .* cores"):
            share_out(nodes, num, useful, gpus)
    else:
        assert share_out(nodes, num, useful, gpus) == expected


def test_a_node_is_brought_what_it_lacks_and_what_is_another_file(tmp_path, monkeypatch):
    monkeypatch.setattr("gped_nas.api.engines.placing.PIECE_BYTES", 7)
    stream = tmp_path / "streams" / "0123"
    (stream / "segments" / "0").mkdir(parents=True)
    (stream / "building").mkdir()
    contents = {"key.json": b"{}", "segments/0/theta.npy": b"twenty bytes of theta", "empty": b""}
    for name, data in contents.items():
        (stream / name).write_bytes(data)
    (stream / "building" / "half").write_bytes(b"not of the stream")
    (stream / "lock").touch()

    files = StreamFiles.of(stream)
    assert set(files.digests) == set(contents) and PIECE_BYTES > 7
    brought = []

    def bring(name, number):
        brought.append((name, number))
        return (stream / name).read_bytes()[files.pieces(name)[number]]

    root, num_replaced = place(files, tmp_path / "node", bring)
    assert num_replaced == 0 and brought.count(("segments/0/theta.npy", 2)) == 1
    placed = {name: (root / "0123" / name).read_bytes() for name in contents}
    assert placed == contents

    # who comes next on that node finds all of it
    brought.clear()
    assert place(files, tmp_path / "node", bring) == (root, 0) and not brought

    (root / "0123" / "key.json").write_bytes(b"[]")
    (root / "0123" / "empty").unlink()
    assert place(files, tmp_path / "node", bring) == (root, 1)
    assert {name for name, _ in brought} == {"key.json", "empty"}
    assert (root / "0123" / "key.json").read_bytes() == b"{}"
