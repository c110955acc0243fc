"""Image files as arrays of bytes, the same for training and for questions."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from gped_nas.config import Config
from gped_nas.errors import DataError, EnvironmentProblem, GpedError
from gped_nas.io import Array

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
Color = Literal["gray", "rgb"]
Resize = Literal["crop", "stretch"]
_MODES = {"gray": "L", "rgb": "RGB"}
_GRAY_MODES = frozenset({"1", "L", "LA"})
_EIGHT_BIT = _GRAY_MODES | {"P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}
_ORIENTATION, _LYING = 0x0112, frozenset({5, 6, 7, 8})
"""The EXIF tag that says how a camera was held, and its values for a quarter turn."""


class PicturePreparation(Config):
    """How an image file becomes an input (channels, height, width) of bytes.

    It is turned upright as its camera says, made gray or RGB, and brought to size. ``crop`` scales
    it until it covers the size, and cuts what stands over on either side; ``stretch`` changes its
    shape. Both interpolate linearly over all pixels that a new one covers.
    """

    kind: Literal["pictures"] = "pictures"
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    color: Color
    resize: Resize

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one input."""
        return (1 if self.color == "gray" else 3, self.height, self.width)

    def key(self) -> dict[str, Any]:
        """Plain data that fixes what inputs mean, for the dataset's digest."""
        return self.model_dump(mode="json", exclude={"kind"})

    def read(self, path: Path) -> Array:
        """One picture, uint8 (channels, height, width).

        Raises:
            DataError: it is damaged, or has more than 8 bits a color.
        """
        from PIL import ImageOps

        size = (self.width, self.height)
        with _opened(path) as image:
            upright = ImageOps.exif_transpose(image).convert(_MODES[self.color])
            if upright.size != size and self.resize == "crop":
                upright = ImageOps.fit(upright, size, method=_linear())
            elif upright.size != size:
                upright = upright.resize(size, _linear())
            pixels = np.asarray(upright)
        return pixels[None] if self.color == "gray" else pixels.transpose(2, 0, 1)


def look_at_picture(path: Path) -> tuple[tuple[int, int], bool]:
    """Height and width of a picture held upright, and whether it is gray.

    Raises:
        DataError: it is damaged, or has more than 8 bits a color.
    """
    with _opened(path) as image:
        width, height = image.size
        if image.getexif().get(_ORIENTATION) in _LYING:
            width, height = height, width
        return (height, width), image.mode in _GRAY_MODES


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An image file, opened; whatever its reader says of a damaged one is a ``DataError``."""
    from PIL import Image  # few runs need it

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an image of absurd size is warned of only
            with Image.open(path) as image:
                if image.mode not in _EIGHT_BIT:
                    raise DataError(
                        f"{path}: found pixels of mode '{image.mode}', expected 8 bits; save it "
                        "again as PNG, or give such pixels as arrays"
                    )
                yield image
    except GpedError:
        raise
    except Exception as error:  # readers of damaged files share no class of errors
        if isinstance(error, OSError) and error.errno:
            raise EnvironmentProblem(
                f"{path}: cannot be read: {error.strerror}; check its permissions"
            ) from None
        raise DataError(f"{path}: not a readable image ({error})") from None


def _linear() -> Any:
    from PIL import Image

    return Image.Resampling.BILINEAR
