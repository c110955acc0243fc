"""A stream's posterior samples for a method that reads them, one at a time and in any process."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

from gped_nas.posterior.base import PosteriorSample
from gped_nas.stream.reader import Stream


class StreamSamples(Sequence[PosteriorSample]):
    """The first ``num_samples`` posterior samples of the stream in a folder.

    Each is read, and checked, when it is asked for; weights sum to 1.

    Args:
        folder: the stream's folder.
        num_samples: how many samples there are to be.
    """

    def __init__(self, folder: Path, num_samples: int) -> None:
        self.folder = folder
        self._num_samples = num_samples
        self._open()

    def _open(self) -> None:
        self._stream = Stream(self.folder, num_samples=self._num_samples)
        self._weights: list[float] = self._stream.weight_S.tolist()

    def __getstate__(self) -> dict[str, Any]:
        # Another process opens the stream anew: memory maps do not travel.
        return {"folder": self.folder, "_num_samples": self._num_samples}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return self._num_samples

    @overload
    def __getitem__(self, index: int) -> PosteriorSample: ...

    @overload
    def __getitem__(self, index: slice) -> list[PosteriorSample]: ...

    def __getitem__(self, index: int | slice) -> PosteriorSample | list[PosteriorSample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]

        # A range counts from the end where the index is negative, and raises where it is too large.
        number = range(len(self))[index]
        return PosteriorSample(self._stream.theta(number), self._weights[number])
