"""Moved copies of a user's inputs, such as flipped pictures, at which a live ensemble is asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.data.archives import torch_dtype
from gped_nas.data.base import Dataset
from gped_nas.data.normalization import AnyNormalization, fit
from gped_nas.data.suggested import has_channels_first
from gped_nas.data.views import View, parse_views
from gped_nas.errors import ConfigError, DataError
from gped_nas.io import Array, canonical_json

Layout = Literal["auto", "channels_last", "channels_first"]
Policies = Mapping[str, object] | Sequence[Mapping[str, object]]
_FITTED = 10_000
"""Rows of an array that its mean and deviation are taken from."""


def as_tensor(rows: Tensor | Array) -> Tensor:
    """Rows in memory, of a dtype that torch has.

    Raises:
        DataError: they are no numbers.
    """
    if isinstance(rows, Tensor):
        return rows.detach().cpu()
    if rows.dtype.kind not in "biuf":
        raise DataError(
            f"inputs: found dtype {rows.dtype}, expected real numbers; convert them with astype"
        )
    return torch.from_numpy(np.array(rows, torch_dtype(rows.dtype)))


def parse_policies(policies: Policies, seed: int, *, is_dataset: bool) -> tuple[View, ...]:
    """The views that policies describe, one a draw.

    Args:
        policies: one or several, as ``views`` of a space has them.
        seed: root of what they draw.
        is_dataset: whether it is known which inputs students are measured on.

    Raises:
        ConfigError, RegistryError: a policy, or a setting of it, is none for moving inputs.
    """
    listed = [policies] if isinstance(policies, Mapping) else list(policies)
    views: list[View] = []
    for i, settings in enumerate(listed):
        where = f"policy[{i}]"
        views += parse_views(settings, where, seed)
        _check(views[-1], where, is_dataset=is_dataset)
    return tuple(views)


def _check(view: View, where: str, *, is_dataset: bool) -> None:
    if view.policy in ("clean", "pool"):
        raise ConfigError(
            f"{where}: found '{view.policy}', which moves nothing; leave it out: the inputs as "
            "they are are always recorded"
        )
    if view.answers != "own":
        raise ConfigError(
            f"{where}: answers: found {view.answers}, expected own: the models are asked at the "
            "moved inputs; answers at the untouched ones need no recording, say it in the space"
        )
    if view.num_samples:
        raise ConfigError(
            f"{where}: policy '{view.policy}' asks for gradients of posterior samples, which a "
            "live ensemble does not give; leave it out"
        )
    if not (view.keeps_label or is_dataset):
        raise ConfigError(
            f"{where}: policy '{view.policy}' makes inputs that belong to no single one, and of an "
            "array nobody knows which inputs students are measured on; give the dataset of "
            "gn.load_dataset in its place"
        )


@dataclass(frozen=True, eq=False)
class Mover:
    """Makes moved copies of raw inputs, in the dtype and layout that those have.

    Attributes:
        views: how.
        seed: root of every draw.
        normalization: of inputs with channels first.
        has_channels_last: whether raw pictures have their channels last.
    """

    views: tuple[View, ...]
    seed: int
    normalization: AnyNormalization
    has_channels_last: bool = False

    @staticmethod
    def of(
        inputs: Dataset | Array | Tensor, views: tuple[View, ...], seed: int, layout: Layout
    ) -> "Mover":
        """A mover of these inputs; of an array, some rows say how it is normalized.

        Raises:
            ConfigError: a policy is for inputs of another shape.
        """
        if isinstance(inputs, Dataset):
            mover = Mover(views, seed, inputs.normalization)
            mover._check_shape(inputs.input_shape)
            return mover

        is_picture = inputs.ndim == 4
        is_first = layout == "channels_first"
        is_first |= layout == "auto" and has_channels_first(tuple(inputs.shape))
        some = as_tensor(inputs[:: max(1, len(inputs) // _FITTED)])
        mover = Mover(views, seed, fit(some), is_picture and not is_first)
        mover._check_shape(tuple(mover._to_first(some[:1]).shape[1:]))
        return mover

    def _check_shape(self, input_shape: tuple[int, ...]) -> None:
        for view in self.views:
            for policy, cfg in view.steps:
                try:
                    policy.check(cfg, input_shape)
                except ConfigError as error:
                    raise ConfigError(f"policy '{cfg.policy}': {error}") from None

    def move(self, view: View, raw: Tensor, stretch: int) -> Tensor:
        """Moved copies of raw inputs (m, ...).

        Args:
            view: one of ``views``.
            raw: a stretch of the inputs.
            stretch: its number: each has draws of its own.
        """
        path = (view.policy, canonical_json(dict(view.settings)), stretch)
        generators = [rng.generator(self.seed, "copies", *path, i) for i in range(len(view.steps))]
        x = self.normalization(self._to_first(raw))
        moved = self.normalization.invert(view.draw(x, generators))
        return self._to_raw(moved, raw)

    def _to_first(self, raw: Tensor) -> Tensor:
        if raw.dim() == 3:
            return raw.unsqueeze(1)
        return raw.movedim(-1, 1) if self.has_channels_last else raw

    def _to_raw(self, moved: Tensor, raw: Tensor) -> Tensor:
        """Inputs with channels first in the layout and dtype of ``raw``, whole numbers rounded."""
        if self.has_channels_last:
            moved = moved.movedim(1, -1)
        moved = moved.reshape(raw.shape)
        if raw.is_floating_point():
            return moved.to(raw.dtype)
        limits = torch.iinfo(raw.dtype)
        return moved.double().round().clamp(limits.min, limits.max).to(raw.dtype)
