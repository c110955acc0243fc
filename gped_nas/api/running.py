"""What is kept of a teacher whose samples are not stored: averages at inputs known before.

Averages run along at validation and test inputs, as they are and under each condition of the space,
and at calibration inputs as they are, beside what single samples say of validation on average.
``stream.averages`` keeps them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.data.base import Dataset, Part
from gped_nas.data.rows import sha256_tensors
from gped_nas.errors import ConfigError
from gped_nas.evaluate.base import METRICS
from gped_nas.evaluate.conditions import Forward
from gped_nas.evaluate.measured import CLEAN
from gped_nas.evaluate.outside import Inside
from gped_nas.evaluate.predictions import AnyPredictions
from gped_nas.evaluate.running import RunningAverage, log_prob_of
from gped_nas.evaluate.teacher import averaged
from gped_nas.io import Array, canonical_json, sha256_arrays, sha256_text
from gped_nas.posterior.base import ChainConfig, PosteriorSample
from gped_nas.search.space import SearchSpace
from gped_nas.targets.base import for_labels
from gped_nas.targets.expectations import meaning_of, means_behind

_SINGLE = ("accuracy", "rmse")


@dataclass(frozen=True, eq=False)
class Place:
    """Inputs at which an average is kept.

    Attributes:
        part, condition: which inputs, and what was done to them.
        inputs: normalized (N, *input_shape).
        digest: of the raw inputs, by which a condition finds them; empty of untouched ones.
    """

    part: Part
    condition: str
    inputs: Tensor
    digest: str = ""

    @property
    def name(self) -> str:
        """``validation``, or ``validation@permuted``."""
        return self.part if self.condition == CLEAN else f"{self.part}@{self.condition}"


class _Nobody:
    """A predictor that a condition must not ask: no network is kept."""

    def __init__(self, space: SearchSpace, condition: str, key: str = "conditions") -> None:
        self._space, self._condition, self._key = space, condition, key

    def networks(self) -> Iterator[tuple[float, Forward]]:
        raise self._refusal()

    def predict(self, raw: Tensor) -> AnyPredictions:
        raise self._refusal()

    def _refusal(self) -> ConfigError:
        return ConfigError(
            f"{self._space.source}: {self._key}: found '{self._condition}', which asks the "
            "predictor that is judged, with recipe.stream none, which keeps no network of the "
            "teacher; remove it, or set recipe.stream to stored"
        )


def places_of(space: SearchSpace, dataset: Dataset) -> list[Place]:
    """Where averages are kept.

    Raises:
        ConfigError: a condition asks the predictor that is judged.
        DataError: a condition made inputs that cannot be used.
    """
    places = []
    for part in dataset.held_out:
        places.append(Place(part, CLEAN, dataset.inputs(part)))
        for condition in space.conditions:
            if condition.name == CLEAN or part == "calibration":
                continue
            raw = condition.apply(
                dataset.raw(part),
                predictor=_Nobody(space, condition.name),
                labels=dataset.labels(part),
                generator=rng.generator(space.seed, "condition", condition.name, part),
                scale=dataset.scale,
            )
            places.append(_place(part, condition.name, raw, dataset))

        inside = Inside(dataset, part, dataset.raw(part), dataset.labels(part), space.seed)
        for outside in space.outside:
            raw = outside.inputs(inside, _Nobody(space, outside.name, "ood"))
            places.append(_place(part, f"ood {outside.name}", raw, dataset))
    return places


def _place(part: Part, condition: str, raw: Tensor, dataset: Dataset) -> Place:
    return Place(part, condition, dataset.normalization(raw), sha256_arrays(raw.numpy()))


def name_of(space: SearchSpace, dataset: Dataset, places: list[Place], num_samples: int) -> str:
    """Digest of all that averages depend on beside the stream's key."""
    asked = for_labels(space.targets, dataset.label_normalization)
    targets = [[target.name, meaning_of(target)] for target in means_behind(asked)]
    inputs = [[place.name, sha256_tensors(place.inputs)] for place in places]
    return sha256_text(canonical_json([num_samples, inputs, targets]))[:32]


class Running:
    """All that runs along with a teacher's chains: ``stream.averages.Sums``.

    Args:
        space, dataset: of the teacher.
        places: where averages are kept.
    """

    def __init__(self, space: SearchSpace, dataset: Dataset, places: list[Place]) -> None:
        self._dataset = dataset
        self.places = places
        unit = dataset.label_normalization
        self._at = {place.name: RunningAverage(space.targets, unit) for place in places}

        # chains are compared by what each of them says of validation
        self._chains: list[RunningAverage] = []
        method = space.method
        if dataset.task == "classification" and isinstance(method, ChainConfig):
            if method.chains > 1:
                self._chains = [RunningAverage() for _ in range(method.chains)]
        self._single: dict[str, float] = {}
        self._num_taken = 0
        self._predict: list[Callable[[Tensor], Tensor]] = []

    def asking(self, predict_at: Callable[[Tensor], Callable[[Tensor], Tensor]]) -> "Running":
        """The same, which can take samples.

        Args:
            predict_at: normalized inputs to a function of flat parameters (W,) that gives what they
                predict there, (N, G).
        """
        self._predict = [predict_at(place.inputs) for place in self.places]
        return self

    def take(self, sample: PosteriorSample, chain: int) -> None:
        """Take in a posterior sample of a chain."""
        for place, predict in zip(self.places, self._predict, strict=True):
            predicted_NG = predict(sample.theta_W).cpu()
            self._at[place.name].take(predicted_NG, sample.weight)
            if place.name != "validation":
                continue

            if self._chains:
                self._chains[chain].take(predicted_NG, sample.weight)
            self._take_single(predicted_NG)
        self._num_taken += 1

    def _take_single(self, predicted_NG: Tensor) -> None:
        """Take in the metrics of one sample alone."""
        labels = self._dataset.labels("validation")
        alone = averaged(predicted_NG[None], torch.ones(1), self._dataset.label_normalization)
        values = {"nll": float(-alone.log_score(labels).mean())}
        for name in _SINGLE:
            if METRICS[name].applies(alone, None):
                values[name] = METRICS[name].value(alone, labels)
        for name, value in values.items():
            self._single[name] = self._single.get(name, 0.0) + value

    def arrays(self) -> dict[str, Array]:
        """All that it holds, by name."""
        arrays: dict[str, Array] = {}
        for prefix, average in self._averages().items():
            for name, array in average.arrays().items():
                arrays[f"{prefix}/{name}"] = array
        for name, value in self._single.items():
            arrays[f"single/{name}"] = np.array([value])
        arrays["taken/samples"] = np.array([float(self._num_taken)])
        return arrays

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Go on from what ``arrays`` gave."""
        by_prefix: dict[str, dict[str, Array]] = {}
        for full_name, array in arrays.items():
            prefix, _, name = full_name.rpartition("/")
            by_prefix.setdefault(prefix, {})[name] = array

        for prefix, average in self._averages().items():
            average.restore(by_prefix.get(prefix, {}))
        singles = by_prefix.get("single", {})
        self._single = {name: float(array[0]) for name, array in singles.items()}
        self._num_taken = int(by_prefix["taken"]["samples"][0])

    def _averages(self) -> dict[str, RunningAverage]:
        averages = {f"at/{name}": average for name, average in self._at.items()}
        for chain, average in enumerate(self._chains):
            averages[f"chain/{chain}"] = average
        return averages

    def at(self, part: Part, condition: str = CLEAN) -> AnyPredictions:
        """The predictions of the posterior average at a part's inputs under a condition."""
        name = part if condition == CLEAN else f"{part}@{condition}"
        return self._at[name].predictions(is_point=self._num_taken == 1)

    def at_raw(self, raw: Tensor) -> AnyPredictions:
        """The predictions of the posterior average at raw inputs of one of the places.

        Raises:
            ConfigError: nothing was kept there.
        """
        digest = sha256_arrays(raw.numpy())
        for place in self.places:
            untouched = self._dataset.raw(place.part)
            is_untouched = place.condition == CLEAN and untouched.shape == raw.shape
            if digest == place.digest or (is_untouched and torch.equal(untouched[:], raw)):
                return self.at(place.part, place.condition)
        raise ConfigError(
            "recipe.stream: found none, which keeps the teacher's averages at validation and test "
            "inputs alone, expected stored to ask it at others; set it to stored"
        )

    @property
    def single(self) -> dict[str, float]:
        """Metrics of one sample alone on validation, mean over the samples."""
        return {name: total / self._num_taken for name, total in self._single.items()}

    @property
    def chain_probs(self) -> list[Tensor]:
        """What each chain's average says of validation, (N, C); none where chains are not compared.

        They are of classes, where there are several chains.
        """
        return [log_prob_of(average).exp() for average in self._chains]
