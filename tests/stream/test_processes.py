"""Chains in one process or in several, stopped, killed, resumed: the same sealed bytes."""

import os
import threading

import numpy as np
import pytest
import torch

from gped_nas import rng
from gped_nas.errors import ConfigError, DivergenceError, EnvironmentProblem, Interrupted
from gped_nas.io import lock
from gped_nas.posterior.base import METHODS
from gped_nas.stream import chunks
from gped_nas.stream.reader import Stream
from gped_nas.stream.writer import write_weights
from tests.scenarios import Chains as CountedChains
from tests.scenarios import stream_key, tree
from tests.stream.menu import IDLERS, NAMES, Menu, Signed, Unlucky

CHAINS = 2 * len(NAMES)
HISTORIES = ["2 processes", "1 process, stopped, 2 processes", "2 processes, stopped, 1 process"]


def build(root, run_chain, *, chains=2, num_samples=8, processes=1, stop_at=None):
    """Build a stream; ``stop_at`` stops once so many samples were told of."""
    reported = [0]

    def progress(what, done, total):
        assert (what, total) == ("teacher", num_samples)
        assert done <= total
        reported.append(done)

    folder = write_weights(
        root,
        stream_key(),
        run_chain,
        chains=chains,
        num_samples=num_samples,
        provenance={},
        progress=progress,
        should_stop=lambda: stop_at is not None and reported[-1] >= stop_at,
        processes=processes,
    )
    assert reported[-1] == num_samples or len(reported) == 1
    return folder


def sealed(folder):
    return tree(folder / "segments")


@pytest.fixture(scope="module")
def streams(tmp_path_factory):
    """Streams with a sample of two chains of every method, by their history; and sealed bytes."""
    root = tmp_path_factory.mktemp("menu")
    menu = Menu(root / "menu")
    menu.prepare()

    def run(name, processes, stop_at=None):
        return build(
            root / name,
            menu,
            chains=CHAINS,
            num_samples=CHAINS,
            processes=processes,
            stop_at=stop_at,
        )

    # In one process the chains before the first idler have their sample when it is stopped; of two
    # processes each runs every second chain.
    with pytest.raises(Interrupted, match="run the same command again"):
        run(HISTORIES[1], 1, stop_at=min(IDLERS))
    with pytest.raises(Interrupted, match="run the same command again"):
        run(HISTORIES[2], 2, stop_at=sum(idler // 2 for idler in IDLERS))
    assert not list(root.glob("*/*/segments"))
    menu.gate.touch()
    histories = {
        "1 process": run("1 process", 1),
        HISTORIES[0]: run(HISTORIES[0], 2),
        HISTORIES[1]: run(HISTORIES[1], 2),
        HISTORIES[2]: run(HISTORIES[2], 1),
    }
    return {name: (Stream(folder), sealed(folder)) for name, folder in histories.items()}


def test_every_registered_method_is_on_the_menu():
    assert set(NAMES) == set(METHODS)
    assert [idler % 2 for idler in sorted(IDLERS)] == [1, 0]


@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("name", NAMES)
def test_each_chain_has_the_same_bits_in_any_process(streams, name, history):
    expected, _ = streams["1 process"]
    stream, _ = streams[history]
    for chain in (2 * NAMES.index(name), 2 * NAMES.index(name) + 1):
        assert torch.equal(stream.theta(chain), expected.theta(chain))
        assert stream.weight_S[chain] == expected.weight_S[chain]

        prefix = f"state-{chain:02d}-"
        states = [n for n in expected.segments[0].names("state") if n.startswith(prefix)]
        assert states or name == "import"
        for state in states:
            array = stream.segments[0].read(state)
            assert np.array_equal(array, expected.segments[0].read(state)), state


@pytest.mark.parametrize("history", HISTORIES)
def test_the_sealed_bytes_are_the_same_for_any_history(streams, history):
    assert streams[history][1] == streams["1 process"][1]


class TestWhatGoesWrong:
    def test_an_error_of_a_chain_is_the_same_from_another_process(self, tmp_path):
        messages = set()
        for processes in (1, 2):
            run = Unlucky("diverges", tmp_path / "spared")
            with pytest.raises(DivergenceError) as caught:
                build(tmp_path / str(processes), run, processes=processes)
            messages.add(str(caught.value))
        assert messages == {"not finite after 3 steps"}

    def test_an_unexpected_error_comes_with_its_traceback(self, tmp_path):
        with pytest.raises(RuntimeError, match="LookupError: not finite after 3 steps") as caught:
            build(tmp_path, Unlucky("fails", tmp_path / "spared"), processes=2)
        assert "menu.py" in caught.value.__notes__[0]

    def test_a_killed_process_is_told_of_and_the_same_command_goes_on(self, tmp_path):
        run = Unlucky("killed", tmp_path / "spared")
        message = "chain 1 was killed by SIGKILL.*run the same command again"
        with pytest.raises(EnvironmentProblem, match=message):
            build(tmp_path / "a", run, processes=2)
        run.spared.touch()
        assert sealed(build(tmp_path / "a", run)) == sealed(build(tmp_path / "b", run))

    def test_what_cannot_be_handed_over_is_refused(self, tmp_path):
        with pytest.raises(ConfigError, match="register it in a plugin, or use one process"):
            build(tmp_path, lambda chain, state: iter(()), processes=2)

    def test_an_orphan_that_still_writes_is_waited_for(self, tmp_path):
        expected = sealed(build(tmp_path / "a", CountedChains()))
        with pytest.raises(Interrupted):
            build(tmp_path / "b", CountedChains(), stop_at=2)

        (chain,) = (tmp_path / "b").glob("*/building/*/chain-00")
        before = tree(chain)
        run = CountedChains()
        builder = threading.Thread(target=build, args=(tmp_path / "b", run))
        with lock(chain / "lock", wait=False):  # what an orphan holds
            builder.start()
            builder.join(0.3)
            assert builder.is_alive()
            assert run.num_steps == 0
            assert tree(chain) == before
        builder.join()
        assert sealed(stream_key().folder(tmp_path / "b")) == expected


def test_this_process_runs_a_share_beside_those_it_starts(tmp_path):
    """One that only waited would hold the libraries' memory once more."""
    build(tmp_path / "a", Signed(tmp_path), chains=4, processes=2)
    processes = [int((tmp_path / str(chain)).read_text()) for chain in range(4)]
    assert processes[0] == os.getpid()
    assert processes[1] != os.getpid()
    assert processes[2:] == processes[:2]


def test_more_processes_than_chains_are_not_started(tmp_path):
    folder = build(tmp_path / "a", CountedChains(chains=1), chains=1, processes=3)
    expected = build(tmp_path / "b", CountedChains(chains=1), chains=1)
    assert sealed(folder) == sealed(expected)


def test_a_chunk_is_written_when_its_samples_are_large(tmp_path, monkeypatch):
    """Memory does not grow with the samples that a method draws in a second."""
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 40 * 43 * 4)  # 40 samples of 43 parameters
    assert samples_in_chunks(tmp_path, monkeypatch) == [40, 40, 20]


def test_a_chunk_holds_as_many_bytes_of_samples_as_of_state(tmp_path, monkeypatch):
    """A state of many bytes, as that of a law, is not written once for each sample."""
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 1)
    num_state_bytes = 43 * 4 + 8 + rng.generator(0).get_state().nbytes
    num = -(-num_state_bytes // (43 * 4))
    assert samples_in_chunks(tmp_path, monkeypatch) == [num, num, num, 100 - 3 * num]


def samples_in_chunks(folder, monkeypatch):
    """How many samples each chunk of a build holds that is stopped after 100 of them."""
    monkeypatch.setattr(chunks, "CHUNK_SECONDS", 1e9)
    with pytest.raises(Interrupted):
        build(folder, CountedChains(chains=1), chains=1, num_samples=200, stop_at=100)
    shards = sorted(folder.glob("*/building/*/chain-00/chunk-*/params-*"))
    return [len(np.load(path)) for path in shards]
