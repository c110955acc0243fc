"""The two uncertainty dials of the paper, which make the posterior more uncertain.

They change the data. In a search space they stand next to ``dataset:``, as
``data: {mask: 4, subsample: 200}``.

``mask`` sets a square patch of every image to zero, in the dataset's own range (black where 0 is
black), in all of its channels: in train, validation, test and unlabeled inputs alike. The place is
uniform over those where the whole patch fits, and fixed for each image. Images keep their place in
relative terms when the side of the patch changes.

``subsample`` keeps the labels of so many training examples: a prefix of one permutation, so that a
larger subset holds every smaller one; not stratified. The other training inputs stay as unlabeled
inputs: students are still distilled on all of them. Inputs are normalized as without the subset,
and by the masked inputs where there is a mask.

Source: Vadera, Jalaian & Marlin 2020, arXiv:2005.08110, section 4 (their first experiment).
"""

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from gped_nas import rng
from gped_nas.config import Config
from gped_nas.data.base import Dataset, notes_on
from gped_nas.data.normalization import fit, refit
from gped_nas.data.rows import join, sha256_tensors
from gped_nas.data.splits import Part, Split
from gped_nas.errors import ConfigError, DataError
from gped_nas.io import canonical_json, sha256_text
from gped_nas.spelling import first_part


class DataConfig(Config):
    """Settings of ``data``; none of them changes anything where it is not given."""

    mask: int | None = Field(
        None, ge=1, description="side of the square patch that is set to zero, pixels"
    )
    subsample: int | None = Field(
        None, ge=2, description="training examples that keep their labels"
    )
    seed: int = Field(0, ge=0, description="seed of the patches' places and of the subset")


def turn(dataset: Dataset, cfg: DataConfig, where: str) -> Dataset:
    """The dataset with its dials turned; its digest, and so the stream's key, covers them.

    Args:
        dataset: as it was loaded.
        cfg: how far to turn.
        where: file and key of ``cfg``, for messages.

    Raises:
        ConfigError: a mask of vectors or larger than the images, or a subset that is not smaller
            than ``train``.
        DataError: the subset holds one class.
    """
    if cfg.mask is not None:
        dataset = _mask(dataset, cfg.mask, cfg.seed, where)
    if cfg.subsample is not None:
        dataset = _subsample(dataset, cfg.subsample, cfg.seed, where)
    return dataset


def _mask(dataset: Dataset, side: int, seed: int, where: str) -> Dataset:
    shape = dataset.input_shape
    if len(shape) != 3:
        raise ConfigError(
            f"{where}.mask: dataset '{dataset.name}' holds inputs of shape {shape}, expected "
            "images (channels, height, width); remove the mask"
        )
    if side > min(shape[1:]):
        raise ConfigError(
            f"{where}.mask: found {side}, expected at most {min(shape[1:])}, the shorter side of "
            f"the images of dataset '{dataset.name}'"
        )

    def mask(part: Part, x: Tensor) -> Tensor:
        generator = rng.generator(seed, "mask", first_part(part))
        corner_N2 = torch.rand((len(x), 2), generator=generator, dtype=torch.float64)
        return patch(x, side, corner_N2)

    def mask_split(part: Part) -> Split:
        split = dataset.split(part)
        return replace(split, x=mask(part, split.x))

    train = mask_split("train")
    validation = mask_split("validation")
    test = mask_split("test")
    unlabeled = mask("unlabeled", dataset.unlabeled)

    patch_text = f"a patch of {side} x {side} pixels of every input is zero (seed {seed})"
    return replace(
        dataset,
        train=train,
        validation=validation,
        test=test,
        unlabeled=unlabeled,
        normalization=refit(dataset.normalization, train.x),
        digest=_digest(dataset, train.x, validation.x, test.x, unlabeled),
        split_text=f"{dataset.split_text}; {patch_text}",
    )


def patch(x: Tensor, side: int, corner_N2: Tensor) -> Tensor:
    """A copy of images (N, channels, H, W) with a square patch of each set to zero.

    Args:
        x: images.
        side: of the patch, pixels; at most H and W.
        corner_N2: numbers in [0, 1): the patch's upper left corner, as a share of the
            (H - side + 1) rows and (W - side + 1) columns where it can be.
    """
    height, width = x.shape[2:]
    num_places = torch.tensor([height - side + 1, width - side + 1])
    corner = (corner_N2 * num_places).long()
    top = corner[:, :1]
    left_edge = corner[:, 1:]

    row = torch.arange(height)
    column = torch.arange(width)
    in_rows = (row >= top) & (row < top + side)
    in_columns = (column >= left_edge) & (column < left_edge + side)
    inside = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return x.masked_fill(inside, 0)


def _subsample(dataset: Dataset, num: int, seed: int, where: str) -> Dataset:
    train = dataset.train
    total = len(train)
    if num >= total:
        raise ConfigError(
            f"{where}.subsample: found {num}, expected fewer than the {total} training examples of "
            f"dataset '{dataset.name}'; remove it to keep all labels"
        )

    order = torch.randperm(total, generator=rng.generator(seed, "subsample"))
    labeled = order[:num].sort().values
    rest = order[num:].sort().values
    labels = train.y[labeled]
    if not bool((labels != labels[0]).any()):
        raise DataError(
            f"{where}.subsample: the {num} examples are all of one class, expected two; keep more "
            "of them"
        )

    # inputs are normalized as without the subset: that needs no labels
    subset_text = (
        f"{num} of the {total} training examples keep their labels (seed {seed}), the inputs of "
        "the others are unlabeled"
    )
    kept = Split(train.x[labeled], labels)
    parts = {"train": kept, "validation": dataset.validation, "test": dataset.test}
    return replace(
        dataset,
        train=kept,
        notes=notes_on(parts, dataset.class_names, dataset.normalization, dataset.preparation),
        unlabeled=join([train.x[rest], dataset.unlabeled]),
        label_normalization=fit(labels) if dataset.label_normalization else None,
        digest=_digest(dataset, labeled),
        split_text=f"{dataset.split_text}; {subset_text}",
    )


def _digest(dataset: Dataset, *changed: Tensor) -> str:
    return sha256_text(canonical_json([dataset.digest, sha256_tensors(*changed)]))
