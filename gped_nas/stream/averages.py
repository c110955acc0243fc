"""Chains of which no sample is kept: sums that run along with them, and where the chains are.

    <stream>/averages/<name>/          sealed; ``name`` hashes what is averaged and how often
        manifest.json
        sum-000000.npy ...             float64; what each is, ``about`` says, in this order
        state-<chain>-<name>.npy       the chain's state after its last sample

While chains run, ``building/averages-<name>/`` has the newest checkpoint, a folder of the same form
whose ``about`` also says which chain runs and how many samples it has given. Chains run in turn and
sums are taken in that order: a killed build goes on from its checkpoint and ends with the bytes of
one never killed. The bytes do not depend on the number of samples.
"""

import contextlib
import shutil
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from gped_nas.errors import Interrupted, StreamError
from gped_nas.io import (
    Array,
    canonical_json,
    make_dir,
    map_array,
    seal_dir,
    sha256_text,
    write_array,
)
from gped_nas.posterior.base import PosteriorSample, State
from gped_nas.stream.calibration import RAW
from gped_nas.stream.chunks import RunChain, state_of
from gped_nas.stream.format import Sealed, SealedWriter
from gped_nas.stream.key import StreamKey
from gped_nas.stream.reader import Stream
from gped_nas.stream.writer import Progress, write_key, writing

CHECKPOINT_SECONDS = 2.0
_SECONDS = "seconds.npy"


class Sums(Protocol):
    """What runs along with the chains; its size does not depend on how many samples it takes."""

    def take(self, sample: PosteriorSample, chain: int) -> None:
        """Take in a posterior sample of a chain."""

    def arrays(self) -> dict[str, Array]:
        """All that it holds, by name."""

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Go on from what ``arrays`` gave."""


class AveragedStream(Stream):
    """A stream of which averages were kept, and no posterior sample.

    It stands where a ``Stream`` does; what asks it for samples is refused.

    Args:
        folder: the stream's folder.
        name: of the averages.

    Raises:
        StreamError: they are missing or corrupt.
    """

    def __init__(self, folder: Path, name: str) -> None:
        path = folder / "averages" / name
        if not path.is_dir():
            raise StreamError(
                f"{path}: no averages here; run `gped-search teacher build SPACE` first"
            )
        self.folder = folder
        self.key = StreamKey.read(folder)
        self._prediction = self.key.likelihood_model.prediction
        self.segments = []
        self.calibration = RAW
        self._views = {}
        self._sealed = Sealed(path, self.key.digest)
        if self._sealed.manifest.kind != "averages":
            raise StreamError(f"{path}: holds no averages; delete it to make them anew")
        self.num_sealed = self.num_samples = self._sealed.manifest.num_samples

    @property
    def is_stored(self) -> bool:
        """Not: see the class."""
        return False

    @property
    def has_weights(self) -> bool:
        """Its networks are known, though not their parameters."""
        return True

    @cached_property
    def digest(self) -> str:
        """What a study pins: the key and the averages."""
        return sha256_text(canonical_json([self.key.digest, self._sealed.digest]))

    @property
    def sampling_seconds(self) -> float:
        """What the run that sealed them took."""
        path = self._sealed.folder.with_name(f".{self._sealed.folder.name}-{_SECONDS}")
        with contextlib.suppress(StreamError):
            return float(map_array(path, dtype="<f8", shape=(1,))[0])
        return 0.0

    @property
    def weight_S(self) -> Tensor:
        """Refused."""
        raise self._refusal()

    def theta(self, index: int) -> Tensor:
        """Refused."""
        raise self._refusal()

    def _refusal(self) -> StreamError:
        return StreamError(
            f"{self.folder}: found averages alone, which recipe.stream: none keeps, expected "
            "posterior samples; set recipe.stream to stored"
        )

    def states(self, name: str) -> list[Array]:
        """The tensor ``name`` of every chain's last state; empty where there is none."""
        files = [file for file in self._sealed.names("state") if file.endswith(f"-{name}.npy")]
        return [np.array(self._sealed.read(file)) for file in files]

    def arrays(self) -> dict[str, Array]:
        """What ran along with the chains."""
        return _arrays_of(self._sealed)

    def verify(self) -> list[str]:
        """Check every byte that is sealed; one message for each file that is corrupt."""
        return self._sealed.verify()


def holds_averages(root: Path, key: StreamKey, name: str) -> bool:
    """Whether averages of this name are there."""
    return (key.folder(root) / "averages" / name).is_dir()


def write_averages(
    root: Path,
    key: StreamKey,
    name: str,
    run_chain: RunChain,
    sums: Sums,
    *,
    chains: int,
    num_samples: int,
    progress: Progress,
    should_stop: Callable[[], bool],
) -> None:
    """Make sure that the averages of this name are there; no sample is written.

    Args:
        root: folder of all streams.
        key: of the stream whose samples are averaged.
        name: digest of all that the averages depend on beside the key.
        run_chain: runs one chain.
        sums: take in each sample, from the first one of the first chain.
        chains: number of chains; divides ``num_samples``.
        num_samples: posterior samples, all chains together.
        progress: told ``(what, samples done, samples wanted)``.
        should_stop: asked after each step; when true a checkpoint is written and the build ends.

    Raises:
        Interrupted: ``should_stop`` said so; the next call goes on from there.
        StreamError: the method has fewer samples than wanted.
        EnvironmentProblem: the folder cannot be written.
    """
    folder = key.folder(root)
    final = folder / "averages" / name
    if final.exists():
        return

    with writing(folder, "averages over posterior samples"):
        write_key(folder, key)
        if final.exists():  # another process may have made them meanwhile
            return

        started = time.monotonic()
        along = _Along(make_dir(folder / "building" / f"averages-{name}"), key, sums)
        along.go_on()
        draws = num_samples // chains
        while along.chain < chains:
            _run_one(along, run_chain, draws, num_samples, progress, should_stop)
            along.end_chain()

        building = along.write("sealing", num_samples=num_samples)
        seal_dir(building, final)
        seconds = np.array([time.monotonic() - started])
        write_array(final.with_name(f".{name}-{_SECONDS}"), seconds)
        shutil.rmtree(along.folder, ignore_errors=True)


def _run_one(
    along: "_Along",
    run_chain: RunChain,
    draws: int,
    num_samples: int,
    progress: Progress,
    should_stop: Callable[[], bool],
) -> None:
    """Run the chain that is on its way to its end."""
    if along.done >= draws:
        return

    for step in run_chain(along.chain, along.states.get(along.chain)):
        along.states[along.chain] = step.state
        if step.sample is not None:
            along.sums.take(step.sample, along.chain)
            along.done += 1
            progress("teacher", along.chain * draws + along.done, num_samples)

        if along.done >= draws:
            return
        if should_stop():
            along.checkpoint()
            raise Interrupted(
                "stopped while sampling the teacher; run the same command again to go on"
            )
        if along.is_due():
            along.checkpoint()

    raise StreamError(
        f"{along.folder}: the method ended after {along.done} samples, expected {draws}; lower "
        "num_samples"
    )


class _Along:
    """How far the chains are, and its checkpoints.

    Args:
        folder: of the checkpoints.
        key: the stream's key.
        sums: what runs along.
    """

    def __init__(self, folder: Path, key: StreamKey, sums: Sums) -> None:
        self.folder = folder
        self.sums = sums
        self.chain = 0
        self.done = 0
        self.states: dict[int, State] = {}
        self._key = key
        self._index = 0
        self._written = time.monotonic()

    def go_on(self) -> None:
        """Go on from the newest checkpoint that is whole, if there is one."""
        for path in sorted(self.folder.glob("checkpoint-*"), reverse=True):
            self._index = max(self._index, int(path.name.rpartition("-")[2]) + 1)
            try:
                checkpoint = Sealed(path, self._key.digest)
                if checkpoint.verify():
                    continue
            except StreamError:
                continue

            at = checkpoint.manifest.about
            self.chain, self.done = int(at["chain"]), int(at["done"])
            self.sums.restore(_arrays_of(checkpoint))
            for chain in range(self.chain + 1):
                state = state_of(checkpoint, chain)
                if state:
                    self.states[chain] = state
            return

    def end_chain(self) -> None:
        """Go over to the next chain."""
        self.chain += 1
        self.done = 0

    def is_due(self) -> bool:
        """Whether losing what was done since the last checkpoint would cost seconds."""
        return time.monotonic() - self._written > CHECKPOINT_SECONDS

    def checkpoint(self) -> None:
        """Write a checkpoint in place of the ones before."""
        before = list(self.folder.glob("checkpoint-*"))
        building = self.write(".writing", chain=self.chain, done=self.done)
        seal_dir(building, self.folder / f"checkpoint-{self._index:06d}")
        for path in before:
            shutil.rmtree(path, ignore_errors=True)
        self._index += 1
        self._written = time.monotonic()

    def write(self, name: str, *, num_samples: int = 0, **about: int) -> Path:
        """A folder with the sums and the chains' states, not yet in its place."""
        building = self.folder / name
        shutil.rmtree(building, ignore_errors=True)
        make_dir(building)

        writer = SealedWriter(building)
        arrays = self.sums.arrays()
        for i, array in enumerate(arrays.values()):
            writer.add(f"sum-{i:06d}", array)
        for chain, state in sorted(self.states.items()):
            for tensor_name, tensor in sorted(state.items()):
                writer.add(f"state-{chain:02d}-{tensor_name}", tensor.numpy())

        writer.close(
            kind="averages",
            stream=self._key.digest,
            about={"sums": list(arrays), **about},
            first_sample=0,
            num_samples=num_samples,
        )
        return building


def _arrays_of(sealed: Sealed) -> dict[str, Array]:
    names: list[Any] = sealed.manifest.about["sums"]
    files = sealed.names("sum")
    return {str(name): sealed.read(file) for name, file in zip(names, files, strict=True)}
