"""A stream brought to a node, once, whoever works there: file by file, each checked by its digest.

It lies in a folder of its own in the node's cache, ``placed/<digest>``: a stream of the same key
that was sampled there may have other bits, and is left alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gped_nas.io import lock, make_dir, sha256_file, sha256_text, write_file

PLACED = "placed"
_NOT_PLACED = ("building", "lock")
PIECE_BYTES = 2**27
"""Bytes of a file that travel together."""


@dataclass(frozen=True)
class StreamFiles:
    """What a stream's folder holds.

    Attributes:
        name: of the folder.
        digests: SHA-256 of each file, by its path in the folder.
        sizes: bytes of each, likewise.
    """

    name: str
    digests: Mapping[str, str]
    sizes: Mapping[str, int]

    @classmethod
    def of(cls, folder: Path) -> "StreamFiles":
        """Those of a stream that nobody is writing."""
        digests, sizes = {}, {}
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            if not path.is_file() or name.parts[0] in _NOT_PLACED or path.name.startswith("."):
                continue
            digests[str(name)] = sha256_file(path)
            sizes[str(name)] = path.stat().st_size
        return cls(folder.name, digests, sizes)

    def pieces(self, name: str) -> list[slice]:
        """The bytes of a file in pieces that travel."""
        size = self.sizes[name]
        return [slice(i, min(size, i + PIECE_BYTES)) for i in range(0, max(size, 1), PIECE_BYTES)]


def place(files: StreamFiles, cache: Path, bring: Callable[[str, int], bytes]) -> tuple[Path, int]:
    """Bring what a node lacks.

    Args:
        files: of the stream.
        cache: of the node.
        bring: gives a piece of a file, by the file's path and the piece's number.

    Returns:
        The folder of streams that holds the stream now, and how many files there were that were
        not those of the stream: these are replaced.

    Raises:
        EnvironmentProblem: the disk is full, or cannot be written.
    """
    digest = sha256_text(repr(sorted(files.digests.items())))[:32]
    root = make_dir(cache / PLACED / digest)
    num_replaced = 0
    with lock(root / "lock", wait=True):
        for name, expected in files.digests.items():
            path = root / files.name / name
            if path.is_file():
                if sha256_file(path) == expected:
                    continue
                num_replaced += 1
            make_dir(path.parent)
            write_file(path, partial(_write, files, name, bring))
    return root, num_replaced


def _write(files: StreamFiles, name: str, bring: Callable[[str, int], bytes], file: Any) -> None:
    for number in range(len(files.pieces(name))):
        file.write(bring(name, number))
