"""How many processes run a teacher's chains, and that nothing else about it depends on that."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gped_nas import device
from gped_nas.api import build_teacher, load_space, new_session
from gped_nas.api.session import Session
from gped_nas.errors import ConfigError, EnvironmentWarning
from tests.scenarios import tree

LONG, SHORT = device.SHARED_MACS, device.SHARED_MACS - 1


@pytest.mark.parametrize(
    ("asked", "name", "chains", "macs", "expected"),
    [
        (None, "cpu", 2, LONG, 2),
        (None, "cpu", 8, LONG, 3),
        (None, "cpu", 1, LONG, 1),
        (None, "cpu", 2, SHORT, 1),
        (None, "cuda", 2, LONG, 1),
        (5, "cpu", 2, SHORT, 2),
        (5, "cuda", 8, SHORT, 5),
        (1, "cpu", 8, LONG, 1),
    ],
)
def test_a_process_a_chain_where_a_step_is_long_or_as_asked(
    monkeypatch: pytest.MonkeyPatch,
    asked: int | None,
    name: str,
    chains: int,
    macs: int,
    expected: int,
) -> None:
    monkeypatch.setattr(device, "usable_cores", lambda: 3)
    assert Session(torch.device(name), processes=asked).processes_for(chains, macs) == expected


def test_fewer_processes_than_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="^processes: found 0, expected at least 1"):
        new_session("cpu", processes=0)
    assert new_session("cpu", processes=1).processes == 1


def test_no_more_processes_than_cores_are_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "usable_cores", lambda: 3)
    assert new_session("cpu", processes=3).processes == 3
    with pytest.warns(EnvironmentWarning, match="found 64 for 3 usable cores; 3 are used"):
        assert new_session("cpu", processes=64).processes == 3


def test_a_chain_has_the_same_bits_in_any_number_of_processes_with_any_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The products of this network give other last bits on two threads than on one (measured)."""
    overrides = {"teacher.genotype.width": 1000, "views": [{"policy": "clean"}]}
    space = load_space("digits_sgld", overrides)
    method = {"chains": 2, "num_samples": 4, "burn_in": 0, "thinning": 1}
    space = replace(space, method=space.method.model_copy(update=method))

    segments = []
    before = torch.get_num_threads()
    for processes, threads in ((1, 1), (1, 2), (2, 2)):
        monkeypatch.setenv("OMP_NUM_THREADS", str(threads))  # heard by processes that start
        torch.set_num_threads(threads)
        try:
            session = Session(streams=tmp_path / f"{processes}-{threads}", processes=processes)
            segments.append(tree(build_teacher(space, session).stream.folder / "segments"))
        finally:
            torch.set_num_threads(before)

    assert segments[0] and segments[0] == segments[1] == segments[2]
