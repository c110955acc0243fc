"""A teacher that works on the data, chosen by a few quick networks.

The default is a small deep ensemble: Adam trains its members, so that no step size depends on the
size of the potential, under a prior that scales with each layer's fan-in. How strong the prior must
be differs between data by a factor of forty: weak labels need a strong one, few clean examples a
weak one. So a few strengths are tried on parts of the training examples, which are left out in
turn; the validation part stays unseen. The strongest one is taken that is no worse than the best
by more than a standard error (Breiman, Friedman, Olshen & Stone 1984).

For real labels the same trials give the noise: what a network is wrong by where it was not trained.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.data.base import Dataset
from gped_nas.errors import DivergenceError
from gped_nas.models.base import FAMILIES, Genotype
from gped_nas.posterior.likelihoods import CategoricalLikelihood, GaussianLikelihood, Likelihood
from gped_nas.posterior.map import MapConfig, map_estimate
from gped_nas.posterior.priors import FanInGaussianPrior
from gped_nas.posterior.problem import posterior_of, unflatten

_TRIED_NOISE = 0.5
_NOISE_RANGE = (0.03, 1.0)
_MOST_EXAMPLES = 3_000
_FOLDS = 3
_ONE_FOLD_FROM = 2_000
_TRIED_STEPS = 400
_LR = 1e-2
_BATCH = 100
_EPOCHS, _LEAST_STEPS = 20, 500


@dataclass(frozen=True)
class _Effort:
    """What is spent on one kind of network.

    Attributes:
        scales: tried: variances of a parameter times its fan-in. Fresh networks have 2.
        folds: how many thirds of the examples are left out in turn.
        members: networks of the ensemble.
        most_steps: of a member.
    """

    scales: tuple[float, ...]
    folds: int
    members: int
    most_steps: int


_DENSE = _Effort((0.5, 1.5, 4.0, 12.0, 40.0), folds=3, members=8, most_steps=4_000)
_CONVOLVED = _Effort((4.0, 40.0), folds=1, members=6, most_steps=1_500)


@dataclass(frozen=True)
class SuggestedTeacher:
    """A deep ensemble for a dataset, and what the quick networks said.

    Attributes:
        genotype: of every member.
        scale: of the prior ``fan_in_gaussian``.
        noise_std: of real labels, in units of their own deviation; None for classes.
        members: how many networks.
        steps, batch_size, lr: how each of them is trained.
        seconds: what all of them take on one core of this machine, estimated.
        nll: of a quick network at examples that it was not trained on, nats; for real labels in
            units of their own deviation.
        guess_nll: that of the class frequencies, or of mean and variance of real labels, there.
    """

    genotype: Genotype
    scale: float
    noise_std: float | None
    members: int
    steps: int
    batch_size: int
    lr: float
    seconds: float
    nll: float
    guess_nll: float

    @property
    def learns(self) -> bool:
        """Whether a quick network knows more than the labels alone."""
        return self.nll < self.guess_nll


@dataclass(frozen=True, eq=False)
class _Fold:
    """Normalized inputs and labels to train on, and those that are left out."""

    x: Tensor
    y: Tensor
    x_out: Tensor
    y_out: Tensor


def suggest_teacher(
    dataset: Dataset,
    genotype: Genotype,
    *,
    report: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> SuggestedTeacher:
    """A deep ensemble of a genotype whose prior, and noise of real labels, suit a dataset.

    Args:
        dataset: its training part is read.
        genotype: of every member.
        report: what is done, how much of it, and of how much.
    """
    effort = _DENSE if genotype.family == "mlp" else _CONVOLVED
    folds = _folds(dataset)[: effort.folds]
    begin = perf_counter()
    errors = _try_scales(folds, genotype, effort.scales, dataset, report)
    seconds_a_step = (perf_counter() - begin) / (len(errors) * len(folds) * _TRIED_STEPS)

    chosen = _strongest(errors)
    nll = error = float(errors[chosen].mean())
    # the same balance of labels and prior as in the trial, whose examples were fewer
    scale = chosen * (1 - 1 / _FOLDS)
    noise = None
    if dataset.task == "regression":
        noise = min(max(math.sqrt(error), _NOISE_RANGE[0]), _NOISE_RANGE[1])
        nll = 0.5 * math.log(2 * math.pi * noise**2) + 0.5 * error / noise**2
        scale *= (noise / _TRIED_NOISE) ** 2

    steps = _steps(len(dataset.train), effort.most_steps)
    return SuggestedTeacher(
        genotype=genotype,
        scale=_two_digits(scale),
        noise_std=None if noise is None else _two_digits(noise),
        members=effort.members,
        steps=steps,
        batch_size=_BATCH,
        lr=_LR,
        seconds=seconds_a_step * steps * effort.members,
        nll=nll,
        guess_nll=sum(_guess(fold, dataset) for fold in folds) / len(folds),
    )


def _try_scales(
    folds: list[_Fold],
    genotype: Genotype,
    scales: tuple[float, ...],
    dataset: Dataset,
    report: Callable[[str, int, int], None],
) -> dict[float, Tensor]:
    """What quick networks are wrong by under each scale: (N,), over all folds."""
    likelihood = _likelihood(dataset)
    errors: dict[float, Tensor] = {}
    for scale in scales:
        errors_of_folds = []
        for number, fold in enumerate(folds):
            errors_of_folds.append(_errors(fold, genotype, scale, number, dataset, likelihood))
            num_done = len(errors) * len(folds) + number + 1
            report("quick networks", num_done, len(scales) * len(folds))
        errors[scale] = torch.cat(errors_of_folds)
    return errors


def _strongest(errors: dict[float, Tensor]) -> float:
    """The smallest scale that is not worse than the best one by more than a standard error.

    Args:
        errors: (N,) of each scale, at the same examples.
    """
    best = min(errors, key=lambda scale: float(errors[scale].mean()))
    for scale, error_N in errors.items():
        worse_N = error_N - errors[best]
        if float(worse_N.mean()) <= float(worse_N.std(correction=0)) / math.sqrt(len(worse_N)):
            return scale
    return best


def _steps(num_examples: int, most: int) -> int:
    """Steps of a member, in whole hundreds: so many passes over the examples, within bounds."""
    steps = _EPOCHS * num_examples / _BATCH
    return 100 * round(min(max(steps, _LEAST_STEPS), most) / 100)


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")


def _likelihood(dataset: Dataset) -> Likelihood:
    if dataset.task == "regression":
        return GaussianLikelihood(name="gaussian", noise_std=_TRIED_NOISE)
    return CategoricalLikelihood()


def _folds(dataset: Dataset) -> list[_Fold]:
    """A third of the training examples left out in turn; of many examples, once."""
    order = torch.randperm(len(dataset.train), generator=rng.generator(0, "suggestion", "folds"))
    order = order[:_MOST_EXAMPLES]
    x = dataset.normalization(dataset.train.x[order])
    y = dataset.normalized_labels("train")[order]

    # examples of one class one after another, so that each fold has its share of it
    if dataset.task == "classification":
        by_class = y.argsort(stable=True)
        x, y = x[by_class], y[by_class]
    fold_N = torch.arange(len(y)) % _FOLDS
    if dataset.train.group is not None:
        group_N = dataset.train.group[order]
        if dataset.task == "classification":
            group_N = group_N[by_class]
        fold_N = group_N % _FOLDS

    num_folds = 1 if len(y) >= _ONE_FOLD_FROM else _FOLDS
    folds = []
    for number in range(num_folds):
        is_out = fold_N == number
        folds.append(_Fold(x[~is_out], y[~is_out], x[is_out], y[is_out]))
    return [fold for fold in folds if len(fold.y) and len(fold.y_out)]


def _errors(
    fold: _Fold,
    genotype: Genotype,
    scale: float,
    number: int,
    dataset: Dataset,
    likelihood: Likelihood,
) -> Tensor:
    """What a quick network is wrong by at the M examples that are left out, float64 (M,).

    That is the NLL, nats, or the squared error of real labels; infinite where it diverges.
    """
    problem = posterior_of(
        genotype,
        fold.x,
        fold.y,
        num_outputs=dataset.num_outputs,
        prior=FanInGaussianPrior(scale=scale),
        likelihood=likelihood,
        device=torch.device("cpu"),
    )
    cfg = MapConfig(name="map", steps=_TRIED_STEPS, batch_size=_BATCH, lr=_LR)
    generator = rng.generator(0, "suggestion", number)
    try:
        *_, last = map_estimate(problem, cfg, generator=generator)
    except DivergenceError:
        return torch.full((len(fold.y_out),), math.inf, dtype=torch.float64)
    assert last.sample is not None, "the last step of a training has the sample"

    params = unflatten(last.sample.theta_W, problem.shapes)
    with torch.no_grad():
        outputs = FAMILIES[genotype.family].forward(params, fold.x_out).double()
    if dataset.task == "regression":
        return (outputs[:, 0] - fold.y_out).square()
    return -likelihood.log_density(outputs, fold.y_out)


def _guess(fold: _Fold, dataset: Dataset) -> float:
    """The NLL of who knows the labels of a fold and no input, at those that are left out."""
    if dataset.task == "regression":
        mean, variance = fold.y.double().mean(), fold.y.double().var(correction=0) + 1e-12
        squared = (fold.y_out.double() - mean).square().mean()
        return float(0.5 * (2 * math.pi * variance).log() + 0.5 * squared / variance)

    # one more example of each class, so that none is impossible
    counts = torch.bincount(fold.y, minlength=dataset.num_outputs).double() + 1
    return -float((counts / counts.sum()).log()[fold.y_out].mean())
