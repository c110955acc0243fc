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
from gped_nas.search.document import Stored, validate

_REMEMBERED = "gped:dashboard"
_GONE = "no longer on the front"
_IDENTIFIER = re.compile("[0-9a-f-]+")


class WallMemory(Stored):
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
        trials = self._study.get_trials(deepcopy=False)
        self._trial_ids = {trial.number: trial._trial_id for trial in trials}

        stored = self._study.user_attrs.get(_REMEMBERED, {})
        remembered = validate(WallMemory, stored, f"study '{study_name}': {_REMEMBERED}")
        self._memory: dict[str, dict[str, Any]] = {
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
        identifier, last_digest = self._memory["files"].get(name, (None, None))
        # an identifier is a file name: only one that the study itself holds is written to
        if identifier not in self._attached():
            identifier = self._upload(name, data)
        elif last_digest != digest or not (self._artifacts / identifier).is_file():
            write_bytes(make_dir(self._artifacts) / identifier, data)
        self._memory["files"][name] = [identifier, digest]
        return f"/artifacts/{self._study._study_id}/{identifier}"

    def _attached(self) -> set[str]:
        """Identifiers of what is attached to the study."""
        attributes = self._study._storage.get_study_system_attrs(self._study._study_id)
        identifiers = set()
        for key, value in attributes.items():
            if not key.startswith("artifacts:"):
                continue
            meta = json.loads(value)  # null where the dashboard deleted the file
            if meta and _IDENTIFIER.fullmatch(meta["artifact_id"]):
                identifiers.add(meta["artifact_id"])
        return identifiers

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
        """Show these figures; those of last time that are not among them are blanked.

        Args:
            figures: id, which is letters, digits, ``-`` and ``_``, to what is drawn.
        """
        gone = {name: _blank() for name in self._memory["plots"] if name not in figures}
        for name, figure in {**figures, **gone}.items():
            digest = _digest(figure.to_json())
            if self._memory["plots"].get(name) != digest:
                self._package.save_plotly_graph_object(self._study, figure, graph_object_id=name)
                self._memory["plots"][name] = digest

    def write(self, note: str, trial_notes: Mapping[int, str]) -> None:
        """Write the study's note and those of some trials.

        Notes of last time on other trials are taken away. A note that a person has changed
        meanwhile is theirs and stays.

        Args:
            note: Markdown. HTML in it is shown, never obeyed; pass texts from users through
                ``as_markdown`` first.
            trial_notes: the same by trial number.
        """
        remembered = [int(key) for key in self._memory["notes"] if key]
        gone = {number: "" for number in remembered if number not in trial_notes}
        self._write("", self._study, note)
        for number, text in {**trial_notes, **gone}.items():
            # notes need these three of a trial alone; a real one would be read from the database
            trial = SimpleNamespace(
                storage=self._study._storage, study=self._study, _trial_id=self._trial_ids[number]
            )
            self._write(str(number), trial, text)

    def _write(self, key: str, holder: Any, markdown: str) -> None:
        """Write the note of a study or trial, unless a person has changed it."""
        text = markdown.replace("<", "&lt;")
        present = self._package.get_note(holder)
        is_ours = self._memory["notes"].get(key) == _digest(present)
        if present not in ("", text) and not is_ours:
            return

        if present != text:
            self._package.save_note(holder, text)
        self._memory["notes"][key] = _digest(text)

    def remember(self) -> None:
        """Store what was put on the wall, for the next time."""
        if self._study.user_attrs.get(_REMEMBERED) != self._memory:
            self._study.set_user_attr(_REMEMBERED, self._memory)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _blank() -> go.Figure:
    return go.Figure(layout={"title": {"text": _GONE}})


def _experimental() -> Any:
    """Do without Optuna's warning that names and artifacts may change."""
    return warnings.catch_warnings(action="ignore", category=ExperimentalWarning)
