"""Predictions in float32 or log-probabilities in float16, there and back; ``format`` states what
float16 costs.
"""

import numpy as np
import torch

from gped_nas.io import Array

STORED = {"float32": "<f4", "float16": "<f2"}
"""Name of a dtype in a search space to its name in a shard."""
_LOWEST = float(np.finfo(np.float16).min)


def encode(log_prob: Array, dtype: str) -> Array:
    """Predictions as they are stored.

    Args:
        log_prob: float32 (..., C) log-probabilities, nats; for ``float32`` any predictions.
        dtype: one of ``STORED``.
    """
    if dtype == "float32":
        return log_prob
    return np.maximum(log_prob, _LOWEST).astype(
        STORED[dtype]
    )  # keeps a NaN, so that divergence shows


def decode(stored: Array) -> Array:
    """Predictions in float32: a float32 shard as it is, each row of a float16 one normalized again."""
    if stored.dtype == np.float32:
        return stored
    return torch.from_numpy(stored.astype(np.float32)).log_softmax(-1).numpy()
