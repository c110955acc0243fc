"""Put a set of files in a folder, so that whoever reads there meets the old set or the new one.

The new folder is built beside the old one, under ``.<name>.<process>.export``, and both change
their names at once. Whatever else lies in the old folder comes along. What a killed process leaves
is removed when the next set is put there.

Some folders cannot be exchanged: on a file system that does not know how, a mount point, the folder
somebody works in. There the file that readers begin with goes first and comes last, so that they
meet no mixture, but perhaps nothing; the new set is built inside the folder.
"""

import contextlib
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from gped_nas import io

_SUFFIX = ".export"


def place(files: Mapping[str, bytes], folder: Path, *, first: str, ours: Collection[str]) -> None:
    """Write files to a folder as one set.

    Args:
        files: contents by name.
        folder: the folder; it need not be there.
        first: the one of them that readers begin with.
        ours: every name that a set may have; files of these names are not carried over.

    Raises:
        EnvironmentProblem: they cannot be written; what was there is still there.
    """
    target = folder.resolve()
    with io.environment("write", folder):
        if not target.exists():
            io.make_dir(target.parent)
            _remove_leftovers(target)
            _build_and_rename(files, target)
            return

        io.make_dir(target)  # says so where it is a file, or not writable
        _remove_leftovers(target)
        is_exchanged = (target / first).exists() and _exchange(files, target, ours)
        if not is_exchanged:
            _write_in_place(files, target, first)


def _build_and_rename(files: Mapping[str, bytes], target: Path) -> None:
    building = target.with_name(_hidden_name(target))
    try:
        building.mkdir()
        _write_all(files, building)
        os.rename(building, target)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    io.sync_dir(target.parent)


def _exchange(files: Mapping[str, bytes], target: Path, ours: Collection[str]) -> bool:
    """Whether the folder could be exchanged for one with these files."""
    if Path.cwd().is_relative_to(target) or not os.access(target.parent, os.W_OK):
        return False

    building = target.with_name(_hidden_name(target))
    try:
        shutil.copytree(
            target,
            building,
            symlinks=True,
            copy_function=_link,
            ignore=lambda at, names: [n for n in names if Path(at) == target and n in ours],
        )
        _write_all(files, building)
        _sync(building)
        is_exchanged = io.exchange(building, target)
        io.sync_dir(target.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return is_exchanged


def _sync(folder: Path) -> None:
    """Flush what came along: its names, and the bytes of what could not be linked."""
    for at, _, names in os.walk(folder):
        for path in (Path(at, name) for name in names):
            is_readable = path.is_file() and os.access(path, os.R_OK)
            if is_readable and not path.is_symlink():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        io.sync_dir(Path(at))


def _write_all(files: Mapping[str, bytes], building: Path) -> None:
    for name, data in files.items():
        io.write_bytes(building / name, data)


def _write_in_place(files: Mapping[str, bytes], target: Path, first: str) -> None:
    building = target / _hidden_name(target)
    try:
        # all that needs room comes before the first file is replaced
        building.mkdir()
        _write_all(files, building)

        (target / first).unlink(missing_ok=True)
        io.sync_dir(target)
        for name in sorted(files, key=lambda name: name == first):
            if name == first:
                io.sync_dir(target)
            os.replace(building / name, target / name)
        io.sync_dir(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _hidden_name(target: Path) -> str:
    """What a folder is called while it is built."""
    return f".{target.name}.{os.getpid()}{_SUFFIX}"


def _remove_leftovers(target: Path) -> None:
    """Delete what killed processes left beside a folder and in it."""
    pattern = f".*{_SUFFIX}"
    for path in (*target.parent.glob(pattern), *target.glob(pattern)):
        name, _, process = path.name.removesuffix(_SUFFIX).rpartition(".")
        if name == f".{target.name}" and io.is_left_by(process):
            shutil.rmtree(path, ignore_errors=True)


def _link(source: str, target: str) -> None:
    """The same file under another name, or a copy where the file system has no such names."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        with contextlib.suppress(FileExistsError):
            shutil.copy2(source, target)
