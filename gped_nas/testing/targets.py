"""What every target promises: it is averaged, learned, derived and written as it says."""

from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from gped_nas.distill.feed import DistillationSet, PosteriorPredictions, check_update
from gped_nas.distill.kernel import distill
from gped_nas.distill.recipe import Recipe, Update
from gped_nas.errors import ConfigError
from gped_nas.evaluate.base import METRICS
from gped_nas.models.base import Genotype
from gped_nas.posterior.likelihoods import Prediction
from gped_nas.targets.base import (
    MAIN_TARGET,
    TARGETS,
    DerivedTarget,
    Expectations,
    LearnedTarget,
    MeanTarget,
    QuantileTarget,
    StatisticTarget,
    Target,
    check_targets,
    parse_targets,
)
from gped_nas.targets.expectations import expect, sample_values
from gped_nas.targets.layout import HeadLayout
from gped_nas.testing.promises import require, require_close, require_refusal, run_all

NUM_SAMPLES, NUM_INPUTS = 7, 5
DEFAULT_CLASSES = 4


@dataclass(frozen=True)
class TargetCase:
    """A target with its default settings, and random posterior samples."""

    name: str

    def __str__(self) -> str:
        return self.name

    @property
    def target(self) -> Target:
        """The target itself."""
        return TARGETS[self.name]

    @property
    def num_classes(self) -> int:
        """C, as the target's settings have it where they do."""
        return self.target.num_classes or DEFAULT_CLASSES

    @property
    def listed(self) -> tuple[str, ...]:
        """The shortest list of targets that a student of this one may have."""
        main = MAIN_TARGET[self.target.prediction]
        return tuple(dict.fromkeys((main, *self.target.requires, self.name)))

    @cached_property
    def layout(self) -> HeadLayout:
        """The heads of such a student."""
        return HeadLayout(self.listed, self.num_classes)

    @property
    def weight(self) -> Tensor:
        """Weights of the posterior samples, (S,); one is 0."""
        return torch.tensor([1.0, 0.0, 2.0, 5.0, 0.5, 1.0, 3.0], dtype=torch.float64)

    @property
    def samples(self) -> Tensor:
        """What random posterior samples predict, (S, N, C)."""
        noise = _noise((NUM_SAMPLES, NUM_INPUTS, self.num_classes), seed=0)
        return _predicted(3 * noise, self.target.prediction)

    def raw(self, seed: int = 1) -> Tensor:
        """Random raw outputs of a student, (N, U)."""
        return _noise((NUM_INPUTS, self.layout.num_outputs), seed=seed)

    def expectations(self) -> Expectations:
        """What the teacher says of each target that has a loss."""
        values: dict[str, Tensor] = {}
        for target in self.layout.learned:
            if isinstance(target, QuantileTarget):
                values[target.name] = target.values(self.samples[0])
            else:
                values[target.name] = expect(target, self.samples, self.weight)
        return values

    def gradient(self, expectations: Expectations) -> Tensor:
        """Of the loss with respect to the raw outputs, (N, U)."""
        raw = self.raw().requires_grad_()
        (gradient,) = torch.autograd.grad(self.layout.loss(raw, expectations, {}), raw)
        return gradient


def check_target(name: str) -> None:
    """Try a registered target.

    Raises:
        AssertionError: it breaks a promise; the message says which.
    """
    run_all(TARGET_CHECKS, [TargetCase(name)])


def it_says_what_it_is(case: TargetCase) -> None:
    """It has a label, requires targets that there are, and is read by a metric."""
    target = case.target
    require(bool(target.label), f"target '{case}': found no label, expected one with its unit")
    check_targets(case.listed, f"target '{case}'")
    require(
        any(case.name in metric.reads for metric in METRICS.values()),
        f"target '{case}': no metric reads it, so that students would learn it unmeasured; "
        f"register one with reads=('{case}',)",
    )


def it_is_written_and_read_again(case: TargetCase) -> None:
    """Settings survive a file."""
    targets = parse_targets(case.listed, f"target '{case}'")
    written = [target.to_json() for target in targets]
    again = parse_targets(written, f"target '{case}'")
    require(
        again == targets and [target.to_json() for target in again] == written,
        f"target '{case}': written as {written} it is read as {again}",
    )


def shapes_are_those_that_it_states(case: TargetCase) -> None:
    """Heads, predictions, values and losses have the shapes that the classes promise."""
    target, layout = case.target, case.layout
    if isinstance(target, LearnedTarget):
        columns = layout.slices[case.name]
        num, stated = columns.stop - columns.start, target.num_outputs(case.num_classes)
        require(num == stated, f"target '{case}': has {num} raw outputs, expected {stated}")
        values = target.values(case.samples)
        require(
            values.dim() == 3 and values.shape[:2] == (NUM_SAMPLES, NUM_INPUTS),
            f"target '{case}': values are {tuple(values.shape)}, expected ({NUM_SAMPLES}, "
            f"{NUM_INPUTS}, G); a single number each is unsqueeze(-1)",
        )

    stacked = torch.stack([case.raw(), 2 * case.raw()])  # a population of two
    predicted = layout.predict(stacked)[case.name]
    require(
        predicted.shape[:2] == (2, NUM_INPUTS) and bool(predicted.isfinite().all()),
        f"target '{case}': two students predict {tuple(predicted.shape)}, expected finite numbers "
        f"(2, {NUM_INPUTS}, G)",
    )
    if not isinstance(target, QuantileTarget):  # as many numbers as levels for each value
        average = target.shown(expect(target, case.samples, case.weight))
        require(
            predicted.shape[2:] == average.shape[1:],
            f"target '{case}': students predict {tuple(predicted.shape[2:])} numbers, "
            f"the teacher's average has {tuple(average.shape[1:])}",
        )

    expectations = case.expectations()
    losses = layout.loss(stacked, expectations, {})
    lone = torch.stack([layout.loss(raw, expectations, {}) for raw in stacked])
    require_close(losses, lone, 1e-9, f"target '{case}': losses of two students together and alone")


def averages_and_single_samples_give_the_same_gradient(case: TargetCase) -> None:
    """A mean target is affine in what is averaged: training on samples has no bias."""
    if not isinstance(case.target, MeanTarget):
        return

    averaged = case.gradient(case.expectations())
    weight = case.weight / case.weight.sum()
    streamed = torch.zeros_like(averaged)
    for sample, share in zip(case.samples, weight, strict=True):
        streamed += share * case.gradient(sample_values(case.layout.targets, sample))
    require_close(
        averaged,
        streamed,
        1e-6,
        f"target '{case}': gradients of the loss on the average, and on samples one by one; a loss "
        "whose minimum is the average is affine in it (squared error, cross-entropy)",
    )

    for update in ("averaged", "newest", "running_mean"):
        check_update([case.target], update, f"target '{case}'")


def averages_of_quantiles_are_refused(case: TargetCase) -> None:
    """A quantile target learns from single samples alone."""
    target = case.target
    if not isinstance(target, QuantileTarget):
        return
    check_update([target], "newest", f"target '{case}'")
    for update in ("averaged", "running_mean"):
        require_refusal(
            partial(check_update, [target], update, f"target '{case}'"),
            (ConfigError,),
            f"target '{case}': learns from update {update}, which would be the mean",
        )


def statistics_are_of_all_samples(case: TargetCase) -> None:
    """A statistic learns from all samples alone, and does not know their order."""
    target = case.target
    if not isinstance(target, StatisticTarget):
        return
    check_update([target], "averaged", f"target '{case}'")
    for update in ("newest", "running_mean"):
        require_refusal(
            partial(check_update, [target], update, f"target '{case}'"),
            (ConfigError,),
            f"target '{case}': learns from update {update}, which shows single samples",
        )

    order = torch.tensor([4, 2, 6, 0, 5, 1, 3])
    require_close(
        expect(target, case.samples[order], case.weight[order]),
        expect(target, case.samples, case.weight),
        1e-9,
        f"target '{case}': the statistic of samples in another order",
    )
    twice = torch.cat([case.samples, case.samples])
    require_close(
        expect(target, twice, torch.cat([case.weight, 3 * case.weight])),
        expect(target, case.samples, case.weight),
        1e-9,
        f"target '{case}': the statistic of samples that are there twice",
    )


def one_sample_with_all_the_weight_is_the_expectation(case: TargetCase) -> None:
    """Averages are linear in the weights, and of the samples' dtype."""
    target = case.target
    if isinstance(target, QuantileTarget):
        return

    weight = torch.zeros(NUM_SAMPLES)
    weight[3] = 0.2
    average = expect(target, case.samples, weight)
    alone = expect(target, case.samples[3:4], torch.ones(1))
    require_close(average, alone, 1e-9, f"target '{case}': one sample with all the weight")
    if isinstance(target, MeanTarget):
        require_close(
            average,
            target.values(case.samples[3]),
            1e-9,
            f"target '{case}': the average of one sample, and what the sample says",
        )
    require(
        average.dtype == case.samples.dtype,
        f"target '{case}': averages are {average.dtype}, expected {case.samples.dtype}",
    )


def what_is_derived_is_derived_from_averages(case: TargetCase) -> None:
    """Teacher and student compute it alike, from the targets that it requires."""
    target = case.target
    if not isinstance(target, DerivedTarget):
        return
    shown = {}
    for name in target.requires:
        source = TARGETS[name]
        shown[name] = source.shown(expect(source, case.samples, case.weight))
    require_close(
        expect(target, case.samples, case.weight),
        target.derive(shown),
        1e-9,
        f"target '{case}': the teacher's value, and what derive makes of its averages",
    )

    predicted = case.layout.predict(case.raw())
    derived = target.derive({name: predicted[name] for name in target.requires})
    scale = max(1.0, float(derived.abs().max()))
    require_close(
        predicted[case.name],
        derived,
        1e-9 * scale,
        f"target '{case}': a student's value, and what derive makes of its predictions",
    )


def students_learn_it(case: TargetCase) -> None:
    """The same three posterior samples at every input: students come nearer to their average."""
    target, num_inputs = case.target, 40
    if isinstance(target, QuantileTarget):
        return

    noise = 2 * _noise((3, 1, case.num_classes), seed=0).float()
    samples = _predicted(noise, target.prediction).expand(3, num_inputs, -1)
    wanted = target.shown(expect(target, samples, torch.ones(3)))

    inputs = 0.1 * _noise((num_inputs, 6), seed=1).float()
    predictions = PosteriorPredictions([[samples.numpy()]], torch.full((3,), 1 / 3))
    update: Update = "newest"
    taught: dict[str, Tensor] = {}
    if any(isinstance(target, StatisticTarget) for target in case.layout.learned):
        update = "averaged"
        for learned in case.layout.learned:
            taught[learned.name] = expect(learned, samples, torch.ones(3))
    data = DistillationSet(inputs, taught, case.layout, predictions)

    errors = []
    for steps in (1, 600):
        recipe = Recipe(update=update, steps=steps, batch_size=num_inputs, warmup=0, lr=0.05)
        (student,) = distill(
            [Genotype("mlp", depth=0)], data, recipe, seed=0, device=torch.device("cpu")
        ).students
        weight, bias = student.params.values()
        predicted = case.layout.predict(inputs @ weight.mT + bias)[case.name]
        errors.append(float((predicted - wanted).abs().mean()))

    require(
        errors[1] < 0.2 * errors[0],
        f"target '{case}': students are off by {errors[0]:.3g} after 1 step and {errors[1]:.3g} "
        "after 600, expected less than a fifth; the loss's minimum may not be the average",
    )


TARGET_CHECKS = (
    it_says_what_it_is,
    it_is_written_and_read_again,
    shapes_are_those_that_it_states,
    averages_and_single_samples_give_the_same_gradient,
    averages_of_quantiles_are_refused,
    statistics_are_of_all_samples,
    one_sample_with_all_the_weight_is_the_expectation,
    what_is_derived_is_derived_from_averages,
    students_learn_it,
)
"""Every promise of a target: functions of a ``TargetCase``."""


def _noise(shape: tuple[int, ...], *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _predicted(noise: Tensor, prediction: Prediction) -> Tensor:
    """Normal numbers (..., C) to what a posterior sample may predict."""
    log_prob = noise.log_softmax(-1)
    if prediction == "log_prob":
        return log_prob
    return torch.stack([log_prob[..., 0], log_prob[..., 1].exp()], -1)
