"""Bring predictions of an ensemble into a stream, and find them again by their inputs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gped_nas.api.session import Session
from gped_nas.data.base import Dataset, Part
from gped_nas.errors import ConfigError, DataError
from gped_nas.io import Array
from gped_nas.posterior.base import GivenPredictions
from gped_nas.search.space import SearchSpace
from gped_nas.stream.key import StreamKey
from gped_nas.stream.writer import write_predictions

_ROUNDED = 0.02
"""Standard deviations of the inputs, up to which two inputs are one that was rounded."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """Predictions of an ensemble that fit the dataset.

    Attributes:
        inputs_MD: normalized inputs, float32.
        log_prob_SMC: log-probabilities of each member there, nats.
        weight_S: weights on any scale.
        source: where they are from, for messages.
        origin_M: as in ``GivenPredictions``.
        has_channels_last: whether its pictures were read as having their channels last.
    """

    inputs_MD: Array
    log_prob_SMC: Tensor
    weight_S: Tensor
    source: str
    origin_M: Array | None
    has_channels_last: bool

    def at(self, dataset: Dataset, part: Part) -> Tensor:
        """Log-probabilities (S, N, C) at a part's inputs.

        Raises:
            DataError: some of them are missing.
        """
        part_inputs = dataset.inputs(part).flatten(1).numpy()
        rows = rows_at(self.inputs_MD, part_inputs, f"{self.source}: inputs", part)
        return self.log_prob_SMC[:, rows]

    def num_to_learn_from(self, dataset: Dataset) -> int:
        """How many of the inputs are in neither of the parts that students are measured on."""
        return len(rows_to_learn_from(self.inputs_MD, dataset, self.origin_M))


def import_predictions(
    space: SearchSpace,
    ensemble: GivenPredictions,
    dataset: Dataset,
    key: StreamKey,
    session: Session,
    provenance: dict[str, Any],
) -> Path:
    """The stream's folder, filled with predictions that somebody else made.

    Args:
        space: names the import as its method.
        ensemble: what was imported.
        dataset: the space's dataset.
        key: the stream's key.
        session: how to run.
        provenance: noted beside the stream.

    Raises:
        ConfigError, DataError: see ``fit_predictions``.
    """
    fitted = fit_predictions(space, ensemble, dataset)
    return write_predictions(
        session.streams,
        key,
        inputs_MD=fitted.inputs_MD,
        log_prob_SMC=fitted.log_prob_SMC.numpy(),
        weight_S=fitted.weight_S.numpy(),
        origin_M=fitted.origin_M,
        provenance=provenance,
    )


def fit_predictions(space: SearchSpace, ensemble: GivenPredictions, dataset: Dataset) -> Fitted:
    """What was imported, at the dataset's normalized inputs; nothing is written.

    Args:
        space: names the import as its method.
        ensemble: what was imported.
        dataset: the space's dataset.

    Raises:
        ConfigError: a view asks answers that the file does not hold.
        DataError: the inputs are not the dataset's, or some validation inputs are not among them.
    """
    _check_views(space, ensemble.source)

    raw = ensemble.inputs
    is_channels_last = tuple(raw.shape[1:]) != dataset.input_shape
    if is_channels_last:
        raw = _put_channels_first(raw, dataset.input_shape, ensemble.source)
    raw = _in_dtype(raw, dataset.raw("validation").dtype)
    inputs = dataset.normalization(raw).flatten(1).numpy()

    origin_M = None if ensemble.origin_M is None else ensemble.origin_M.numpy()
    fitted = Fitted(
        inputs_MD=inputs,
        log_prob_SMC=ensemble.log_prob_SMC,
        weight_S=ensemble.weight_S,
        source=ensemble.source,
        origin_M=origin_M,
        has_channels_last=is_channels_last and ensemble.inputs.dim() == 4,
    )
    # students are compared with it on validation: a part of that is refused before any writing
    fitted.at(dataset, "validation")
    return fitted


def rows_to_learn_from(
    inputs_MD: Array, dataset: Dataset, origin_M: Array | None = None
) -> list[int]:
    """The rows that are neither validation, calibration nor test inputs, nor copies of those.

    Args:
        inputs_MD: normalized inputs with predictions, float32.
        dataset: has the parts.
        origin_M: as in ``GivenPredictions``.

    Raises:
        DataError: there is none.
    """
    held_out = set()
    for part in dataset.held_out:
        held_out |= {row.tobytes() for row in dataset.inputs(part).flatten(1).numpy()}

    is_held_out_M = np.array([row.tobytes() in held_out for row in np.array(inputs_MD)], bool)
    if origin_M is not None:
        is_copy_M = origin_M >= 0
        is_held_out_M |= is_copy_M & is_held_out_M[origin_M]

    rows: list[int] = np.flatnonzero(~is_held_out_M).tolist()
    if not rows:
        raise DataError(
            "the imported predictions are all at validation or test inputs; "
            "add the ensemble's predictions at training or other inputs to distil on"
        )
    return rows


def _check_views(space: SearchSpace, source: str) -> None:
    """Refuse views at which an ensemble known by its predictions alone has no answers.

    Raises:
        ConfigError: one needs predictions at other inputs than those of the file.
    """
    for view in space.views:
        if view.policy == "clean" or (view.answers == "clean" and view.part == "distillation"):
            continue
        needed = "where the file's inputs are moved"
        remedy = "set answers: clean in this view"
        if view.part != "distillation":
            needed = "at the pool alone"
            remedy = "set {policy: clean}, which takes all inputs of the file"
        elif not view.keeps_label:
            remedy = "bring its predictions at such inputs in the file, and set {policy: clean}"
        raise ConfigError(
            f"{space.source}: views: found policy '{view.policy}' with the ensemble's answers "
            f"{needed}, but {source} holds predictions at fixed inputs; {remedy}"
        )


def rows_at(inputs: Any, part_inputs: Any, source: str, part: str) -> list[int]:
    """The row of ``inputs`` that equals each row of ``part_inputs``, bit for bit.

    Args:
        inputs: flat inputs with predictions (M, D).
        part_inputs: flat inputs of a part of the dataset (N, D).
        source: where ``inputs`` are from, for messages.
        part: the part's name, for messages.

    Raises:
        DataError: some are not there.
    """
    row_of = {row.tobytes(): i for i, row in enumerate(np.ascontiguousarray(inputs, np.float32))}

    rows = []
    missing = []
    for part_input in np.ascontiguousarray(part_inputs, np.float32):
        row = row_of.get(part_input.tobytes())
        if row is None:
            missing.append(part_input)
        else:
            rows.append(row)

    if missing:
        raise DataError(
            f"{source}: hold no predictions for {len(missing)} of the {len(part_inputs)} {part} "
            f"inputs; {_advise(np.asarray(inputs), missing[0])}"
        )
    return rows


def _advise(inputs: Array, missing_D: Array) -> str:
    """What to do about inputs that are missing, by how far the first one is from the nearest."""
    distance = float(np.abs(inputs - missing_D).max(axis=1).min()) if len(inputs) else np.inf
    if distance > _ROUNDED:
        return "add the ensemble's predictions there, so that students can be compared with it"
    return (
        f"they are there but for rounding (the nearest of one is {distance:.1g} standard "
        "deviations off): store the inputs as the dataset has them, not in float16 or as text"
    )


def _in_dtype(raw: Tensor, dtype: torch.dtype) -> Tensor:
    """Inputs in the dataset's dtype, where that changes none: dtypes are normalized differently."""
    cast = raw.to(dtype)
    return cast if torch.equal(cast.to(raw.dtype), raw) else raw


def _put_channels_first(raw: Tensor, input_shape: tuple[int, ...], source: str) -> Tensor:
    """Images (M, height, width) or (M, height, width, channels) as (M, channels, height, width).

    Raises:
        DataError: they are not of that shape then.
    """
    if raw.dim() == 3:
        raw = raw.unsqueeze(1)
    elif raw.dim() == 4:
        raw = raw.movedim(-1, 1)

    if tuple(raw.shape[1:]) != input_shape:
        raise DataError(
            f"{source}: inputs have shape {tuple(raw.shape)}, expected (M, "
            f"{', '.join(map(str, input_shape))}); give them as the dataset has them"
        )
    return raw
