"""Chains side by side in processes of their own, with the bits they have one after another.

The parent holds the stream's lock and runs the first share of the chains itself: a parent that only
waited would hold the libraries' memory once more for nothing. A worker is a spawned process that
runs another share on one thread, writes under its chains' folders only, and talks to the parent
over one pipe: samples drawn and errors go up, the wish to stop comes down. The parent listens
between two steps of its own. Terminal signals are its business; a worker ends with it, however that
ended.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from types import ModuleType

import torch.multiprocessing

from gped_nas import device
from gped_nas.errors import (
    ConfigError,
    EnvironmentProblem,
    EnvironmentWarning,
    GpedError,
    Interrupted,
)
from gped_nas.stream.chunks import Unfinished

POLL_S = 0.1
_OBEYED_BY_PARENT = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_CONTEXT = torch.multiprocessing.get_context("spawn")


def run_chains(
    segment: Unfinished,
    *,
    chains: int,
    processes: int,
    progress: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> None:
    """Run all chains of a segment, shared out over this process and others.

    Args:
        segment: what to run; its ``run_chain`` can be pickled if ``processes`` is above 1, its
            tensors are then shared.
        chains: how many there are.
        processes: how many run at the same time at most, this one included; does not show in what
            they draw.
        progress: told ``(chain, samples the chain has)``.
        should_stop: asked after each step here, or every ``POLL_S`` once the chains here are done;
            when true the chains' states are kept and this ends.

    Raises:
        Interrupted: ``should_stop`` said so; the next call goes on from there.
        ConfigError: ``run_chain`` cannot be handed to another process.
        EnvironmentProblem: a process was killed, or the folder cannot be written.
        GpedError: whatever a chain raised.
    """
    processes = min(processes, chains)
    own_share = range(0, chains, processes)
    other_shares = [range(i, chains, processes) for i in range(1, processes)]

    with contextlib.ExitStack() as stack:
        try:
            with contextlib.ExitStack() as started:
                workers = [_Worker(segment, share, started) for share in other_shares]
                stack.push(started.pop_all())
        except _NoSharedMemory as error:
            # Whoever had started is killed by now, as any build may be: its chains go on.
            workers, own_share = [], range(chains)
            warnings.warn(
                f"not enough shared memory for {processes} processes ({error}): one process runs "
                "all chains, with the same result; enlarge /dev/shm, for example with docker run "
                "--shm-size=1g",
                EnvironmentWarning,
                stacklevel=2,
            )

        others = _Others(workers, progress, should_stop)
        try:
            for chain in own_share:
                segment.run(chain, progress=partial(progress, chain), should_stop=others.listen)
        except Interrupted:
            # The others were told to stop too: each keeps its state before this ends.
            others.attend()
            raise
        others.attend()


class _NoSharedMemory(Exception):
    """The tensors of the work have no room where processes share them."""


class _Worker:
    """A process at work, seen from its parent; ``stack`` ends it.

    Raises:
        _NoSharedMemory: its tensors cannot be shared.
        ConfigError: the work cannot be handed over.
    """

    def __init__(self, segment: Unfinished, chains: range, stack: contextlib.ExitStack) -> None:
        self.chains = chains
        self.folder = segment.folder

        self.connection, theirs = _CONTEXT.Pipe()
        stack.callback(self.connection.close)
        self.process = _CONTEXT.Process(target=_work, args=(segment, chains, theirs))
        with theirs, deaf(), without_script():
            try:
                self.process.start()
            except OSError:
                raise
            except Exception as error:  # what cannot be pickled says so by many classes
                if _is_of_shared_memory(error):
                    raise _NoSharedMemory(str(error)) from error
                raise ConfigError(
                    f"found a posterior that cannot be handed to another process ({error}); "
                    "expected one made of importable modules: register it in a plugin, or use one "
                    "process"
                ) from error
        stack.callback(self._end)

    def _end(self) -> None:
        self.process.kill()
        self.process.join()
        self.process.close()

    def stop(self) -> None:
        """Ask it to finish its step, keep its state and end."""
        with contextlib.suppress(OSError):  # it has ended already
            self.connection.send("stop")

    def ended(self) -> None:
        """Look at how it ended.

        Raises:
            EnvironmentProblem: not by itself.
        """
        self.process.join()
        code = self.process.exitcode or 0
        if code == 0:
            return

        if code == -signal.SIGKILL:
            how = "was killed by SIGKILL, perhaps because memory ran out"
        elif code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        else:
            how = f"ended with exit code {code}"

        numbers = ", ".join(map(str, self.chains))
        raise EnvironmentProblem(
            f"{self.folder}: the process of chain {numbers} {how}; what it drew until a moment "
            "before is kept: run the same command again to go on, with --processes 1 if memory is "
            "short"
        )


def _is_of_shared_memory(error: Exception) -> bool:
    """Whether torch found no room for a tensor that it shares; it says so in words alone."""
    is_named = "shared memory" in str(error) or "/torch_" in str(error)
    return isinstance(error, RuntimeError) and is_named


class _Others:
    """The workers beside the chains that run here.

    Args:
        workers: all of them.
        progress: told what they say they drew.
        should_stop: asked at each call; workers are told when it first says so.
    """

    def __init__(
        self,
        workers: list[_Worker],
        progress: Callable[[int, int], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self._busy = {worker.connection: worker for worker in workers}
        self._progress = progress
        self._should_stop = should_stop
        self._stopping = False
        self._interrupted: Interrupted | None = None

    def listen(self, timeout: float = 0.0) -> bool:
        """Relay what workers sent, or send within ``timeout`` seconds; whether to stop.

        Raises:
            EnvironmentProblem: one was killed.
            GpedError: whatever a chain of theirs raised.
        """
        if not self._stopping and self._should_stop():
            self._stopping = True
            for worker in self._busy.values():
                worker.stop()

        # With nobody left to wait for, waiting would take the whole timeout.
        ready = wait(list(self._busy), timeout) if self._busy else []
        for connection in ready:
            assert isinstance(connection, Connection)
            try:
                message = connection.recv()
            except (EOFError, ConnectionResetError):
                self._busy.pop(connection).ended()
                continue

            if isinstance(message, Interrupted):
                self._interrupted = message
            elif isinstance(message, BaseException):
                raise message
            else:
                self._progress(*message)

        return self._stopping

    def attend(self) -> None:
        """Listen until all workers have ended.

        Raises:
            Interrupted: one was stopped before it was done.
            EnvironmentProblem, GpedError: see ``listen``.
        """
        while self._busy:
            self.listen(POLL_S)
        if self._interrupted is not None:
            raise self._interrupted


def _work(segment: Unfinished, chains: range, connection: Connection) -> None:
    """What a worker does."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    device.set_precision()
    warnings.simplefilter("ignore", EnvironmentWarning)  # the parent has told it
    # The parent sends one thing only, so that whatever arrives is the wish to stop.
    should_stop = connection.poll

    try:
        with device.threads_for(0):
            for chain in chains:
                progress = partial(_tell, connection, chain)
                segment.run(chain, progress=progress, should_stop=should_stop)
    except (GpedError, OSError, MemoryError) as error:
        connection.send(error)
    except Exception as error:
        # An error of another class may not survive the pipe.
        unexpected = RuntimeError(f"{type(error).__name__}: {error}")
        unexpected.add_note(traceback.format_exc())
        connection.send(unexpected)


def _tell(connection: Connection, chain: int, done: int) -> None:
    connection.send((chain, done))


def end_with_parent() -> None:
    """Wait for the parent's end, however it ended, and end this process then."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has a parent"
    parent.join()
    os._exit(1)


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Processes started inside never hear Ctrl-C, which a terminal sends to all.

    They inherit what is blocked.
    """
    # Starting the tracker unblocks these signals, so it must run before they are blocked.
    resource_tracker.ensure_running()

    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OBEYED_BY_PARENT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def without_script() -> Iterator[None]:
    """Processes started inside do not run the user's script again.

    It needs no ``if __name__ == "__main__"`` then.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script
