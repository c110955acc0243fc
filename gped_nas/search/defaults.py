"""What a new space says of its students' training: recipe and range of the penalty, by the family.

Spaces that exist say it themselves. What stands here was measured, see
``reports/notes/recipes-2026-11-28.md``:

* The best step size belongs to the family and its norm. It is known for ``mlp`` and for networks
  that are trained with a norm. For others a probe chooses: short trainings like smaller step sizes
  than long ones, so that a probe is for what nobody has measured.
* Warm-up is a tenth of the steps, and steps grow with the square root of the examples: twice the
  steps on four times the data, so that small sets are seen often and large ones cost no day.
* The penalty goes up to where it removes most units of a network that still answers; beyond that it
  kills all of them, and the student is the class frequencies.
* Half of the loss is the labels' for pictures of which the class alone is to be predicted. Where
  uncertainty is asked for, labels spoil it; on tables they gained nothing.
"""

from collections.abc import Collection
from dataclasses import dataclass
from math import sqrt
from typing import Any

from gped_nas.targets.base import MAIN_TARGET

_BATCH = 128


@dataclass(frozen=True)
class _Kind:
    """How students of one kind learn.

    Attributes:
        lr: peak step size.
        lr_probe: step sizes that a probe chooses from instead; none where ``lr`` was measured.
        weight_decay: of AdamW.
        steps_a_root: steps for each square root of the number of examples.
        penalties: weakest and strongest group penalty.
    """

    lr: float
    lr_probe: tuple[float, ...]
    weight_decay: float
    steps_a_root: int
    penalties: tuple[float, float]


_MLP = _Kind(1.6e-2, (), 0.1, 60, (1e-4, 1e-2))
_NORMED = _Kind(3.2e-2, (), 0.01, 30, (1e-5, 3e-4))
_PLAIN = _Kind(4e-3, (2e-3, 4e-3, 8e-3), 0.01, 30, (1e-5, 3e-4))
_FEWEST_STEPS, _MOST_STEPS = 500, 6000


def default_recipe(
    family: str, num_examples: int, *, targets: Collection[str], norm: str = "none"
) -> dict[str, Any]:
    """Settings of a new space's recipe, plain data.

    Args:
        family: of the students.
        num_examples: training examples with a label.
        targets: names of what students are distilled for.
        norm: of the students while they are trained.
    """
    kind = _kind(family, norm)
    steps = min(max(kind.steps_a_root * sqrt(num_examples), _FEWEST_STEPS), _MOST_STEPS)
    steps = 100 * round(steps / 100)
    recipe: dict[str, Any] = {
        "steps": steps,
        "batch_size": _BATCH,
        "warmup": steps // 10,
        "weight_decay": kind.weight_decay,
        "lr": kind.lr,
        "label_weight": default_label_weight(family, targets),
    }
    if kind.lr_probe:
        recipe["lr_probe"] = list(kind.lr_probe)
    return recipe


def default_label_weight(family: str, targets: Collection[str]) -> float:
    """The share of the labels in a new space: half for pictures' classes alone, else none.

    Args:
        family: of the students.
        targets: names of what students are distilled for.
    """
    is_class_alone = set(targets) == {MAIN_TARGET["log_prob"]}
    return 0.5 if is_class_alone and family != "mlp" else 0.0


def default_penalties(family: str, norm: str = "none") -> dict[str, Any]:
    """The range of ``group_penalty`` in a new space, as a space writes it."""
    return {"float": list(_kind(family, norm).penalties), "log": True}


def _kind(family: str, norm: str) -> _Kind:
    if family == "mlp":
        return _MLP
    return _PLAIN if norm == "none" else _NORMED
