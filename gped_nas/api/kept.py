"""Files in a study's folder that its references are made of, each under a digest in its document.

The digest is written before the file. A file without one is of an earlier version, therefore, and a
killed run leaves none that nobody can check.
"""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gped_nas.api.evidence_files import REMADE
from gped_nas.errors import DamageError, UndigestedWarning
from gped_nas.io import make_dir, write_bytes
from gped_nas.models.storage import read_bytes
from gped_nas.search.ledger import Ledger


@dataclass(frozen=True, eq=False)
class KeptFiles:
    """See the module.

    Attributes:
        folder: the study's.
        ledger: the study's.
    """

    folder: Path
    ledger: Ledger
    _known: dict[str, str] = field(default_factory=dict)

    def digest_of(self, path: Path) -> str:
        """The SHA-256 that a file must have; empty where the document has none."""
        if not self._known:  # the process that asks alone writes them, and here alone
            self._known.update(self.ledger.document.files)
        return self._known.get(self._name(path), "")

    def remember(self, path: Path, sha256: str) -> None:
        """Write down which SHA-256 a file must have from now on."""
        self.remember_all({path: sha256})

    def remember_all(self, digests: Mapping[Path, str]) -> None:
        """``remember`` of several files at once."""
        changed = {}
        for path, sha256 in digests.items():
            if self.digest_of(path) != sha256:
                changed[self._name(path)] = sha256
        if changed:
            self.ledger.change(files={**self.ledger.document.files, **changed})
            self._known.update(changed)

    def write(self, path: Path, data: bytes) -> None:
        """Write a file and its digest.

        Raises:
            EnvironmentProblem: it cannot be written.
        """
        self.remember(path, hashlib.sha256(data).hexdigest())
        make_dir(path.parent)
        write_bytes(path, data)

    def read(self, path: Path) -> bytes:
        """The bytes of a file, which are those that were written; one without a digest gets it.

        Raises:
            DamageError: they are others.
            DataError: the file is missing.
            EnvironmentProblem: it cannot be read.
        """
        data = read_bytes(path)
        actual, expected = hashlib.sha256(data).hexdigest(), self.digest_of(path)
        if not expected:
            warnings.warn(
                "a reference that was made before references carried digests is read unchecked; it "
                "has one from now on",
                UndigestedWarning,
                stacklevel=2,
            )
            self.remember(path, actual)
        elif actual != expected:
            raise DamageError(
                f"{path}: found SHA-256 {actual[:16]}, expected {expected[:16]} as in the study's "
                f"document; delete the file, and {REMADE}"
            )
        return data

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()
