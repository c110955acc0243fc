"""What a study's folder says it is, and where its study lies.

The folder says so in ``study.json``:

===========  ===============================================================================
``name``     of the study, in its storage; a renamed folder keeps it
``storage``  ``sqlite``, the file ``study.db`` in the folder, or ``external``
``home``     identity of the folder, as long as it is not copied
``study``    identity of the study; absent in folders of earlier versions
``url``      of an external storage, its path absolute, without password and options
``hidden``   true if the URL has a password or options, so that it has to be given again
===========  ===============================================================================
"""

import contextlib
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

from gped_nas.errors import MovedWarning, StreamError, StudyError
from gped_nas.io import read_json, write_json
from gped_nas.search.binding import Binding
from gped_nas.search.database import (
    absolute,
    has_hidden_parts,
    shown,
    sqlite_file,
    sqlite_url,
    storage_errors,
)
from gped_nas.search.ledger import Ledger
from gped_nas.search.study import load

STUDY_FILE, DATABASE, REPORT = "study.json", "study.db", "report.html"
STUDENTS = "students"
"""The folder of the front's students, one folder a trial."""


def is_study(what: str | Path, out: str | Path) -> bool:
    """Whether this is a study's folder, or the name of one in the folder of all studies."""
    return any((place / STUDY_FILE).is_file() for place in (Path(what), Path(out) / what))


@dataclass(frozen=True)
class Note:
    """What ``study.json`` says; see the module."""

    name: str
    storage: str = "sqlite"
    home: str = ""
    study: str = ""
    url: str = ""
    hidden: bool = False

    @staticmethod
    def read(folder: Path) -> "Note | None":
        """The note of a folder; None where it is missing or damaged."""
        with contextlib.suppress(StreamError):
            data = read_json(folder / STUDY_FILE)
            if isinstance(data, dict) and isinstance(data.get("name"), str) and data["name"]:
                texts = {key: data[key] for key in _TEXTS if isinstance(data.get(key), str)}
                return Note(name=data["name"], hidden=data.get("hidden") is True, **texts)
        return None

    @staticmethod
    def of(folder: Path, binding: Binding, storage: str) -> "Note":
        """The note of a folder that a study is bound to."""
        note = Note(binding.name, home=binding.folder, study=binding.study)
        if is_inside(folder, storage):
            return note
        url, is_hidden = shown(absolute(storage)), has_hidden_parts(storage)
        return replace(note, storage="external", url=url, hidden=is_hidden)

    def place(self, folder: Path) -> str:
        """The storage's URL as far as the note says it; empty if it does not."""
        return self.url if self.storage == "external" else sqlite_url(folder / DATABASE)

    def write(self, folder: Path) -> None:
        """Write the note, without what is empty."""
        values = {key: value for key, value in vars(self).items() if value}
        write_json(folder / STUDY_FILE, values)


_TEXTS = ("storage", "home", "study", "url")


def storage_of_new(folder: Path, name: str, storage: str | None) -> str:
    """The storage of a folder that does not say which study it holds."""
    inside = sqlite_url(folder / DATABASE)
    has_database = (folder / DATABASE).exists()
    if storage is None or is_inside(folder, storage):
        if has_database or not holds_work(folder):
            return inside
    elif not has_database:
        return storage

    if has_database:
        raise StudyError(
            f"{folder}: holds a study in its {DATABASE}, and --storage (or GPED_STORAGE) names "
            f"{shown(storage or inside)}; leave it out, or choose another --study-name"
        )
    raise StudyError(
        f"{folder}: holds students of a study, and neither its {STUDY_FILE} nor its {DATABASE}; "
        "restore them, choose another --study-name, or remove the folder to begin anew"
    )


def storage_of(folder: Path, note: Note, storage: str | None, *, adopts: bool) -> str:
    """The storage of the study that a folder says it holds."""
    recorded = note.place(folder)
    if storage is None:
        return recorded_storage(folder, note)
    if recorded and _is_same_storage(recorded, storage):
        _refuse_missing(folder, note, storage)
        return storage
    if recorded:
        _refuse_unless_moved(folder, note, recorded, storage, adopts=adopts)
    return storage


def recorded_storage(folder: Path, note: Note) -> str:
    """Where a folder says that its study lies.

    Raises:
        StudyError: it does not say, or not all of it.
    """
    recorded = note.place(folder)
    if not recorded or note.hidden:
        raise StudyError(
            f"{folder}: study '{note.name}' lies in {recorded or 'another storage'}; give it with "
            "--storage or GPED_STORAGE"
        )
    _refuse_missing(folder, note, recorded)
    return recorded


def _refuse_missing(folder: Path, note: Note, storage: str) -> None:
    file = sqlite_file(storage)
    if file is not None and not file.is_file():
        raise StudyError(
            f"{file}: missing, and {folder} holds students of study '{note.name}' that lay in it; "
            "restore it, choose another --study-name, or remove the folder to begin anew"
        )


def _refuse_unless_moved(
    folder: Path, note: Note, recorded: str, storage: str, *, adopts: bool
) -> None:
    """Refuse another storage than the recorded one, unless the study was moved there."""
    refusal = StudyError(
        f"{folder}: its study '{note.name}' lies in {shown(recorded)}, and --storage (or "
        f"GPED_STORAGE) names {shown(absolute(storage))}; leave it out or correct it, or choose "
        "another --study-name"
    )
    file = sqlite_file(recorded)
    if file is not None and file.is_file() and not adopts:
        raise refusal
    try:
        with storage_errors(storage):
            binding = load(storage, note.name).fence.read()
    except StudyError:
        raise refusal from None
    if binding is None or binding.study != note.study:
        raise refusal

    place = shown(absolute(storage))
    warnings.warn(
        f"study '{note.name}': it lay in {shown(recorded)}, and lies in {place} now",
        MovedWarning,
        stacklevel=2,
    )


def check_same_study(folder: Path, note: Note, ledger: Ledger) -> None:
    """Refuse a study of the right name that is not the one whose students a folder holds.

    Raises:
        StudyError: it is another one.
    """
    if not note.study:
        return
    binding = ledger.fence.read()
    if binding is None or binding.study != note.study:
        raise StudyError(
            f"{folder}: the storage holds another study '{note.name}' than this folder; give the "
            "folder's own with --storage, or restore it"
        )


def holds_work(folder: Path) -> bool:
    """Whether a folder has what only a study puts there."""
    folders = [folder / name for name in (STUDENTS, "references", "evidence")]
    has_files = any(path.is_dir() and any(path.iterdir()) for path in folders)
    return has_files or (folder / REPORT).exists()


def is_inside(folder: Path, storage: str) -> bool:
    """Whether a storage is the file in a study's folder."""
    return _is_same_storage(sqlite_url(folder / DATABASE), storage)


def _is_same_storage(first: str, second: str) -> bool:
    """Whether two URLs name one database, passwords and options apart."""
    return shown(absolute(first)) == shown(absolute(second))
