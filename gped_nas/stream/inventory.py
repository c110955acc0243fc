"""What lies in a folder of streams and what of it can go; links are never followed.

A stream consists of parts that cost differently to make again: ``building`` (unfinished work) and
``derived`` (averages, seconds) may go at any time, ``views`` need the teacher's predictions again,
the stream itself all its chains. Whatever goes is first renamed aside, so that a reader or a
builder sees a part whole or not at all.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from gped_nas.errors import StreamError
from gped_nas.io import environment, is_locked, lock, tree_bytes
from gped_nas.stream.key import StreamKey
from gped_nas.stream.reader import Stream
from gped_nas.stream.segments import has_averages, segment_folders

Part = Literal["building", "derived", "views"]
PARTS: tuple[Part, ...] = ("building", "derived", "views")
_NAME = re.compile(r"[0-9a-f]{32}")
_GONE = ".gone-"


@dataclass(frozen=True)
class StreamFolder:
    """A stream as it lies on disk, whole or not.

    Attributes:
        folder: where.
        key: its key; None where that cannot be read.
        problem: why it cannot be opened, or empty.
        num_samples: posterior samples that are sealed.
        part_bytes: bytes of each part.
        num_bytes: bytes of everything, parts included.
        written: when something in it was last written, seconds since 1970. When it was last read is
            not known: file systems do not note it reliably.
        is_busy: whether a process is writing it now.
        readers: names of the streams that were made of its posterior samples, or are being.
    """

    folder: Path
    key: StreamKey | None
    problem: str
    num_samples: int
    part_bytes: dict[str, int]
    num_bytes: int
    written: float
    is_busy: bool
    readers: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The first 32 digits of the key's digest."""
        return self.folder.name


def streams_of(root: Path) -> list[StreamFolder]:
    """The streams in a folder of streams, largest first.

    Raises:
        EnvironmentProblem: the folder cannot be read.
    """
    streams = [_look(folder) for folder in _folders(root) if _NAME.fullmatch(folder.name)]

    readers: dict[str, list[str]] = {}
    for stream in streams:
        inner = stream.key.of if stream.key else None
        if inner is not None:
            readers.setdefault(inner.folder(root).name, []).append(stream.name)

    streams = [replace(s, readers=tuple(sorted(readers.get(s.name, ())))) for s in streams]
    return sorted(streams, key=lambda stream: (-stream.num_bytes, stream.name))


def leftovers_of(root: Path) -> list[tuple[Path, int]]:
    """What is left where a removal was cut short: of streams and of their parts, and its bytes.

    Nothing reads it any more.
    """
    leftovers = []
    for folder in _folders(root):
        if folder.name.startswith(_GONE):
            leftovers.append(folder)
        elif _NAME.fullmatch(folder.name):
            leftovers += [f for f in _folders(folder) if f.name.startswith(_GONE)]
    return [(folder, tree_bytes(folder)) for folder in leftovers]


def remove_part(folder: Path, part: Part) -> int:
    """Remove a part of a stream; the bytes that became free.

    Raises:
        EnvironmentProblem: a process is writing the stream, or the file system refuses.
    """
    with lock(folder / "lock", wait=False):
        path = folder / part
        if not path.is_dir() or path.is_symlink():
            return 0
        return _remove(path, folder / f"{_GONE}{part}")


def remove_stream(folder: Path) -> int:
    """Remove a stream with all its posterior samples; the bytes that became free.

    Raises:
        EnvironmentProblem: a process is writing the stream, or the file system refuses.
    """
    with lock(folder / "lock", wait=False):
        return _remove(folder, folder.with_name(f"{_GONE}{folder.name}"))


def remove_leftover(folder: Path) -> int:
    """Finish a removal that was cut short; the bytes that became free.

    Raises:
        EnvironmentProblem: a process is writing the stream, or the file system refuses.
    """
    stream = folder.parent
    if not _NAME.fullmatch(stream.name):
        return _remove(folder, folder)
    with lock(stream / "lock", wait=False):
        return _remove(folder, folder) if folder.exists() else 0


def _remove(path: Path, aside: Path) -> int:
    with environment("remove", path):
        if path != aside:
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(path, aside)
        num_bytes = tree_bytes(aside)
        shutil.rmtree(aside)
    return num_bytes


def _folders(root: Path) -> list[Path]:
    if not root.exists():
        return []
    with environment("read", root):
        entries = [entry for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)]
        return sorted(Path(entry.path) for entry in entries)


def _look(folder: Path) -> StreamFolder:
    key: StreamKey | None = None
    problem = ""
    num_samples = 0
    try:
        stream = Stream(folder)
        key = stream.key
        num_samples = stream.num_sealed
    except StreamError as error:
        problem = str(error)
        # The key may be whole where the segments are not.
        with contextlib.suppress(StreamError):
            key = StreamKey.read(folder)
            if has_averages(folder) and not segment_folders(folder):
                problem = ""  # its samples were never kept

    return StreamFolder(
        folder=folder,
        key=key,
        problem=problem,
        num_samples=num_samples,
        part_bytes={part: tree_bytes(folder / part) for part in PARTS},
        num_bytes=tree_bytes(folder),
        written=max(_times(folder)),
        is_busy=is_locked(folder / "lock"),
    )


def _times(folder: Path) -> Iterator[float]:
    yield folder.lstat().st_mtime
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            yield path.lstat().st_mtime
