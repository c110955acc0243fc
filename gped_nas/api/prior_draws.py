"""What networks drawn from a teacher's prior say, before any posterior is sampled.

A prior over weights is a prior over functions, and nobody reads the second off the first. So it is
drawn from: which classes draws say of inputs, how sure they are, how large and how wiggly they are.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.api.asking import check_networks
from gped_nas.api.sampling import as_networks_see, posterior
from gped_nas.api.teacher import load_dataset
from gped_nas.data.base import Dataset, Part
from gped_nas.errors import ConfigError
from gped_nas.evaluate.answers import posterior_answers
from gped_nas.search.space import SearchSpace
from gped_nas.search.space_file import load_space

NUM_DRAWS = 100
_NUM_INPUTS = 256
_NUM_PLACES = 25
_NUM_SHOWN = 20
"""Draws whose values on the line are told one by one."""
_REACH = 3.0
"""Standard deviations that a line goes to both sides of the mean."""
_LEVELS = (0.05, 0.95)
"""Of the quantiles between which most draws lie."""


@dataclass(frozen=True)
class ClassUnderPrior:
    """What draws say of one class.

    Attributes:
        name: of the class.
        probability: its average over draws and inputs.
        share: of the inputs of a draw, how many it is the likeliest class of: the mean over draws.
        share_low, share_high: the 5 % and the 95 % quantile of that over draws.
        labels: its share of the training labels.
    """

    name: str
    probability: float
    share: float
    share_low: float
    share_high: float
    labels: float


@dataclass(frozen=True)
class Line:
    """Draws as functions of one number: where along a line through input space they are.

    Attributes:
        along: what the line is, in words.
        places: on it, in standard deviations of the training inputs there.
        of: what the values are: the probability of a class, or the mean of the label.
        median, low, high: of all draws at each place, and their 5 % and 95 % quantiles.
        draws: of the first draws, for each its value at each place.
        turns: how often a draw turns from rising to falling or back, on average.
    """

    along: str
    places: list[float]
    of: str
    median: list[float]
    low: list[float]
    high: list[float]
    draws: list[list[float]]
    turns: float


@dataclass(frozen=True)
class PriorDescription:
    """What draws from a prior say at inputs of the data.

    Attributes:
        num_draws: networks.
        num_inputs: validation inputs that they were asked about.
        numbers: by name. Of classes in nats: the ``entropy`` of the draws' average, the
            ``expected_entropy`` of a draw, their difference ``mutual_information``, and the
            ``uniform_entropy`` of knowing nothing; and ``favorite_share``, the share of inputs that
            a draw gives its most frequent class, in the median. Of a real label, in its own unit:
            ``mean`` and ``function_std`` of the draws' means, ``noise_std``, and ``label_mean`` and
            ``label_std`` of the training labels. ``<name>_low`` and ``<name>_high`` are the 5 % and
            the 95 % quantile over draws, and over inputs where each has a number.
        classes: in label order; none of a real label.
        line: some draws in one dimension.
    """

    num_draws: int
    num_inputs: int
    numbers: dict[str, float]
    classes: tuple[ClassUnderPrior, ...]
    line: Line

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def describe_prior(
    space: SearchSpace | str | Path, *, num_draws: int = NUM_DRAWS
) -> PriorDescription:
    """What networks drawn from the prior of a space's teacher say; nothing is sampled or written.

    Args:
        space: a search space, its file or its shipped name.
        num_draws: how many networks are drawn; the draws of fewer are among those of more.

    Raises:
        ConfigError: there are no networks, or fewer draws than two.
        DataError, EnvironmentProblem: the dataset cannot be used, or is not there.
    """
    space = space if isinstance(space, SearchSpace) else load_space(space)
    check_networks(space, "which have a prior")
    if num_draws < 2:
        raise ConfigError(f"num_draws: found {num_draws}, expected at least 2")

    dataset = load_dataset(space)
    inputs = _evenly(dataset, "validation", _NUM_INPUTS)
    along, places, line_inputs = _line(dataset)
    predicted, on_line = _ask_draws(space, dataset, (inputs, line_inputs), num_draws)

    line = _describe_line(along, places, on_line, dataset)
    describe = _describe_classes if dataset.class_names else _describe_label
    numbers, classes = describe(predicted, dataset)
    return PriorDescription(num_draws, len(inputs), numbers, classes, line)


@torch.no_grad()
def _ask_draws(
    space: SearchSpace, dataset: Dataset, inputs: tuple[Tensor, ...], num_draws: int
) -> list[Tensor]:
    """What each draw predicts at several sets of normalized inputs, (S, N, G) each, float32."""
    problem = posterior(space, dataset, device=torch.device("cpu"))
    assert problem.prior is not None
    seen = [as_networks_see(space, dataset, x) for x in inputs]

    predicted: list[list[Tensor]] = [[] for _ in inputs]
    for draw in range(num_draws):
        generator = rng.generator(space.seed, "prior", draw)
        params = problem.prior.sample(problem.shapes, generator=generator)
        for x, of_draws in zip(seen, predicted, strict=True):
            of_draws.append(space.likelihood.predict(space.family.forward(params, x)))
    return [torch.stack(of_draws) for of_draws in predicted]


def _describe_classes(
    log_prob_SNC: Tensor, dataset: Dataset
) -> tuple[dict[str, float], tuple[ClassUnderPrior, ...]]:
    """Numbers and classes of a classifier's prior."""
    num_classes = len(dataset.class_names)
    answers = posterior_answers(log_prob_SNC, torch.ones(len(log_prob_SNC)), credible=0.9)
    numbers = {
        name: float(answers[name].mean())
        for name in ("entropy", "expected_entropy", "mutual_information")
    }

    entropy_SN = torch.special.entr(log_prob_SNC.double().exp()).sum(-1)
    numbers |= _ends("expected_entropy", entropy_SN)
    numbers["uniform_entropy"] = float(torch.tensor(num_classes).double().log())

    likeliest_SN = log_prob_SNC.argmax(-1)
    share_SC = torch.nn.functional.one_hot(likeliest_SN, num_classes).double().mean(1)
    favorite_S = share_SC.amax(1)
    numbers["favorite_share"] = float(favorite_S.median())
    numbers |= _ends("favorite_share", favorite_S)

    labels_N = torch.from_numpy(dataset.labels("train"))
    of_labels_C = torch.bincount(labels_N, minlength=num_classes).double() / len(labels_N)
    classes = []
    for c, name in enumerate(dataset.class_names):
        ends = _ends("share", share_SC[:, c])
        classes.append(
            ClassUnderPrior(
                name=name,
                probability=float(answers["predictive"][:, c].mean()),
                share=float(share_SC[:, c].mean()),
                share_low=ends["share_low"],
                share_high=ends["share_high"],
                labels=float(of_labels_C[c]),
            )
        )
    return numbers, tuple(classes)


def _describe_label(
    normal_SN2: Tensor, dataset: Dataset
) -> tuple[dict[str, float], tuple[ClassUnderPrior, ...]]:
    """Numbers of the prior of a real label, in its own unit."""
    unit = dataset.label_normalization
    assert unit is not None
    mean_SN, variance_SN = normal_SN2.double().unbind(-1)
    own_mean_SN = mean_SN * unit.std + unit.mean

    numbers = {
        "mean": float(own_mean_SN.mean()),
        **_ends("mean", own_mean_SN),
        "function_std": float(own_mean_SN.var(0).mean().sqrt()),
        "noise_std": float(variance_SN.mean().sqrt() * unit.std),
        "label_mean": float(unit.mean),
        "label_std": float(unit.std),
    }
    return numbers, ()


def _ends(name: str, values: Tensor) -> dict[str, float]:
    """The 5 % and the 95 % quantile of numbers."""
    levels = torch.tensor(_LEVELS, dtype=torch.float64)
    low, high = torch.quantile(values.double().flatten(), levels).tolist()
    return {f"{name}_low": low, f"{name}_high": high}


def _evenly(dataset: Dataset, part: Part, most: int) -> Tensor:
    """Normalized inputs of a part at equal distances, in memory."""
    inputs = dataset.inputs(part)
    index = torch.linspace(0, len(inputs) - 1, min(most, len(inputs))).round().long()
    return inputs[index].float()


def _line(dataset: Dataset) -> tuple[str, list[float], Tensor]:
    """What a line is, places on it, and normalized inputs there.

    It goes through the mean of the training inputs, in the direction in which they vary most.
    """
    x = _evenly(dataset, "train", _NUM_INPUTS)
    x_ND = x.flatten(1).double()
    mean_D = x_ND.mean(0)
    centered_ND = x_ND - mean_D

    # eigenvectors of the Gram matrix: inputs may have more numbers than there are inputs
    variances, vectors_NN = torch.linalg.eigh(centered_ND @ centered_ND.T / len(x))
    direction_D = centered_ND.T @ vectors_NN[:, -1]
    direction_D = direction_D / direction_D.norm().clamp_min(1e-12)
    direction_D = direction_D * direction_D[direction_D.abs().argmax()].sign()
    deviation = variances[-1].clamp_min(0).sqrt()

    places_T = torch.linspace(-_REACH, _REACH, _NUM_PLACES, dtype=torch.float64)
    points_TD = mean_D + places_T[:, None] * deviation * direction_D
    along = "the direction in which training inputs vary most, through their mean"
    if x_ND.shape[1] == 1:
        along = "the only number of an input"
    return along, places_T.tolist(), points_TD.float().view(_NUM_PLACES, *x.shape[1:])


def _describe_line(
    along: str, places: list[float], predicted_STG: Tensor, dataset: Dataset
) -> Line:
    """Draws on a line, from what they predict there."""
    values_ST, of = _on_line(predicted_STG, dataset)
    levels = torch.tensor([_LEVELS[0], 0.5, _LEVELS[1]], dtype=torch.float64)
    low, median, high = torch.quantile(values_ST, levels, dim=0).tolist()
    return Line(
        along=along,
        places=places,
        of=of,
        median=median,
        low=low,
        high=high,
        draws=values_ST[:_NUM_SHOWN].tolist(),
        turns=_mean_turns(values_ST),
    )


def _on_line(predicted_STG: Tensor, dataset: Dataset) -> tuple[Tensor, str]:
    """Draws as functions of the place (S, T), and what they are functions to."""
    unit = dataset.label_normalization
    if unit is not None:
        return predicted_STG[..., 0].double() * unit.std + unit.mean, "mean of the label"

    labels_N = torch.from_numpy(dataset.labels("train"))
    most_frequent = int(torch.bincount(labels_N).argmax())
    name = dataset.class_names[most_frequent]
    return predicted_STG[..., most_frequent].double().exp(), f"probability of {name}"


def _mean_turns(values_ST: Tensor) -> float:
    """How often draws turn from rising to falling or back, on average."""
    slope = values_ST.diff(dim=1).sign()
    return float((slope[:, 1:] * slope[:, :-1] < 0).double().sum(1).mean())
