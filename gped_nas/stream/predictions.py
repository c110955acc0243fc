"""Predictions as they are stored: in float32, or log-probabilities in float16.

``format`` states what float16 costs.
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
    # ``maximum`` keeps a NaN, so that divergence shows.
    return np.maximum(log_prob, _LOWEST).astype(STORED[dtype])


def decode(stored: Array) -> Array:
    """Predictions in float32; each row of a float16 shard is normalized again."""
    if stored.dtype == np.float32:
        return stored
    return torch.from_numpy(stored.astype(np.float32)).log_softmax(-1).numpy()
