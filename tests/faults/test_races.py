"""Two processes that build one stream at once: both end well, and no byte of it is lost."""

import os
import time
from collections import Counter
from pathlib import Path

import pytest

from gped_nas.errors import StreamError
from gped_nas.stream import chunks
from gped_nas.stream.reader import Stream
from tests.faults.conftest import soak_or
from tests.scenarios import stream_key, tree
from tests.stream.test_writer import build, sealed, view

BUILDERS = 2
SAMPLES = 40


def _work(root: Path) -> None:
    view(Stream(build(root, SAMPLES)))


def _fork(root: Path, start_s: float) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            time.sleep(max(0.0, start_s - time.monotonic()))
            _work(root)
            code = 0
        finally:
            os._exit(code)
    return pid


def _look(folder: Path) -> str:
    """What a reader sees: nothing yet, or all samples, all of them whole."""
    try:
        stream = Stream(folder)
    except StreamError as error:
        assert "no stream here" in str(error) or "holds 0 samples" in str(error), error
        return "nothing yet"
    assert stream.num_samples == SAMPLES
    assert stream.verify() == []
    return "whole"


@pytest.mark.parametrize("race", range(soak_or(50, 3)))
def test_two_builders_of_one_stream(
    tmp_path: Path, race: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_SECONDS", 0.001 * (race % 4))
    _work(tmp_path / "alone")
    expected = sealed(stream_key().folder(tmp_path / "alone"))

    folder = stream_key().folder(tmp_path / "shared")
    start_s = time.monotonic() + 0.05
    running = {_fork(tmp_path / "shared", start_s) for _ in range(BUILDERS)}
    seen: Counter[str] = Counter()
    while running:
        seen[_look(folder)] += 1
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in running:
            assert os.waitstatus_to_exitcode(status) == 0
            running.remove(pid)

    assert seen["nothing yet"]
    assert _look(folder) == "whole"
    assert sealed(folder) == expected
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert not any(name.endswith(".tmp") or name.startswith("building/") for name in tree(folder))
