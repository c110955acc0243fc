"""Predictions of an ensemble that someone else sampled: brought into a stream, found again by their
inputs.
"""

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from gped_nas.api.session import Session
from gped_nas.data.base import Dataset
from gped_nas.errors import ConfigError, DataError
from gped_nas.posterior.base import GivenPredictions
from gped_nas.search.space import SearchSpace
from gped_nas.stream.key import StreamKey
from gped_nas.stream.writer import write_predictions


def import_predictions(
    space: SearchSpace,
    given: GivenPredictions,
    dataset: Dataset,
    key: StreamKey,
    session: Session,
    provenance: dict[str, Any],
) -> Path:
    """The stream's folder, filled with predictions that are given.

    Raises:
        ConfigError: a view is not clean; its inputs were never predicted.
        DataError: the inputs are not the dataset's, or some validation inputs are not among them.
    """
    for view in space.views:
        if view.policy != "clean":
            raise ConfigError(
                f"{space.source}: views: found policy '{view.policy}', but {given.source} holds "
                "predictions at fixed inputs; expected views: [{policy: clean}]"
            )

    raw = given.inputs
    if tuple(raw.shape[1:]) != dataset.input_shape:
        raw = _channels_first(raw, dataset.input_shape, given.source)
    inputs = dataset.normalization(raw).flatten(1).numpy()
    validation = dataset.inputs("validation").flatten(1).numpy()
    rows_at(inputs, validation, f"{given.source}: inputs", "validation")

    return write_predictions(
        session.streams,
        key,
        inputs_MD=inputs,
        log_prob_SMC=given.log_prob_SMC.numpy(),
        weight_S=given.weight_S.numpy(),
        provenance=provenance,
    )


def rows_at(inputs: Any, wanted: Any, where: str, part: str) -> list[int]:
    """The row of ``inputs`` that equals each row of ``wanted``, bit for bit.

    Raises:
        DataError: some are not there.
    """
    known = {row.tobytes(): i for i, row in enumerate(np.ascontiguousarray(inputs, np.float32))}
    rows = [known.get(row.tobytes(), -1) for row in np.ascontiguousarray(wanted, np.float32)]
    missing = sum(r < 0 for r in rows)
    if missing:
        raise DataError(
            f"{where}: hold no predictions for {missing} of the {len(rows)} {part} inputs; "
            "add the ensemble's predictions there, so that students can be compared with it"
        )
    return rows


def _channels_first(raw: Tensor, input_shape: tuple[int, ...], source: str) -> Tensor:
    if raw.dim() == 3:
        raw = raw.unsqueeze(1)
    elif raw.dim() == 4:
        raw = raw.movedim(-1, 1)
    if tuple(raw.shape[1:]) != input_shape:
        raise DataError(
            f"{source}: inputs have shape {tuple(raw.shape)}, expected (M, "
            f"{', '.join(map(str, input_shape))})"
        )
    return raw
