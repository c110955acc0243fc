"""What students learn from, and what rungs look at: a teacher's inputs with what it says there."""

import numpy as np
import torch

from gped_nas.api.session import Session
from gped_nas.api.teacher import Teacher
from gped_nas.distill.feed import DistillationSet, PosteriorPredictions
from gped_nas.errors import DataError
from gped_nas.targets.base import expect, stream_expectation


def distillation_set(teacher: Teacher) -> DistillationSet:
    """What students learn from: the inputs of all views with what the teacher says there, as the
    recipe reads it.
    """
    space, dataset, stream = teacher.space, teacher.dataset, teacher.stream
    if not stream.has_weights:
        return _imported_set(teacher)
    seen = teacher.views
    inputs = torch.cat([teacher.inputs(view) for view in seen])
    expectations, samples = {}, None
    if space.recipe.update == "averaged":
        expectations = {
            target.name: torch.cat([stream_expectation(stream, target, view.name) for view in seen])
            for target in space.targets
            if target.kind == "mean"
        }
    elif space.recipe.mode == "cached":
        samples = PosteriorPredictions(
            [list(stream.prediction_maps(view.name)) for view in seen], stream.weight_S
        )
    return DistillationSet(inputs, expectations, space.targets, dataset.num_classes, samples)


def rung_set(teacher: Teacher, session: Session) -> DistillationSet | None:
    """What rungs look at: clean validation inputs with what the teacher says there; None where the
    recipe has none.
    """
    space, dataset, stream = teacher.space, teacher.dataset, teacher.stream
    if not space.recipe.rungs:
        return None
    predicted = teacher.predicted("validation", session).double()
    expectations = {
        t.name: expect(t, predicted, stream.weight_S).float()
        for t in space.targets
        if t.kind == "mean"
    }
    return DistillationSet(
        dataset.inputs("validation"), expectations, space.targets, dataset.num_classes
    )


def _imported_set(teacher: Teacher) -> DistillationSet:
    """The imported inputs that are neither validation nor test inputs."""
    space, dataset = teacher.space, teacher.dataset
    inputs, log_prob_SMC = teacher.stream.imported()
    held_out = {
        row.tobytes()
        for part in ("validation", "test")
        for row in dataset.inputs(part).flatten(1).numpy()
    }
    keep = [i for i, row in enumerate(np.array(inputs)) if row.tobytes() not in held_out]
    if not keep:
        raise DataError(
            "the imported predictions are all at validation or test inputs; "
            "add the ensemble's predictions at training or other inputs to distil on"
        )
    log_prob = log_prob_SMC[:, keep]
    weight = teacher.stream.weight_S
    return DistillationSet(
        torch.from_numpy(np.array(inputs[keep])).view(-1, *dataset.input_shape),
        {
            t.name: expect(t, log_prob.double(), weight).float()
            for t in space.targets
            if t.kind == "mean"
        },
        space.targets,
        dataset.num_classes,
        PosteriorPredictions([[log_prob.numpy()]], weight),
    )
