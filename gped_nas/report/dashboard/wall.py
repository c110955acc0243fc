"""What a study shows in the dashboard besides its trials: notes, plots and files.

Finished trials are frozen, so all of it is attached to the study. What was put there last time is
remembered in the study's attribute ``gped:dashboard``, so that a second start adds nothing twice
and leaves alone what a person changed.
"""

import hashlib
import json
import re
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.exceptions import ExperimentalWarning

from gped_nas.errors import StudyError
from gped_nas.io import environment, make_dir, write_bytes
from gped_nas.report.dashboard.server import dashboard_package
from gped_nas.report.dashboard.storage import open_for_dashboard
from gped_nas.search.document import Part, validate

_REMEMBERED = "gped:dashboard"
_GONE = "no longer on the front"
_IDENTIFIER = re.compile("[0-9a-f-]+")


class WallMemory(Part):
    """What the dashboard put on its wall last time; the attribute ``gped:dashboard``.

    The process that asks writes the study's document, and the dashboard may be another one: so this
    is no part of that.

    Attributes:
        notes: digest of each note by trial number; the study's own is called ``""``.
        plots: digest of each plot by its id.
        files: identifier and digest of each file by its name.
    """

    notes: dict[str, str] = {}
    plots: dict[str, str] = {}
    files: dict[str, tuple[str, str]] = {}


class Wall:
    """A study's place in the dashboard.

    Args:
        storage_url: the study's database.
        study_name: its name.
        artifacts: folder of the files, made when the first is put there.

    Raises:
        EnvironmentProblem: optuna-dashboard is not installed.
        StudyError: there is no such study, or what the wall remembers is damaged.
    """

    def __init__(self, storage_url: str, study_name: str, artifacts: Path) -> None:
        self._package = dashboard_package()
        try:
            self._study = optuna.load_study(
                study_name=study_name, storage=open_for_dashboard(storage_url)
            )
        except KeyError:
            raise StudyError(f"{study_name}: no study of this name in the database") from None
        self._artifacts = artifacts
        self._trials = {
            trial.number: trial._trial_id for trial in self._study.get_trials(deepcopy=False)
        }
        stored = self._study.user_attrs.get(_REMEMBERED, {})
        remembered = validate(WallMemory, stored, f"study '{study_name}': {_REMEMBERED}")
        self._kept: dict[str, dict[str, Any]] = {
            "notes": dict(remembered.notes),
            "plots": dict(remembered.plots),
            "files": {name: list(file) for name, file in remembered.files.items()},
        }

    def name_objectives(self, names: Sequence[str]) -> None:
        """Give the objectives names, if they have none."""
        with _experimental():
            if names and self._study.metric_names is None:
                self._study.set_metric_names(list(names))

    def put_files(self, files: Mapping[str, bytes]) -> dict[str, str]:
        """Attach files to the study; one that is there already is replaced if it differs.

        Args:
            files: file name to content.

        Returns:
            File name to its address in the dashboard.

        Raises:
            EnvironmentProblem: the folder cannot be written.
        """
        return {name: self._put_file(name, data) for name, data in files.items()}

    def _put_file(self, name: str, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        identifier, known = self._kept["files"].get(name, (None, None))
        if identifier not in self._attached():
            identifier = self._upload(name, data)
        elif known != digest or not (self._artifacts / identifier).is_file():
            write_bytes(make_dir(self._artifacts) / identifier, data)
        self._kept["files"][name] = [identifier, digest]
        return f"/artifacts/{self._study._study_id}/{identifier}"

    def _attached(self) -> set[str]:
        """Identifiers of what is attached to the study; the dashboard leaves a null where a file
        was deleted.
        """
        attributes = self._study._storage.get_study_system_attrs(self._study._study_id)
        found = [
            json.loads(value) for key, value in attributes.items() if key.startswith("artifacts:")
        ]
        return {
            meta["artifact_id"]
            for meta in found
            if meta and _IDENTIFIER.fullmatch(meta["artifact_id"])
        }

    def _upload(self, name: str, data: bytes) -> str:
        make_dir(self._artifacts)
        with (
            tempfile.TemporaryDirectory() as folder,
            environment("write", self._artifacts),
            _experimental(),
        ):
            path = Path(folder) / name
            path.write_bytes(data)
            store = FileSystemArtifactStore(self._artifacts)
            return upload_artifact(
                artifact_store=store, file_path=str(path), study_or_trial=self._study
            )

    def draw(self, figures: Mapping[str, go.Figure]) -> None:
        """Show these figures, by id; those of last time that are not among them are blanked.

        Args:
            figures: id, which is letters, digits, ``-`` and ``_``, to what is drawn.
        """
        gone = {name: _blank() for name in self._kept["plots"] if name not in figures}
        for name, figure in {**figures, **gone}.items():
            digest = hashlib.sha256(figure.to_json().encode()).hexdigest()
            if self._kept["plots"].get(name) != digest:
                self._package.save_plotly_graph_object(self._study, figure, graph_object_id=name)
                self._kept["plots"][name] = digest

    def write(self, note: str, trial_notes: Mapping[int, str]) -> None:
        """Write the study's note and those of some trials; notes of last time on other trials are
        taken away.

        A note that a person has changed meanwhile is theirs and stays.

        Args:
            note: Markdown. HTML in it is shown, never obeyed; pass texts from users through
                ``as_markdown`` first.
            trial_notes: the same by trial number.
        """
        gone = {int(key): "" for key in self._kept["notes"] if key and int(key) not in trial_notes}
        self._write("", self._study, note)
        for number, text in {**trial_notes, **gone}.items():
            shown = SimpleNamespace(
                storage=self._study._storage, study=self._study, _trial_id=self._trials[number]
            )
            self._write(str(number), shown, text)

    def _write(self, key: str, place: Any, markdown: str) -> None:
        text = markdown.replace("<", "&lt;")
        there = self._package.get_note(place)
        if there not in ("", text) and self._kept["notes"].get(key) != _digest(there):
            return
        if there != text:
            self._package.save_note(place, text)
        self._kept["notes"][key] = _digest(text)

    def remember(self) -> None:
        """Store what was put on the wall, for the next time."""
        if self._study.user_attrs.get(_REMEMBERED) != self._kept:
            self._study.set_user_attr(_REMEMBERED, self._kept)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _blank() -> go.Figure:
    return go.Figure(layout={"title": {"text": _GONE}})


def _experimental() -> Any:
    """Do without Optuna's warning that names and artifacts may change."""
    return warnings.catch_warnings(action="ignore", category=ExperimentalWarning)
