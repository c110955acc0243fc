"""The idx format of MNIST and its like, read without torchvision.

Importing torchvision takes 160 MiB and two seconds.

A file is two zero bytes, 8 for uint8, the number of axes, the length of each as big-endian 32-bit
numbers, then the numbers themselves in C order.
"""

from pathlib import Path

import numpy as np

from gped_nas.io import Array

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_FASHION = "T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag"
_DIGITS = "zero one two three four five six seven eight nine"
CLASS_NAMES = {
    "MNIST": tuple(f"{i} - {name}" for i, name in enumerate(_DIGITS.split())),
    "FashionMNIST": (*_FASHION.split(), "Ankle boot"),
    "KMNIST": tuple("o ki su tsu na ha ma ya re wo".split()),
}
"""By the name of torchvision's class, which is the folder's too: what it calls the classes."""


def read(path: Path, num_axes: int) -> Array:
    """The uint8 numbers of an idx file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not an idx file of uint8 with so many axes, or not whole.
    """
    data = np.fromfile(path, np.uint8)
    start = 4 + 4 * num_axes
    head = data[:start].tobytes()
    if len(head) < start or head[:4] != bytes((0, 0, 8, num_axes)):
        raise ValueError(f"{path.name} does not begin as an idx file of {num_axes} axes does")

    shape = tuple(int.from_bytes(head[i : i + 4], "big") for i in range(4, start, 4))
    body = data[start:]
    if len(body) != np.prod(shape, dtype=object):
        raise ValueError(f"{path.name} holds {len(body)} numbers, its first bytes say {shape}")
    return body.reshape(shape)
