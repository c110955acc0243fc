"""Run the chains of an unfinished segment, and keep what they drew in chunks.

A chain leaves, once a second or sooner if its samples are large, a chunk with its new samples and
its state, in a folder of its own that it locks. Chunks only carry samples from one process to the
next: where they were cut does not show in the sealed segment.
"""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gped_nas.errors import Interrupted, StreamError
from gped_nas.io import environment, lock, make_dir, seal_dir
from gped_nas.models.base import num_params
from gped_nas.posterior.base import State, Step
from gped_nas.stream.format import Sealed, SealedWriter
from gped_nas.stream.key import StreamKey

CHUNK_SECONDS = 1.0
CHUNK_BYTES = 16 * 2**20
RunChain = Callable[[int, State | None], Iterator[Step]]
"""``run_chain(chain, state)`` yields the steps of a chain from its beginning or from ``state``."""
RunTogether = Callable[[Sequence[int], Sequence[State | None]], Iterator[Sequence[Step]]]
"""``run_together(chains, states)`` yields a step of each of several chains, again and again."""
_STOPPED = "stopped while sampling the teacher; run the same command again to go on"


@dataclass(frozen=True, eq=False)
class Unfinished:
    """A segment in the making: what whoever runs one of its chains needs to know.

    Attributes:
        folder: where each chain has its folder of chunks.
        key: the stream's key.
        run_chain: runs one chain.
        wanted: posterior samples each chain is to draw.
        before: folder of the sealed segment that the chains go on from; None at their beginning.
    """

    folder: Path
    key: StreamKey
    run_chain: RunChain
    wanted: int
    before: Path | None

    def chunks(self, chain: int) -> list[Sealed]:
        """What a chain has left, opened, in order.

        Raises:
            StreamError: a chunk is corrupt.
        """
        paths = sorted(self._folder_of(chain).glob("chunk-*"))
        return [Sealed(path, self.key.digest) for path in paths]

    def run(
        self, chain: int, *, progress: Callable[[int], None], should_stop: Callable[[], bool]
    ) -> None:
        """Run one chain until its chunks hold the samples wanted, going on from those there are.

        The lock of the chain's folder makes a build wait for an orphan: a process whose parent was
        killed, which gave the stream's lock back, and which may be about to write its last chunk.

        Args:
            chain: which one.
            progress: told how many samples the chain has.
            should_stop: asked after each step; when true the chain's state is kept and the build
                ends.

        Raises:
            Interrupted: ``should_stop`` said so; the next call goes on from there.
            StreamError: the method has fewer samples than wanted.
            EnvironmentProblem: the folder cannot be written.
        """
        folder = self._folder_of(chain)
        with lock(folder / "lock", wait=True):
            chunks = _valid_chunks(folder, self.key)
            done = sum(chunk.manifest.num_samples for chunk in chunks)
            progress(done)
            if done >= self.wanted:
                return

            state = state_of(chunks[-1], 0) if chunks else self._start(chain)
            steps = self.run_chain(chain, state)
            writer = _ChunkWriter(folder, self.key, len(chunks))
            self._go_on(steps, writer, done, progress, should_stop)

    def _go_on(
        self,
        steps: Iterator[Step],
        writer: "_ChunkWriter",
        done: int,
        progress: Callable[[int], None],
        should_stop: Callable[[], bool],
    ) -> None:
        for step in steps:
            writer.take(step)
            if step.sample is not None:
                done += 1
                progress(done)

            if done >= self.wanted:
                writer.flush()
                return
            if should_stop():
                writer.flush()
                raise Interrupted(_STOPPED)
            if writer.is_full():
                writer.flush()

        raise StreamError(
            f"{writer.folder}: the method ended after {done} samples, expected {self.wanted}; "
            "lower num_samples"
        )

    def run_together(
        self,
        chains: Sequence[int],
        run: RunTogether,
        *,
        progress: Callable[[int, int], None],
        should_stop: Callable[[], bool],
    ) -> None:
        """Run several chains at once; each leaves what it would leave alone.

        Args:
            chains: which ones.
            run: runs them.
            progress: told ``(chain, samples the chain has)``.
            should_stop: asked after each step of all of them.

        Raises:
            Interrupted: ``should_stop`` said so; the next call goes on from there.
            EnvironmentProblem: the folder cannot be written.
            GpedError: whatever a chain raised.
        """
        with contextlib.ExitStack() as locks:
            unfinished = []
            for chain in chains:
                folder = self._folder_of(chain)
                locks.enter_context(lock(folder / "lock", wait=True))
                chunks = _valid_chunks(folder, self.key)
                state = state_of(chunks[-1], 0) if chunks else self._start(chain)
                done = sum(chunk.manifest.num_samples for chunk in chunks)
                progress(chain, done)
                writer = _ChunkWriter(folder, self.key, len(chunks))
                if done < self.wanted:
                    unfinished.append(_OnTheWay(chain, state, done, writer))

            # those that are done leave, and the others go on without them
            while unfinished:
                rounds = run([c.chain for c in unfinished], [c.state for c in unfinished])
                self._go_on_until_done(rounds, unfinished, progress, should_stop)
                unfinished = [chain for chain in unfinished if chain.done < self.wanted]

    def _go_on_until_done(
        self,
        rounds: Iterator[Sequence[Step]],
        chains: Sequence["_OnTheWay"],
        progress: Callable[[int, int], None],
        should_stop: Callable[[], bool],
    ) -> None:
        """Take steps of several chains until one of them has the samples wanted."""
        for steps in rounds:
            for chain, step in zip(chains, steps, strict=True):
                chain.take(step)
                if step.sample is not None:
                    progress(chain.chain, chain.done)

            is_one_done = any(chain.done >= self.wanted for chain in chains)
            stops = not is_one_done and should_stop()
            for chain in chains:
                if is_one_done or stops or chain.writer.is_full():
                    chain.writer.flush()
            if stops:
                raise Interrupted(_STOPPED)
            if is_one_done:
                return
        raise AssertionError("a chain never ends")

    def _folder_of(self, chain: int) -> Path:
        return self.folder / f"chain-{chain:02d}"

    def _start(self, chain: int) -> State | None:
        if self.before is None:
            return None
        return state_of(Sealed(self.before, self.key.digest), chain)


@dataclass(eq=False)
class _OnTheWay:
    """A chain that runs beside others.

    Attributes:
        chain: its number.
        state: where it is.
        done: samples that it has.
        writer: of its next chunk.
    """

    chain: int
    state: State | None
    done: int
    writer: "_ChunkWriter"

    def take(self, step: Step) -> None:
        """Go on to a step."""
        self.writer.take(step)
        self.state = step.state
        self.done += step.sample is not None


class _ChunkWriter:
    """Gathers the steps of a chain and writes them as its next chunk.

    Args:
        folder: the chain's.
        key: the stream's key.
        index: number of the next chunk.
    """

    def __init__(self, folder: Path, key: StreamKey, index: int) -> None:
        self.folder = folder
        self._key = key
        self._index = index
        self._num_params = num_params(key.shapes)
        self._begin()

    def _begin(self) -> None:
        self._samples: list[Tensor] = []
        self._weights: list[float] = []
        self._state: State = {}
        self._began = time.monotonic()

    def take(self, step: Step) -> None:
        """Keep a step's sample and, in place of the last one's, its state."""
        self._state = step.state
        if step.sample is not None:
            self._samples.append(step.sample.theta_W)
            self._weights.append(step.sample.weight)

    def is_full(self) -> bool:
        """Whether losing the chunk would cost a second, or keeping it would take much memory."""
        num_bytes = 4 * self._num_params * len(self._samples)
        # a large state, such as a codec's, is not written for fewer bytes of samples
        num_state_bytes = sum(tensor.nbytes for tensor in self._state.values())
        seconds = time.monotonic() - self._began
        return num_bytes >= max(CHUNK_BYTES, num_state_bytes) or seconds > CHUNK_SECONDS

    def flush(self) -> None:
        """Write the chunk and begin the next one."""
        building = self.folder / ".writing"
        shutil.rmtree(building, ignore_errors=True)
        make_dir(building)

        # A chunk that was cut during burn-in has no sample, only a state.
        if self._samples:
            params = torch.stack(self._samples).numpy()
        else:
            params = np.empty((0, self._num_params), np.float32)

        writer = SealedWriter(building)
        writer.add("params-000000", params)
        writer.add("weight-000000", np.asarray(self._weights, np.float64))
        for name, tensor in self._state.items():
            writer.add(f"state-00-{name}", tensor.numpy())
        writer.close(
            kind="chunk",
            stream=self._key.digest,
            about={},
            first_sample=0,
            num_samples=len(self._samples),
        )

        seal_dir(building, self.folder / f"chunk-{self._index:06d}")
        self._index += 1
        self._begin()


def state_of(sealed: Sealed, chain: int) -> State:
    """The state of a chain in a sealed folder.

    A chunk knows one chain only, whose number in it is 0.
    """
    prefix = f"state-{chain:02d}-"
    state: State = {}
    for file in sealed.names("state"):
        if file.startswith(prefix):
            name = file.removeprefix(prefix).removesuffix(".npy")
            state[name] = torch.from_numpy(np.array(sealed.read(file)))
    return state


def _valid_chunks(folder: Path, key: StreamKey) -> list[Sealed]:
    """The chunks of a chain up to the first damaged one, which is removed with all later ones."""
    chunks: list[Sealed] = []
    for path in sorted(folder.glob("chunk-*")):
        try:
            chunk = Sealed(path, key.digest)
            is_intact = not chunk.verify()
        except StreamError:
            is_intact = False

        # Once a chunk is gone the number of no later one fits, so that they go too.
        if is_intact and path.name == f"chunk-{len(chunks):06d}":
            chunks.append(chunk)
        else:
            _remove(path)
    return chunks


def _remove(path: Path) -> None:
    with environment("remove", path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
