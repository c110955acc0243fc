"""Write a stream: chains to sealed segments, predictions at a view's inputs to sealed views.

A killed build goes on from the last chunk of each chain (see chunks.py). Neither where chunks were
cut nor how many processes ran the chains shows in the sealed segment, which is the same bytes for
any history of kills.
"""

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from gped_nas.errors import EnvironmentProblem, Interrupted, StreamError
from gped_nas.io import (
    Array,
    canonical_json,
    environment,
    lock,
    make_dir,
    read_json,
    remove_temporaries,
    seal_dir,
    write_json,
)
from gped_nas.models.base import num_params
from gped_nas.stream.chunks import RunChain, RunTogether, Unfinished, state_of
from gped_nas.stream.format import FORMAT_VERSION, SHARD_BYTES, Sealed, SealedWriter
from gped_nas.stream.key import StreamKey
from gped_nas.stream.predictions import STORED, encode
from gped_nas.stream.processes import run_chains
from gped_nas.stream.reader import Stream, view_about
from gped_nas.stream.segments import sealed_segments, segment_folders

Progress = Callable[[str, int, int], None]
"""``progress(what, done, total)``, called often; ``total`` is fixed for one ``what``."""


def holds(root: Path, key: StreamKey, num_samples: int) -> bool:
    """Whether the stream of ``key`` is there with at least ``num_samples`` posterior samples.

    Raises:
        StreamError: what is there is corrupt or of another key.
    """
    folder = key.folder(root)
    return folder.exists() and _num_sealed(sealed_segments(folder, key.digest)) >= num_samples


def write_weights(
    root: Path,
    key: StreamKey,
    run_chain: RunChain,
    *,
    chains: int,
    num_samples: int,
    provenance: dict[str, Any],
    progress: Progress,
    should_stop: Callable[[], bool],
    processes: int = 1,
    run_together: RunTogether | None = None,
) -> Path:
    """Make sure that the stream of ``key`` holds at least ``num_samples`` posterior samples.

    What is sealed is never touched: missing samples continue the chains into a new segment.

    Args:
        root: folder of all streams.
        key: the stream's key.
        run_chain: runs one chain; can be pickled if ``processes`` is above 1.
        chains: number of chains; divides ``num_samples``.
        num_samples: posterior samples wanted, all chains together.
        provenance: what is told of the machine, kept outside every digest.
        progress: told ``(what, samples done, samples wanted)``.
        should_stop: asked after each step; when true the chains' states are kept and the build
            ends.
        processes: how many chains run side by side, each in a process with one thread; changes no
            bit of a chain that has one thread here too.
        run_together: runs all chains at once, in this process; they are then no business of
            ``run_chain`` and ``processes``.

    Returns:
        The stream's folder.

    Raises:
        Interrupted: ``should_stop`` said so; the next call goes on from there.
        StreamError: what is there is corrupt or of another key.
        EnvironmentProblem: the folder cannot be written, or a process was killed.
        GpedError: whatever a chain raised.
    """
    folder = key.folder(root)
    if holds(root, key, num_samples):
        return folder

    with writing(folder, f"posterior samples ({num_samples} are wanted)"):
        write_key(folder, key)

        # Another process may have sealed them while this one waited for the lock.
        sealed = sealed_segments(folder, key.digest)
        num_sealed = _num_sealed(sealed)
        if num_sealed >= num_samples:
            return folder

        started = time.time()
        name = f"segment-{len(sealed):06d}-{num_sealed}-{num_samples}"
        segment = Unfinished(
            folder=make_dir(folder / "building" / name),
            key=key,
            run_chain=run_chain,
            wanted=(num_samples - num_sealed) // chains,
            before=sealed[-1].folder if sealed else None,
        )

        done_by_chain = [0] * chains

        def tell(chain: int, done: int) -> None:
            done_by_chain[chain] = done
            progress("teacher", num_sealed + sum(done_by_chain), num_samples)

        if run_together is not None:
            segment.run_together(
                range(chains), run_together, progress=tell, should_stop=should_stop
            )
        else:
            run_chains(
                segment, chains=chains, processes=processes, progress=tell, should_stop=should_stop
            )

        _seal_segment(folder, segment, chains, num_sealed)
        shutil.rmtree(segment.folder, ignore_errors=True)
        entry = {"what": f"samples {num_sealed}-{num_samples}", "started": started}
        _note_provenance(folder, {**provenance, **entry})

    return folder


def write_predictions(
    root: Path,
    key: StreamKey,
    *,
    inputs_MD: Array,
    log_prob_SMC: Array,
    weight_S: Array,
    provenance: dict[str, Any],
    origin_M: Array | None = None,
) -> Path:
    """Seal posterior samples that are known only by their predictions.

    Args:
        root: folder of all streams.
        key: the stream's key; its method names the file they came from.
        inputs_MD: normalized inputs, float32.
        log_prob_SMC: log-probabilities of each sample at them, nats.
        weight_S: weights on any scale.
        provenance: see ``write_weights``.
        origin_M: of which row each input is a copy, see ``posterior.shards``; None where nobody
            says.

    Returns:
        The stream's folder.
    """
    folder = key.folder(root)
    if (folder / "segments" / "000000").exists():
        return folder

    with writing(folder, "the imported predictions"):
        write_key(folder, key)

        building = make_dir(folder / "building" / "segment-000000")
        writer = SealedWriter(building)
        writer.add("inputs-000000", inputs_MD.astype(np.float32))
        for i, rows in enumerate(_row_ranges(len(weight_S), log_prob_SMC[0].nbytes)):
            writer.add(f"log_prob-{i:06d}", log_prob_SMC[rows].astype(np.float32))
        writer.add("weight-000000", weight_S.astype(np.float64))
        if origin_M is not None:
            writer.add("origin-000000", origin_M.astype(np.int64))
        writer.close(
            kind="predictions",
            stream=key.digest,
            about={},
            first_sample=0,
            num_samples=len(weight_S),
        )

        seal_dir(building, folder / "segments" / "000000")
        _note_provenance(folder, {**provenance, "what": f"{len(weight_S)} imported predictions"})

    return folder


def write_view(
    stream: Stream,
    name: str,
    about: dict[str, Any],
    predict: Callable[[Tensor], Tensor],
    *,
    num_inputs: int,
    dtype: str = "float32",
    progress: Progress,
    should_stop: Callable[[], bool],
) -> None:
    """Make sure that every segment of a stream has its predictions at a view's inputs.

    Args:
        stream: the stream; its samples are read, no chain is run.
        name: the view's name.
        about: plain data for the manifest: the view's key and the digest of its inputs.
        predict: flat parameters (W,) to what the stream's likelihood predicts, (N, G).
        num_inputs: N.
        dtype: how log-probabilities are stored, ``float32`` or ``float16``.
        progress: told ``(what, samples done, samples in all)``.
        should_stop: asked after each sample.

    Raises:
        Interrupted: ``should_stop`` said so; shards already written are kept.
        StreamError: an existing view of that name is of other inputs.
        EnvironmentProblem: the folder cannot be written.
    """
    if stream.has_view(name, about, dtype):
        return

    prediction = stream.key.likelihood_model.prediction
    width = stream.key.num_predicted
    row_bytes = num_inputs * width * np.dtype(STORED[dtype]).itemsize

    def predict_rows(first_sample: int, num_rows: int) -> Array:
        block = np.empty((num_rows, num_inputs, width), np.float32)
        for row in range(num_rows):
            if should_stop():
                raise Interrupted("stopped while predicting; run the same command again to go on")
            block[row] = predict(stream.theta(first_sample + row)).cpu().numpy()
            progress(f"predictions ({name})", first_sample + row + 1, stream.num_sealed)
        return block

    with writing(stream.folder, f"predictions at view '{name}'"):
        # A killed build's temporary file would be sealed along with the shards that are kept.
        remove_temporaries(stream.folder)

        for index, segment in enumerate(stream.segments):
            manifest = segment.manifest
            final = stream.folder / "views" / name / f"{index:06d}"
            if final.exists():
                continue

            building = make_dir(stream.folder / "building" / f"view-{name}-{index:06d}")
            writer = SealedWriter(building)
            for i, rows in enumerate(_row_ranges(manifest.num_samples, row_bytes)):
                shard = f"{prediction}-{i:06d}"
                num_rows = rows.stop - rows.start
                if not writer.keep(shard, STORED[dtype], (num_rows, num_inputs, width)):
                    block = predict_rows(manifest.first_sample + rows.start, num_rows)
                    writer.add(shard, encode(block, dtype))
            writer.close(
                kind="view",
                stream=stream.key.digest,
                about=view_about(name, about, dtype),
                first_sample=manifest.first_sample,
                num_samples=manifest.num_samples,
            )

            seal_dir(building, final)


@contextlib.contextmanager
def writing(folder: Path, missing: str) -> Iterator[None]:
    """Hold the lock of a stream's folder, made if need be, for writing what is missing in it.

    Raises:
        EnvironmentProblem: the folder cannot be written.
        StreamError: a link in it leads elsewhere.
    """
    with contextlib.ExitStack() as stack:
        try:
            make_dir(folder)
            stack.enter_context(lock(folder / "lock", wait=True))
        except EnvironmentProblem as error:
            raise EnvironmentProblem(
                f"{folder}: lacks {missing}, and nothing can be written there ({error}); make the "
                "folder writable, or set GPED_CACHE to one that is"
            ) from None

        for path in (*folder.glob("*"), *folder.glob("*/*")):
            if path.is_symlink():
                raise StreamError(
                    f"{path}: a link; nothing is written into a stream that has one, delete it"
                )
        yield


def _seal_segment(folder: Path, segment: Unfinished, chains: int, first_sample: int) -> None:
    """Seal what all chains of a segment have drawn, read from their chunks a shard at a time."""
    key = segment.key
    chunks_by_chain = [segment.chunks(chain) for chain in range(chains)]

    # Sample s is draw s // chains of chain s % chains; a row is a chunk and a number in it.
    rows_by_chain = [_rows(chunks) for chunks in chunks_by_chain]
    order = []
    for draw in range(segment.wanted):
        order += [rows[draw] for rows in rows_by_chain]

    sealing = segment.folder / "sealing"
    shutil.rmtree(sealing, ignore_errors=True)
    make_dir(sealing)

    writer = SealedWriter(sealing)
    for i, shard in enumerate(_row_ranges(len(order), num_params(key.shapes) * 4)):
        block = np.stack([chunk.read("params-000000.npy")[row] for chunk, row in order[shard]])
        writer.add(f"params-{i:06d}", block)
    weights = [chunk.read("weight-000000.npy")[row] for chunk, row in order]
    writer.add("weight-000000", np.asarray(weights, np.float64))
    for chain, chunks in enumerate(chunks_by_chain):
        for name, tensor in state_of(chunks[-1], 0).items():
            writer.add(f"state-{chain:02d}-{name}", tensor.numpy())
    writer.close(
        kind="weights",
        stream=key.digest,
        about={"chains": chains},
        first_sample=first_sample,
        num_samples=len(order),
    )

    seal_dir(sealing, folder / "segments" / f"{len(segment_folders(folder)):06d}")


def _rows(chunks: list[Sealed]) -> list[tuple[Sealed, int]]:
    """Where each draw of a chain lies: the chunk and the row in it."""
    rows = []
    for chunk in chunks:
        rows += [(chunk, row) for row in range(chunk.manifest.num_samples)]
    return rows


def _num_sealed(sealed: list[Sealed]) -> int:
    return sum(segment.manifest.num_samples for segment in sealed)


def _row_ranges(num_rows: int, row_bytes: int) -> list[slice]:
    """Cut rows into shards of about ``SHARD_BYTES``."""
    size = max(1, SHARD_BYTES // max(1, row_bytes))
    return [slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size)]


def write_key(folder: Path, key: StreamKey) -> None:
    """Write a stream's key into its folder, unless it lies there.

    Raises:
        StreamError: the folder belongs to another key.
    """
    path = folder / "key.json"
    data = {"format_version": FORMAT_VERSION, "digest": key.digest, "key": key.to_json()}
    if not path.exists():
        write_json(path, data)
    elif read_json(path) != json.loads(canonical_json(data)):
        raise StreamError(
            f"{path}: belongs to another key; delete {folder} to build this stream anew"
        )


def _note_provenance(folder: Path, entry: dict[str, Any]) -> None:
    path = folder / "provenance.json"
    with environment("write", path):
        entries = read_json(path) if path.exists() else []
        write_json(path, [*entries, {**entry, "ended": time.time()}])
