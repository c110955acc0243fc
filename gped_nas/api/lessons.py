"""What students learn from, and what rungs look at: a teacher's inputs with what it says there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gped_nas.api.imported import rows_to_learn_from
from gped_nas.api.labels import known_labels, labels_at_inputs, labels_at_views
from gped_nas.api.sampling import PREDICT_BATCH
from gped_nas.api.teacher import Teacher
from gped_nas.data.rows import in_batches, join
from gped_nas.data.views import View
from gped_nas.distill.feed import DistillationSet, PosteriorPredictions
from gped_nas.distill.fresh import FreshViews
from gped_nas.io import Array
from gped_nas.targets.base import Expectations, MeanTarget, StatisticTarget, for_labels
from gped_nas.targets.expectations import expect_all, sample_values, stream_expectations
from gped_nas.targets.layout import HeadLayout
from gped_nas.targets.statistics import fitted_to, statistic
from gped_nas.targets.stream_statistics import stream_fit, stream_statistic


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

    layout = space.layout(dataset.num_outputs, dataset.label_normalization)
    views = teacher.resolve_views()
    labels = labels_at_views(space, views, dataset, layout)
    if space.recipe.mode == "online":  # students meet a chain of their own
        inputs = join([teacher.inputs(view) for view in views])
        return DistillationSet(inputs, {}, layout, labels=labels, reach=_reach(teacher))

    is_fresh = space.recipe.draw_views == "fresh"  # then inputs are untouched here
    asked = [space.stored_view(view) for view in views]
    shown = asked if is_fresh else views
    inputs_of_views = [teacher.ensure_view(view) for view in shown]

    expectations: dict[str, Tensor] = {}
    samples = None
    if space.recipe.update == "averaged":
        targets = _averaged_targets(teacher)
        device = teacher.session.accelerator
        by_view = [stream_expectations(stream, targets, view.name, device=device) for view in asked]
        for target in targets:
            expectations[target.name] = torch.cat([values[target.name] for values in by_view])
        fitted = _fitted(teacher)
        for stat in _statistics(teacher):
            parts = [stream_statistic(stream, stat, v.name, fitted[stat.name]) for v in asked]
            expectations[stat.name] = torch.cat(parts)
    else:
        maps = [list(stream.prediction_maps(view.name)) for view in asked]
        samples = PosteriorPredictions(maps, stream.weight_S)

    fresh = _fresh_views(teacher, views, [len(x) for x in inputs_of_views]) if is_fresh else None
    inputs = join(inputs_of_views)
    return DistillationSet(
        inputs, expectations, layout, samples, labels, fresh, reach=_reach(teacher)
    )


def _reach(teacher: Teacher) -> Tensor | None:
    """How far normalized inputs move within a radius of 1; None without certified training."""
    if not teacher.space.recipe.certify:
        return None
    dataset = teacher.dataset
    nowhere = torch.zeros((1, *dataset.raw_shape), dtype=torch.float64)
    moved = nowhere + dataset.scale.unit(nowhere)
    return (dataset.normalization(moved) - dataset.normalization(nowhere))[0].abs()


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
    expectations = _expect(teacher, teacher.predicted("validation"), _fitted(teacher))
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
    inputs, rows, log_prob = _imported_rows(teacher)
    origin_M = teacher.stream.imported_origin()

    untouched = torch.from_numpy(np.array(inputs[rows])).view(-1, *dataset.input_shape)
    views = space.views
    layout = space.layout(dataset.num_outputs, dataset.label_normalization)
    answers = _expect(teacher, log_prob, _fitted(teacher))
    is_fresh = space.recipe.draw_views == "fresh"
    inputs_of_views = [untouched if is_fresh else view.move(untouched) for view in views]
    labels = None
    if space.largest_label_weight:
        labels = labels_at_inputs(space, inputs, dataset, layout, rows=rows, origin_M=origin_M)
    return DistillationSet(
        torch.cat(inputs_of_views),
        {name: answer.repeat(len(views), 1) for name, answer in answers.items()},
        layout,
        PosteriorPredictions([[log_prob.numpy()]] * len(views), teacher.stream.weight_S),
        labels,
        fresh=FreshViews(views, [len(untouched)] * len(views)) if is_fresh else None,
        reach=_reach(teacher),
    )


def _imported_rows(teacher: Teacher) -> tuple[Array, list[int], Tensor]:
    """Imported inputs (M, D), which rows of these students learn at, and what samples say there.

    Students must meet no validation and no test input.
    """
    inputs, log_prob_SMC = teacher.stream.imported()
    rows = rows_to_learn_from(inputs, teacher.dataset, teacher.stream.imported_origin())
    return inputs, rows, log_prob_SMC[:, rows]


def _fresh_views(teacher: Teacher, views: Sequence[View], num_inputs: Sequence[int]) -> FreshViews:
    """Views that are drawn in each step, with the teacher where one has answers of its own."""
    is_asked = any(view.answers == "own" and not view.is_untouched for view in views)
    if not is_asked:
        return FreshViews(views, num_inputs)

    stream, fitted = teacher.stream, _fitted(teacher)

    def ask(x: Tensor) -> Expectations:
        predict = teacher.predictor(x)
        answers = [predict(stream.theta(index)).cpu() for index in range(stream.num_samples)]
        return _expect(teacher, torch.stack(answers), fitted)

    return FreshViews(views, num_inputs, ask)


def label_set(teacher: Teacher, data: DistillationSet) -> DistillationSet:
    """The students' inputs whose label is known, with the labels alone.

    Where the views leave no label known, they are the training inputs as they are.

    Args:
        teacher: whom students imitate.
        data: what they learn from.
    """
    space, dataset = teacher.space, teacher.dataset
    layout = HeadLayout([data.layout.main], dataset.num_outputs)
    labels = _labels_of(teacher, layout)

    is_known_M = ~labels.isnan().any(1)
    known = is_known_M.nonzero().flatten()
    if not len(known):
        of_train = layout.labels(dataset.normalized_labels("train"))
        answers = {layout.main.name: of_train}
        return DistillationSet(dataset.inputs("train"), answers, layout, reach=data.reach)

    fresh = None
    if data.fresh is not None:
        num_known = []
        for part in torch.split(labels, list(data.fresh.num_inputs)):
            num_known.append(int((~part.isnan().any(1)).sum()))
        # a label is that of the input as it is: nobody is asked at the moved one
        views = [replace(view, answers="clean") for view in space.views]
        fresh = FreshViews(views, num_known)
    expectations = {layout.main.name: labels[known]}
    inputs = _known_inputs(teacher, data, is_known_M)
    return DistillationSet(inputs, expectations, layout, fresh=fresh, reach=data.reach)


def _known_inputs(teacher: Teacher, data: DistillationSet, is_known_M: Tensor) -> Tensor:
    """The students' inputs whose label is known; whole views stay in their files."""
    if bool(is_known_M.all()):
        return data.inputs
    if not teacher.stream.has_weights:
        return data.inputs[is_known_M]

    views = [v.untouched if data.fresh is not None else v for v in teacher.resolve_views()]
    by_view = [teacher.inputs(view) for view in views]
    parts = torch.split(is_known_M, [len(inputs) for inputs in by_view])
    known = []
    for inputs, is_known in zip(by_view, parts, strict=True):
        if bool(is_known.all()):
            known.append(inputs)
        elif bool(is_known.any()):
            known.append(inputs[is_known.nonzero().flatten()])
    return join(known)


def _labels_of(teacher: Teacher, layout: HeadLayout) -> Tensor:
    """What labels say at the inputs that students learn at, (M, G); NaN where none is known."""
    space, dataset, stream = teacher.space, teacher.dataset, teacher.stream
    if stream.has_weights:
        return known_labels(space.views, dataset, layout)

    inputs, _ = stream.imported()
    origin_M = stream.imported_origin()
    rows = rows_to_learn_from(inputs, dataset, origin_M)
    return labels_at_inputs(space, inputs, dataset, layout, rows=rows, origin_M=origin_M)


def one_network_set(
    teacher: Teacher, data: DistillationSet, predict: Callable[[Tensor], Tensor]
) -> DistillationSet:
    """The students' inputs with what one network says there in the posterior's place.

    Args:
        teacher: whose networks are known.
        data: what students learn from.
        predict: normalized inputs (B, *input_shape) to what the network predicts, (B, G).
    """
    space, targets = teacher.space, data.layout.targets

    def ask(x: Tensor) -> Expectations:
        values = sample_values(targets, in_batches(predict, x, PREDICT_BATCH))
        return {name: value.float() for name, value in values.items()}

    by_view = [ask(teacher.inputs(space.stored_view(view))) for view in teacher.resolve_views()]
    answers = {name: torch.cat([values[name] for values in by_view]) for name in by_view[0]}
    fresh = data.fresh
    if fresh is not None and fresh.ask is not None:
        fresh = replace(fresh, ask=ask)
    return replace(data, expectations=answers, samples=None, fresh=fresh)


def _averaged_targets(teacher: Teacher) -> list[MeanTarget]:
    """The targets that students can learn from averages."""
    targets = for_labels(teacher.space.targets, teacher.dataset.label_normalization)
    return [target for target in targets if isinstance(target, MeanTarget)]


def _statistics(teacher: Teacher) -> list[StatisticTarget]:
    """The targets that are statistics of all samples."""
    targets = for_labels(teacher.space.targets, teacher.dataset.label_normalization)
    return [target for target in targets if isinstance(target, StatisticTarget)]


def _fitted(teacher: Teacher) -> dict[str, Tensor | None]:
    """What statistics have to know of all inputs that students learn at, by target.

    It is one for views, for fresh draws of these and for validation, so that what students are
    shown there goes together.
    """
    stream = teacher.stream
    fitted: dict[str, Tensor | None] = {}
    for target in _statistics(teacher):
        if target.fit is None:
            fitted[target.name] = None
        elif stream.has_weights:
            asked = [teacher.space.stored_view(view) for view in teacher.resolve_views()]
            for view in asked:
                teacher.ensure_view(view)
            fitted[target.name] = stream_fit(stream, target, [view.name for view in asked])
        else:
            _, _, log_prob = _imported_rows(teacher)
            fitted[target.name] = fitted_to(target, [log_prob.double()], stream.weight_S)
    return fitted


def _expect(
    teacher: Teacher, predictions_SNC: Tensor, fitted: Mapping[str, Tensor | None]
) -> dict[str, Tensor]:
    """What the teacher says of each target that can be learned from all samples, float32."""
    weight_S = teacher.stream.weight_S
    predictions = predictions_SNC.double()
    values = expect_all(_averaged_targets(teacher), predictions, weight_S)
    for target in _statistics(teacher):
        values[target.name] = statistic(target, predictions, weight_S, fitted[target.name])
    return {name: value.float() for name, value in values.items()}
