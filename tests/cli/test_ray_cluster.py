"""A search on a Ray cluster of two nodes, which this machine stands for: each has its own cache."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.harness import Result, installed
from tests.cli.test_engines import records
from tests.faults.checks import sha256, write_space

CLUSTER = """
import os, sys
from ray.cluster_utils import Cluster
quiet = {"include_dashboard": False, "object_store_memory": 2**27}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **quiet})
os.environ["GPED_CACHE"], os.environ["PYTHONPATH"] = sys.argv[1:]
other = cluster.add_node(num_cpus=1, **quiet)
print(cluster.address, flush=True)
for line in sys.stdin:
    cluster.remove_node(other, allow_graceful=False)
    print("removed", flush=True)
cluster.shutdown()
"""
OTHER_VERSION = "import gped_nas\ngped_nas.__version__ = '0.0.1'\n"


@contextmanager
def two_nodes(folder: Path, site: Path) -> Iterator["tuple[str, subprocess.Popen[str]]"]:
    """The address of a cluster whose second node has another cache, and what drives it.

    A line that it is told loses the second node.
    """
    env = {**os.environ, "GPED_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    path = os.pathsep.join([str(site), env.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER, str(folder / "other"), path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=env,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield process.stdout.readline().strip(), process
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


def search(folder: Path, out: str, *options: object) -> Result:
    space = write_space(
        folder,
        students=[{"family": "mlp", "genotype": {"depth": 1, "width": {"int": [8, 90]}}}],
        search={"sampler": "random", "n_trials": 8, "students_at_once": 2},
        recipe={"steps": 30, "batch_size": 64, "warmup": 5, "lr": 0.02, "precision": "float32"},
    )
    cache = str(folder / "cache")
    result = installed("run", space, "--out", folder / out, *options, GPED_CACHE=cache)
    assert result.code == 0, result.err
    return result


@pytest.mark.soak
def test_two_nodes_make_the_records_of_processes(tmp_path: Path) -> None:
    workers = ["--workers", 2, "--engine"]
    search(tmp_path, "processes", *workers, "processes")
    expected = records(tmp_path / "processes")

    with two_nodes(tmp_path, tmp_path / "nothing") as (address, _):
        search(tmp_path, "nodes", *workers, "ray", "--address", address)
        assert records(tmp_path / "nodes") == expected

        # the stream was brought to one node, whole, into that node's cache
        (stream,) = (tmp_path / "cache" / "streams").iterdir()
        (placed,) = tmp_path.glob(f"*/placed/*/{stream.name}")
        for path in placed.rglob("*"):
            if path.is_file():
                assert sha256(path) == sha256(stream / path.relative_to(placed))

        # and is brought again where it is another one
        (placed / "key.json").write_text("{}")
        again = search(tmp_path, "again", *workers, "ray", "--address", address)
        assert "1 files of the stream were others, and are replaced" in again.err
        assert records(tmp_path / "again") == expected


@pytest.mark.soak
def test_a_node_of_another_version_is_left_out_and_one_may_die(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(OTHER_VERSION)
    options = ["--workers", 2, "--engine", "ray", "--address"]
    with two_nodes(tmp_path, site) as (address, process):
        result = search(tmp_path, "versions", *options, address)
        assert "found gped-nas 0.0.1, expected " in result.err

        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("lose it\n")
        process.stdin.flush()
        assert process.stdout.readline() == "removed\n"
        search(tmp_path, "alone", "--engine", "ray", "--address", address)
    assert records(tmp_path / "alone") == records(tmp_path / "versions")


def test_a_cluster_that_does_not_answer_is_told(tmp_path: Path) -> None:
    space = write_space(tmp_path)
    result = installed(
        "run",
        space,
        "--out",
        tmp_path / "out",
        "--engine",
        "ray",
        "--address",
        "127.0.0.1:1",
        GPED_CACHE=str(tmp_path / "cache"),
    )
    assert result.code == 5, result.err
    assert "--address 127.0.0.1:1: no Ray cluster answers" in result.err
