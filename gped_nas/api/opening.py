"""Open a study that is there, by its name or folder."""

import os
from pathlib import Path

from gped_nas.api.note import STUDY_FILE, Note, check_same_study, recorded_storage
from gped_nas.api.study import Study
from gped_nas.errors import StudyError
from gped_nas.search.database import storage_errors
from gped_nas.search.study import load


def storage_from_environment() -> str | None:
    """``$GPED_STORAGE``, then ``$OPTUNA_STORAGE``."""
    return os.environ.get("GPED_STORAGE") or os.environ.get("OPTUNA_STORAGE") or None


def open_study(
    study: str | Path, *, storage: str | None = None, out: str | Path = "reports"
) -> Study:
    """An existing study by its name or folder.

    Args:
        study: its name or folder.
        storage: where it lies, if not in its folder; by default what the environment says.
        out: folder of all studies.

    Raises:
        StudyError: there is none, or it cannot be read.
    """
    folder = Path(study)
    if not (folder / STUDY_FILE).is_file():
        folder = Path(out) / str(study)
    if not (folder / STUDY_FILE).is_file():
        names = sorted(path.parent.name for path in Path(out).glob(f"*/{STUDY_FILE}"))
        raise StudyError(
            f"{study}: no such study; expected a study's name or folder; in {out}: "
            f"{', '.join(names) or 'none'}"
        )

    note = Note.read(folder)
    if note is None:
        raise StudyError(
            f"{folder / STUDY_FILE}: damaged; repeat the study's `gped-search run`, which writes "
            "it anew"
        )

    url = recorded_storage(folder, note) if note.storage != "external" else None
    url = url or storage or storage_from_environment() or recorded_storage(folder, note)
    ledger = load(url, note.name)
    with storage_errors(url):
        check_same_study(folder, note, ledger)
    return Study(folder, note.name, ledger, url)
