"""What every dataset promises: the same examples each time, split, labeled and in range."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from gped_nas.data.base import Dataset, Part, load
from gped_nas.errors import ConfigError
from gped_nas.testing.promises import require, require_refusal, run_all

_PARTS: tuple[Part, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class DatasetCase:
    """The settings of a dataset, ``name`` included."""

    settings: Mapping[str, Any]

    def __str__(self) -> str:
        return f"dataset '{self.settings['name']}'"

    def __hash__(self) -> int:
        return hash(str(self))

    @cached_property
    def dataset(self) -> Dataset:
        """The dataset, loaded."""
        return self.load()

    def load(self, **settings: object) -> Dataset:
        """Load it, with some settings changed."""
        return load({**self.settings, **settings}, str(self))


def check_dataset(name: str, settings: Mapping[str, Any] | None = None) -> None:
    """Try a registered dataset.

    Args:
        name: of the dataset.
        settings: that it is loaded with; none by default.

    Raises:
        AssertionError: it breaks a promise; the message says which.
    """
    run_all(DATASET_CHECKS, [DatasetCase({"name": name, **(settings or {})})])


def it_is_the_same_each_time(case: DatasetCase) -> None:
    """Loading again gives the same digest, and draws from no global generator."""
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state(legacy=False)
    again = case.load()
    first = case.dataset
    require(
        torch.equal(torch_state, torch.get_rng_state())
        and repr(numpy_state) == repr(np.random.get_state(legacy=False)),
        f"{case}: loading draws from a global generator; make one from a seed",
    )
    require(again.digest == first.digest, f"{case}: loaded twice it has two digests")
    for part in _PARTS:
        require(
            torch.equal(again.split(part).x, first.split(part).x)
            and torch.equal(again.split(part).y, first.split(part).y),
            f"{case}: loaded twice its {part} part differs",
        )


def parts_fit_together(case: DatasetCase) -> None:
    """Parts are not empty, and inputs and labels of all are alike."""
    dataset = case.dataset
    require(dataset.name == case.settings["name"], f"{case}: calls itself '{dataset.name}'")
    for part in _PARTS:
        split = dataset.split(part)
        require(
            len(split.x) == len(split.y) > 0,
            f"{case}: {part} has {len(split.x)} inputs and {len(split.y)} labels",
        )
        require(
            tuple(split.x.shape[1:]) == dataset.input_shape
            and split.x.dtype == dataset.train.x.dtype,
            f"{case}: inputs of {part} are {tuple(split.x.shape[1:])} of {split.x.dtype}, expected "
            f"{dataset.input_shape} of {dataset.train.x.dtype}",
        )

    require(
        tuple(dataset.unlabeled.shape[1:]) == dataset.input_shape,
        f"{case}: unlabeled inputs are {tuple(dataset.unlabeled.shape[1:])}",
    )
    num = len(dataset.train) + len(dataset.unlabeled)
    require(len(dataset.raw("distillation")) == num, f"{case}: distillation inputs are not {num}")


def labels_are_of_their_kind(case: DatasetCase) -> None:
    """Classes are whole numbers from 0 with a name each; real labels are finite."""
    dataset = case.dataset
    for part in _PARTS:
        labels = dataset.labels(part)
        if dataset.task == "regression":
            require(
                labels.dtype == np.float64 and bool(np.isfinite(labels).all()),
                f"{case}: labels of {part} are {labels.dtype}, expected finite float64",
            )
        else:
            top = dataset.num_classes - 1
            require(
                labels.dtype == np.int64 and 0 <= labels.min() <= labels.max() <= top,
                f"{case}: labels of {part} are {labels.dtype} from {labels.min()} to "
                f"{labels.max()}, expected int64 from 0 to {top}",
            )

    names = dataset.class_names
    require(len(set(names)) == len(names), f"{case}: two classes have one name: {names}")


def inputs_are_normalized(case: DatasetCase) -> None:
    """Networks see finite float32 numbers, of mean 0 and standard deviation 1 in training."""
    inputs = case.dataset.inputs("train")
    require(inputs.dtype == torch.float32, f"{case}: inputs are {inputs.dtype}")
    require(bool(inputs.isfinite().all()), f"{case}: inputs are not finite")
    mean, std = float(inputs.double().mean()), float(inputs.double().std(correction=0))
    require(
        abs(mean) < 1e-3 and abs(std - 1) < 1e-3,
        f"{case}: training inputs have mean {mean:.3g} and standard deviation {std:.3g}, expected "
        "0 and 1; see data.base.fit",
    )


def unknown_settings_are_refused(case: DatasetCase) -> None:
    """A misspelt setting is named in the refusal."""
    said = require_refusal(
        lambda: case.load(nonsense=1),
        (ConfigError,),
        f"{case}: takes the setting 'nonsense'; parse its settings with config.parse",
    )
    require("nonsense" in said, f"{case}: refuses 'nonsense' without naming it: {said}")


DATASET_CHECKS = (
    it_is_the_same_each_time,
    parts_fit_together,
    labels_are_of_their_kind,
    inputs_are_normalized,
    unknown_settings_are_refused,
)
"""Every promise of a dataset: functions of a ``DatasetCase``."""
