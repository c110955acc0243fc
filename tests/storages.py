"""How much memory the tensors of a piece of code hold together at once, in any process.

What a process has resident tells it only where nothing ran before: memory that earlier code gave
back is taken again, or goes back to the system meanwhile.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Storages(TorchDispatchMode):
    """Follows every storage that an operation of torch makes while this is entered.

    Attributes:
        peak: the most bytes that they held together, as seen after each operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        known = {storage._cdata for storage in _storages((args, kwargs))}
        results = func(*args, **kwargs)

        for storage in _storages(results):
            if storage._cdata not in known:  # an argument may be older than the code measured
                self._alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())

        self._alive = {key: made for key, made in self._alive.items() if not made[0].expired()}
        self.peak = max(self.peak, sum(num_bytes for _, num_bytes in self._alive.values()))
        return results


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    """The storages of all tensors in nested sequences and mappings."""
    tensors = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
    return [tensor.untyped_storage() for tensor in tensors]
