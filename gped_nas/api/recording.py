"""Write down what a live ensemble answers, as ``teacher: {predictions: ...}`` reads it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gped_nas.api.copies import Layout, Mover, Policies, as_tensor, parse_policies
from gped_nas.api.members import Members, as_models
from gped_nas.api.session import Session
from gped_nas.data.base import Dataset, Part
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
_CLASSES = 10
"""So many are reckoned with where the first answer is to come."""
_LEARNED: tuple[Part, Part] = ("train", "unlabeled")
_MEASURED: tuple[Part, Part] = ("validation", "test")


def record_predictions(
    models: object,
    inputs: Inputs,
    *,
    out: str | Path,
    policy: Policies = (),
    prepare: Callable[[Tensor], Tensor] | None = None,
    weights: Sequence[float] | None = None,
    layout: Layout = "auto",
    batch_size: int = _BATCH,
    seed: int = 0,
    session: Session | None = None,
) -> Path:
    """The file, or the folder of shards, of what an ensemble says of inputs.

    Inputs that lie on disk are never in memory as a whole, nor are the answers. Killed at any
    instant, there is the whole file or none.

    Args:
        models: torch modules in evaluation mode, or callables: inputs (B, ...) to log-probabilities
            (B, C) in nats. Modules are asked on the device that they are on.
        inputs: a dataset, all of whose inputs are taken; or an array (M, ...), a memory map too, in
            the data's own range and layout.
        out: an ``.npz``, which is replaced, or a folder of shards, which must not be there.
        policy: how inputs are moved, as ``views`` of a space has it; models are asked there too:
            ``{"policy": "flip", "draws": 4}``. Of a dataset its training and unlabeled inputs are
            moved, of an array all: the file says which ones are copies, and students learn from no
            copy of an input that they are measured on.
        prepare: makes of raw inputs (B, ...) what the models take: casts, moves axes, normalizes.
        weights: of the members, on any scale; all alike by default.
        layout: where an array of pictures has its channels, for ``policy``; ``auto`` takes (N, 3,
            32, 32) for channels first and what could be either for channels last.
        batch_size: inputs that a model is asked of at once.
        seed: root of what policies draw.
        session: its progress is told, and it may say stop.

    Returns:
        ``out``.

    Raises:
        ConfigError: no model, one in training mode, a policy that is none for these inputs, or
            ``out`` is a folder that is there.
        RegistryError: an unknown policy.
        DataError: a model answers with anything but log-probabilities of one number of classes.
        Interrupted: the session said stop; nothing is written.
        EnvironmentProblem: the disk refuses.
    """
    target, session = Path(out), session or Session()
    num_classes = inputs.num_classes if isinstance(inputs, Dataset) else None
    _check_inputs(inputs)
    members = Members(as_models(models), prepare, num_classes)
    weight_S = _weights(weights, len(members.models))
    is_npz = target.suffix == ".npz"
    if not is_npz:
        refuse_existing(target)

    recorder = _Recorder(members, _mover(inputs, policy, layout, seed), batch_size, session)
    with building(target) as folder:
        writer = ShardWriter(folder)
        recorder.record(_sources(inputs), writer)
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


def _mover(inputs: Inputs, policy: Policies, layout: Layout, seed: int) -> Mover | None:
    views = parse_policies(policy, seed, is_dataset=isinstance(inputs, Dataset))
    return Mover.of(inputs, views, seed, layout) if views else None


@dataclass(frozen=True)
class _Source:
    """Raw inputs, and whether moved copies of them are recorded too."""

    raw: Tensor | Array
    is_moved: bool


def _sources(inputs: Inputs) -> list[_Source]:
    """Where raw inputs are, in the order in which they are written."""
    if not isinstance(inputs, Dataset):
        return [_Source(inputs, is_moved=True)]

    sources = [_Source(inputs.raw(part), is_moved=True) for part in _LEARNED]
    sources += [_Source(inputs.raw(part), is_moved=False) for part in _MEASURED]
    return [source for source in sources if len(source.raw)]


def _check_inputs(inputs: Inputs) -> None:
    if isinstance(inputs, Dataset):
        return
    if not isinstance(inputs, np.ndarray | Tensor) or inputs.ndim < 2 or not len(inputs):
        shape = getattr(inputs, "shape", None)
        found = type(inputs).__name__ if shape is None else f"shape {tuple(shape)}"
        raise DataError(
            f"inputs: found {found}, expected an array or a tensor of inputs (M, ...), or a "
            "dataset of gn.load_dataset"
        )


@dataclass(frozen=True, eq=False)
class _Recorder:
    """Asks the members of one stretch of inputs after the other, and writes what they answer."""

    members: Members
    mover: Mover | None
    batch_size: int
    session: Session

    def record(self, sources: Sequence[_Source], writer: ShardWriter) -> None:
        """Write all of it."""
        num_views = len(self.mover.views) if self.mover else 0
        total = sum(len(source.raw) * (1 + num_views * source.is_moved) for source in sources)

        stretch = 0
        for source in sources:
            for raw in self._stretches(source.raw):
                first = writer.num_inputs
                rows_M = np.arange(first, first + len(raw))
                self._write(writer, raw, rows_M, total)
                if self.mover and source.is_moved:
                    for view in self.mover.views:
                        # an input that several were mixed into is a copy of none
                        origin_M = rows_M if view.keeps_label else np.full(len(raw), -1)
                        moved = self.mover.move(view, raw, stretch)
                        self._write(writer, moved, origin_M, total)
                stretch += 1

    def _write(self, writer: ShardWriter, raw: Tensor, origin_M: Array, total: int) -> None:
        answers = []
        for batch in torch.split(raw, self.batch_size):
            self.session.raise_if_stopped()
            answers.append(self.members.log_prob(batch))
        writer.add(raw.numpy(), np.concatenate(answers, axis=1), origin_M)
        self.session.progress("predictions of the ensemble", writer.num_inputs, total)

    def _stretches(self, source: Tensor | Array) -> Iterator[Tensor]:
        """Raw inputs, so many at a time that a shard is of about ``SHARD_BYTES``."""
        itemsize = source.element_size() if isinstance(source, Tensor) else source.itemsize
        row_bytes = itemsize * int(np.prod(source.shape[1:]))
        row_bytes += 4 * len(self.members.models) * (self.members.num_classes or _CLASSES)
        size = max(1, SHARD_BYTES // row_bytes)
        for start in range(0, len(source), size):
            yield as_tensor(source[start : start + size])
