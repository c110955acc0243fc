"""The files of what cards of front students show: ``evidence/<trial>.json``.

Each carries its digest and its student's. ``api.evidence`` makes them.
"""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gped_nas.errors import StreamError, UndigestedWarning
from gped_nas.io import read_json, read_sealed, warn_of_undigested
from gped_nas.search.record import TrialRecord

FOLDER = "evidence"
REMADE = "`gped-search run` of its study makes it again"
"""End of a message about a damaged file that can be made again."""


def read(study: Path, front: Sequence[TrialRecord]) -> dict[int, Any]:
    """The evidence there is of these trials; a study made before it was gathered has none.

    Raises:
        StreamError: a file is damaged, or of another student.
    """
    paths = {study / FOLDER / f"{record.trial}.json": record for record in front}
    read_by_trial = {}
    for path, record in paths.items():
        if os.path.lexists(path):  # a link to nowhere is damage
            read_by_trial[record.trial] = _read(path, record)
    return read_by_trial


def _read(path: Path, record: TrialRecord) -> dict[str, Any]:
    """The evidence in one file, without what it says of itself.

    Raises:
        StreamError: it is damaged, or of another student.
    """
    remedy = f"delete it, and {REMADE}"
    data, is_sealed = read_sealed(path, remedy)
    if is_sealed != ("trial" in data):  # the two came together
        raise StreamError(f"{path}: no evidence with its digest; {remedy}")
    if not is_sealed:
        warn_of_undigested(path)

    identity = identify(record)
    # Earlier versions wrote less of this beside it.
    for name in identity.keys() & data.keys():
        if data.pop(name) != identity[name]:
            raise StreamError(f"{path}: of another student than trial {record.trial}'s; {remedy}")
    return data


def identify(record: TrialRecord) -> dict[str, Any]:
    """Whose evidence it is."""
    return {"trial": record.trial, "student": record.spec_sha256}


def is_sealed(path: Path, record: TrialRecord) -> bool:
    """Whether the evidence there is whole, and all of it is under a digest."""
    try:
        with warnings.catch_warnings(action="error", category=UndigestedWarning):
            _read(path, record)
        stored = read_json(path)
    except (StreamError, UndigestedWarning):
        return False
    return all(name in stored for name in identify(record))
