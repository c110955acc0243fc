"""Whether a folder and a study belong together, and what binds them.

What the folder says is in ``api.note``. What the storage says is in ``search.binding``, with the
rules.
"""

import contextlib
import os
import platform
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gped_nas.api.note import STUDY_FILE, Note, holds_work, is_inside, storage_of, storage_of_new
from gped_nas.errors import MovedWarning, StudyError
from gped_nas.search.binding import Binding, Decision, Folder, Sight, decide
from gped_nas.search.database import shown
from gped_nas.search.ledger import Ledger
from gped_nas.search.rows import Refusal
from gped_nas.search.study import is_there

_ADVICE = "go on there, choose another --study-name, or take it over with `run --adopt`"


@dataclass(frozen=True)
class Home:
    """A folder that a run starts in, and the study that is or will be its own.

    Attributes:
        path: the folder; its lock is held.
        name: of the study in its storage.
        url: of the storage.
        note: what the folder says; None where it says nothing.
        adopts: whether the user asked to take the study over.
    """

    path: Path
    name: str
    url: str
    note: Note | None
    adopts: bool = False

    @property
    def is_inside(self) -> bool:
        """Whether the storage lies in the folder."""
        return is_inside(self.path, self.url)

    def is_made(self) -> bool:
        """Whether the study is in its storage.

        Raises:
            StudyError: it is not, and the folder has students of it.
        """
        if is_there(self.url, self.name):
            return True
        if self.note is None and not (self.is_inside and holds_work(self.path)):
            return False
        raise StudyError(
            f"{self.path}: holds students of study '{self.name}', which {shown(self.url)} does not "
            "have; restore it, choose another --study-name, or remove the folder to begin anew"
        )

    def check(self, ledger: Ledger) -> None:
        """Refuse a study that this folder cannot go on with; nothing is written.

        Raises:
            StudyError: it belongs to another folder, or the folder to another study.
        """
        self._decide(self._read(ledger), ledger)

    @contextlib.contextmanager
    def bound(self, ledger: Ledger) -> Iterator[None]:
        """Bind the study, unless that was done, and let it go at the end.

        Raises as ``check``.
        """
        if not ledger.fence.is_up:
            self.bind(ledger)
        try:
            yield
        finally:
            ledger.fence.release()

    def bind(self, ledger: Ledger) -> None:
        """Make the study this folder's, and every write of its ledger one under a new fence.

        Raises as ``check``.
        """
        for _ in range(10):
            binding = self._read(ledger)
            decision = self._decide(binding, ledger)
            mine = self._binding(binding, decision, ledger)
            if ledger.fence.swap(mine):
                break
        else:
            raise StudyError(f"study '{self.name}': other runs start on it; run it again later")

        ledger.owner = ledger.owner.model_copy(update={"home": mine.folder})
        ledger.fence.hold(mine.fence)
        if binding is not None:
            self._tell(decision, binding)
        Note.of(self.path, mine, self.url).write(self.path)

    def _read(self, ledger: Ledger) -> Binding | None:
        binding = ledger.fence.read()
        # Optuna copies attributes from one study to another; what they say is not of the copy.
        return None if binding is None or binding.name != self.name else binding

    def _decide(self, binding: Binding | None, ledger: Ledger) -> Decision:
        folder = self._folder(binding)
        is_unnamed = self.note is None and not (folder.identity or self.is_inside)
        if is_unnamed and holds_work(self.path):
            raise StudyError(
                f"{self.path}: holds students of a study, and no {STUDY_FILE}; restore it, choose "
                "another --study-name, or remove the folder to begin anew"
            )

        decision = decide(
            binding,
            folder,
            "gone" if binding is None else _look(binding, self.path, folder.identity),
            is_held=binding is not None and binding.is_held(ledger.owner, ledger.now()),
            adopts=self.adopts,
        )

        if isinstance(decision, Refusal):
            if folder.study and (binding is None or binding.study != folder.study):
                advice = "restore the storage, or choose another --study-name or --out"
            else:
                advice = _ADVICE
            raise StudyError(
                f"{self.path}: study '{self.name}' in {shown(self.url)}: {decision.reason}; "
                f"{advice}"
            )
        return decision

    def _folder(self, binding: Binding | None) -> Folder:
        note = self.note
        if note is None:
            # The note was lost, or a run was killed before it wrote one.
            is_here = binding is not None and binding.host == platform.node()
            if binding is not None and is_here and _is_same(Path(binding.path), self.path):
                return Folder(binding.folder, binding.study, self.is_inside)
            return Folder("", "", self.is_inside)
        return Folder(note.home, note.study, self.is_inside)

    def _binding(self, binding: Binding | None, decision: Decision, ledger: Ledger) -> Binding:
        """What the storage is to say after a decision."""
        folder = self._folder(binding)
        is_new = binding is None or decision == "copied"
        keeps = decision in ("new", "same", "moved") and folder.identity
        return Binding(
            study=uuid.uuid4().hex if binding is None or is_new else binding.study,
            name=self.name,
            folder=folder.identity if keeps else uuid.uuid4().hex,
            path=str(self.path.resolve()),
            host=platform.node(),
            fence=1 if binding is None else binding.fence + 1,
            holder=ledger.owner,
            renewed=ledger.now(),
        )

    def _tell(self, decision: Decision, binding: Binding) -> None:
        words = {
            "moved": f"its folder was {binding.path}, and is {self.path} now",
            "copied": f"{self.path} is a copy of {binding.path}, and a study of its own now",
            "adopted": f"{self.path} took it over from {binding.path}",
        }
        if decision in words:
            warnings.warn(f"study '{self.name}': {words[decision]}", MovedWarning, stacklevel=2)


def find(folder: Path, name: str, storage: str | None, *, adopts: bool = False) -> Home:
    """The study that a run in a folder goes on with, or begins. Nothing is written.

    Args:
        folder: its lock is held.
        name: what the study is called if the folder holds none yet.
        storage: an Optuna storage URL, as the user gave it; None for the folder's own.
        adopts: whether the user asked to take the study over.

    Raises:
        StudyError: the folder holds a study, and that cannot be gone on with.
    """
    note = Note.read(folder)
    if note is None:
        return Home(folder, name, storage_of_new(folder, name, storage), None, adopts)

    url = storage_of(folder, note, storage, adopts=adopts)
    return Home(folder, note.name, url, note, adopts)


def _is_same(first: Path, second: Path) -> bool:
    """Whether two paths are one folder."""
    try:
        return os.path.samefile(first, second)
    except OSError:
        return False


def _look(binding: Binding, folder: Path, identity: str) -> Sight:
    """What is seen of the bound folder; see ``binding.Sight``."""
    path = Path(binding.path)
    is_bound, is_this_host = identity == binding.folder, binding.host == platform.node()
    if _is_same(path, folder):
        return "here" if is_bound or is_this_host else "unseen"

    note = Note.read(path)
    if note is not None and note.home == binding.folder:
        return "there"
    is_hidden = note is None and not os.access(path.parent, os.X_OK) and path.parent.exists()
    return "gone" if is_this_host and not is_hidden else "unseen"
