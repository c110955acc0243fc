"""Write down what a live ensemble answers, as ``teacher: {predictions: ...}`` reads it."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gped_nas.api.members import Members, as_models
from gped_nas.api.session import Session
from gped_nas.data.archives import torch_dtype
from gped_nas.data.base import Dataset
from gped_nas.errors import ConfigError, DataError
from gped_nas.io import Array
from gped_nas.posterior.shards import (
    SHARD_BYTES,
    ShardWriter,
    building,
    refuse_existing,
    seal,
    to_npz,
)

Inputs = Dataset | Array | Tensor
_BATCH = 256


def record_predictions(
    models: object,
    inputs: Inputs,
    *,
    out: str | Path,
    prepare: Callable[[Tensor], Tensor] | None = None,
    weights: Sequence[float] | None = None,
    batch_size: int = _BATCH,
    session: Session | None = None,
) -> Path:
    """The file, or the folder of shards, of what an ensemble says of inputs.

    The inputs are never in memory as a whole, nor are the answers. Killed at any instant, there is
    the whole file or none.

    Args:
        models: torch modules in evaluation mode, or callables: inputs (B, ...) to log-probabilities
            (B, C) in nats. Modules are asked on the device that they are on.
        inputs: a dataset, all of whose inputs are taken; or an array (M, ...), a memory map too, in
            the data's own range and layout.
        out: an ``.npz``, which is replaced, or a folder of shards, which must not be there.
        prepare: makes of raw inputs (B, ...) what the models take: casts, moves axes, normalizes.
        weights: of the members, on any scale; all alike by default.
        batch_size: inputs that a model is asked of at once.
        session: its progress is told, and it may say stop.

    Returns:
        ``out``.

    Raises:
        ConfigError: no model, one in training mode, or ``out`` cannot be made.
        DataError: a model answers with anything but log-probabilities of one number of classes.
        Interrupted: the session said stop; nothing is written.
        EnvironmentProblem: the disk refuses.
    """
    target, session = Path(out), session or Session()
    num_classes = inputs.num_classes if isinstance(inputs, Dataset) else None
    members = Members(as_models(models), prepare, num_classes)
    weight_S = _weights(weights, len(members.models))
    is_npz = target.suffix == ".npz"
    if not is_npz:
        refuse_existing(target)

    sources = _sources(inputs)
    num_inputs = sum(len(source) for source in sources)
    with building(target) as folder:
        writer = ShardWriter(folder)
        for raw in _stretches(sources, len(members.models), num_classes):
            log_prob_SMC = _ask(members, raw, batch_size, session)
            first = writer.num_inputs
            writer.add(raw.numpy(), log_prob_SMC, np.arange(first, first + len(raw)))
            session.progress("predictions of the ensemble", writer.num_inputs, num_inputs)

        writer.close(weight_S)
        if is_npz:
            to_npz(folder, target)
        else:
            seal(folder, target)
    return target


def _weights(weights: Sequence[float] | None, num_members: int) -> Array:
    """Weights of the members, float64 (S,).

    Raises:
        ConfigError: they are not one positive finite number a member.
    """
    weight_S = np.ones(num_members) if weights is None else np.asarray(weights, np.float64)
    is_fine = weight_S.shape == (num_members,) and bool(np.isfinite(weight_S).all())
    if not is_fine or bool((weight_S < 0).any()) or not weight_S.sum() > 0:
        raise ConfigError(
            f"weights: found {weights}, expected {num_members} finite numbers, none negative and "
            "not all zero, one a member"
        )
    return weight_S


def _sources(inputs: Inputs) -> list[Tensor | Array]:
    """The arrays of raw inputs, in the order in which they are written."""
    if isinstance(inputs, Dataset):
        parts = [inputs.raw("train"), inputs.raw("unlabeled")]
        parts += [inputs.raw("validation"), inputs.raw("test")]
        return [part for part in parts if len(part)]

    if not isinstance(inputs, np.ndarray | Tensor) or inputs.ndim < 2 or not len(inputs):
        shape = getattr(inputs, "shape", None)
        found = type(inputs).__name__ if shape is None else f"shape {tuple(shape)}"
        raise DataError(
            f"inputs: found {found}, expected an array or a tensor of inputs (M, ...), or a "
            "dataset of gn.load_dataset"
        )
    return [inputs]


def _stretches(
    sources: Sequence[Tensor | Array], num_members: int, num_classes: int | None
) -> Iterator[Tensor]:
    """Raw inputs, so many at a time that a shard is of about ``SHARD_BYTES``."""
    for source in sources:
        itemsize = source.element_size() if isinstance(source, Tensor) else source.itemsize
        row_bytes = itemsize * int(np.prod(source.shape[1:]))
        row_bytes += 4 * num_members * (num_classes or 10)
        size = max(1, SHARD_BYTES // row_bytes)
        for start in range(0, len(source), size):
            yield _as_tensor(source[start : start + size])


def _as_tensor(rows: Tensor | Array) -> Tensor:
    """Rows in memory, of a dtype that torch has."""
    if isinstance(rows, Tensor):
        return rows.detach().cpu()
    if rows.dtype.kind not in "biuf":
        raise DataError(
            f"inputs: found dtype {rows.dtype}, expected real numbers; convert them with astype"
        )
    return torch.from_numpy(np.array(rows, torch_dtype(rows.dtype)))


def _ask(members: Members, raw: Tensor, batch_size: int, session: Session) -> Array:
    """Log-probabilities (S, m, C) of raw inputs (m, ...)."""
    answers = []
    for batch in torch.split(raw, batch_size):
        session.raise_if_stopped()
        answers.append(members.log_prob(batch))
    return np.concatenate(answers, axis=1)
