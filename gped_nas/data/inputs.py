"""Inputs for a quick look at a student or a teacher: arrays in the data's range, images, tables.

* ``.npy``: one array, of one input or of several; channel first or last, and where there is one
  channel it may be left out.
* ``.npz``: the same, where it holds one array or one called ``x``.
* ``.png``, ``.jpg``: one image. It is made gray or RGB as the network's inputs are; values are 0 to
  255. It is brought to size as the training pictures were where these were image files, and never
  resized otherwise.
* ``.csv``, ``.tsv``, ``.parquet``: a table like the training file, for a student or a teacher
  that was made from one; the label's column may be missing.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gped_nas.data.archives import UNREADABLE, check_archive, reason_of
from gped_nas.data.columns import TableColumns
from gped_nas.data.normalization import AnyNormalization, ImputingNormalization
from gped_nas.data.pictures import ENDINGS, PicturePreparation
from gped_nas.data.preparation import AnyPreparation
from gped_nas.data.table_files import CSV, PARQUET, read_table
from gped_nas.errors import DataError
from gped_nas.io import Array, environment

_MODES = {1: "L", 3: "RGB"}
_EIGHT_BIT = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
_FAR = 10.0
"""Standard deviations from the training mean, beyond which an image is in another range."""


def read_inputs(
    path: Path,
    input_shape: tuple[int, ...],
    normalization: AnyNormalization,
    preparation: AnyPreparation | None = None,
    *,
    asked: str = "student",
) -> Tensor:
    """Raw inputs (N, *input_shape), float32, of one file.

    Args:
        path: a file of one of the kinds that the module lists.
        input_shape: shape of one input: (D,) or (channels, height, width).
        normalization: that of the data, to tell an image of another range.
        preparation: how files like the training data's become inputs.
        asked: who is asked, for messages: a student or a teacher.

    Raises:
        DataError: missing, of another kind, damaged, not finite, or of another shape.
        EnvironmentProblem: it cannot be read.
    """

    def read_image(path: Path) -> Array:
        if isinstance(preparation, PicturePreparation):
            return preparation.read(path)
        return _read_image(path, input_shape, normalization, asked)

    def read_rows(path: Path) -> Array:
        return _read_table(path, preparation, asked)

    is_of_pictures = isinstance(preparation, PicturePreparation)
    readers: dict[str, Callable[[Path], Array]] = {
        ".npy": read_array,
        ".npz": read_array,
        ".png": read_image,
        ".jpg": read_image,
        ".jpeg": read_image,
        **(dict.fromkeys(ENDINGS, read_image) if is_of_pictures else {}),
        **dict.fromkeys((*CSV, *PARQUET), read_rows),
    }
    read = readers.get(path.suffix.lower())
    if read is None:
        raise DataError(
            f"{path}: found the ending '{path.suffix}', expected one of {', '.join(readers)}"
        )
    _check_there(path)
    array = read(path)
    if array.dtype.kind not in "iuf":
        raise DataError(
            f"{path}: found dtype {array.dtype}, expected integers or floats; convert it with "
            "astype"
        )
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    is_known = np.isfinite(array)
    if isinstance(normalization, ImputingNormalization):
        is_known |= np.isnan(array)
    if not is_known.all():
        raise DataError(
            f"{path}: holds values that are NaN, infinite or beyond float32, expected finite "
            "numbers"
        )

    inputs = _bring_into_shape(array, input_shape, path)
    return torch.from_numpy(np.ascontiguousarray(inputs))


def _check_there(path: Path) -> None:
    """Raise where a file is missing, or the operating system refuses it."""
    if not path.is_file():
        raise DataError(f"{path}: no such file (looked from {Path.cwd()})")

    # opened once in vain: the readers take every refusal for a damaged file
    with environment("read", path):
        path.open("rb").close()


def read_array(path: Path, names: Sequence[str] = ("x",)) -> Array:
    """The array of an ``.npy``, or of an ``.npz`` that holds one, or one called as ``names`` say.

    Args:
        path: the file.
        names: of arrays of inputs; the first that is there is read.

    Raises:
        DataError: missing or damaged, or no such array.
        EnvironmentProblem: it cannot be read.
    """
    _check_there(path)
    if path.suffix.lower() == ".npy":
        return _read_npy(path)
    return _read_npz(path, names)


def as_inputs(x: object, input_shape: tuple[int, ...]) -> Tensor:
    """Raw inputs (N, *input_shape) of a tensor or an array in memory.

    Args:
        x: a tensor or a numpy array; (N, H, W) is taken for one channel.
        input_shape: shape of one input.

    Raises:
        DataError: they have another shape, or are no numbers.
    """
    inputs = _as_tensor(x)
    is_one_channel = len(input_shape) == 3 and input_shape[0] == 1
    if is_one_channel and tuple(inputs.shape[1:]) == input_shape[1:]:
        inputs = inputs.unsqueeze(1)

    if tuple(inputs.shape[1:]) != input_shape:
        expected = ", ".join(map(str, input_shape))
        raise DataError(f"inputs: found shape {tuple(inputs.shape)}, expected (N, {expected})")
    return inputs


def _as_tensor(x: object) -> Tensor:
    """Inputs as a tensor: what torch lacks (wide unsigned integers, long doubles) as float64."""
    if isinstance(x, Tensor):
        return x

    array = np.asarray(x)
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"inputs: found {type(x).__name__} of dtype {array.dtype}, expected a tensor or an "
            "array of numbers; convert it with astype"
        )
    # Torch has neither other byte orders nor negative strides, and may not share what is read-only.
    native = array.astype(array.dtype.newbyteorder("="), order="C")
    try:
        return torch.from_numpy(native)
    except TypeError:
        return torch.from_numpy(native.astype(np.float64))


def _read_npy(path: Path) -> Array:
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("error")
            array = np.load(file, allow_pickle=False)
    except UNREADABLE as error:  # numpy opens an archive of any name
        raise DataError(
            f"{path}: not a readable .npy ({error}); write it again with numpy.save"
        ) from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: holds several arrays, expected one; name it .npz")
    return array


def _read_npz(path: Path, wanted: Sequence[str]) -> Array:
    array = None
    try:
        with path.open("rb") as file:
            check_archive(file, path)
            archive = np.load(file, allow_pickle=False)
            names = list(archive.files)
            there = [name for name in wanted if name in names]
            if there:
                array = archive[there[0]]
            elif len(names) == 1:
                array = archive[names[0]]
    except UNREADABLE as error:
        raise DataError(
            f"{path}: not a readable .npz ({reason_of(error)}); write it again with numpy.savez"
        ) from None

    if not isinstance(array, np.ndarray):
        called = " or ".join(f"'{name}'" for name in wanted)
        raise DataError(
            f"{path}: found the arrays {', '.join(names) or 'none'}, expected one, or one called "
            f"{called}"
        )
    return array


def _read_table(path: Path, preparation: AnyPreparation | None, asked: str) -> Array:
    if not isinstance(preparation, TableColumns):
        raise DataError(
            f"{path}: found a table, but this {asked} was not made from one and knows no names of "
            "columns; give its inputs as .npy"
        )
    return preparation.numbers(read_table(path, preparation.format), str(path))


def _read_image(
    path: Path, input_shape: tuple[int, ...], normalization: AnyNormalization, asked: str
) -> Array:
    from PIL import Image  # comes with torchvision; few runs need it

    if len(input_shape) != 3 or input_shape[0] not in _MODES:
        raise DataError(
            f"{path}: this {asked} takes inputs of shape {input_shape}, not images; give them as "
            ".npy"
        )
    channels, height, width = input_shape

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an image of absurd size is warned of only
            with Image.open(path) as image:
                if image.mode not in _EIGHT_BIT:
                    raise DataError(
                        f"{path}: found pixels of mode '{image.mode}', expected 8 bits; give them "
                        "as .npy"
                    )
                size = image.size
                pixels = np.asarray(image.convert(_MODES[channels]))
    except (OSError, ValueError, SyntaxError, Warning, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable image ({error})") from None

    if size != (width, height):
        raise DataError(
            f"{path}: found {size[0]} x {size[1]} pixels, expected {width} x {height}; it is not "
            "resized, since how would change the answer: do it as the training data were made"
        )
    mean = float(np.mean(normalization.mean))
    std = float(np.mean(normalization.std))
    if abs(255 - mean) > _FAR * std:
        raise DataError(
            f"{path}: an image has values from 0 to 255, but this {asked} was trained on numbers "
            f"of mean {mean:.3g} and standard deviation {std:.3g}; give such pixels as .npy"
        )
    return pixels if pixels.ndim == 3 else pixels[None]


def _bring_into_shape(array: Array, shape: tuple[int, ...], path: Path) -> Array:
    """One input or several as (N, *shape).

    The channel may be first, last, or left out where there is one.
    """
    channel_last = (*shape[1:], shape[0])
    if array.shape in (shape, channel_last):
        array = array[None]

    is_gray = len(shape) == 3 and shape[0] == 1
    if is_gray and array.ndim in (2, 3) and array.shape[-2:] == shape[1:]:
        array = array.reshape(-1, *shape)

    if array.shape[1:] == shape:
        return array
    if len(shape) == 3 and array.shape[1:] == channel_last:
        return array.transpose(0, 3, 1, 2)

    expected = ", ".join(map(str, shape))
    comma = "," if len(shape) == 1 else ""
    raise DataError(
        f"{path}: found shape {array.shape}, expected (N, {expected}) or ({expected}{comma})"
    )
