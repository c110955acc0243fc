"""Forty small sets as strangers bring them: arrays, tables and folders of images.

Each is written by a function. What has to come of it stands beside it: a front, whose teacher and
best student know more than the class frequencies where there is something to learn; or a refusal
that names what to do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray
Write = Callable[[Path], Path]


@dataclass(frozen=True)
class Stranger:
    """One set.

    Attributes:
        write: makes the file or folder, given a path without ending; returns where it lies.
        options: of ``init``.
        refused: words of the refusal; none where a front is expected.
        is_learnable: whether inputs say something of the label.
    """

    write: Write
    options: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    is_learnable: bool = True


def _draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _npz(path: Path, **arrays: Any) -> Path:
    file = path.with_suffix(".npz")
    np.savez(file, **arrays)
    return file


def _blobs(
    num: int = 200, dims: int = 6, classes: int = 3, spread: float = 2.0
) -> tuple[Array, Array]:
    """Inputs (N, D) around a center a class, and labels (N,)."""
    draw = _draw()
    y = np.arange(num) % classes
    centers = draw.normal(size=(classes, dims)) * spread
    return centers[y] + draw.normal(size=(num, dims)), y


def _arrays(change: Callable[[Array, Array], dict[str, Any]], **size: Any) -> Write:
    """A writer of blobs that were changed."""

    def write(path: Path) -> Path:
        x, y = _blobs(**size)
        return _npz(path, **{"x_train": x, "y_train": y, **change(x, y)})

    return write


def _column(x: Array, values: Any) -> Array:
    """``x`` with a first column of ``values`` more."""
    return np.column_stack([np.broadcast_to(values, len(x)), x])


def _pictures(
    num: int = 120, side: int = 8, channels: int = 0, width: int | None = None
) -> tuple[Array, Array]:
    """Pictures whose left or right half is brighter, uint8, and which half that is."""
    draw = _draw()
    y = np.arange(num) % 2
    width = width or side
    x = draw.normal(90, 25, size=(num, side, width))
    half = width // 2
    x[y == 0, :, :half] += 60
    x[y == 1, :, half:] += 60
    x = x.clip(0, 255).astype(np.uint8)
    return (np.stack([x] * channels, -1) if channels else x), y


def _picture_arrays(change: Callable[[Array], Array] = lambda x: x, **size: Any) -> Write:
    def write(path: Path) -> Path:
        x, y = _pictures(**size)
        return _npz(path, x_train=change(x), y_train=y)

    return write


def _csv(
    header: str,
    row: Callable[[int, np.random.Generator], str],
    num: int = 150,
    encoding: str = "utf-8",
) -> Write:
    def write(path: Path) -> Path:
        draw = _draw()
        lines = [header, *(row(i, draw) for i in range(num))]
        file = path.with_suffix(".csv")
        file.write_text("\n".join(lines) + "\n", encoding=encoding)
        return file

    return write


def _folder(sizes: tuple[int, ...] = (8,), mode: str = "L", num: int = 80) -> Write:
    """A writer of a folder of images of these sides in turn."""

    def write(path: Path) -> Path:
        from PIL import Image

        x, y = _pictures(num=num, side=max(sizes))
        for i in range(num):
            place = path / ("left", "right")[y[i]]
            place.mkdir(parents=True, exist_ok=True)
            side = sizes[i % len(sizes)]
            Image.fromarray(x[i]).convert(mode).resize((side, side)).save(place / f"{i}.png")
        return path

    return write


def _real(noise: float, seed: int = 0, num: int = 200) -> tuple[Array, Array]:
    draw = _draw(seed)
    x = draw.normal(size=(num, 4))
    return x, x @ np.array([1.0, -2.0, 0.5, 0.0]) + noise * draw.normal(size=num)


def _real_arrays(change: Callable[[Array, Array], dict[str, Any]]) -> Write:
    def write(path: Path) -> Path:
        x, y = _real(0.5)
        return _npz(path, **{"x_train": x, "y_train": y, **change(x, y)})

    return write


def _named(y: Array) -> Array:
    return np.array(["ash", "beech", "cedar"])[y]


def _with_nan(x: Array) -> Array:
    """Every seventh number is missing."""
    return np.where(np.arange(x.size).reshape(x.shape) % 7 == 3, np.nan, x)


_SCALES = 10.0 ** np.arange(-3, 3)

STRANGERS: dict[str, Stranger] = {
    "plain": Stranger(_arrays(lambda x, y: {})),
    "columns of six scales": Stranger(_arrays(lambda x, y: {"x_train": x * _SCALES})),
    "a column of seconds since 1970": Stranger(
        _arrays(lambda x, y: {"x_train": _column(x, 1.7e9 + 1e5 * np.arange(len(x)))})
    ),
    "a constant column of a million": Stranger(_arrays(lambda x, y: {"x_train": _column(x, 1e6)})),
    "codes for missing": Stranger(
        _arrays(lambda x, y: {"x_train": np.where(np.arange(len(x))[:, None] % 50 == 7, -999.0, x)})
    ),
    "ten examples": Stranger(_arrays(lambda x, y: {}, num=10, dims=10, classes=2)),
    "more columns than examples": Stranger(_arrays(lambda x, y: {}, num=60, dims=300, classes=2)),
    "two hundred columns of which one says something": Stranger(
        _arrays(lambda x, y: {"x_train": _column(_draw(1).normal(size=(200, 60)), 3.0 * (y == 1))})
    ),
    "labels as text": Stranger(_arrays(lambda x, y: {"y_train": _named(y)})),
    "labels as true and false": Stranger(_arrays(lambda x, y: {"y_train": y == 0})),
    "labels as whole floats": Stranger(_arrays(lambda x, y: {"y_train": y.astype(float)})),
    "labels in a column": Stranger(_arrays(lambda x, y: {"y_train": y[:, None]})),
    "labels that are wrong at every third": Stranger(
        _arrays(lambda x, y: {"y_train": np.where(_draw(2).random(len(y)) < 0.3, 0, y)})
    ),
    "labels that inputs say nothing of": Stranger(
        _arrays(lambda x, y: {"x_train": _draw(3).normal(size=x.shape)}), is_learnable=False
    ),
    "labels that inputs say little of": Stranger(
        _arrays(lambda x, y: {}, num=600, dims=10, classes=2, spread=0.25)
    ),
    "one class in thirty": Stranger(
        _arrays(
            lambda x, y: {
                "y_train": (np.arange(len(x)) % 30 == 0).astype(int),
                "x_train": _column(x, 3.0 * (np.arange(len(x)) % 30 == 0)),
            },
            num=600,
        )
    ),
    "numbers that are missing": Stranger(_arrays(lambda x, y: {"x_train": _with_nan(x)})),
    "twenty classes": Stranger(_arrays(lambda x, y: {}, num=800, dims=12, classes=20)),
    "half-precision floats": Stranger(_arrays(lambda x, y: {"x_train": x.astype(np.float16)})),
    "big-endian numbers": Stranger(_arrays(lambda x, y: {"x_train": x.astype(">f8")})),
    "whole numbers with an offset": Stranger(
        _arrays(lambda x, y: {"x_train": (100 * x).astype(np.int64) + 20_000})
    ),
    "parts that are given": Stranger(
        _arrays(
            lambda x, y: {
                **{"x_train": x[:120], "y_train": y[:120]},
                **{"x_val": x[120:160], "y_val": y[120:160]},
                **{"x_test": x[160:], "y_test": y[160:]},
            }
        )
    ),
    "groups": Stranger(_arrays(lambda x, y: {"groups_train": np.arange(len(x)) // 8})),
    "real labels": Stranger(_real_arrays(lambda x, y: {})),
    "real labels in milliseconds since 1970": Stranger(
        _real_arrays(lambda x, y: {"y_train": 1.7e12 + 1e7 * y})
    ),
    "real labels that inputs say nothing of": Stranger(
        _real_arrays(lambda x, y: {"y_train": _draw(4).normal(size=len(y))}), is_learnable=False
    ),
    "gray pictures": Stranger(_picture_arrays()),
    "color pictures, channels last": Stranger(_picture_arrays(channels=3)),
    "color pictures, channels first": Stranger(
        _picture_arrays(lambda x: x.transpose(0, 3, 1, 2), channels=3)
    ),
    "pictures that are not square, floats from 0 to 1": Stranger(
        _picture_arrays(lambda x: x / np.float32(255), width=11)
    ),
    "pictures for convolutions": Stranger(_picture_arrays(side=12, channels=3, num=90)),
    "a table": Stranger(
        _csv(
            "length,color,kind", lambda i, r: f"{r.normal(4 * (i % 2)):.2f},{'rb'[i % 2]},k{i % 2}"
        ),
        ("--label", "kind"),
    ),
    "a table with semicolons and decimal commas": Stranger(
        _csv("length;kind", lambda i, r: f"{r.normal(4 * (i % 2)):.2f};k{i % 2}".replace(".", ",")),
        ("--label", "kind"),
    ),
    "a table of real labels": Stranger(
        _csv(
            "a,b,target",
            lambda i, r: f"{i / 50:.2f},{r.normal():.2f},{i / 25 + r.normal() / 4:.3f}",
        )
    ),
    "a folder of images": Stranger(_folder()),
    "a number that is infinite": Stranger(
        _arrays(lambda x, y: {"x_train": _column(x, np.where(y > 1, np.inf, 1.0))}),
        refused=("x_train", "infinite", "(2, 0)"),
    ),
    "numbers that float32 cannot tell apart": Stranger(
        _arrays(lambda x, y: {"x_train": 50 + 1e-7 * x}), refused=("float32", "subtract")
    ),
    "one class alone": Stranger(
        _arrays(lambda x, y: {"y_train": 0 * y}), refused=("y_train", "1 class", "at least 2")
    ),
    "a table whose label is not told": Stranger(
        _csv("length,kind", lambda i, r: f"{r.normal():.2f},k{i % 2}"), refused=("kind", "--label")
    ),
    "images of two sizes": Stranger(_folder(sizes=(8, 9)), refused=("size",)),
}
