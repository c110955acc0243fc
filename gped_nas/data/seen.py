"""Which examples somebody else's ensemble was trained on, so that parts are carved from others.

A student that is chosen where its teacher has seen the labels is chosen by answers that are better
than any it will meet. So ``teacher.trained_on`` says which rows of the training data were seen:

==================  =================================================
``all``             all of them
``5000``            the first 5,000
``[0, 7, 12]``      these rows, counted from 0
``seen.npy``        an array of row numbers, or of true and false
==================  =================================================

A dataset that is built within ``carving_unseen`` carves its validation and test parts from the
others.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gped_nas.errors import DataError

TrainedOn = Literal["all"] | int | tuple[int, ...] | str


@dataclass
class Seen:
    """What was seen.

    Attributes:
        trained_on: as the setting says.
        where: the setting, for messages.
        is_used: whether a dataset has asked for it.
    """

    trained_on: TrainedOn
    where: str
    is_used: bool = False

    def mask(self, total: int) -> Tensor:
        """Which of ``total`` rows were seen, (N,) bool.

        Raises:
            DataError: it names rows that are not there, or its file cannot be read.
        """
        self.is_used = True
        seen = torch.zeros(total, dtype=torch.bool)
        if self.trained_on == "all":
            return ~seen

        if isinstance(self.trained_on, int):
            self._check(np.array([0, self.trained_on - 1]), total)
            seen[: self.trained_on] = True
            return seen

        rows = np.asarray(self.trained_on)
        if isinstance(self.trained_on, str):
            rows = _read(self.trained_on, self.where)
        if rows.dtype == bool:
            if rows.shape != (total,):
                raise DataError(
                    f"{self.where}: found a mask of shape {rows.shape}, expected ({total},), one "
                    "value for each row of the training data"
                )
            return torch.from_numpy(rows)

        self._check(rows, total)
        seen[torch.from_numpy(rows.astype(np.int64))] = True
        return seen

    def _check(self, rows: np.ndarray[tuple[int, ...], np.dtype[np.generic]], total: int) -> None:
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise DataError(
                f"{self.where}: found {rows.dtype} of shape {rows.shape}, expected row numbers "
                "(N,), or true and false for each row"
            )
        outside = [int(row) for row in rows.tolist() if not 0 <= row < total]
        if outside:
            raise DataError(
                f"{self.where}: found the row {outside[0]}, but there are {total} rows of training "
                "data, numbered from 0; count the rows as the file has them"
            )


_SEEN: ContextVar[Seen | None] = ContextVar("seen", default=None)


@contextmanager
def carving_unseen(trained_on: TrainedOn | None, where: str) -> Iterator[Seen | None]:
    """Within it, datasets carve their parts from rows that were not seen.

    Args:
        trained_on: the setting; None where nothing is said.
        where: the setting, for messages.
    """
    seen = None if trained_on is None else Seen(trained_on, where)
    token = _SEEN.set(seen)
    try:
        yield seen
    finally:
        _SEEN.reset(token)


def seen_rows(total: int) -> Tensor | None:
    """Which of the rows of training data were seen, (N,) bool; None where nothing is said.

    Raises as ``Seen.mask``.
    """
    seen = _SEEN.get()
    return None if seen is None else seen.mask(total)


def _read(path: str, where: str) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    if not Path(path).is_file():
        raise DataError(
            f"{where}: {path}: no such file (looked from {Path.cwd()}); expected all, a number of "
            "rows, row numbers, or an .npy file of them"
        )
    try:
        return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{where}: {path}: not a readable .npy ({error}); write it with numpy.save"
        ) from None
