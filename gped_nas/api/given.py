"""The folder of what a study was given, which stays as it is where a later call is refused.

Files in it are replaced and never written over, so that a copy is links and costs nothing.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from gped_nas.api.standing import STUDY
from gped_nas.io import environment, make_dir

GIVEN = "given"
"""The folder in a study's own that holds what the user gave."""


@contextlib.contextmanager
def unchanged_if_refused(study: Path) -> Iterator[Path]:
    """The folder to write into; if the block fails, a study that was there has its own again.

    It goes on with that one too where it was merely stopped: with other things it is refused.

    Args:
        study: its folder.

    Raises:
        EnvironmentProblem: the disk refuses.
    """
    folder = study / GIVEN
    before = study / f"{GIVEN}.before"
    with environment("keep", folder):
        if before.is_dir():  # of a call that was killed
            _restore(before, folder)
        if (study / STUDY).is_file() and folder.is_dir():
            _copy(folder, before)

    try:
        yield make_dir(folder)
    except BaseException:
        if before.is_dir():
            _restore(before, folder)
        raise
    shutil.rmtree(before, ignore_errors=True)


def _copy(folder: Path, before: Path) -> None:
    """Whole under its name or not there: half a copy would be restored after a kill."""
    building = before.with_name(f"{before.name}.part")
    shutil.rmtree(building, ignore_errors=True)
    shutil.copytree(folder, building, copy_function=_link)
    building.rename(before)


def _restore(before: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    before.rename(folder)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)
