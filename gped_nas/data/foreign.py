"""Inputs of another source, brought to the shape and the range of a dataset's own.

The rule for pictures, in this order:

1. channels: colors become gray by ITU-R 601 luma (.299, .587, .114), gray becomes three equal
   channels, and other numbers of channels must be equal;
2. size: ``crop`` scales a picture until it covers the size and cuts what stands over on either
   side, ``stretch`` changes its shape; both interpolate linearly over all pixels that a new one
   covers;
3. range: the smallest value that the source's pictures can have becomes the smallest that the
   dataset's can have, and so does the largest.

Rows of a table must have as many columns, and stay as they are.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gped_nas.data.base import Dataset
from gped_nas.data.inputs import read_array, read_inputs
from gped_nas.data.normalization import ImputingNormalization
from gped_nas.data.pictures import ENDINGS, Color, PicturePreparation, Resize
from gped_nas.data.scale import ColumnSpread, Scale, scale_of
from gped_nas.errors import DataError
from gped_nas.io import environment

_BATCH = 512
_LUMA = (0.299, 0.587, 0.114)
_ARRAYS = (".npy", ".npz")


def bring_alike(
    raw: Tensor, scale: Scale, dataset: Dataset, where: str, resize: Resize = "crop"
) -> Tensor:
    """Raw inputs (N, *input_shape) of another source as a dataset's own, float32.

    Args:
        raw: theirs, of any dtype.
        scale: theirs.
        dataset: whose shape and range they get.
        where: the source, for messages.
        resize: how pictures come to size.

    Raises:
        DataError: they cannot be brought to its shape, or hold numbers that are not finite.
    """
    shape = dataset.raw_shape
    _check_kinds(tuple(raw.shape[1:]), shape, where)
    _check_known(raw, dataset, where)
    if not isinstance(dataset.scale, ColumnSpread) and not isinstance(scale, ColumnSpread):
        batches = []
        for batch in torch.split(raw, _BATCH):
            picture = _sized(_colored(batch.float(), shape[0]), shape[1:], resize)
            low, high = scale.bounds
            share = (picture - low) / (high - low if high > low else 1.0)
            least, most = dataset.scale.bounds
            batches.append((least + share * (most - least)).clamp_(least, most))
        raw = torch.cat(batches) if batches else raw.new_zeros((0, *shape))

    return raw.float()


def _check_known(raw: Tensor, dataset: Dataset, where: str) -> None:
    """Raise ``DataError`` where numbers are infinite, or missing and cannot be."""
    is_known = raw.isfinite()
    if isinstance(dataset.normalization, ImputingNormalization):
        is_known |= raw.isnan()
    if not bool(is_known.all()):
        raise DataError(
            f"{where}: holds numbers that are NaN or infinite, expected finite ones as in dataset "
            f"'{dataset.name}'; remove those inputs"
        )


def _check_kinds(given: tuple[int, ...], wanted: tuple[int, ...], where: str) -> None:
    """Raise ``DataError`` where no rule brings inputs of one shape to the other."""
    if len(given) != 3 or len(wanted) != 3:
        if given != wanted:
            raise DataError(
                f"{where}: found inputs of shape {given}, expected {wanted}: only pictures are "
                "brought to another shape; take another set"
            )
    elif given[0] != wanted[0] and not {given[0], wanted[0]} <= {1, 3}:
        raise DataError(
            f"{where}: found pictures of {given[0]} channels, expected {wanted[0]}: only gray and "
            "colored ones become each other; take another set"
        )


def _colored(x: Tensor, channels: int) -> Tensor:
    """Pictures (N, 1 or 3, H, W) with as many channels; others as they are."""
    if x.shape[1] == channels:
        return x
    if channels == 1:
        return (x * x.new_tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)
    return x.expand(-1, channels, -1, -1)


def _sized(x: Tensor, size: Sequence[int], resize: Resize) -> Tensor:
    """Pictures brought to (height, width), pixels."""
    height, width = size
    if tuple(x.shape[2:]) == (height, width):
        return x
    if resize == "stretch":
        return _interpolated(x, height, width)

    factor = max(height / x.shape[2], width / x.shape[3])
    covering = (max(height, round(factor * x.shape[2])), max(width, round(factor * x.shape[3])))
    x = _interpolated(x, *covering)
    top, first = (covering[0] - height) // 2, (covering[1] - width) // 2
    return x[:, :, top : top + height, first : first + width]


def _interpolated(x: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(x, (height, width), mode="bilinear", align_corners=False, antialias=True)


def read_foreign(
    path: Path, dataset: Dataset, resize: Resize = "crop", scale: Scale | None = None
) -> Tensor:
    """The inputs of a file or a folder of pictures, brought to a dataset's shape and range.

    Args:
        path: a folder of pictures, with folders in it or without; ``.npy`` or ``.npz`` of one
            array, or with one called ``x`` or ``x_test``; of a table also a file like that of the
            training data.
        dataset: whose inputs they become.
        resize: how pictures come to size.
        scale: of an array of pictures; what its numbers show by default.

    Raises:
        DataError: missing, of another kind, damaged, empty, or see ``bring_alike``.
        EnvironmentProblem: it cannot be read.
    """
    shape, where = dataset.raw_shape, str(path)
    if path.is_dir():
        return _read_folder(path, dataset, resize)
    if not path.exists():
        raise DataError(f"{where}: no such file or folder (looked from {Path.cwd()})")
    if len(shape) != 3 or path.suffix.lower() not in _ARRAYS:
        return read_inputs(path, shape, dataset.normalization, dataset.preparation, asked="dataset")

    array = read_array(path, ("x", "x_test"))
    if array.dtype.kind not in "iuf" or array.ndim not in (3, 4) or 0 in array.shape:
        raise DataError(
            f"{where}: found an array {array.shape} of {array.dtype}, expected pictures (N, height,"
            " width), channels last or first; convert it"
        )
    if array.ndim == 3:
        array = array[:, None]
    elif array.shape[1] not in (1, 3, shape[0]) and array.shape[3] in (1, 3, shape[0]):
        array = array.transpose(0, 3, 1, 2)
    native = array.astype(np.uint8 if array.dtype == np.uint8 else np.float32, order="C")
    raw = torch.from_numpy(native)
    return bring_alike(raw, scale or scale_of(raw), dataset, where, resize)


def _read_folder(path: Path, dataset: Dataset, resize: Resize) -> Tensor:
    """All pictures below a folder, by name, as the dataset's own pictures are read."""
    shape = dataset.raw_shape
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise DataError(
            f"{path}: found a folder, expected inputs of shape {shape}, which are no gray or "
            "colored pictures; give them as .npy"
        )
    with environment("read", path):
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in ENDINGS)
    if not files:
        raise DataError(
            f"{path}: found no picture in this folder, expected files that end in "
            f"{', '.join(ENDINGS)}"
        )

    color: Color = "gray" if shape[0] == 1 else "rgb"
    preparation = PicturePreparation(height=shape[1], width=shape[2], color=color, resize=resize)
    raw = torch.from_numpy(np.stack([preparation.read(file) for file in files]))
    return bring_alike(raw, scale_of(raw), dataset, str(path), resize)
