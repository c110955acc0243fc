"""Run one chain of an unfinished segment, and keep what it drew in chunks.

A chain leaves, once a second or sooner if its samples are large, a chunk with its new samples and
its state, in a folder of its own that it locks. Chunks only carry samples from one process to the
next: where they were cut does not show in the sealed segment.
"""

import shutil
import time
from collections.abc import Callable, Iterator
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
"""``run_chain(chain, state)`` yields the steps of one chain from its beginning or from ``state``.
"""


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
        return [
            Sealed(path, self.key.digest) for path in sorted(self._chain(chain).glob("chunk-*"))
        ]

    def run(
        self, chain: int, *, progress: Callable[[int], None], should_stop: Callable[[], bool]
    ) -> None:
        """Run one chain until its chunks hold the samples wanted, going on from the chunks that are
        there.

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
        folder = self._chain(chain)
        with lock(folder / "lock", wait=True):
            chunks = _valid_chunks(folder, self.key)
            done = sum(chunk.manifest.num_samples for chunk in chunks)
            progress(done)
            if done < self.wanted:
                state = state_of(chunks[-1], 0) if chunks else self._start(chain)
                writer = _ChunkWriter(folder, self.key, len(chunks))
                self._go_on(self.run_chain(chain, state), writer, done, progress, should_stop)

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
                raise Interrupted(
                    "stopped while sampling the teacher; run the same command again to go on"
                )
            if writer.is_full():
                writer.flush()
        raise StreamError(
            f"{writer.folder}: the method ended after {done} samples, expected {self.wanted}; "
            "lower num_samples"
        )

    def _chain(self, chain: int) -> Path:
        return self.folder / f"chain-{chain:02d}"

    def _start(self, chain: int) -> State | None:
        return (
            None if self.before is None else state_of(Sealed(self.before, self.key.digest), chain)
        )


class _ChunkWriter:
    """Gathers the steps of a chain and writes them as its next chunk.

    Args:
        folder: the chain's.
        key: the stream's key.
        index: number of the next chunk.
    """

    def __init__(self, folder: Path, key: StreamKey, index: int) -> None:
        self.folder, self._key, self._index = folder, key, index
        self._row_bytes = 4 * num_params(key.shapes)
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
        """Whether losing the chunk would cost a second, or keeping it much memory (writing takes it
        twice).
        """
        num_bytes = len(self._samples) * self._row_bytes
        return num_bytes >= CHUNK_BYTES or time.monotonic() - self._began > CHUNK_SECONDS

    def flush(self) -> None:
        """Write the chunk and begin the next one."""
        building = self.folder / ".writing"
        shutil.rmtree(building, ignore_errors=True)
        make_dir(building)
        writer = SealedWriter(building)
        no_rows = np.empty((0, num_params(self._key.shapes)), np.float32)
        writer.add(
            "params-000000", torch.stack(self._samples).numpy() if self._samples else no_rows
        )
        writer.add("weight-000000", np.asarray(self._weights, np.float64))
        for name, tensor in self._state.items():
            writer.add(f"state-00-{name}", tensor.numpy())
        num = len(self._samples)
        writer.close(
            kind="chunk", stream=self._key.digest, about={}, first_sample=0, num_samples=num
        )
        seal_dir(building, self.folder / f"chunk-{self._index:06d}")
        self._index += 1
        self._begin()


def state_of(sealed: Sealed, chain: int) -> State:
    """The state of a chain in a sealed folder; in a chunk, which knows one chain only, that is
    chain 0.
    """
    prefix = f"state-{chain:02d}-"
    names = [name for name in sealed.names("state") if name.startswith(prefix)]
    return {
        n.removeprefix(prefix).removesuffix(".npy"): torch.from_numpy(np.array(sealed.read(n)))
        for n in names
    }


def _valid_chunks(folder: Path, key: StreamKey) -> list[Sealed]:
    """The chunks of a chain up to the first that is damaged; that one and all later ones are
    dropped.
    """
    chunks: list[Sealed] = []
    for path in sorted(folder.glob("chunk-*")):
        try:
            chunk = Sealed(path, key.digest)
            intact = not chunk.verify()
        except StreamError:
            intact = False
        if not intact or path.name != f"chunk-{len(chunks):06d}":
            _remove(path)
            continue
        chunks.append(chunk)
    return chunks


def _remove(path: Path) -> None:
    with environment("remove", path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
