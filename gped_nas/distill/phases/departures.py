"""The way of buffers from a device to the host, while the next steps run."""

from collections.abc import Mapping

import torch
from torch import Tensor


class Departure:
    """Copies of all buffers on their way to the host."""

    def __init__(self, buffers: Mapping[str, Tensor], positions_W: Tensor) -> None:
        self._positions_W = positions_W
        self._is_cuda = positions_W.is_cuda
        self._there: dict[str, Tensor] = {}
        self._here: dict[str, Tensor] = {}
        for name, buffer in buffers.items():
            shape = (len(buffer), len(positions_W))
            self._there[name] = buffer.new_empty(shape)
            self._here[name] = torch.empty(shape, pin_memory=self._is_cuda)
        if self._is_cuda:
            self._stream = torch.cuda.Stream(positions_W.device)  # type: ignore[no-untyped-call]
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def begin(self, buffers: Mapping[str, Tensor]) -> None:
        """Copy the buffers as they are after what the present stream has to do."""
        if self._is_cuda:
            # the copies before must have left
            self._done.wait()
        for name, buffer in buffers.items():
            torch.index_select(buffer, 1, self._positions_W, out=self._there[name])
        if not self._is_cuda:
            self._here = {name: there.clone() for name, there in self._there.items()}
            return

        self._stream.wait_stream(torch.cuda.current_stream(self._positions_W.device))
        with torch.cuda.stream(self._stream):
            for name, there in self._there.items():
                self._here[name].copy_(there, non_blocking=True)
            self._done.record()

    def arrive(self) -> dict[str, Tensor]:
        """The copies (K, W) by name, once they are here; overwritten two departures later."""
        if self._is_cuda:
            self._done.synchronize()
        return self._here


class Exits:
    """Two departures that take turns: one is read while the other one fills."""

    def __init__(self, buffers: Mapping[str, Tensor], positions_W: Tensor) -> None:
        self._buffers = buffers
        self._waiting = [Departure(buffers, positions_W) for _ in range(2)]

    def depart(self) -> Departure:
        """Begin to copy all buffers."""
        departure = self._waiting.pop(0)
        self._waiting.append(departure)
        departure.begin(self._buffers)
        return departure
