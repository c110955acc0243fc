"""What a proposer knows of a study beside its records."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gped_nas.search.document import StudyDocument
from gped_nas.search.record import TrialRecord
from gped_nas.search.region import Region
from gped_nas.search.space import SearchSpace
from gped_nas.search.volume import reference_box


@dataclass(frozen=True)
class Facts:
    """What costs follow from, and what of a front is of use.

    Attributes:
        input_shape: of one input.
        num_outputs: raw outputs of a student.
        region: which students are of use; None where everybody is.
        ends: by objective, the two ends of its side of the reference box: its best value and the
            worst one that counts. An objective without ends gets those of the records.
        declared: by objective, the worst value that it declares, which is what somebody pays who
            knows nothing. What is worse still is as bad.
        earlier: students of another study, see ``search.earlier``. Models learn from them; they are
            no trainings of this one, and add nothing to its front.
    """

    input_shape: tuple[int, ...]
    num_outputs: int
    region: Region | None = None
    ends: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    declared: Mapping[str, float] = field(default_factory=dict)
    earlier: tuple[TrialRecord, ...] = ()


def facts_of(
    space: SearchSpace, document: StudyDocument, input_shape: tuple[int, ...], num_classes: int
) -> Facts:
    """The facts of a study.

    Args:
        space: that is searched.
        document: of its study.
        input_shape, num_classes: of the dataset.
    """
    ends: dict[str, tuple[float, float]] = {}
    declared: dict[str, float] = {}
    axes = document.description.box if document.description else None
    if axes is not None:
        box = reference_box(space.objectives, axes, document.region)
        for i, goal in enumerate(space.objectives):
            ends[goal.name] = (box.best[i], box.worst[i])
            declared[goal.name] = axes.worst[i]
    return Facts(input_shape, space.num_outputs(num_classes), document.region, ends, declared)
