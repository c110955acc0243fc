"""What ``bench_twins`` measures: datasets, sizes of students, teachers and recipes."""

from dataclasses import dataclass, field, replace
from typing import Any

from gped_nas.models.base import Genotype

Settings = dict[str, Any]
CLEAN, NOISE = {"policy": "clean"}, {"policy": "noise", "std": 0.3}


def mixup(num: int) -> list[Settings]:
    """So many draws of mixed inputs."""
    return [{"policy": "mixup", "draw": draw} for draw in range(num)]


def ensemble(size: int, precision: float, steps: int, lr: float) -> Settings:
    """A deep ensemble as teacher."""
    method = {"name": "deep_ensemble", "num_samples": size, "steps": steps, "lr": lr}
    return {"teacher.method": method, "teacher.prior": {"precision": precision}}


@dataclass(frozen=True)
class Case:
    """One dataset.

    Attributes:
        space: a shipped space, whose dataset, networks and recipe are taken.
        sizes: three genotypes of students.
        teachers: by name what of the space they change.
        recipes: likewise.
        precisions: of the priors of label twins, and of the MAP network.
        settings: of all of them.
        seeds: students of each kind and size.
        on_gpu: whether a step is long enough for one.
    """

    space: str
    sizes: tuple[Genotype, ...]
    teachers: dict[str, Settings]
    recipes: dict[str, Settings]
    precisions: tuple[float, ...]
    settings: Settings = field(default_factory=dict)
    seeds: int = 5
    on_gpu: bool = False


def recipe(steps: int, views: list[Settings], **changes: Any) -> Settings:
    """A recipe of a space with other steps, a line to zero at the end, and other views."""
    settings = {"steps": steps, "decay_from": 0.8, "label_weight": 0.0, **changes}
    return {**{f"recipe.{key}": value for key, value in settings.items()}, "views": views}


_MANY_MIXED = [CLEAN, *mixup(4)]
_WITH_NOISE = [*_MANY_MIXED, NOISE, {**NOISE, "draw": 1}]
_CONVOLVED = {
    "teacher.family": "cnn",
    "teacher.genotype": {
        "depth": 2,
        "width": [16, 32],
        "kernel": 5,
        "pool": 2,
        "head_width": [128],
    },
}
"""The teacher's network of ``fashion_cnn``."""
CHAINS = {
    "teacher.prior": {"precision": 20.0},
    "teacher.method": {
        "name": "sgld",
        "chains": 2,
        "num_samples": 140,
        "step_size": {"initial": 6e-6},
        "burn_in": 9600,
        "thinning": 300,
        "batch_size": 128,
    },
}
"""The chains of ``fashion_cnn`` as it was shipped first."""
_MLPS_OF_IMAGES = tuple(Genotype("mlp", depth=2, width=width) for width in (32, 64, 128))

_DIGITS = Case(
    "digits_sgld",
    (
        Genotype("mlp", depth=1, width=32),
        Genotype("mlp", depth=2, width=32),
        Genotype("mlp", depth=2, width=64),
    ),
    {
        "ensemble of 10": ensemble(10, 0.1, 400, 3e-3),
        "ensemble of 10, weak prior": ensemble(10, 1 / 300, 800, 1e-3),
        "sgld as first shipped": {},
    },
    {
        "4,000 steps, clean and 4 mixed": recipe(4000, _MANY_MIXED),
        "the same, 0.3 labels": recipe(4000, _MANY_MIXED, label_weight=0.3),
        "4,000 steps, clean, 4 mixed and 2 noisy": recipe(4000, _WITH_NOISE),
        "500 steps, as first shipped": {},
    },
    (0.1, 1.0, 3.0, 10.0),
)
CASES = {
    "digits": _DIGITS,
    "digits, half for the test": replace(
        _DIGITS,
        teachers={"ensemble of 10": ensemble(10, 0.1, 400, 3e-3)},
        settings={"dataset.test": 0.5},
    ),
    "fashion_mlp": Case(
        "fashion_sgld",
        _MLPS_OF_IMAGES,
        {
            "ensemble of 5": ensemble(5, 30.0, 6000, 1e-3),
            "convolutional ensemble of 5": {**_CONVOLVED, **ensemble(5, 20.0, 4000, 2e-3)},
            "convolutional sgld": {**_CONVOLVED, **CHAINS},
        },
        {
            "9,600 steps, clean, 0.5 labels": recipe(9600, [CLEAN], label_weight=0.5),
            "9,600 steps, clean, 0.3 labels": recipe(9600, [CLEAN], label_weight=0.3),
            "9,600 steps, clean": recipe(9600, [CLEAN]),
            "9,600 steps, clean and mixed": recipe(9600, [CLEAN, *mixup(1)]),
        },
        (10.0, 30.0, 60.0),
        settings={"baseline.steps": 4000},
        on_gpu=True,
    ),
    "fashion_cnn": Case(
        "fashion_cnn",
        tuple(
            Genotype("cnn", depth=2, width=list(width), kernel=3, pool=2, head_width=[64])
            for width in ((4, 8), (8, 16), (16, 32))
        ),
        {
            "ensemble of 5": ensemble(5, 20.0, 4000, 2e-3),
            "sgld": {**_CONVOLVED, **CHAINS},
        },
        {
            "4,000 steps, clean, 0.5 labels": recipe(4000, [CLEAN], label_weight=0.5),
            "4,000 steps, clean and mixed": recipe(4000, [CLEAN, *mixup(1)]),
        },
        (10.0, 30.0, 100.0),
        seeds=2,
        on_gpu=True,
    ),
}
