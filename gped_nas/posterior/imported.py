"""Posterior samples that a user already has.

* **Weights**: a safetensors file whose tensors have the samples as their first axis, optionally
  with a tensor ``weight`` (S,); or a folder of safetensors files, one posterior sample each, taken
  in the order of their names. Which tensor is which parameter is said by a map of names, by the
  teacher's own names, or by shapes and numbers in the names: see ``posterior.pairing``. Batch norms
  are folded into the layers before them: see ``posterior.folding``.
* **Predictions**: an ``.npz`` (or safetensors) file with ``inputs`` (M, ...) in the dataset's own
  range, ``prob`` or ``log_prob`` (S, M, C), and optionally ``weight`` (S,) and ``origin`` (M,); or
  a folder of shards, see ``posterior.shards``. The inputs must hold the dataset's validation
  inputs, so that students can be compared with the ensemble there; the test inputs too if it is to
  be compared there. Arrays of other names are ignored, numbers that were rounded to two or more
  decimals are normalized. ``origin`` says of which row an input is a flipped or shifted copy: no
  student learns from a copy of a validation or test input.

Choose it when an ensemble, or samples of another program, are there already. It costs no step, only
the predictions at the views, and none at all where these are given. Its bias is that of whatever
made the samples; nothing here can tell. Source: the user's file, pinned by its digest in the
stream's key.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor

from gped_nas.errors import DataError
from gped_nas.io import environment, sha256_file, sha256_text
from gped_nas.models.base import Shapes
from gped_nas.models.storage import decode, read_tensors
from gped_nas.posterior.arrays import is_folder_of_shards, read_arrays, rounding_slack
from gped_nas.posterior.base import (
    METHODS,
    GivenPredictions,
    Method,
    MethodConfig,
    NetworkNormalization,
    PosteriorSample,
    Problem,
    State,
    Step,
    flatten,
)
from gped_nas.posterior.folding import fold_batch_norms
from gped_nas.posterior.hints import hint_of_numbers, hint_of_shape
from gped_nas.posterior.pairing import pair
from gped_nas.posterior.shards import MANIFEST, Shards

BATCH_NORM_EPS = 1e-5
"""What torch's batch norms add to their variances, unless told otherwise."""
_Channels = Annotated[tuple[float, ...], Field(strict=False, min_length=1)]
_Numbers = float | _Channels
_Positive = Annotated[float, Field(gt=0)]
_Deviations = _Positive | Annotated[tuple[_Positive, ...], Field(strict=False, min_length=1)]


def _length(numbers: float | tuple[float, ...] | None) -> int | None:
    return len(numbers) if isinstance(numbers, tuple) else None


class ImportConfig(MethodConfig):
    """Settings of ``import``."""

    path: str = Field(min_length=1, description="file or folder; relative to the current folder")
    input_mean: _Numbers | None = Field(
        default=None,
        description="how the ensemble normalizes raw inputs, one number or one a channel or "
        "column; ours if absent",
    )
    input_std: _Deviations | None = None
    batch_norm_eps: float = Field(
        default=BATCH_NORM_EPS, ge=0, description="what batch norms add to their variances"
    )
    names: dict[str, str] = Field(
        default={},
        description="the teacher's layers or parameters to the file's names of them",
    )
    at_chance: bool = Field(
        default=False, description="take it even if it knows no more than the labels alone"
    )

    @model_validator(mode="after")
    def _both_or_neither(self) -> "ImportConfig":
        if (self.input_mean is None) != (self.input_std is None):
            raise ValueError(
                "input_mean and input_std: found one of them, expected both or neither"
            )
        lengths = {_length(self.input_mean), _length(self.input_std)}
        if len(lengths) == 2:
            raise ValueError(
                f"input_mean and input_std: found {self.input_mean} and {self.input_std}, "
                "expected as many numbers in both"
            )
        return self

    def identity(self) -> dict[str, Any]:
        """See ``MethodConfig.identity``: what the file holds, wherever it lies."""
        identity = super().identity()
        del identity["at_chance"]  # it changes no sample
        if not self.names:
            del identity["names"]  # earlier versions had none
        if self.batch_norm_eps == BATCH_NORM_EPS:
            del identity["batch_norm_eps"]  # likewise
        return {**identity, "path": None, "content": content_digest(Path(self.path))}

    def count(self, shapes: Shapes) -> int:
        """See ``MethodConfig.count``."""
        path = Path(self.path)
        if is_predictions(path):
            return _count_predictions(path)
        theta_SW, _ = read_weights(path, shapes, self.names, self.batch_norm_eps)
        return len(theta_SW)

    def predictions(self) -> Callable[[int], GivenPredictions] | None:
        """See ``MethodConfig.predictions``."""
        path = Path(self.path)
        return partial(read_predictions, path) if is_predictions(path) else None

    def normalization(self) -> NetworkNormalization | None:
        """See ``MethodConfig.normalization``."""
        if self.input_mean is None or self.input_std is None:
            return None
        return self.input_mean, self.input_std


def content_digest(path: Path) -> str:
    """SHA-256 over the imported file, or over names and contents of a folder's files.

    Raises:
        DataError: there is nothing to import.
        EnvironmentProblem: it cannot be read.
    """
    with environment("read", path):
        if is_folder_of_shards(path):
            return sha256_file(path / MANIFEST)  # it names the digest of every shard
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
        return is_folder_of_shards(path)
    return path.suffix == ".npz" or "inputs" in read_tensors(path)


def read_weights(
    path: Path,
    shapes: Shapes,
    names: Mapping[str, str] = MappingProxyType({}),
    batch_norm_eps: float = BATCH_NORM_EPS,
) -> tuple[Tensor, Tensor]:
    """Flat parameters (S, W) float32 and weights (S,) float64 of imported posterior samples.

    Args:
        path: file or folder.
        shapes: the teacher's.
        names: see ``pair``.
        batch_norm_eps: see ``posterior.folding``.

    Raises:
        DataError: shapes do not fit the teacher, it cannot be told which tensor is which, numbers
            are not finite, or weights are negative or all zero.
    """
    read = _read_folder if path.is_dir() else _read_file

    def as_teacher(stored: Mapping[str, Tensor], where: Path) -> Tensor:
        params = fold_batch_norms(decode(stored, where), batch_norm_eps, where)
        return flatten(pair(params, shapes, names, where))

    theta_SW, weight_S = read(path, as_teacher)
    if not bool(theta_SW.isfinite().all()):
        raise DataError(
            f"{path}: holds weights that are not finite; remove the samples that diverged"
        )
    return theta_SW, weight_S


_AsTeacher = Callable[[Mapping[str, Tensor], Path], Tensor]
"""Stored tensors of one network, and their file, to flat parameters (W,) of the teacher."""


def _read_folder(folder: Path, as_teacher: _AsTeacher) -> tuple[Tensor, Tensor]:
    rows = [as_teacher(read_tensors(path), path) for path in _sample_files(folder)]
    return torch.stack(rows), torch.ones(len(rows), dtype=torch.float64)


def _read_file(path: Path, as_teacher: _AsTeacher) -> tuple[Tensor, Tensor]:
    stored = read_tensors(path)
    stored_weight = stored.pop("weight", None)

    lengths = {len(tensor) if tensor.dim() else 0 for tensor in stored.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise DataError(
            f"{path}: tensors have {sorted(lengths)} entries on their first axis, expected the "
            "number of posterior samples on all of them"
        )
    (num_samples,) = lengths

    rows = []
    for i in range(num_samples):
        rows.append(as_teacher({name: tensor[i] for name, tensor in stored.items()}, path))
    return torch.stack(rows), _check_weight(stored_weight, num_samples, path)


def _check_weight(stored: Tensor | None, num_samples: int, path: Path) -> Tensor:
    """Weights (S,), float64: those that are stored, or all ones."""
    if stored is None:
        return torch.ones(num_samples, dtype=torch.float64)

    weight_S = stored.double().reshape(-1)
    if len(weight_S) != num_samples:
        raise DataError(
            f"{path}: weight: found {len(weight_S)} entries, expected {num_samples}, one a "
            "posterior sample"
        )

    # Finite weights may still have an infinite sum.
    is_finite = bool(weight_S.isfinite().all())
    is_negative = bool((weight_S < 0).any())
    if not is_finite or is_negative or not 0 < float(weight_S.sum()) < math.inf:
        raise DataError(f"{path}: weight: expected finite numbers, none negative and not all zero")
    return weight_S


def read_predictions(path: Path, num_classes: int) -> GivenPredictions:
    """Imported predictions, checked.

    Raises:
        DataError: an array is missing, of a wrong shape, not finite, or not a distribution.
    """
    arrays = read_arrays(path)
    if "inputs" not in arrays or ("prob" in arrays) == ("log_prob" in arrays):
        known = ", ".join(sorted(arrays)) or "none of the arrays"
        raise DataError(
            f"{path}: found {known}, expected 'inputs' and one of 'prob' and 'log_prob'; name the "
            "arrays so"
        )

    inputs = arrays["inputs"]
    if inputs.dim() < 2 or inputs.is_complex() or not bool(inputs.isfinite().all()):
        raise DataError(f"{path}: inputs: expected finite real numbers of shape (inputs, ...)")

    values_SMC = arrays["prob"] if "prob" in arrays else arrays["log_prob"]
    shape = tuple(values_SMC.shape)
    if shape[1:] != (len(inputs), num_classes) or shape[0] == 0:
        raise DataError(
            f"{path}: predictions have shape {shape}, expected "
            f"(samples, {len(inputs)}, {num_classes}): posterior samples, inputs, classes; "
            + hint_of_shape(shape, len(inputs), num_classes)
        )
    if values_SMC.is_complex():
        raise DataError(f"{path}: predictions are complex numbers, expected probabilities")

    is_log = "log_prob" in arrays
    given_SMC = values_SMC.double()
    prob_SMC = given_SMC.exp() if is_log else given_SMC
    if not bool(prob_SMC.isfinite().all()) or bool((prob_SMC < 0).any()):
        raise DataError(
            f"{path}: predictions hold numbers that are no probabilities (negative or not finite); "
            + hint_of_numbers(values_SMC, is_log=is_log)
        )
    total_SM1 = prob_SMC.sum(-1, keepdim=True)
    slack = rounding_slack(values_SMC, is_log=is_log)
    if bool(((total_SM1 - 1).abs() > slack).any()):
        low, high = float(total_SM1.min()), float(total_SM1.max())
        raise DataError(
            f"{path}: predictions do not sum to 1 over classes, found sums from {low:.4g} to "
            f"{high:.4g}; {hint_of_numbers(values_SMC, is_log=is_log)}"
        )

    # An impossible class stays impossible; a logarithm whose probability no float holds is kept.
    log_prob_SMC = (prob_SMC / total_SM1).log()
    if is_log:
        log_prob_SMC = torch.where(prob_SMC > 0, log_prob_SMC, given_SMC - total_SM1.log())
    log_prob_SMC = log_prob_SMC.float()
    weight_S = _check_weight(arrays.get("weight"), len(values_SMC), path)
    origin_M = _check_origin(arrays.get("origin"), len(inputs), path)
    return GivenPredictions(inputs, log_prob_SMC, weight_S, source=str(path), origin_M=origin_M)


def _check_origin(stored: Tensor | None, num_inputs: int, path: Path) -> Tensor | None:
    """Of which row each input is a copy, int64 (M,); see ``posterior.shards``."""
    if stored is None:
        return None
    is_whole = not stored.is_floating_point() and stored.shape == (num_inputs,)
    if not is_whole or bool(((stored < -1) | (stored >= num_inputs)).any()):
        raise DataError(
            f"{path}: origin: found shape {tuple(stored.shape)}, expected ({num_inputs},) row "
            "numbers of inputs, or -1 for an input that is no copy of one of them"
        )
    return stored.long()


def _count_predictions(path: Path) -> int:
    """How many posterior samples there are predictions of; 0 where ``read_predictions`` refuses."""
    if is_folder_of_shards(path):
        return Shards(path).manifest.members
    arrays = read_arrays(path)
    lengths = [len(arrays[name]) for name in ("prob", "log_prob") if name in arrays]
    return max(lengths, default=0)


def imported(
    problem: Problem, cfg: ImportConfig, *, generator: Generator, state: State | None = None
) -> Iterator[Step]:
    """Yield the imported weights in order. Draws nothing."""
    path = Path(cfg.path)
    theta_SW, weight_S = read_weights(path, problem.shapes, cfg.names, cfg.batch_norm_eps)
    start = 0 if state is None else int(state["next"])
    for i in range(start, len(theta_SW)):
        sample = PosteriorSample(theta_SW[i], float(weight_S[i]))
        yield Step(sample, {"next": torch.tensor(i + 1)})


METHODS.register("import")(
    Method(
        ImportConfig,
        imported,
        origin="given",
        suited=None,
        example={"path": "samples.safetensors"},
    )
)
