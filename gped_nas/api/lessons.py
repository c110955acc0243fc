"""What students learn from, and what rungs look at: a teacher's inputs with what it says there."""

import numpy as np
import torch
from torch import Tensor

from gped_nas.api.imported import rows_to_learn_from
from gped_nas.api.labels import labels_at_inputs, labels_at_views
from gped_nas.api.teacher import Teacher
from gped_nas.distill.feed import DistillationSet, PosteriorPredictions
from gped_nas.search.space import SearchSpace
from gped_nas.targets.base import MeanTarget
from gped_nas.targets.expectations import expect_all, stream_expectations
from gped_nas.targets.layout import HeadLayout


def distillation_set(teacher: Teacher) -> DistillationSet:
    """What students learn from: the inputs of all views with what the teacher says there.

    It says that as the recipe reads it. Predictions that are missing are made.

    Raises:
        Interrupted: the session said stop; what is written is kept.
        DataError: imported predictions leave nothing to learn from.
    """
    space, dataset, stream = teacher.space, teacher.dataset, teacher.stream
    if not stream.has_weights:
        return _imported_set(teacher)

    layout = space.layout(dataset.num_outputs)
    views = teacher.resolve_views()
    labels = labels_at_views(space, views, dataset, layout)
    if space.recipe.mode == "online":  # students meet a chain of their own
        inputs = torch.cat([teacher.inputs(view) for view in views])
        return DistillationSet(inputs, {}, layout, labels=labels)

    inputs = torch.cat([teacher.ensure_view(view) for view in views])
    expectations: dict[str, Tensor] = {}
    samples = None
    if space.recipe.update == "averaged":
        targets = _averaged_targets(space)
        by_view = [stream_expectations(stream, targets, view.asked.name) for view in views]
        for target in targets:
            expectations[target.name] = torch.cat([values[target.name] for values in by_view])
    else:
        maps = [list(stream.prediction_maps(view.asked.name)) for view in views]
        samples = PosteriorPredictions(maps, stream.weight_S)

    return DistillationSet(inputs, expectations, layout, samples, labels)


def rung_set(teacher: Teacher, layout: HeadLayout) -> DistillationSet | None:
    """What rungs look at: clean validation inputs with what the teacher says there.

    Args:
        teacher: whom students imitate.
        layout: their heads.

    Returns:
        The set; None where the recipe has no rungs.
    """
    return validation_set(teacher, layout) if teacher.space.recipe.rungs else None


def validation_set(teacher: Teacher, layout: HeadLayout) -> DistillationSet:
    """Clean validation inputs with what the teacher says there, and with labels where they count.

    Args:
        teacher: whom students imitate.
        layout: their heads.
    """
    expectations = _expect(teacher, teacher.predicted("validation"))
    labels = None
    if teacher.space.largest_label_weight:
        labels = layout.labels(teacher.dataset.normalized_labels("validation"))
    inputs = teacher.dataset.inputs("validation")
    return DistillationSet(inputs, expectations, layout, labels=labels)


def _imported_set(teacher: Teacher) -> DistillationSet:
    """Each view of the imported inputs that are neither validation nor test inputs.

    The ensemble's answers are those at the inputs as they are, at every view.
    """
    space, dataset = teacher.space, teacher.dataset
    inputs, log_prob_SMC = teacher.stream.imported()

    # students must meet no validation and no test input
    rows = rows_to_learn_from(inputs, dataset, teacher.stream.imported_origin())

    untouched = torch.from_numpy(np.array(inputs[rows])).view(-1, *dataset.input_shape)
    log_prob = log_prob_SMC[:, rows]
    views = space.views
    layout = space.layout(dataset.num_outputs)
    answers = _expect(teacher, log_prob)
    return DistillationSet(
        torch.cat([view.move(untouched) for view in views]),
        {name: answer.repeat(len(views), 1) for name, answer in answers.items()},
        layout,
        PosteriorPredictions([[log_prob.numpy()]] * len(views), teacher.stream.weight_S),
        labels_at_inputs(space, np.array(inputs[rows]), dataset, layout),
    )


def _averaged_targets(space: SearchSpace) -> list[MeanTarget]:
    """The targets that students can learn from averages."""
    return [target for target in space.targets if isinstance(target, MeanTarget)]


def _expect(teacher: Teacher, predictions_SNC: Tensor) -> dict[str, Tensor]:
    """What the teacher says on average of each target that is averaged, float32."""
    targets = _averaged_targets(teacher.space)
    averages = expect_all(targets, predictions_SNC.double(), teacher.stream.weight_S)
    return {name: average.float() for name, average in averages.items()}
