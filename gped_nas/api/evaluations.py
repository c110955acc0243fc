"""The rows that evaluations measured, kept in ``evaluations/`` of a study's folder.

There is one file for each subject, task, part, number of examples, seed and choice of metrics. It
carries its digest, and the digest of everything that its rows follow from: where that changed, they
are measured anew.
``api.evaluating`` makes them; reading them takes no torch.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gped_nas.errors import StreamError
from gped_nas.io import canonical_json, make_dir, read_sealed, sha256_text, write_sealed

FOLDER = "evaluations"
ROW = (
    "schema_version",
    "predictor",
    "task",
    "metric",
    "condition",
    "part",
    "value",
    "low",
    "high",
    "n",
)
_REMEDY = "delete it, and `gped-search evaluate` measures it again"


@dataclass(frozen=True)
class Kept:
    """What one file holds.

    Attributes:
        rows: see ``evaluate.measured.rows``.
        notes: who was left out, and why.
        place: what they are of: ``task``, ``subject``, ``part``, ``limit``, ``seed``, ``metrics``.
        identity: digest of everything that they follow from.
        student: digest of the trial's student; empty where it is of none.
    """

    rows: list[dict[str, Any]]
    notes: list[str]
    place: Mapping[str, Any]
    identity: str
    student: str = ""


def path_of(folder: Path, place: Mapping[str, Any]) -> Path:
    """The file of a place below a study's folder."""
    digest = sha256_text(canonical_json(dict(place)))[:16]
    name = "".join(
        mark if mark.isalnum() else "-" for mark in f"{place['task']}-{place['subject']}"
    )
    return folder / FOLDER / f"{name[:80]}-{digest}.json"


def read_place(folder: Path, place: Mapping[str, Any], identity: str) -> Kept | None:
    """What is kept of a place, unless it follows from something else by now.

    Raises:
        StreamError: the file is damaged.
    """
    path = path_of(folder, place)
    if not path.exists():
        return None
    kept = _read(path)
    return kept if kept.identity == identity and kept.place == place else None


def write_place(folder: Path, kept: Kept) -> None:
    """Keep the rows of a place.

    Raises:
        EnvironmentProblem: the file cannot be written.
    """
    make_dir(folder / FOLDER)
    data = {
        "place": dict(kept.place),
        "identity": kept.identity,
        "student": kept.student,
        "rows": kept.rows,
        "notes": kept.notes,
    }
    write_sealed(path_of(folder, kept.place), data)


def read_rows(folder: Path, students: Collection[str]) -> list[dict[str, Any]]:
    """The rows that are kept below a study's folder, in the order of the files' names.

    Each has the number of examples and the seed it was asked for beside.

    Args:
        folder: the study's.
        students: the digests of those it has; rows of others are left out.

    Raises:
        StreamError: a file is damaged.
    """
    table = []
    for path in sorted((folder / FOLDER).glob("*.json")):
        kept = _read(path)
        if kept.student and kept.student not in students:
            continue
        for row in kept.rows:
            table.append({**row, "limit": kept.place["limit"], "seed": kept.place["seed"]})
    return table


def in_order(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with its keys in the order of ``evaluate.measured.rows``, then all others by name."""
    first = [key for key in ROW if key in row]
    return {key: row[key] for key in [*first, *sorted(row.keys() - set(first))]}


def _read(path: Path) -> Kept:
    data, has_digest = read_sealed(path, _REMEDY)
    if not has_digest:  # it was always written with one
        raise StreamError(f"{path}: damaged (found no digest of its content); {_REMEDY}")
    return Kept(
        rows=[in_order(row) for row in data["rows"]],
        notes=data["notes"],
        place=data["place"],
        identity=data["identity"],
        student=data["student"],
    )
