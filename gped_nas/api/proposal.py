"""A whole search space for a dataset: teacher, views, students and recipe by what the data are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gped_nas.api.suggestion import SuggestedTeacher, suggest_teacher
from gped_nas.api.view_suggestion import suggest_views
from gped_nas.data.base import Dataset
from gped_nas.models.base import Genotype
from gped_nas.search.defaults import default_penalties, default_recipe

Settings = Mapping[str, Any]
_SMALL, _LARGE = 1_000, 5_000
"""Training examples below which a search is short, and from which networks are wider."""
_LEAST_SIDE = 12
"""Pixels of a picture's shorter side from which convolutions are of use."""
_NORM = "batch"
"""Of students of pictures: without one they learn little."""


@dataclass(frozen=True)
class Proposal:
    """What ``init`` writes beside the dataset.

    Attributes:
        teacher: an ensemble that is trained, or the file of predictions of one.
        family: of the students.
        views: settings of each.
        targets: names.
        students: ranges of the genotype, by value.
        recipe: settings of students' training.
        n_trials: of the search.
        is_picture: whether inputs are pictures.
        is_class: whether labels are classes.
    """

    teacher: SuggestedTeacher | Path
    family: str
    views: tuple[Settings, ...]
    targets: tuple[str, ...]
    students: Settings
    recipe: Settings
    n_trials: int
    is_picture: bool
    is_class: bool


def propose(
    dataset: Dataset,
    *,
    ensemble: Path | None = None,
    report: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Proposal:
    """A search space that suits a dataset.

    Args:
        dataset: its training part is read, and quick networks are trained on it.
        ensemble: the file of predictions, or folder of shards, of an ensemble that is there.
        report: what is done, how much of it, and of how much.
    """
    num, shape = len(dataset.train), dataset.input_shape
    is_picture = len(shape) == 3
    is_convolved = is_picture and min(shape[1:]) >= _LEAST_SIDE
    is_class = dataset.task == "classification"

    teacher: SuggestedTeacher | Path
    if ensemble is not None:
        teacher = ensemble
    else:
        genotype = _picture_teacher(shape) if is_convolved else _table_teacher(num)
        teacher = suggest_teacher(dataset, genotype, report=report)

    family = "cnn" if is_convolved else "mlp"
    targets = _targets(is_class=is_class, is_convolved=is_convolved)
    suggested = suggest_views(dataset, can_be_asked=ensemble is None)
    norm = _NORM if is_convolved else "none"
    recipe = default_recipe(family, num, targets=targets, norm=norm)
    if suggested.draw_views != "once":
        recipe = {**recipe, "draw_views": suggested.draw_views}
    return Proposal(
        teacher=teacher,
        family=family,
        views=suggested.views,
        targets=targets,
        students=_picture_students(shape) if is_convolved else _table_students(num),
        recipe=recipe,
        n_trials=_num_trials(num, is_convolved=is_convolved),
        is_picture=is_picture,
        is_class=is_class,
    )


def _targets(*, is_class: bool, is_convolved: bool) -> tuple[str, ...]:
    """What students predict: of pictures the class alone, to which labels can then add."""
    if not is_class:
        return ("predictive_normal",)
    return ("predictive",) if is_convolved else ("predictive", "expected_entropy")


def _num_trials(num_examples: int, *, is_convolved: bool) -> int:
    """Trials of a search: fewer where data are few, and where a student takes longer."""
    num_trials = 24 if num_examples < _SMALL else 48
    return num_trials // 2 if is_convolved else num_trials


def _table_teacher(num_examples: int) -> Genotype:
    return Genotype("mlp", depth=2, width=128 if num_examples >= _LARGE else 64)


def _table_students(num_examples: int) -> Settings:
    widths = [4, 8, 16, 32, 64]
    return {
        "depth": {"int": [1, 2 if num_examples < _SMALL else 3]},
        "width": {"choices": [*widths, 128] if num_examples >= _LARGE else widths},
        "group_penalty": default_penalties("mlp"),
        "storage_dtype": {"choices": ["float32", "float16", "int8"]},
    }


def _stem(input_shape: tuple[int, ...]) -> int:
    """Step of the first convolution: 2 where the picture has pixels enough for it."""
    return 2 if min(input_shape[1:]) >= 24 else 1


def _picture_teacher(input_shape: tuple[int, ...]) -> Genotype:
    return Genotype(
        "cnn",
        depth=4,
        width=[16, 24, 32, 48],
        kernel=3,
        stride=[_stem(input_shape), 1, 1, 1],
        stages=2 if min(input_shape[1:]) < 16 else 3,
        padding="same",
        head="flatten",
    )


def _picture_students(input_shape: tuple[int, ...]) -> Settings:
    widths = [[8, 12, 16], [12, 16, 20], [20, 32], [32, 48], [32, 48], [48]]
    return {
        "depth": {"int": [4, 6]},
        "width": [{"choices": choices} for choices in widths[:-1]] + [48],
        "kernel": 3,
        "stride": [_stem(input_shape), 1, 1, 1, 1, 1],
        "stages": 2 if min(input_shape[1:]) < 16 else 3,
        "padding": "same",
        "head": "global_average",
        "norm": _NORM,
        "group_penalty": default_penalties("cnn", _NORM),
        "storage_dtype": {"choices": ["float32", "float16", "int8"]},
    }
