"""What a codec stores of a posterior: named tensors, in one safetensors file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
from torch import Tensor

from gped_nas.io import canonical_json
from gped_nas.models.base import Shapes


@dataclass(frozen=True, eq=False)
class Code:
    """A posterior in few bytes.

    Attributes:
        codec: name of the codec that draws from it.
        tensors: what is stored, by names of small letters and ``_``; on the CPU.
        shapes: of the parameters, in the order in which they lie flat in a draw.
        settings: plain data that decoding needs beside them.
    """

    codec: str
    tensors: Mapping[str, Tensor]
    shapes: Shapes
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_bytes(self, about: Mapping[str, Any] | None = None) -> bytes:
        """The code as a safetensors file, whose metadata ``code`` is JSON.

        Args:
            about: plain data that the JSON holds besides codec, settings and shapes.
        """
        described = {
            **(about or {}),
            "codec": self.codec,
            "settings": dict(self.settings),
            # a list, since canonical JSON sorts keys and the order of parameters matters
            "shapes": [[name, list(shape)] for name, shape in self.shapes.items()],
        }
        metadata = {"code": canonical_json(described)}
        return safetensors.torch.save(dict(self.tensors), metadata=metadata)

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return len(self.to_bytes())
