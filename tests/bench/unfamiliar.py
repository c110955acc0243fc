"""Inputs that a dataset's networks have not seen the like of, in the dataset's own range."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits, load_sample_image
from torch import Tensor

from gped_nas.data.base import Dataset


def unfamiliar_inputs(dataset: Dataset) -> dict[str, Tensor]:
    """By name, raw inputs (M, *input_shape): a set of another kind, and the test set inverted.

    For pictures of 8 x 8 pixels the other set is of patches of the two photographs that come with
    scikit-learn; for larger ones the digits of scikit-learn, enlarged.
    """
    test = dataset.raw("test").float()
    inverted = test.max() - test
    if dataset.input_shape[-1] == 8:
        return {"photographs": photographs(), "inverted": inverted}
    return {"digits": digits(dataset.input_shape[-1]), "inverted": inverted}


def photographs() -> Tensor:
    """Every second gray patch of 8 x 8 pixels, 2 x 2 averaged, from 0 to 16: (M, 1, 8, 8)."""
    patches = []
    for name in ("china.jpg", "flower.jpg"):
        gray = torch.tensor(load_sample_image(name)).float().mean(-1)[None, None]
        small = F.avg_pool2d(gray, 2) / 255 * 16
        cut = F.unfold(small, 8, stride=16)[0].T
        patches.append(cut.reshape(-1, 1, 8, 8))
    return torch.cat(patches).round()


def digits(side: int) -> Tensor:
    """All digits of scikit-learn, enlarged to a side, from 0 to 255: (M, 1, side, side)."""
    images = torch.from_numpy(load_digits().images).float()[:, None]
    large = F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)
    return (large / 16 * 255).round()
