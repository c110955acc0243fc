"""The stream on disk, format version 1: posterior samples and what they predict.

    <root>/<first 32 digits of the key's SHA-256>/
        key.json                       what the name hashes (see key.py)
        segments/000000/               sealed posterior samples, one folder a segment
            manifest.json
            params-000000.npy ...      float32 (rows, W); rows of all chains interleaved:
                                       sample s is draw s // K of chain s % K
            weight-000000.npy          float64 (S,), weights on any scale
            state-<chain>-<name>.npy   the chain's state after its last sample
        views/<view>/000000/           sealed predictions of segment 000000 at the view's
                                       inputs; can be computed again
            manifest.json
            log_prob-000000.npy ...    float32 or float16 (rows, N, C) log-probabilities, nats;
                                       of a stream with a Gaussian likelihood
            normal-000000.npy ...      float32 (rows, N, 2): mean and variance of the label, in
                                       its normalized unit
        derived/                       averaged expectations; may be deleted at any time
        averages/<name>/               running averages of chains of which no sample is kept, see
                                       averages.py
        building/                      unfinished work; may be deleted while nothing runs
        provenance.json                times and hosts; outside every digest
        lock                           held by the one process that writes

A segment that was imported as predictions holds ``inputs-000000.npy`` float32 (M, D), the
normalized inputs, and ``log_prob-000000.npy`` ... float32 (rows, M, C) in place of ``params-...``;
where it is known of which row an input is a flipped or shifted copy, ``origin-000000.npy`` int64
(M,) says so, see ``posterior.shards``.

A manifest is canonical JSON: ``format_version``, ``kind`` (``weights``, ``predictions`` or
``view``), ``stream`` (the key's full digest), ``about`` (plain data: the view's name, its key and
the SHA-256 of its inputs), ``first_sample``, ``num_samples``, ``shards``: one entry a file with
``file``, ``dtype``, ``shape`` and ``sha256``. A folder appears under ``segments/`` or ``views/`` by
rename when every byte of it is on disk, and nothing in it is written again. Reading checks
manifest, names, header and exact size on opening, and each shard's SHA-256 before its first use in
a process. The header of a shard is that of ``io.npy_header``, byte for byte.

**float16 predictions** (``stream: {prediction_dtype: float16}``) take half the bytes. What is
stored is the log-probability l itself, rounded to the nearest float16, anything below -65504 as
-65504 (its probability is 0 in float64 either way, so that no row ever holds -inf); reading
normalizes each row again by ``log_softmax``, so that rows are distributions: entropies are those of
one, and mutual information is not negative. Rounding moves l by at most u |l|, u = 2^-11 = 0.00049
(by 2^-25 where |l| < 2^-14). With p and p' the C probabilities of a row before and after,

* each probability, and half the sum of all |p' - p|, moves by at most 1.01 u log C, to first order
  by u H[p] (C = 10: 0.0011; a row that is sure of its class hardly moves at all);
* an average over posterior samples, being a convex combination of rows, moves by no more than that;
* the log-probability of one posterior sample moves by at most 1.01 u (|l| + log C);
* the entropy H[p], and any average of entropies, moves by at most 1.01 u V, V = log^2 C, or 0.57
  for C = 2 (C = 10: 0.0026 nats).

Proof: along the path g_t ~ p exp(t d), |d_i| <= u |l_i|, from p to p', dg_i/dt = g_i (d_i - E d)
where E is the mean under g_t, so the sum of |dg_i/dt| is at most 2 E|d| <= 2 u E|l|, and E|l| is
the entropy up to a factor 1 + O(u); d/dt log g_i = d_i - E d; dH/dt = -Cov(d, log g), at most u
E[l^2], and the largest sum of p log^2 p over C classes is V. Rounding to float32 on reading adds
2^-24 in place of 2^-11; both, and O(u^2), are in the 1.01.
"""

import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from gped_nas.config import Config, parse
from gped_nas.errors import ConfigError, StreamError
from gped_nas.io import Array, map_array, read_json, sha256_plain, write_array, write_json
from gped_nas.posterior.likelihoods import Prediction

FORMAT_VERSION = 1
SHARD_BYTES = 32 * 2**20
_FILE = re.compile(r"[a-z_]{1,40}(-\d{2}-[a-z_]{1,80}|-\d{6})\.npy")
_ROWS = {
    "weights": ("params",),
    "chunk": ("params",),
    "predictions": get_args(Prediction),
    "view": get_args(Prediction),
}
"""Kind of a folder to the shards that hold one row a posterior sample."""
_Shape = Annotated[
    tuple[Annotated[int, Field(ge=0, lt=2**63)], ...], Field(strict=False, max_length=8)
]


class Shard(Config):
    """One ``.npy`` file of a sealed folder."""

    file: str
    dtype: str
    shape: _Shape
    sha256: str


class Manifest(Config):
    """The ``manifest.json`` of a sealed folder; see the module docstring."""

    format_version: int
    kind: Literal["weights", "predictions", "view", "chunk", "averages"]
    stream: str
    about: dict[str, Any]
    first_sample: int = Field(ge=0)
    num_samples: int = Field(ge=0)
    shards: Annotated[tuple[Shard, ...], Field(strict=False)]


class SealedWriter:
    """Collects the shards of one folder and writes its manifest last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shards: list[Shard] = []

    def add(self, name: str, array: Array) -> None:
        """Write one array as a shard."""
        digest = write_array(self.folder / f"{name}.npy", array)
        self._shards.append(
            Shard(file=f"{name}.npy", dtype=array.dtype.str, shape=array.shape, sha256=digest)
        )

    def keep(self, name: str, dtype: str, shape: tuple[int, ...]) -> bool:
        """Take over a shard that a killed build wrote whole; False where none fits."""
        path = self.folder / f"{name}.npy"
        if not path.exists():
            return False
        try:
            map_array(path, dtype=dtype, shape=shape)
        except StreamError:
            return False

        digest = sha256_plain(path)
        self._shards.append(Shard(file=path.name, dtype=dtype, shape=shape, sha256=digest))
        return True

    def close(
        self, *, kind: str, stream: str, about: dict[str, Any], first_sample: int, num_samples: int
    ) -> None:
        """Write the manifest."""
        data = {
            "format_version": FORMAT_VERSION,
            "kind": kind,
            "stream": stream,
            "about": about,
            "first_sample": first_sample,
            "num_samples": num_samples,
            "shards": [shard.model_dump(mode="json") for shard in self._shards],
        }
        write_json(self.folder / "manifest.json", data)


class Sealed:
    """A sealed folder opened for reading.

    Raises:
        StreamError: the manifest is missing, malformed, of a future version or of another stream,
            or a file is missing or has another size than the manifest says.
    """

    def __init__(self, folder: Path, stream: str) -> None:
        self.folder = folder
        path = folder / "manifest.json"
        data = read_json(path)
        check_version(data, path)
        try:
            self.manifest = parse(Manifest, data, str(path))
        except (ConfigError, RecursionError) as error:
            problem = str(error).splitlines()[0]
            raise StreamError(
                f"{problem}; the folder {folder} is corrupt, delete it to rebuild it"
            ) from None
        if self.manifest.stream != stream:
            raise StreamError(
                f"{path}: belongs to stream {self.manifest.stream[:16]}, expected {stream[:16]}"
            )

        self._checked: set[str] = set()
        self._shards = {shard.file: shard for shard in self.manifest.shards}
        if len(self._shards) != len(self.manifest.shards):
            raise StreamError(f"{path}: names a shard twice; delete {folder} to rebuild it")

        # A name is checked before its file is opened: it must not lead out of the folder.
        for shard in self.manifest.shards:
            if not _FILE.fullmatch(shard.file):
                raise StreamError(
                    f"{path}: shard name {shard.file[:80]!r} is not one this format uses"
                )
            self._map(shard)
        self._check_rows(path)

    def _check_rows(self, path: Path) -> None:
        kind = self.manifest.kind
        num_samples = self.manifest.num_samples
        if kind == "averages":  # none of its arrays has a row a sample
            return

        num_rows = 0
        for prefix in _ROWS[kind]:
            for name in self.names(prefix):
                num_rows += sum(self._shards[name].shape[:1])  # a shape () counts as no row

        weights = [self._shards[name].shape for name in self.names("weight")]
        expected_weights = [] if kind == "view" else [(num_samples,)]
        if num_rows != num_samples or weights != expected_weights:
            raise StreamError(
                f"{path}: the shards of '{kind}' hold {num_rows} samples and weights {weights}, "
                f"expected {num_samples} of both; delete {self.folder} to rebuild it"
            )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the manifest, which names the SHA-256 of every shard."""
        return sha256_plain(self.folder / "manifest.json")

    def _map(self, shard: Shard) -> Array:
        try:
            return map_array(self.folder / shard.file, dtype=shard.dtype, shape=shard.shape)
        except StreamError as error:
            raise StreamError(f"{error} (expected by {self.folder / 'manifest.json'})") from None

    def names(self, prefix: str) -> list[str]:
        """File names of the shards ``<prefix>-...``, in order."""
        return sorted(name for name in self._shards if name.startswith(prefix + "-"))

    def read(self, name: str) -> Array:
        """One shard as a read-only memory map, its digest checked on first use.

        Raises:
            StreamError: the bytes are not the ones that were sealed.
        """
        shard = self._shards.get(name)
        if shard is None:
            raise StreamError(f"{self.folder}: the manifest names no shard {name!r}")

        if name not in self._checked:
            digest = sha256_plain(self.folder / name)
            if digest != shard.sha256:
                raise StreamError(
                    f"{self.folder / name}: corrupt: found SHA-256 {digest}, expected "
                    f"{shard.sha256}; delete {self.folder} and run again to rebuild it"
                )
            self._checked.add(name)

        return self._map(shard)

    def verify(self) -> list[str]:
        """Read every shard; one message for each that is corrupt."""
        problems = []
        self._checked.clear()
        for name in self._shards:
            try:
                self.read(name)
            except StreamError as error:
                problems.append(str(error))
        return problems


def check_version(data: object, path: Path) -> None:
    """Refuse anything that is not of this format version.

    Raises:
        StreamError: no version, or another one.
    """
    version = data.get("format_version") if isinstance(data, dict) else None
    if version == FORMAT_VERSION:
        return

    hint = ""
    if isinstance(version, int) and version > FORMAT_VERSION:
        hint = "; it was written by a newer gped-nas, upgrade to read it"
    raise StreamError(f"{path}: format version {version!r}, expected {FORMAT_VERSION}{hint}")
