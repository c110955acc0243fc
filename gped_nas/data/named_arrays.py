"""The arrays that make a dataset, by name: which there are, and how an ``.npz`` is read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gped_nas.data.archives import UNREADABLE, check_archive, reason_of
from gped_nas.data.stored import AnyArray, find_member
from gped_nas.errors import DataError, EnvironmentProblem, nearest
from gped_nas.io import Array

GROUPS = ("groups_train", "groups_val", "groups_test")
ARRAYS = (
    "x_train",
    "y_train",
    "x_val",
    "y_val",
    "x_test",
    "y_test",
    "x_pool",
    "class_names",
    *GROUPS,
)


def read_arrays(path: Path, *, stays_stored: bool) -> dict[str, AnyArray]:
    """Every array of the file, by name, none of them unpickled.

    Args:
        path: the ``.npz``.
        stays_stored: whether large inputs stay in it, where they lie there as they are.
    """
    with _open(path) as file:
        check_archive(file, path)
        try:
            archive = np.load(file, allow_pickle=False)
        except UNREADABLE as error:
            raise DataError(
                f"{path}: not a readable .npz ({reason_of(error)}); write it again with "
                "numpy.savez, plain arrays"
            ) from None

        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(
                f"{path}: found a single array, expected an .npz with x_train and y_train; use "
                "numpy.savez"
            )
        with archive:
            check_names(archive.files, path)
            arrays: dict[str, AnyArray] = {}
            for name in archive.files:
                is_stored = stays_stored and name.startswith("x_")
                stored = find_member(path, name) if is_stored else None
                arrays[name] = stored or _array(archive, name, path)
            return arrays


def _open(path: Path) -> BinaryIO:
    try:
        if not path.is_file():
            raise DataError(
                f"{path}: no such file (looked from {Path.cwd()}), expected an .npz file; "
                "check 'path' in the dataset's settings"
            )
        return path.open("rb")
    except OSError as error:
        raise EnvironmentProblem(
            f"{path}: cannot be read: {error.strerror}; check its permissions"
        ) from None


def check_names(names: Sequence[str], path: Path | str) -> None:
    """Raise ``DataError`` unless these are arrays of a dataset, and none is missing."""
    for name in names:
        if name not in ARRAYS:
            raise DataError(f"{path}: {name}: unknown array{nearest(name, ARRAYS)}")

    pairs = [("x_test", "y_test"), ("x_val", "y_val")]
    for name, partner in [*pairs, *((y, x) for x, y in pairs)]:
        if name in names and partner not in names:
            raise DataError(f"{path}: {partner}: missing beside {name}; add it or leave both out")

    for name in GROUPS:
        partner = name.replace("groups", "x")
        if name in names and partner not in names:
            raise DataError(f"{path}: {partner}: missing beside {name}; add it or leave {name} out")

    for name in ("x_train", "y_train"):
        if name not in names:
            present = ", ".join(names) or "no arrays"
            raise DataError(f"{path}: {name}: missing; found {present}; add it to the file")


def _array(archive: Mapping[str, Array], name: str, path: Path) -> Array:
    try:
        array = archive[name]
    except UNREADABLE as error:
        raise DataError(
            f"{path}: {name}: cannot be read ({error}); write it again as a plain array with "
            "numpy.savez"
        ) from None

    if not isinstance(array, np.ndarray):
        raise DataError(
            f"{path}: {name}: found bytes that are not an array; write it again with numpy.savez"
        )
    check_not_empty(array.shape, name, path)
    return array


def check_not_empty(shape: tuple[int, ...], name: str, path: Path | str) -> None:
    """Raise ``DataError`` where an array has no number."""
    if 0 in shape:
        raise DataError(
            f"{path}: {name}: found shape {shape}, which is empty; fill it or leave it out"
        )
