"""Posterior samples that a user already has.

* **Weights**: a safetensors file whose tensors have the samples as their first axis, optionally
  with a tensor ``weight`` (S,); or a folder of safetensors files, one posterior sample each, taken
  in the order of their names. Tensors are matched to the teacher's by name or, failing that, by
  shape in their natural order (so the state of a plain ``nn.Sequential`` fits).
* **Predictions**: an ``.npz`` (or safetensors) file with ``inputs`` (M, ...) in the dataset's own
  range, ``prob`` or ``log_prob`` (S, M, C), and optionally ``weight`` (S,). The inputs must hold
  the dataset's validation inputs, so that students can be compared with the ensemble there; the
  test inputs too if it is to be compared there.

Choose it when an ensemble, or samples of another program, are there already. It costs no step, only
the predictions at the views, and none at all where these are given. Its bias is that of whatever
made the samples; nothing here can tell. Source: the user's file, pinned by its digest in the
stream's key.
"""

import io
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor

from gped_nas.errors import DataError
from gped_nas.io import NPY_ERRORS, Array, environment, sha256_file, sha256_text
from gped_nas.models.base import Params, Shapes
from gped_nas.models.storage import decode, read_tensors
from gped_nas.posterior.base import (
    METHODS,
    GivenPredictions,
    Method,
    MethodConfig,
    PosteriorSample,
    Problem,
    State,
    Step,
    flatten,
)


class ImportConfig(MethodConfig):
    """Settings of ``import``."""

    path: str = Field(min_length=1, description="file or folder; relative to the current folder")
    input_mean: float | None = Field(
        default=None, description="how the ensemble normalizes raw inputs; ours if absent"
    )
    input_std: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _both_or_neither(self) -> "ImportConfig":
        if (self.input_mean is None) != (self.input_std is None):
            raise ValueError(
                "input_mean and input_std: found one of them, expected both or neither"
            )
        return self

    def identity(self) -> dict[str, Any]:
        """See ``MethodConfig.identity``: what the file holds, wherever it lies."""
        return {**super().identity(), "path": None, "content": content_digest(Path(self.path))}

    def count(self, shapes: Shapes) -> int:
        """See ``MethodConfig.count``."""
        path = Path(self.path)
        return _num_predicted(path) if is_predictions(path) else len(read_weights(path, shapes)[0])

    def predictions(self) -> Callable[[int], GivenPredictions] | None:
        """See ``MethodConfig.predictions``."""
        path = Path(self.path)
        return partial(read_predictions, path) if is_predictions(path) else None

    def normalization(self) -> tuple[float, float] | None:
        """See ``MethodConfig.normalization``."""
        if self.input_mean is None or self.input_std is None:
            return None
        return self.input_mean, self.input_std


def content_digest(path: Path) -> str:
    """SHA-256 over the imported file, or over the names and contents of a folder's safetensors
    files.

    Raises:
        DataError: there is nothing to import.
        EnvironmentProblem: it cannot be read.
    """
    with environment("read", path):
        if path.is_dir():
            return sha256_text("".join(f"{p.name}{sha256_file(p)}" for p in _sample_files(path)))
        if not path.is_file():
            raise DataError(
                f"{path}: no such file; expected safetensors or npz to import posterior samples "
                "from"
            )
        return sha256_file(path)


def _sample_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise DataError(
            f"{folder}: holds no .safetensors file; expected one for each posterior sample"
        )
    return files


def is_predictions(path: Path) -> bool:
    """Whether the import is of predictions rather than of weights."""
    if path.is_dir():
        return False
    return path.suffix == ".npz" or "inputs" in read_tensors(path)


def read_weights(path: Path, shapes: Shapes) -> tuple[Tensor, Tensor]:
    """Flat parameters (S, W) float32 and weights (S,) float64 of imported posterior samples.

    Raises:
        DataError: shapes do not fit the teacher, numbers are not finite, or weights are negative or
            all zero.
    """
    if path.is_dir():
        samples = [_matched(decode(read_tensors(p)), shapes, p) for p in _sample_files(path)]
        theta = torch.stack([flatten(s) for s in samples])
        weight = torch.ones(len(samples), dtype=torch.float64)
    else:
        stored = read_tensors(path)
        given = stored.pop("weight", None)
        lengths = {len(t) if t.dim() else 0 for t in stored.values()}
        if len(lengths) != 1 or 0 in lengths:
            raise DataError(
                f"{path}: tensors have {sorted(lengths)} entries on their first axis, expected the "
                "number "
                "of posterior samples on all of them"
            )
        num = lengths.pop()
        theta = torch.stack(
            [
                flatten(_matched(decode({k: t[i] for k, t in stored.items()}), shapes, path))
                for i in range(num)
            ]
        )
        weight = _weight(given, num, path)
    if not bool(theta.isfinite().all()):
        raise DataError(
            f"{path}: holds weights that are not finite; remove the samples that diverged"
        )
    return theta, weight


def _matched(params: Params, shapes: Shapes, path: Path) -> Params:
    found = {name: tuple(p.shape) for name, p in params.items()}
    if found == dict(shapes):
        return {name: params[name] for name in shapes}
    if list(found.values()) == list(shapes.values()):
        return dict(zip(shapes, params.values(), strict=True))
    raise DataError(
        f"{path}: found tensors of shapes {_show(found)}, expected {_show(shapes)}; "
        "set teacher.family and teacher.genotype to the network these weights are of"
    )


def _show(shapes: Shapes) -> str:
    shown = [f"{name} {tuple(shape)}" for name, shape in list(shapes.items())[:8]]
    return ", ".join(shown) + (", ..." if len(shapes) > 8 else "")


def _weight(given: Tensor | None, num: int, path: Path) -> Tensor:
    if given is None:
        return torch.ones(num, dtype=torch.float64)
    weight = given.double().reshape(-1)
    if len(weight) != num:
        raise DataError(
            f"{path}: weight: found {len(weight)} entries, expected {num}, one a posterior sample"
        )
    if (
        not bool(weight.isfinite().all())
        or bool((weight < 0).any())
        or not 0 < float(weight.sum()) < math.inf
    ):
        raise DataError(f"{path}: weight: expected finite numbers, none negative and not all zero")
    return weight


def read_predictions(path: Path, num_classes: int) -> GivenPredictions:
    """Imported predictions, checked.

    Raises:
        DataError: an array is missing, of a wrong shape, not finite, or not a distribution.
    """
    arrays = _arrays(path)
    if "inputs" not in arrays or ("prob" in arrays) == ("log_prob" in arrays):
        raise DataError(
            f"{path}: found {sorted(arrays)}, expected 'inputs' and one of 'prob' and 'log_prob'"
        )
    values = arrays["prob"] if "prob" in arrays else arrays["log_prob"]
    inputs = arrays["inputs"]
    if inputs.dim() < 2 or inputs.is_complex() or not bool(inputs.isfinite().all()):
        raise DataError(f"{path}: inputs: expected finite real numbers of shape (inputs, ...)")
    if (
        values.dim() != 3
        or values.shape[1] != len(inputs)
        or values.shape[2] != num_classes
        or not len(values)
    ):
        raise DataError(
            f"{path}: predictions have shape {tuple(values.shape)}, expected "
            f"(samples, {len(inputs)}, {num_classes}): posterior samples, inputs, classes"
        )
    if values.is_complex():
        raise DataError(f"{path}: predictions are complex numbers, expected probabilities")
    prob = values.double() if "prob" in arrays else values.double().exp()
    if not bool(prob.isfinite().all()) or bool((prob < 0).any()):
        raise DataError(
            f"{path}: predictions hold numbers that are no probabilities (negative or not finite)"
        )
    if bool(((prob.sum(-1) - 1).abs() > 1e-3).any()):
        raise DataError(
            f"{path}: predictions do not sum to 1 over classes; give probabilities after the "
            "softmax"
        )
    log_prob = (prob / prob.sum(-1, keepdim=True)).clamp_min(1e-45).log().float()
    weight = _weight(arrays.get("weight"), len(values), path)
    return GivenPredictions(inputs, log_prob, weight, source=str(path))


def _num_predicted(path: Path) -> int:
    """How many posterior samples there are predictions of; 0 where ``read_predictions`` refuses."""
    arrays = _arrays(path)
    return max((len(arrays[name]) for name in ("prob", "log_prob") if name in arrays), default=0)


def _arrays(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".npz":
        return read_tensors(path)
    with environment("read", path):
        data = io.BytesIO(path.read_bytes())
    try:
        with np.load(data, allow_pickle=False) as file:
            arrays: dict[str, Array] = {name: file[name] for name in file.files}
        return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}
    except (zipfile.BadZipFile, zlib.error, KeyError, OSError, RuntimeError, *NPY_ERRORS) as error:
        raise DataError(
            f"{path}: not a readable npz of plain arrays ({error}); object arrays are refused"
        ) from None


def imported(
    problem: Problem, cfg: ImportConfig, *, generator: Generator, state: State | None = None
) -> Iterator[Step]:
    """Yield the imported weights in order. Draws nothing."""
    theta_SW, weight_S = read_weights(Path(cfg.path), problem.shapes)
    start = 0 if state is None else int(state["next"])
    for i in range(start, len(theta_SW)):
        yield Step(PosteriorSample(theta_SW[i], float(weight_S[i])), {"next": torch.tensor(i + 1)})


METHODS.register("import")(
    Method(
        ImportConfig,
        imported,
        origin="given",
        suited=None,
        example={"path": "samples.safetensors"},
    )
)
