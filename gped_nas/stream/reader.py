"""Read a stream: posterior samples, their weights and their predictions, all checked before use."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gped_nas.data.file_rows import FileRows
from gped_nas.data.rows import Rows
from gped_nas.errors import EnvironmentProblem, StreamError
from gped_nas.io import (
    Array,
    canonical_json,
    make_dir,
    map_array,
    npy_header,
    read_json,
    sha256_arrays,
    sha256_plain,
    sha256_text,
    tree_bytes,
    write_array,
    write_file,
    write_json,
)
from gped_nas.models.base import Params
from gped_nas.posterior.base import unflatten
from gped_nas.stream.calibration import RAW, Calibration
from gped_nas.stream.format import Sealed
from gped_nas.stream.key import StreamKey
from gped_nas.stream.predictions import STORED, decode
from gped_nas.stream.segments import has_averages, sealed_segments

_OLD_ABOUT = {"dtype": "float32"}
"""What the manifest of a view did not say before there was a choice."""


def view_about(name: str, about: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """What the manifest of a view says of it."""
    return {**about, "name": name, "dtype": dtype}


class Stream:
    """A stream opened for reading; only its first ``num_samples`` posterior samples are used.

    Args:
        folder: the stream's folder.
        num_samples: how many samples to use; all by default.

    Attributes:
        calibration: how weights and predictions are read; see ``calibrated``.

    Raises:
        StreamError: missing, corrupt, of a future format version, or it holds fewer samples than
            asked for.
    """

    def __init__(self, folder: Path, *, num_samples: int | None = None) -> None:
        self.folder = folder
        key_file = folder / "key.json"
        if not key_file.is_symlink() and not key_file.exists():
            raise StreamError(
                f"{folder}: no stream here; run `gped-search teacher build SPACE` first"
            )

        self.key = StreamKey.read(folder)
        self._prediction = self.key.likelihood_model.prediction
        self.segments = sealed_segments(folder, self.key.digest)
        self._views: dict[str, list[Sealed]] = {}
        self.calibration = RAW

        self.num_sealed = sum(segment.manifest.num_samples for segment in self.segments)
        if not self.segments and has_averages(folder):
            raise StreamError(
                f"{folder}: found averages alone, which recipe.stream: none keeps, expected "
                "posterior samples; run `gped-search teacher build SPACE --set "
                "recipe.stream=stored`"
            )
        self.num_samples = self.num_sealed if num_samples is None else num_samples
        if not 0 < self.num_samples <= self.num_sealed:
            raise StreamError(
                f"{folder}: holds {self.num_sealed} samples, expected at least "
                f"{max(1, self.num_samples)}; run `gped-search teacher build SPACE`"
            )

    def calibrated(self, calibration: Calibration) -> "Stream":
        """The same stream, whose weights and predictions are read as calibrated.

        Nothing on disk changes, and parameters stay as they are.
        """
        stream = copy(self)
        stream.calibration = calibration
        return stream

    @property
    def is_stored(self) -> bool:
        """Whether single posterior samples can be read; see ``stream.averages``."""
        return True

    @property
    def has_weights(self) -> bool:
        """Whether posterior samples are known by their parameters, or by predictions alone."""
        return self.segments[0].manifest.kind == "weights"

    @cached_property
    def digest(self) -> str:
        """What a study pins: the key, the number of samples used and the segments they lie in."""
        used = [s.digest for s in self.segments if s.manifest.first_sample < self.num_samples]
        return sha256_text(canonical_json([self.key.digest, self.num_samples, used]))

    @property
    def digest_as_read(self) -> str:
        """``digest``, and of the calibration where there is one: what averages are made of."""
        if self.calibration == RAW:
            return self.digest
        return sha256_text(canonical_json([self.digest, self.calibration.to_json()]))

    @property
    def sampling_seconds(self) -> float:
        """What making the samples took, all that are sealed, as the provenance tells."""
        path = self.folder / "provenance.json"
        entries = read_json(path) if path.exists() else []
        seconds = [entry["ended"] - entry["started"] for entry in entries if "started" in entry]
        return float(sum(seconds))

    @property
    def weight_S(self) -> Tensor:
        """Weights of the samples used, float64, summing to 1."""
        sealed = [segment.read("weight-000000.npy") for segment in self.segments]
        weight = np.concatenate(sealed)[: self.num_samples]

        with np.errstate(over="ignore"):
            total = weight.sum()
        if not np.isfinite(weight).all() or (weight < 0).any() or not 0 < total < np.inf:
            raise StreamError(
                f"{self.folder}: weights must be finite, not negative, and not all zero"
            )
        return self.calibration.weigh(torch.from_numpy(weight / total))

    def theta(self, index: int) -> Tensor:
        """Flat parameters (W,) of one posterior sample, float32, a fresh copy.

        Raises:
            StreamError: there is no such sample, or the stream holds predictions only.
        """
        if not self.has_weights:
            raise StreamError(
                f"{self.folder}: holds predictions only, so parameters cannot be read"
            )

        for segment in self.segments:
            row = index - segment.manifest.first_sample
            if 0 <= row < segment.manifest.num_samples:
                for name in segment.names("params"):
                    block = segment.read(name)
                    if row < len(block):
                        return torch.from_numpy(np.array(block[row]))
                    row -= len(block)

        raise StreamError(
            f"{self.folder}: no posterior sample {index}; there are {self.num_samples}"
        )

    def params(self, index: int) -> Params:
        """Named parameters of one posterior sample, float32."""
        return unflatten(self.theta(index), self.key.shapes)

    def states(self, name: str) -> list[Array]:
        """The tensor ``name`` of every chain's last sealed state; empty where there is none."""
        last = self.segments[-1]
        files = [file for file in last.names("state") if file.endswith(f"-{name}.npy")]
        return [np.array(last.read(file)) for file in files]

    def has_view(self, name: str, about: Mapping[str, Any], dtype: str = "float32") -> bool:
        """Whether every segment has its predictions at this view.

        Raises:
            StreamError: there is a view of that name with other inputs, or stored in another dtype.
        """
        for index in range(len(self.segments)):
            folder = self.folder / "views" / name / f"{index:06d}"
            if not folder.exists():
                return False
            sealed_about = self._open_view(folder).manifest.about
            if {**_OLD_ABOUT, "name": name, **sealed_about} != view_about(name, about, dtype):
                raise StreamError(
                    f"{folder}: was made for other inputs or stored otherwise; delete it to make "
                    "it anew"
                )
        return True

    def _open_view(self, folder: Path) -> Sealed:
        """One segment's predictions at a view, checked to be of both."""
        view = Sealed(folder, self.key.digest)
        manifest = view.manifest

        rows = (manifest.first_sample, manifest.num_samples)
        segments = {f"{i:06d}": s.manifest for i, s in enumerate(self.segments)}
        segment = segments.get(folder.name)
        is_of_segment = segment is not None and rows == (segment.first_sample, segment.num_samples)
        if manifest.kind != "view" or not is_of_segment:
            raise StreamError(f"{folder}: is not of its segment; delete it to make it anew")

        about = {**_OLD_ABOUT, "name": folder.parent.name, **manifest.about}
        stored = {shard.dtype for shard in manifest.shards}
        if about["name"] != folder.parent.name or stored != {STORED.get(str(about["dtype"]))}:
            raise StreamError(
                f"{folder}: found predictions of view {str(about['name'])[:80]!r}, stored as "
                f"{', '.join(sorted(stored))}, expected '{folder.parent.name}'; delete it to make "
                "it anew"
            )
        return view

    def _view(self, name: str) -> list[Sealed]:
        if name not in self._views:
            folders = [self.folder / "views" / name / f"{i:06d}" for i in range(len(self.segments))]
            if not all(f.exists() for f in folders):
                views = ", ".join(self.views) or "none"
                raise StreamError(f"{self.folder}: no view '{name}'; there are: {views}")
            self._views[name] = [self._open_view(folder) for folder in folders]
        return self._views[name]

    @property
    def views(self) -> list[str]:
        """Names of the views there are predictions at."""
        return sorted(p.name for p in (self.folder / "views").glob("[!.]*"))

    def prediction_blocks(self, name: str) -> Iterator[Tensor]:
        """``predictions`` in blocks (rows, N, G) that follow the samples' order."""
        for block in self.prediction_maps(name):
            yield torch.from_numpy(np.array(block))

    def prediction_maps(self, name: str) -> Iterator[Array]:
        """``prediction_blocks`` as read-only memory maps, but for those in float16 or tempered."""
        for stored in self._stored_blocks(name):
            yield self._tempered(decode(stored))

    def _stored_blocks(self, name: str) -> Iterator[Array]:
        """The predictions at a view as they lie on disk, of the samples that are used."""
        num_missing = self.num_samples
        for sealed in self._view(name):
            for file in sealed.names(self._prediction):
                if num_missing <= 0:
                    return
                block = sealed.read(file)[:num_missing]
                num_missing -= len(block)
                yield block

    def _tempered(self, predictions: Array) -> Array:
        if self.calibration.temperature == 1:
            return predictions
        return self.temper(torch.from_numpy(np.array(predictions))).numpy()

    def temper(self, predictions: Tensor) -> Tensor:
        """What posterior samples of this stream predict (..., G), as the calibration reads it."""
        return self.calibration.temper(predictions, self._prediction)

    def predictions(self, name: str) -> Tensor:
        """What every posterior sample predicts at a view: (S, N, G), always float32.

        Log-probabilities of C classes in nats, or mean and variance of a real label; see
        ``likelihoods.Prediction``.
        """
        return torch.cat(list(self.prediction_blocks(name)))

    def predictions_at(self, name: str, inputs: slice) -> Tensor:
        """``predictions`` at some of a view's inputs alone: (S, n, G)."""
        blocks = []
        for stored in self._stored_blocks(name):
            block = self._tempered(decode(stored[:, inputs]))
            blocks.append(torch.from_numpy(np.array(block)))
        return torch.cat(blocks)

    def num_inputs(self, name: str) -> int:
        """How many inputs a view has."""
        return int(next(self._stored_blocks(name)).shape[1])

    def imported(self) -> tuple[Array, Tensor]:
        """Inputs (M, D) and log-probabilities (S, M, C) that were imported as predictions.

        Raises:
            StreamError: the stream holds parameters.
        """
        if self.has_weights:
            raise StreamError(
                f"{self.folder}: holds parameters; predictions are read from its views"
            )

        segment = self.segments[0]
        blocks = [np.array(segment.read(name)) for name in segment.names("log_prob")]
        log_prob = torch.from_numpy(np.concatenate(blocks)[: self.num_samples])
        return segment.read("inputs-000000.npy"), self.temper(log_prob)

    def imported_origin(self) -> Array | None:
        """Of which row each imported input is a copy, (M,); None where that is not known."""
        segment = self.segments[0]
        return segment.read("origin-000000.npy") if segment.names("origin") else None

    def view_digests(self, name: str) -> list[str]:
        """Digests of the predictions at a view, one a segment.

        Raises:
            StreamError: there is no such view, or it is corrupt.
        """
        return [sealed.digest for sealed in self._view(name)]

    def derived(self, stem: str, of: str, make: Callable[[], Tensor]) -> Tensor:
        """What ``make`` gives, float32, cached in the files ``derived/<stem>``.

        Args:
            stem: names the files.
            of: digest of all that it is made of; a cached file of anything else is not used.
            make: makes it.
        """
        made = self.cached(stem, of)
        if made is None:
            made = make()
            self.cache(stem, of, made)
        return made

    def derived_rows(
        self, stem: str, of: str, shape: tuple[int, ...], make: Callable[[], Iterator[Tensor]]
    ) -> Rows:
        """As ``derived``, of numbers that are too many for memory: they stay in the file.

        Args:
            stem, of: as for ``derived``.
            shape: of all rows together.
            make: makes them, some at a time.

        Raises:
            EnvironmentProblem: the file cannot be written.
        """
        array_path, note_path = self._derived_files(stem)
        header = npy_header("<f4", shape)
        source = FileRows(array_path, len(header), np.dtype("<f4"), shape, torch.float32)
        with contextlib.suppress(StreamError, EnvironmentProblem, KeyError, TypeError):
            note = read_json(note_path)
            if note["of"] == of and note["content"] == sha256_plain(array_path):
                return Rows(source)

        digest = hashlib.sha256(header)

        def write(file: Any) -> None:
            file.write(header)
            for rows in make():
                block = np.ascontiguousarray(rows.numpy()).data
                digest.update(block)
                file.write(block)

        make_dir(array_path.parent)
        write_file(array_path, write)
        write_json(note_path, {"of": of, "shape": shape, "content": digest.hexdigest()})
        return Rows(source)

    def cached(self, stem: str, of: str) -> Tensor | None:
        """What ``cache`` kept under this stem.

        None where that is missing, damaged, or made of anything else than ``of`` says.
        """
        array_path, note_path = self._derived_files(stem)
        try:
            note = read_json(note_path)
            array = np.array(map_array(array_path, dtype="<f4", shape=tuple(note["shape"])))
            is_ours = note["of"] == of and note["content"] == sha256_arrays(array)
        except (StreamError, KeyError, TypeError):
            return None
        return torch.from_numpy(array) if is_ours else None

    def cache(self, stem: str, of: str, made: Tensor) -> None:
        """Keep a float32 tensor for ``cached``, if the folder can be written."""
        array_path, note_path = self._derived_files(stem)
        array = made.numpy()
        note = {"of": of, "shape": made.shape, "content": sha256_arrays(array)}

        # a read-only cache only costs the time again
        with contextlib.suppress(OSError, EnvironmentProblem):
            if array_path.parent.is_symlink():
                return
            array_path.parent.mkdir(exist_ok=True)
            write_array(array_path, array)
            write_json(note_path, note)

    def _derived_files(self, stem: str) -> tuple[Path, Path]:
        folder = self.folder / "derived"
        return folder / f"{stem}.npy", folder / f"{stem}.json"

    def verify(self) -> list[str]:
        """Check every byte that is sealed; one message for each shard that is corrupt."""
        problems: list[str] = []
        for segment in self.segments:
            problems += segment.verify()
        for folder in sorted((self.folder / "views").glob("[!.]*/*")):
            try:
                problems += self._open_view(folder).verify()
            except StreamError as error:
                problems.append(str(error))
        return problems

    def nbytes(self) -> int:
        """Bytes on disk, views and derived files included."""
        return tree_bytes(self.folder)
