"""What ``data:`` makes of a dataset: two uncertainty dials, rare classes, a calibration part.

In a search space it stands next to ``dataset:``, as ``data: {mask: 4, subsample: 200}``. The two
dials of the paper make the posterior more uncertain.

``mask`` sets a square patch of every image to zero, in the dataset's own range (black where 0 is
black), in all of its channels: in train, validation, test and unlabeled inputs alike. The place is
uniform over those where the whole patch fits, and fixed for each image. Images keep their place in
relative terms when the side of the patch changes.

``subsample`` keeps the labels of so many training examples: a prefix of one permutation, so that a
larger subset holds every smaller one; not stratified. The other training inputs stay as unlabeled
inputs: students are still distilled on all of them. Inputs are normalized as without the subset,
and by the masked inputs where there is a mask.

``imbalance`` makes some classes rare where training looks, for decisions in which they are dear:
of each such class a share of the training examples is kept, the first ones in one permutation, at
least one. The others are dropped whole, inputs too: no student sees them. Validation and test stay
as they are, and so does how inputs are normalized.

``calibration_share`` carves a part out of validation, by the rule that carves all parts: groups
stay together, and stratified parts have the same share of each class. Students are chosen on the
rest, so that what is fitted afterwards on the calibration part keeps its promise.

Source: Vadera, Jalaian & Marlin 2020, arXiv:2005.08110, section 4 (their first experiment); Vadera
et al. 2022, URSABench, MLSys, its option ``use_dm_imbalance`` (it keeps 1 % of two classes of
MNIST, and 10 % of some of CIFAR's).
"""

from dataclasses import replace
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from gped_nas import rng
from gped_nas.config import Config
from gped_nas.data.base import Dataset, notes_on
from gped_nas.data.normalization import fit, refit
from gped_nas.data.rows import join, sha256_tensors
from gped_nas.data.splits import Part, Split, carve, describe_absent
from gped_nas.errors import ConfigError, DataError, nearest
from gped_nas.io import canonical_json, sha256_text
from gped_nas.spelling import first_part


class ImbalanceConfig(Config):
    """Settings of ``imbalance``."""

    classes: Annotated[tuple[int | str, ...], Field(strict=False, min_length=1)] = Field(
        description="the classes that become rare, by name or number"
    )
    keep: float = Field(gt=0, lt=1, description="share of their training examples that is kept")


class DataConfig(Config):
    """Settings of ``data``; none of them changes anything where it is not given."""

    mask: int | None = Field(
        None, ge=1, description="side of the square patch that is set to zero, pixels"
    )
    subsample: int | None = Field(
        None, ge=2, description="training examples that keep their labels"
    )
    imbalance: ImbalanceConfig | None = Field(
        None, description="classes that are made rare where training looks"
    )
    calibration_share: float | None = Field(
        None, gt=0, lt=1, description="share of validation that no choice of students sees"
    )
    seed: int = Field(0, ge=0, description="seed of everything that is drawn here")

    def to_json(self) -> dict[str, Any]:
        """Plain data; a setting that came later is there only where it is given."""
        data = self.model_dump(mode="json")
        for later in ("imbalance", "calibration_share"):
            if data[later] is None:
                del data[later]
        return data


def turn(dataset: Dataset, cfg: DataConfig, where: str) -> Dataset:
    """The dataset with its dials turned; its digest, and so the stream's key, covers them.

    Args:
        dataset: as it was loaded.
        cfg: how far to turn.
        where: file and key of ``cfg``, for messages.

    Raises:
        ConfigError: a mask of vectors or larger than the images, a rare class that is none, or a
            subset that is not smaller than ``train``.
        DataError: the subset holds one class, or validation is too small to carve from.
    """
    if cfg.mask is not None:
        dataset = _mask(dataset, cfg.mask, cfg.seed, where)
    if cfg.imbalance is not None:
        dataset = _unbalance(dataset, cfg.imbalance, cfg.seed, where)
    if cfg.subsample is not None:
        dataset = _subsample(dataset, cfg.subsample, cfg.seed, where)
    if cfg.calibration_share is not None:
        dataset = _carve_calibration(dataset, cfg.calibration_share, cfg.seed, where)
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
    labels = train.y[labeled]
    if not bool((labels != labels[0]).any()):
        raise DataError(
            f"{where}.subsample: the {num} examples are all of one class, expected two; keep more "
            "of them"
        )

    return keep_labels(dataset, labeled, f"seed {seed}")


def keep_labels(dataset: Dataset, labeled: Tensor, how: str) -> Dataset:
    """The dataset with the labels of some training examples alone; the others are unlabeled inputs.

    Inputs are normalized as without the subset: that needs no labels.

    Args:
        dataset: with all labels.
        labeled: which training examples keep theirs, (N,), rising.
        how: they were chosen, for people.
    """
    train = dataset.train
    total = len(train)
    is_unlabeled = torch.ones(total, dtype=torch.bool)
    is_unlabeled[labeled] = False
    rest = is_unlabeled.nonzero().flatten()

    labels = train.y[labeled]
    subset_text = (
        f"{len(labeled)} of the {total} training examples keep their labels ({how}), the inputs of "
        "the others are unlabeled"
    )
    kept = Split(train.x[labeled], labels)
    return replace(
        dataset,
        train=kept,
        notes=_notes_with(dataset, kept),
        unlabeled=join([train.x[rest], dataset.unlabeled]),
        label_normalization=fit(labels) if dataset.label_normalization else None,
        digest=_digest(dataset, labeled),
        split_text=f"{dataset.split_text}; {subset_text}",
    )


def _notes_with(dataset: Dataset, train: Split) -> tuple[str, ...]:
    """A dataset's notes with another training part: what its source tells of itself stays."""

    def on_parts(train: Split) -> tuple[str, ...]:
        parts = {"train": train, "validation": dataset.validation, "test": dataset.test}
        return notes_on(parts, dataset.class_names, dataset.normalization, dataset.preparation)

    before = on_parts(dataset.train)
    others = tuple(note for note in dataset.notes if note not in before)
    return others + on_parts(train)


def _unbalance(dataset: Dataset, cfg: ImbalanceConfig, seed: int, where: str) -> Dataset:
    where = f"{where}.imbalance"
    rare = [_class_number(dataset, name, where) for name in cfg.classes]
    train = dataset.train
    order = torch.randperm(len(train), generator=rng.generator(seed, "imbalance"))
    is_kept = torch.ones(len(train), dtype=torch.bool)
    for label in rare:
        of_class = order[train.y[order] == label]
        num_kept = max(1, round(len(of_class) * cfg.keep))
        is_kept[of_class[num_kept:]] = False

    kept = train.take(is_kept)
    names = ", ".join(f"'{dataset.class_names[label]}'" for label in rare)
    return replace(
        dataset,
        train=kept,
        notes=_notes_with(dataset, kept),
        digest=_digest(dataset, is_kept.nonzero().squeeze(1)),
        split_text=f"{dataset.split_text}; {len(kept)} of the {len(train)} training examples are "
        f"kept: {cfg.keep:g} of class {names} (seed {seed})",
    )


def _class_number(dataset: Dataset, name: int | str, where: str) -> int:
    """The number of a class.

    Raises:
        ConfigError: the dataset has no such class.
    """
    names = dataset.class_names
    if not names:
        raise ConfigError(
            f"{where}: found with dataset '{dataset.name}', whose labels are real numbers, "
            "expected classes; remove it"
        )
    if isinstance(name, str):
        if name not in names:
            raise ConfigError(f"{where}.classes: found '{name}'{nearest(name, names)}")
        return names.index(name)
    if not 0 <= name < len(names):
        raise ConfigError(
            f"{where}.classes: found {name}, expected 0 to {len(names) - 1}, or a class's name"
        )
    return name


def _carve_calibration(dataset: Dataset, share: float, seed: int, where: str) -> Dataset:
    before = dataset.validation
    where = f"{where}.calibration_share"
    calibration, validation = carve(
        before, share, seed=seed, part="calibration", where=where, rule=dataset.split_rule
    )
    absent = describe_absent(
        {"validation": validation, "calibration": calibration}, dataset.class_names
    )
    return replace(
        dataset,
        validation=validation,
        calibration=calibration,
        notes=tuple(dict.fromkeys((*dataset.notes, *absent))),
        digest=_digest(dataset, calibration.x, calibration.y, validation.x, validation.y),
        split_text=f"{dataset.split_text}; calibration: {len(calibration)} of the {len(before)} "
        f"validation examples (seed {seed}), which no choice of students sees",
    )


def _digest(dataset: Dataset, *changed: Tensor) -> str:
    return sha256_text(canonical_json([dataset.digest, sha256_tensors(*changed)]))
