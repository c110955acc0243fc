"""What the cache holds, in words, and what of it can go."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gped_nas.api.session import Session
from gped_nas.errors import ConfigError, EnvironmentProblem, StreamError
from gped_nas.io import read_json
from gped_nas.models.base import genotype_text
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
    """What a stream's teacher is, in words: ``mlp(depth=2, width=128-128) by sgld on digits,
    seed 0``.
    """
    if stream.key is None:
        return f"unreadable: {stream.problem}"
    genotype = genotype_text(stream.key.genotype)
    words = f"{genotype} by {_method(stream.key)} on {_dataset(stream)}, seed {stream.key.seed}"
    return f"{words}; unreadable: {stream.problem}" if stream.problem else words


def _method(key: StreamKey) -> str:
    """The method's name, and those of the methods whose samples it reads: ``thinned of sghmc``."""
    name = str(key.method.get("name", "a method"))
    return f"{name} of {_method(key.of)}" if key.of else name


def _dataset(stream: StreamFolder) -> str:
    """The dataset's name as the build noted it, else what is known of it: the start of its digest."""
    assert stream.key is not None
    try:
        names = [str(entry["dataset"]) for entry in read_json(stream.folder / "provenance.json")]
    except (StreamError, KeyError, TypeError):
        names = []
    return names[-1] if names else f"dataset {stream.key.dataset[:8]}"


def select(
    streams: Sequence[StreamFolder], prefixes: Sequence[str], parts: Sequence[Part]
) -> list[Garbage]:
    """What goes.

    Args:
        streams: those in the cache.
        prefixes: starts of the digests of the streams meant; all streams when there are none.
        parts: parts of them; the streams as a whole when there are none but prefixes.

    Raises:
        ConfigError: a prefix fits no stream or several.
    """
    meant = [_the_one(streams, prefix) for prefix in dict.fromkeys(prefixes)]
    if meant and not parts:
        going = {stream.name for stream in meant}
        return [
            Garbage(
                "stream",
                stream.folder,
                stream.num_bytes,
                stream.is_busy,
                tuple(name for name in stream.readers if name not in going),
            )
            for stream in meant
        ]
    found = [
        Garbage(part, s.folder, s.part_bytes[part], s.is_busy)
        for s in meant or streams
        for part in PARTS
        if part in parts and s.part_bytes[part]
    ]
    if "building" in parts and not meant:
        found += [
            Garbage("leftover", p, num, False)
            for p, num in inventory.leftovers_of(Session().streams)
        ]
    return found


def _the_one(streams: Sequence[StreamFolder], prefix: str) -> StreamFolder:
    found = [s for s in streams if s.name.startswith(prefix.lower())]
    if len(found) != 1 or not prefix:
        known = ", ".join(s.name[:12] for s in found or streams) or "none"
        raise ConfigError(
            f"{prefix!r}: the digest of {len(found)} streams starts so, expected one; there are: "
            f"{known}"
        )
    return found[0]


def remove(garbage: Sequence[Garbage]) -> int:
    """Remove what goes; the bytes that became free.

    Raises:
        EnvironmentProblem: some of it is being written by another process or cannot be removed; all
            else is gone.
    """
    freed, problems = 0, []
    for one in garbage:
        try:
            freed += _remove(one)
        except EnvironmentProblem as error:
            problems.append(str(error))
    if problems:
        raise EnvironmentProblem(
            "\n".join([*problems, f"everything else that was asked for is gone: {freed:,} bytes"])
        )
    return freed


def _remove(one: Garbage) -> int:
    if one.readers:
        raise EnvironmentProblem(
            f"{one.folder}: the stream {one.readers[0][:12]} is made of its posterior samples; "
            "remove that one too, by the same command, or keep both"
        )
    if one.what == "stream":
        return inventory.remove_stream(one.folder)
    if one.what == "leftover":
        return inventory.remove_leftover(one.folder)
    return inventory.remove_part(one.folder, one.what)
