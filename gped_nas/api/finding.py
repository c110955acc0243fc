"""Where the stream of a study is, by its digest: a study and its stream may both have moved.

It is looked for in the cache, in ``streams/`` of the study's folder, and where it lay when the
study began. Where it is nowhere, the teacher is sampled again; that gives the same bits on the same
kind of processor and torch build only, so elsewhere it is refused before it begins.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from gped_nas import device as devices
from gped_nas.api.sampling import existing_stream, stream_key
from gped_nas.api.session import Session
from gped_nas.data.base import Dataset
from gped_nas.errors import StreamError, StudyError
from gped_nas.search.document import Description, StreamPlace
from gped_nas.search.space import SearchSpace
from gped_nas.stream.key import StreamKey
from gped_nas.stream.segments import sealed_segments
from gped_nas.stream.writer import holds

_DECIDES_BITS = ("device", "name", "machine", "torch")
"""What of a machine's fingerprint a stream's bits depend on."""


def stream_roots(place: StreamPlace, study: Path, streams: Path) -> list[Path]:
    """Folders of streams that may hold the one of a study.

    Args:
        place: what the study remembers of it.
        study: the study's folder.
        streams: the folder of all streams that the session has.
    """
    return [streams, study / "streams", Path(place.path).parent]


def session_with_stream(
    space: SearchSpace,
    dataset: Dataset,
    session: Session,
    description: Description | None,
    study: Path,
) -> Session:
    """The session, with the folder of streams that the study's stream lies in.

    Args:
        space, dataset: of the study.
        session: how to run.
        description: what the study remembers; None or without a stream before its teacher is there.
        study: the study's folder.

    Raises:
        StudyError: the teacher would have to be sampled again, which here gives another one.
        StreamError: the stream in the session's folder is damaged.
    """
    place = None if description is None else description.stream
    if description is None or place is None:
        return session

    _refuse_damage(stream_key(space, dataset).folder(session.streams))
    for root in stream_roots(place, study, session.streams):
        candidate = replace(session, streams=root)
        with contextlib.suppress(StreamError):
            if existing_stream(space, dataset, candidate).digest == place.digest:
                return candidate

    _refuse_other_processor(space, dataset, session, description.provenance, study)
    return session


def _refuse_damage(folder: Path) -> None:
    """Refuse a damaged stream in the cache, also where another copy of it is whole."""
    if (folder / "key.json").exists():
        sealed_segments(folder, StreamKey.read(folder).digest)


def _is_there(space: SearchSpace, dataset: Dataset, key: StreamKey, session: Session) -> bool:
    if space.method.predictions() is not None:
        return True
    if space.recipe.stream == "stored":
        return holds(session.streams, key, space.method.count(key.shapes))
    with contextlib.suppress(StreamError):
        existing_stream(space, dataset, session)
        return True
    return False


def _refuse_other_processor(
    space: SearchSpace,
    dataset: Dataset,
    session: Session,
    provenance: Mapping[str, object],
    study: Path,
) -> None:
    key = stream_key(space, dataset)
    if _is_there(space, dataset, key, session):
        return  # nothing is sampled

    here = devices.fingerprint(session.device)
    changed = []
    for part in _DECIDES_BITS:
        if part in provenance and provenance[part] != here[part]:
            changed.append(f"{part} {provenance[part]} (here {here[part]})")
    if changed:
        name = key.folder(session.streams).name
        raise StudyError(
            f"{study}: its teacher was sampled with {', '.join(changed)}, so sampling it again "
            f"here would give another one; bring its stream, the folder {name}, from the cache of "
            f"that machine to {session.streams} or {study / 'streams'}"
        )
