"""How many bytes of tensors live at once while something is computed.

The same numbers on every machine: each tensor that an operator makes counts from then on until
nobody refers to it, whatever an allocator keeps. Room that a kernel takes inside one operator is
not seen.
"""

import weakref
from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside its ``with`` block, bytes of the tensors that are made there.

    Attributes:
        bytes: of those that live now.
        peak: of those that lived at once, at most.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self.peak = 0
        self._num_tensors: Counter[int] = Counter()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        known = {_place(tensor) for tensor in tree_leaves((args, kwargs)) if _is_tensor(tensor)}
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            # a view has the numbers of a tensor that is counted, or was there before
            if _is_tensor(tensor) and (
                self._num_tensors[_place(tensor)] or _place(tensor) not in known
            ):
                self._add(tensor)
        return made

    def _add(self, tensor: Tensor) -> None:
        place, size = _place(tensor), tensor.untyped_storage().nbytes()
        if not self._num_tensors[place]:
            self.bytes += size
            self.peak = max(self.peak, self.bytes)
        self._num_tensors[place] += 1
        weakref.finalize(tensor, self._drop, place, size)

    def _drop(self, place: int, size: int) -> None:
        self._num_tensors[place] -= 1
        if not self._num_tensors[place]:
            self.bytes -= size


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def _place(tensor: Tensor) -> int:
    """Where a tensor's numbers lie; of views the same place."""
    return tensor.untyped_storage().data_ptr()
