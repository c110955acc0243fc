"""A set of pictures with a known answer: shapes of seven classes on noisy ground, 32x32x3 uint8.

Where the shape lies, how large it is, how it is turned and colored, the ground, and two strokes
across it are drawn anew for each picture, so that a class is a form and nothing else. A mirrored
picture has the same class. Six labels in a hundred are of another class.

    python tests/shapes.py shapes.npz
    python tests/shapes.py more.npz --seed 1 --train 0 --test 6000
"""

import argparse
from pathlib import Path

import numpy as np

CLASSES = ("disc", "square", "triangle", "ring", "cross", "star", "crescent")
SHARES = (0.30, 0.22, 0.16, 0.12, 0.09, 0.07, 0.04)
LABEL_NOISE = 0.06
SIDE = 32

Array = np.ndarray


def make_shapes(num_pictures: int, seed: int) -> tuple[Array, Array]:
    """Pictures (N, 32, 32, 3) uint8 and labels (N,) int64, the same ones for the same arguments."""
    generator = np.random.default_rng([seed, num_pictures])
    form_N = generator.choice(len(CLASSES), size=num_pictures, p=SHARES)

    pictures = np.empty((num_pictures, SIDE, SIDE, 3), np.uint8)
    for i, form in enumerate(form_N):
        pictures[i] = _picture(CLASSES[form], generator)

    is_wrong_N = generator.random(num_pictures) < LABEL_NOISE
    shift_N = generator.integers(1, len(CLASSES), size=num_pictures)
    label_N = np.where(is_wrong_N, (form_N + shift_N) % len(CLASSES), form_N)
    return pictures, label_N.astype(np.int64)


def write_shapes(path: Path, *, seed: int = 0, num_train: int = 6000, num_test: int = 1200) -> None:
    """Write ``x_train``, ``y_train``, ``x_test`` and ``y_test`` as an npz."""
    pictures, labels = make_shapes(num_train + num_test, seed)
    np.savez(
        path,
        x_train=pictures[:num_train],
        y_train=labels[:num_train],
        x_test=pictures[num_train:],
        y_test=labels[num_train:],
    )


def _picture(form: str, generator: np.random.Generator) -> Array:
    """One picture (32, 32, 3) of a form."""
    ground = _ground(generator)
    ink = _ink(ground.mean((0, 1)), generator)

    # the middle of the form, its half width in pixels, and how it is turned
    center = generator.uniform(10, SIDE - 10, size=2)
    radius = generator.uniform(5.8, 10)
    angle = generator.uniform(0, 2 * np.pi)
    row, column = np.mgrid[0:SIDE, 0:SIDE] + 0.5
    x, y = (column - center[0]) / radius, (row - center[1]) / radius
    turned_x = np.cos(angle) * x + np.sin(angle) * y
    turned_y = np.cos(angle) * y - np.sin(angle) * x

    # how far outside the form each pixel is, in pixels; its edge is one pixel soft
    outside = _distance(form, turned_x, turned_y) * radius
    cover = np.clip(0.5 - outside, 0, 1)[..., None]
    picture = ground * (1 - cover) + ink * cover

    for _ in range(2):
        stroke = _stroke(row, column, generator)[..., None]
        picture = picture * (1 - stroke) + generator.uniform(0, 255, size=3) * stroke
    picture += generator.normal(0, generator.uniform(6, 30), size=picture.shape)
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def _ground(generator: np.random.Generator) -> Array:
    """A ground (32, 32, 3): one color that changes slowly over the picture."""
    coarse = generator.uniform(0, 255, size=3) + generator.normal(0, 25, size=(4, 4, 3))
    position = np.linspace(0, 3, SIDE)
    low = np.minimum(position.astype(int), 2)
    share = (position - low)[:, None, None]

    rows = coarse[low] * (1 - share) + coarse[low + 1] * share
    share = share.reshape(1, SIDE, 1)
    return rows[:, low] * (1 - share) + rows[:, low + 1] * share


def _ink(ground: Array, generator: np.random.Generator) -> Array:
    """A color (3,) that can be told from the ground."""
    while True:
        color = generator.uniform(0, 255, size=3)
        if np.abs(color - ground).mean() > 50:
            return color


def _stroke(row: Array, column: Array, generator: np.random.Generator) -> Array:
    """How much of each pixel (32, 32) a straight stroke across the picture covers."""
    angle = generator.uniform(0, np.pi)
    place = generator.uniform(-12, 12)
    across = np.cos(angle) * (column - SIDE / 2) + np.sin(angle) * (row - SIDE / 2) - place
    return np.clip(1.0 - np.abs(across), 0, 1) * generator.uniform(0.3, 1)


def _distance(form: str, x: Array, y: Array) -> Array:
    """About how far outside the form a point is, negative inside; the form has half width 1."""
    from_center = np.hypot(x, y)
    angle = np.arctan2(y, x)

    if form == "disc":
        return from_center - 0.9
    if form == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.8
    if form == "triangle":
        sides = [np.cos(turn) * x + np.sin(turn) * y for turn in (0, 2.0944, 4.1888)]
        return np.max(sides, axis=0) - 0.55
    if form == "ring":
        return np.abs(from_center - 0.75) - 0.23
    if form == "cross":
        along, across = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
        return np.maximum(along - 1.0, across - 0.33)
    if form == "star":
        return from_center - (0.72 + 0.3 * np.cos(5 * angle))
    assert form == "crescent", form
    return np.maximum(from_center - 0.95, 0.75 - np.hypot(x - 0.5, y))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the npz to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=6000, help="pictures of x_train")
    parser.add_argument("--test", type=int, default=1200, help="pictures of x_test")
    arguments = parser.parse_args()
    write_shapes(
        arguments.out,
        seed=arguments.seed,
        num_train=arguments.train,
        num_test=arguments.test,
    )


if __name__ == "__main__":
    main()
