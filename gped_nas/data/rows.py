"""Tensors whose rows are made when they are asked for: inputs that are larger than memory.

``Rows`` is a tensor of N rows that lie in a file, or that are computed from such rows. Its shape is
known; its numbers are read where they are used:

* ``rows[index_B]`` reads these rows. What would be larger than ``IN_MEMORY`` stays ``Rows``.
* ``torch.split(rows, size)`` gives ``Rows`` that are read one after the other, as they are used.
* ``torch.cat`` of ``Rows`` and tensors, and ``rows.to(device or dtype)``, are ``Rows``.
* Everything else reads all of it first, so that any function of tensors is right, and only those
  that must be small in memory go batch by batch.
"""

import ctypes
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

IN_MEMORY = 2**28
"""Bytes from which a tensor of inputs is not made at once: 256 MiB."""
_CHUNK_ROWS, _CHUNK_BYTES = 4096, 2**24
_READ_BEFORE_TRIM = 2**27


class Source(Protocol):
    """Where rows come from.

    Attributes:
        shape: (N, *shape of a row).
        dtype: of a row.
        is_in_memory: whether all of its numbers are there already, in some form.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def is_in_memory(self) -> bool: ...

    def read(self, index_B: Tensor) -> Tensor:
        """The rows at ``index_B`` (B,), int64."""
        ...


class _Heap:
    """Gives memory that is free back to the system, once so many bytes were read.

    glibc keeps what is free below a small block that is not: batches that leave a small answer each
    would hold on to the memory of all of them.
    """

    def __init__(self) -> None:
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        self._num_read = 0

    def note(self, num_bytes: int) -> None:
        """So many bytes were read, and will soon be free again."""
        self._num_read += num_bytes
        if self._trim is not None and self._num_read >= _READ_BEFORE_TRIM:
            self._num_read = 0
            self._trim(0)


_HEAP = _Heap()


class Rows(Tensor):
    """See the module."""

    source: Source
    places: Tensor | None

    @staticmethod
    def __new__(
        cls,
        source: Source,
        places: Tensor | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> "Rows":
        """Rows of a source.

        Args:
            source: where they come from.
            places: which of its rows, int64 (N,), in this order; all by default.
            dtype: what they are cast to.
            device: where they go when they are read; the processor's memory by default.
        """
        length = source.shape[0] if places is None else len(places)
        shape = (length, *source.shape[1:])
        rows: Rows = Tensor._make_wrapper_subclass(
            cls, shape, dtype=dtype or source.dtype, device=device or torch.device("cpu")
        )
        rows.source, rows.places = source, places
        return rows

    def at(self, index_B: Tensor) -> "Rows":
        """These rows, not read yet."""
        index_B = index_B.cpu()
        places = index_B if self.places is None else self.places[index_B]
        return Rows(self.source, places, dtype=self.dtype, device=self.device)

    def read(self) -> Tensor:
        """All rows, read."""
        places = torch.arange(len(self)) if self.places is None else self.places
        read = self.source.read(places)
        _HEAP.note(num_bytes(read))
        return read.to(self.dtype).to(self.device)

    def map(self, function: Callable[[Tensor], Tensor], dtype: torch.dtype) -> "Rows":
        """What a function makes of these rows, each on its own; of the same shape."""
        return Rows(MappedRows(self, function, dtype))

    def __reduce_ex__(self, protocol: Any) -> Any:
        build = functools.partial(Rows, dtype=self.dtype, device=self.device)
        return build, (self.source, self.places)

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Rows({tuple(self.shape)}, {self.dtype}, {self.source})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """What no function of Python's asked for: an operation inside another one."""
        return func(*tree_map(_read, args), **tree_map(_read, kwargs or {}))

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _FACTS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)

        if func in _LAZY:
            answer = _LAZY[func](*args, **kwargs)
            if answer is not NotImplemented:
                return answer
        return func(*tree_map(_read, args), **tree_map(_read, kwargs))


def _read(value: Any) -> Any:
    return value.read() if isinstance(value, Rows) else value


_FACTS = {
    Tensor.__len__,
    Tensor.dim,
    Tensor.numel,
    Tensor.size,
    Tensor.element_size,
    Tensor.is_floating_point,
    Tensor.shape.__get__,  # type: ignore[attr-defined]
    Tensor.dtype.__get__,  # type: ignore[attr-defined]
    Tensor.device.__get__,
    Tensor.ndim.__get__,  # type: ignore[attr-defined]
    Tensor.requires_grad.__get__,  # type: ignore[attr-defined]
}
"""What is known of rows that are not read."""


def _get(rows: Any, index: Any) -> Any:
    """``rows[index]`` along the first axis."""
    if not isinstance(rows, Rows) or isinstance(index, Rows):
        return NotImplemented
    if isinstance(index, int):
        place = range(len(rows))[index]  # raises IndexError as a tensor does
        return rows.at(torch.tensor([place])).read()[0]

    if isinstance(index, slice):
        index = torch.arange(*index.indices(len(rows)))
    if isinstance(index, list):
        index = torch.tensor(index, dtype=torch.int64)
    if not isinstance(index, Tensor) or index.dim() != 1:
        return NotImplemented
    if index.dtype == torch.bool:
        index = index.nonzero().squeeze(1)

    selected = rows.at(index)
    return selected if num_bytes(selected) > IN_MEMORY else selected.read()


def _split(rows: Any, size: Any, dim: int = 0) -> Any:
    if not isinstance(rows, Rows) or not isinstance(size, int) or dim != 0:
        return NotImplemented
    starts = range(0, max(len(rows), 1), size)
    return tuple(rows.at(torch.arange(start, min(start + size, len(rows)))) for start in starts)


def _cat(tensors: Any, dim: int = 0, **kwargs: Any) -> Any:
    if dim != 0 or kwargs:
        return NotImplemented
    parts = [part for part in tensors if len(part)]
    return Rows(JoinedRows(tuple(parts)), device=parts[0].device)


def _to(rows: Any, *args: Any, **kwargs: Any) -> Any:
    if not isinstance(rows, Rows) or kwargs.pop("copy", False) or isinstance(args[:1], Tensor):
        return NotImplemented
    if args and isinstance(args[0], Tensor):
        return NotImplemented

    device, dtype, _, _ = torch._C._nn._parse_to(*args, **kwargs)
    moved = Rows(rows.source, rows.places, dtype=dtype or rows.dtype, device=device or rows.device)
    # What lies in memory fits another device too, and is read there at its own speed.
    if moved.device.type != "cpu" and rows.source.is_in_memory:
        return torch.cat([part.read() for part in _split(moved, _CHUNK_ROWS)])
    return moved


def _index_select(rows: Any, dim: int, index: Tensor) -> Any:
    return _get(rows, index) if dim == 0 else NotImplemented


_LAZY: dict[Any, Callable[..., Any]] = {
    Tensor.__getitem__: _get,
    Tensor.index_select: _index_select,
    torch.index_select: _index_select,
    Tensor.split: _split,
    torch.split: _split,
    torch.functional.split: _split,
    torch.cat: _cat,
    Tensor.to: _to,
}


def num_bytes(x: Tensor) -> int:
    """Bytes of a tensor's numbers, whether they are read or not."""
    return x.numel() * x.element_size()


def is_on_disk(x: Tensor) -> bool:
    """Whether a tensor's numbers are not in memory, in any form."""
    return isinstance(x, Rows) and not x.source.is_in_memory


def chunks(x: Tensor) -> Iterator[Tensor]:
    """The rows of a tensor some at a time, read: some thousand, fewer if they are large."""
    row_bytes = max(1, num_bytes(x) // max(1, len(x)))
    size = max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // row_bytes))
    for start in range(0, len(x), size):
        yield x[start : start + size]


def in_batches(function: Callable[[Tensor], Tensor], x: Tensor, size: int) -> Tensor:
    """What a function says of all rows at once; of ``Rows``, of so many at a time."""
    if not isinstance(x, Rows):
        return function(x)
    return torch.cat([function(part.read()) for part in _split(x, size)])


def mapped(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """What a function makes of rows, float32; computed where it is used if it is large."""
    if isinstance(x, Rows):
        return x.map(function, torch.float32)
    if 4 * x.numel() > IN_MEMORY:
        return Rows(MappedRows(x, function, torch.float32))
    return function(x)


def sha256_tensors(*tensors: Tensor) -> str:
    """``io.sha256_arrays`` of tensors, of which ``Rows`` are read some at a time."""
    digest = hashlib.sha256()
    for tensor in tensors:
        empty = tensor[:0].cpu().numpy()
        digest.update(f"{empty.dtype.str}{tuple(tensor.shape)}".encode())
        for chunk in chunks(tensor) if isinstance(tensor, Rows) else [tensor]:
            digest.update(np.ascontiguousarray(chunk.cpu().numpy()).data)
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class MappedRows:
    """What a function makes of each row of ``x``; of the same shape."""

    x: Tensor
    function: Callable[[Tensor], Tensor]
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.x.shape)

    @property
    def is_in_memory(self) -> bool:
        return not isinstance(self.x, Rows) or self.x.source.is_in_memory

    def read(self, index_B: Tensor) -> Tensor:
        rows = self.x.at(index_B).read() if isinstance(self.x, Rows) else self.x[index_B]
        return self.function(rows)


@dataclass(frozen=True, eq=False)
class JoinedRows:
    """The rows of several tensors, one after the other."""

    parts: tuple[Tensor, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(len(part) for part in self.parts), *self.parts[0].shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        return self.parts[0].dtype

    @property
    def is_in_memory(self) -> bool:
        sources = [part.source for part in self.parts if isinstance(part, Rows)]
        return all(source.is_in_memory for source in sources)

    def read(self, index_B: Tensor) -> Tensor:
        out = torch.empty((len(index_B), *self.shape[1:]), dtype=self.dtype)
        start = 0
        for part in self.parts:
            is_here = (index_B >= start) & (index_B < start + len(part))
            if is_here.any():
                index = index_B[is_here] - start
                rows = part.at(index).read() if isinstance(part, Rows) else part[index]
                out[is_here] = rows.to(out)
            start += len(part)
        return out


def join(parts: Sequence[Tensor]) -> Tensor:
    """``torch.cat`` of tensors, as ``Rows`` where that is large."""
    if sum(num_bytes(part) for part in parts) <= IN_MEMORY or len(parts) == 1:
        return parts[0] if len(parts) == 1 else torch.cat(list(parts))
    return Rows(JoinedRows(tuple(part for part in parts if len(part))))
