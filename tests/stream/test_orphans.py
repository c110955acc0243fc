"""``kill -9`` of a process with children that run chains: they end too, or are waited for."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gped_nas.errors import EnvironmentProblem
from gped_nas.io import lock
from gped_nas.stream.writer import write_weights
from tests.scenarios import stream_key, tree
from tests.stream.menu import Patient

ROOT = Path(__file__).parents[2]
SCRIPT = """
import multiprocessing
import sys
from pathlib import Path
from gped_nas.stream.writer import write_weights
from tests.scenarios import stream_key
from tests.stream.menu import Patient

def progress(what, done, total):
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)

write_weights(
    Path(sys.argv[1]),
    stream_key(),
    Patient(Path(sys.argv[2])),
    chains=3,
    num_samples=9,
    processes=3,
    provenance={},
    progress=progress,
    should_stop=lambda: False,
)
"""
"""Not under ``if __name__ == "__main__"``, as people write scripts."""


def build(root, gate):
    return write_weights(
        root,
        stream_key(),
        Patient(gate),
        chains=3,
        num_samples=9,
        provenance={},
        progress=lambda what, done, total: None,
        should_stop=lambda: False,
    )


def wait_until(claim):
    deadline = time.monotonic() + 60
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_free(chain):
    try:
        with lock(chain / "lock", wait=False):
            return True
    except EnvironmentProblem:
        return False


@pytest.fixture
def family(tmp_path):
    """A script that runs three chains which do not end, and the numbers of its two children.

    All are killed in the end.
    They are in this process's group: in an orphaned one the system would wake a frozen process by a
    hang-up.
    """
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, tmp_path / "script.py", tmp_path / "a", tmp_path / "gate"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as parent:
        # It prints the children that are alive at each step, sooner or later both.
        for line in parent.stdout:
            children = sorted(int(pid) for pid in line.split())
            if len(children) == 2:
                break

        yield parent, children
        for pid in (parent.pid, *children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("frozen_child", [0, 1])
def test_children_end_with_their_parent_and_a_frozen_one_is_waited_for(
    tmp_path, family, frozen_child
):
    """One child stands between two steps; one, which never asks to stop, inside a step."""
    parent, children = family

    def locked_chains():
        chains = sorted(tmp_path.glob("a/*/building/*/chain-0?"))
        return [chain for chain in chains if not is_free(chain)]

    wait_until(lambda: len(locked_chains()) == 3)
    os.kill(children[frozen_child], signal.SIGSTOP)
    parent.kill()
    parent.wait()

    # The parent ended, and the child that could.
    wait_until(lambda: len(locked_chains()) == 1)
    (frozen,) = locked_chains()
    before = tree(frozen)

    (tmp_path / "gate").touch()
    builder = threading.Thread(target=build, args=(tmp_path / "a", tmp_path / "gate"))
    builder.start()
    builder.join(0.5)
    assert builder.is_alive()
    assert tree(frozen) == before

    os.kill(children[frozen_child], signal.SIGCONT)
    builder.join()
    whole = build(tmp_path / "b", tmp_path / "gate")
    assert tree(stream_key().folder(tmp_path / "a") / "segments") == tree(whole / "segments")
