"""What a disk holds after the power went: what was flushed, under the names that were flushed.

POSIX promises no more. The bytes of a file are there as they were at its last ``fsync``, or not at
all; a name is there as it was at the last ``fsync`` of its folder, and a folder's own name is one
of its parent. A file whose name was flushed and whose bytes were not is empty. File systems may
keep more: with ``all_names`` every name is there and bytes are missing alone.

Files are written once and never changed, so an ``fsync`` is recorded by a second name of the file
in a vault. SQLite flushes by itself and is tested for it elsewhere: its files are taken as they
are.
"""

import os
import shutil
from pathlib import Path

_link = os.link
"""As it is before ``forks`` watches it."""
Entries = dict[str, tuple[int, bool]]
"""By name the inode, and whether it is a folder."""


class Disk:
    """Follows what is flushed below some folders.

    Args:
        roots: the folders, which are there and whose content was flushed long ago.
        vault: an empty folder on the same file system.
    """

    def __init__(self, roots: list[Path], vault: Path) -> None:
        self._roots = roots
        self._vault = vault
        self._flushed: dict[int, Entries] = {}
        for root in roots:
            for folder, _, names in os.walk(root):
                self._flush_names(folder)
                for name in names:
                    self._flush_bytes(os.path.join(folder, name))

    def made(self, folder: str) -> None:
        """A folder was made: an inode may have been another's before."""
        self._flushed[os.stat(folder).st_ino] = {}

    def flushed(self, fd: int) -> None:
        """An ``fsync`` came back."""
        path = os.readlink(f"/proc/self/fd/{fd}")
        if os.path.isdir(path):
            self._flush_names(path)
        else:
            self._flush_bytes(path)

    def _flush_names(self, folder: str) -> None:
        entries: Entries = {}
        for entry in os.scandir(folder):
            entries[entry.name] = (entry.inode(), entry.is_dir(follow_symlinks=False))
        self._flushed[os.stat(folder).st_ino] = entries

    def _flush_bytes(self, path: str) -> None:
        kept = self._vault / str(os.stat(path).st_ino)
        if not kept.exists():
            _link(path, kept)

    def lose_power(self, target: Path, *, all_names: bool) -> None:
        """Write what is left of each root to ``target/0``, ``target/1`` and so on."""
        for i, root in enumerate(self._roots):
            self._copy(os.stat(root).st_ino, root, target / str(i), all_names)

    def _copy(self, folder: int, at: Path, target: Path, all_names: bool) -> None:
        os.makedirs(target)
        if all_names and at.is_dir():
            self._flush_names(str(at))
        for name, (inode, is_folder) in self._flushed.get(folder, {}).items():
            if is_folder:
                self._copy(inode, at / name, target / name, all_names)
            elif (self._vault / str(inode)).exists():
                shutil.copyfile(self._vault / str(inode), target / name)
            else:
                (target / name).touch()

        databases = at.glob("study.db*") if at.is_dir() else ()
        for path in databases:
            shutil.copyfile(path, target / path.name)
