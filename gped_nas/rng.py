"""Random generators by name: one for each consumer, none shared, none global.

A seed is the first 8 bytes of SHA-256 over the root seed and the consumer's path, so it depends
neither on the process nor on the order in which consumers are made nor on how many there are.
"""

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed(root: int, *path: str | int) -> int:
    """A seed in [0, 2**63) for the consumer called ``path`` under ``root``."""
    text = json.dumps([root, *path], separators=(",", ":"), ensure_ascii=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(root: int, *path: str | int, device: str = "cpu") -> "torch.Generator":
    """A fresh generator for the consumer called ``path`` under ``root``."""
    import torch

    return torch.Generator(device=device).manual_seed(seed(root, *path))
