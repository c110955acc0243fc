"""What the cache holds, in words, and what of it can go."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gped_nas.api.session import Session
from gped_nas.errors import ConfigError, EnvironmentProblem, StreamError
from gped_nas.io import read_json
from gped_nas.models.labels import genotype_text
from gped_nas.stream import inventory
from gped_nas.stream.inventory import PARTS, Part, StreamFolder
from gped_nas.stream.key import StreamKey


@dataclass(frozen=True)
class Garbage:
    """Something that was asked to go: a part of a stream, a whole stream, or what is left of one.

    Attributes:
        what: ``building``, ``derived``, ``views``, ``stream`` or ``leftover``.
        folder: the folder of the stream.
        num_bytes: what it takes.
        is_busy: whether a process is writing the stream, so that nothing of it is removed.
        readers: streams made of its posterior samples that are to stay, so that it stays as well.
    """

    what: Part | Literal["stream", "leftover"]
    folder: Path
    num_bytes: int
    is_busy: bool
    readers: tuple[str, ...] = ()

    @property
    def is_in_use(self) -> bool:
        """Whether it stays, whatever is asked."""
        return self.is_busy or bool(self.readers)


def cached_streams() -> list[StreamFolder]:
    """The streams in the cache, largest first.

    Raises:
        EnvironmentProblem: the cache cannot be read.
    """
    return inventory.streams_of(Session().streams)


def described(stream: StreamFolder) -> str:
    """A stream's teacher in words: ``mlp(depth=2, width=128-128) by sgld on digits, seed 0``."""
    if stream.key is None:
        return f"unreadable: {stream.problem}"

    words = f"{_name_teacher(stream.key)} on {_name_dataset(stream)}, seed {stream.key.seed}"
    return f"{words}; unreadable: {stream.problem}" if stream.problem else words


def _name_teacher(key: StreamKey) -> str:
    if not key.genotype:
        return "an ensemble's predictions"
    return f"{genotype_text(key.genotype)} by {_name_method(key)}"


def _name_method(key: StreamKey) -> str:
    """The method's name, and those of the methods whose samples it reads: ``thinned of sghmc``."""
    name = str(key.method.get("name", "a method"))
    return f"{name} of {_name_method(key.of)}" if key.of else name


def _name_dataset(stream: StreamFolder) -> str:
    """The dataset's name as the build noted it, or else the start of its digest."""
    assert stream.key is not None
    try:
        names = [str(entry["dataset"]) for entry in read_json(stream.folder / "provenance.json")]
    except (StreamError, KeyError, TypeError):
        names = []
    return names[-1] if names else f"dataset {stream.key.dataset[:8]}"


def select(
    streams: Sequence[StreamFolder], prefixes: Sequence[str], parts: Sequence[Part]
) -> list[Garbage]:
    """What would be removed.

    Args:
        streams: those in the cache.
        prefixes: starts of the digests of the streams meant; all streams when there are none.
        parts: parts of them; the streams as a whole when there are none but prefixes.

    Raises:
        ConfigError: a prefix fits no stream or several.
    """
    named_streams = [_find_stream(streams, prefix) for prefix in dict.fromkeys(prefixes)]
    if named_streams and not parts:
        return _select_whole(named_streams)

    garbage = []
    for stream in named_streams or streams:
        for part in PARTS:
            num_bytes = stream.part_bytes[part]
            if part in parts and num_bytes:
                garbage.append(Garbage(part, stream.folder, num_bytes, stream.is_busy))

    if parts:
        garbage += _select_leftovers(named_streams or streams, has_names=bool(named_streams))
    return garbage


def _select_leftovers(streams: Sequence[StreamFolder], *, has_names: bool) -> list[Garbage]:
    """What removals that were cut short have left; where streams are named, in these alone.

    A whole stream that is half removed has no digest any more that could be named.
    """
    busy = {stream.folder: stream.is_busy for stream in streams}
    garbage = []
    for path, num_bytes in inventory.leftovers_of(Session().streams):
        if path.parent in busy or not has_names:
            is_busy = busy.get(path.parent, False)
            garbage.append(Garbage("leftover", path, num_bytes, is_busy))
    return garbage


def _select_whole(streams: Sequence[StreamFolder]) -> list[Garbage]:
    """Streams as a whole; a reader that goes with them keeps nothing."""
    names = {stream.name for stream in streams}
    garbage = []
    for stream in streams:
        readers = tuple(name for name in stream.readers if name not in names)
        item = Garbage("stream", stream.folder, stream.num_bytes, stream.is_busy, readers)
        garbage.append(item)
    return garbage


def _find_stream(streams: Sequence[StreamFolder], prefix: str) -> StreamFolder:
    """The only stream whose digest starts so."""
    matches = [stream for stream in streams if stream.name.startswith(prefix.lower())]
    if len(matches) != 1 or not prefix:
        digests = ", ".join(stream.name[:12] for stream in matches or streams) or "none"
        raise ConfigError(
            f"{prefix!r}: the digest of {len(matches)} streams starts so, expected one; there are: "
            f"{digests}"
        )
    return matches[0]


def remove(garbage: Sequence[Garbage]) -> int:
    """Remove what was selected.

    Returns:
        The bytes that became free.

    Raises:
        EnvironmentProblem: some of it is being written by another process or cannot be removed; all
            else is gone.
    """
    freed = 0
    problems = []
    for item in garbage:
        try:
            freed += _remove(item)
        except EnvironmentProblem as error:
            problems.append(str(error))

    if problems:
        problems.append(f"everything else that was asked for is gone: {freed:,} bytes")
        raise EnvironmentProblem("\n".join(problems))
    return freed


def _remove(item: Garbage) -> int:
    if item.readers:
        raise EnvironmentProblem(
            f"{item.folder}: the stream {item.readers[0][:12]} is made of its posterior samples; "
            "remove that one too, by the same command, or keep both"
        )

    if item.what == "stream":
        return inventory.remove_stream(item.folder)
    if item.what == "leftover":
        return inventory.remove_leftover(item.folder)
    return inventory.remove_part(item.folder, item.what)
