"""A whole search space for a dataset: teacher, views, students and recipe by what the data are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gped_nas.api.suggestion import SuggestedTeacher, suggest_teacher
from gped_nas.data.base import Dataset
from gped_nas.models.base import Genotype

_SMALL, _LARGE = 1_000, 5_000
"""Training examples below which a search is short, and from which networks are wider."""
_STUDENT_STEPS = (500, 1_500)
_EPOCHS = 200


@dataclass(frozen=True)
class Proposal:
    """What ``init`` writes beside the dataset.

    Attributes:
        teacher: the ensemble.
        views: settings of each.
        targets: names.
        students: ranges of the genotype, by value.
        recipe: settings of students' training.
        n_trials: of the search.
    """

    teacher: SuggestedTeacher
    views: tuple[Mapping[str, Any], ...]
    targets: tuple[str, ...]
    students: Mapping[str, Any]
    recipe: Mapping[str, Any]
    n_trials: int

    @property
    def family(self) -> str:
        """Of teacher and students."""
        return self.teacher.genotype.family


def propose(
    dataset: Dataset, *, report: Callable[[str, int, int], None] = lambda what, done, total: None
) -> Proposal:
    """A search space that suits a dataset.

    Args:
        dataset: its training part is read, and quick networks are trained on it.
        report: what is done, how much of it, and of how much.
    """
    num = len(dataset.train)
    is_small, is_large = num < _SMALL, num >= _LARGE
    teacher = suggest_teacher(
        dataset, Genotype("mlp", depth=2, width=128 if is_large else 64), report=report
    )

    widths = [4, 8, 16, 32, 64]
    students = {
        "depth": {"int": [1, 2 if is_small else 3]},
        "width": {"choices": [*widths, 128] if is_large else widths},
        "group_penalty": {"float": [1e-5, 1e-2], "log": True},
        "storage_dtype": {"choices": ["float32", "float16", "int8"]},
    }
    is_class = dataset.task == "classification"
    return Proposal(
        teacher=teacher,
        views=({"policy": "clean"}, {"policy": "noise", "std": 0.1}, {"policy": "mixup"}),
        targets=("predictive", "expected_entropy") if is_class else ("predictive_normal",),
        students=students,
        recipe={"steps": _student_steps(num), "batch_size": 128, "lr": 5e-3},
        n_trials=24 if is_small else 48,
    )


def _student_steps(num_examples: int) -> int:
    """Steps of a student, in whole hundreds."""
    low, high = _STUDENT_STEPS
    return 100 * round(min(max(_EPOCHS * num_examples / 128, low), high) / 100)
