"""Posterior methods beside each other on one dataset, network and prior, and against a reference.

Every method gets about as many minibatch gradients a chain as the space's own one, with settings
derived from it; give settings of your own where these do not fit. Full-batch HMC, the default
reference, is for small networks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import torch

from gped_nas import rng
from gped_nas.api.asking import check_stored
from gped_nas.api.diagnosis import diagnose
from gped_nas.api.session import Session, new_session
from gped_nas.api.settings import method_settings
from gped_nas.api.teacher import Teacher, load_dataset, sample_teacher
from gped_nas.api.verdict import Level, judge
from gped_nas.data.base import Dataset, Part
from gped_nas.errors import ConfigError
from gped_nas.evaluate.base import METRICS
from gped_nas.evaluate.conditions import permuted
from gped_nas.evaluate.predictions import AnyPredictions, Predictions
from gped_nas.evaluate.uncertainty import auroc
from gped_nas.models.base import num_params
from gped_nas.posterior.base import METHODS, MethodConfig
from gped_nas.posterior.diagnostics import agreement, total_variation
from gped_nas.search.space import SearchSpace
from gped_nas.search.space_file import load_space
from gped_nas.targets.formulas import entropy

MAX_HMC_PARAMS = 20_000
"""Parameters above which HMC, or another method whose steps take all data, runs only if listed."""


@dataclass(frozen=True)
class MethodRow:
    """One method, measured on one part of the dataset.

    Attributes:
        method: its name.
        agreement, total_variation: of its average with the reference's; None for the reference
            itself, and where labels are real numbers.
        nll, accuracy, ece: of its average; nats, share, 15 bins. The last two are None where labels
            are real numbers, the first one where it is infinite.
        ood_entropy, ood_information: AUROC of predictive entropy, and of mutual information,
            between the part's inputs and the same with their numbers permuted; None where labels
            are real numbers, or samples predictions alone.
        seconds: what sampling took when the stream was made; a build that was stopped tells its
            last run only.
        weights_bytes: float32 weights of all samples.
        num_samples, effective_samples: samples, and the median bulk ESS of their probabilities;
            None where it means nothing.
        verdict: see ``gped_nas.api.verdict``.
    """

    method: str
    agreement: float | None
    total_variation: float | None
    nll: float | None
    accuracy: float | None
    ece: float | None
    ood_entropy: float | None
    ood_information: float | None
    seconds: float
    weights_bytes: int
    num_samples: int
    effective_samples: float | None
    verdict: Level


@dataclass(frozen=True)
class MethodComparison(Sequence[MethodRow]):
    """The methods that were compared, a row each, the reference first; and those that were not.

    Attributes:
        rows: what was measured of each method.
        skipped: why a method was left out, by its name. Only methods that nobody asked for by name
            are left out.
    """

    rows: tuple[MethodRow, ...]
    skipped: Mapping[str, str]

    @overload
    def __getitem__(self, index: int) -> MethodRow: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[MethodRow]: ...

    def __getitem__(self, index: int | slice) -> MethodRow | Sequence[MethodRow]:
        """One row, or several."""
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)


def compare_methods(
    space: SearchSpace | str | Path,
    *,
    methods: Sequence[str | Path | Mapping[str, Any]] | None = None,
    reference: str | None = "hmc",
    session: Session | None = None,
) -> MethodComparison:
    """Build, or reuse, the teacher of each method, and measure it on validation.

    Args:
        space: a search space, its file or its shipped name.
        methods: names, YAML files of settings, or settings. By default every method that has
            settings which suit the space; methods whose steps take all data only where the network
            is small.
        reference: the method that others are compared with; tried even if it is not among
            ``methods``.
        session: how to run.

    Returns:
        A row a method, the reference first, and why others were left out.

    Raises:
        ConfigError: settings that a method does not take, or a network too large for the reference
            where that takes all data in each step.
        GpedError: see ``sample_teacher``.
    """
    space = space if isinstance(space, SearchSpace) else load_space(space)
    check_stored(space, "a comparison of methods")
    session = session or new_session()
    dataset = load_dataset(space)
    values = dict(space.network.values)
    size = num_params(space.family.shapes(values, dataset.input_shape, dataset.num_outputs))

    skipped: dict[str, str] = {}
    if methods:
        settings = [method_settings(space, dataset, method) for method in methods]
    else:
        settings, skipped = _settings_of_all(space, dataset, size)

    if reference is not None and reference not in [cfg.name for cfg in settings]:
        if METHODS[reference].takes_all_data and size > MAX_HMC_PARAMS:
            raise ConfigError(
                f"reference: found {reference} for {_too_large(size)}; name another reference, or "
                f"list {reference} among the methods to take it anyway"
            )
        settings.append(method_settings(space, dataset, reference))
        skipped.pop(reference, None)

    # the reference goes first: every other row is measured against its average
    settings.sort(key=lambda cfg: cfg.name != reference)
    rows: list[MethodRow] = []
    truth: AnyPredictions | None = None
    for cfg in settings:
        session.raise_if_stopped()
        # raw posteriors: a calibration may not suit another method
        alone = replace(space, method=cfg, views=(), calibration="none")
        teacher = sample_teacher(alone, session, dataset=dataset)
        rows.append(measure(teacher, part="validation", truth=truth))
        if cfg.name == reference:
            truth = teacher.averaged("validation")

    return MethodComparison(tuple(rows), skipped)


def _settings_of_all(
    space: SearchSpace, dataset: Dataset, size: int
) -> tuple[list[MethodConfig], dict[str, str]]:
    """Settings of every method that can be compared as it is, and why the others cannot."""
    settings: list[MethodConfig] = []
    skipped: dict[str, str] = {}
    for name, method in METHODS.items():
        if name != space.method.name and method.suited is None:
            skipped[name] = "it has no settings that suit any budget; list it with your own"
        elif method.looks_inside and space.module is not None:
            skipped[name] = "it acts on layers, which are not known in a module"
        elif method.needs_concave and not space.likelihood.is_concave:
            skipped[name] = f"its closed form does not hold for likelihood {space.likelihood.name}"
        elif method.takes_all_data and size > MAX_HMC_PARAMS:
            skipped[name] = f"found {_too_large(size)}; list it to take it anyway"
        else:
            try:
                settings.append(method_settings(space, dataset, name))
            except ConfigError as error:
                skipped[name] = f"its settings do not suit: {error}; list it with your own"
    return settings, skipped


def _too_large(size: int) -> str:
    return (
        f"{size:,} parameters, expected at most {MAX_HMC_PARAMS:,}, since each of its steps takes "
        "all data"
    )


def measure(teacher: Teacher, *, part: Part, truth: AnyPredictions | None) -> MethodRow:
    """One row of the table.

    Args:
        teacher: who is measured.
        part: where predictions are measured; the verdict is always that of validation.
        truth: the reference's average on the same part.
    """
    stream = teacher.stream
    mean = teacher.averaged(part)
    labels = teacher.dataset.labels(part)

    accuracy_and_ece = {}
    for name in ("accuracy", "ece"):
        metric = METRICS[name]
        accuracy_and_ece[name] = metric.value(mean, labels) if metric.applies(mean, None) else None

    diagnosis = diagnose(teacher)
    mixing = diagnosis.mixing.get("probabilities") or diagnosis.mixing.get("means")
    median_ess = mixing.ess[0] if mixing and mixing.ess else None
    nll = METRICS["nll"].value(mean, labels)

    num_weights = num_params(stream.key.shapes) if stream.has_weights else 0
    return MethodRow(
        method=teacher.space.method.name,
        **_compare_with_truth(mean, truth),
        nll=nll if math.isfinite(nll) else None,
        **accuracy_and_ece,
        **_detect_permuted(teacher, mean, part),
        seconds=stream.sampling_seconds,
        weights_bytes=4 * num_weights * stream.num_samples,
        num_samples=stream.num_samples,
        effective_samples=median_ess,
        verdict=judge(diagnosis).level,
    )


def _compare_with_truth(
    mean: AnyPredictions, truth: AnyPredictions | None
) -> dict[str, float | None]:
    if not (isinstance(mean, Predictions) and isinstance(truth, Predictions)):
        return {"agreement": None, "total_variation": None}

    prob = torch.from_numpy(mean.log_prob_NC).exp()
    true_prob = torch.from_numpy(truth.log_prob_NC).exp()
    return {
        "agreement": agreement(prob, true_prob),
        "total_variation": total_variation(prob, true_prob),
    }


def _detect_permuted(teacher: Teacher, mean: AnyPredictions, part: Part) -> dict[str, float | None]:
    """AUROC between the part's inputs and the same permuted."""
    if not (teacher.stream.has_weights and isinstance(mean, Predictions)):
        return {"ood_entropy": None, "ood_information": None}

    generator = rng.generator(0, "permuted inputs", part)
    predict = teacher.predictor(permuted(teacher.dataset.inputs(part), generator=generator))

    # summed up sample by sample: the predictions of all at once may not fit into memory
    mean_prob = torch.zeros(())
    mean_entropy = torch.zeros(())
    for sample, weight in enumerate(teacher.stream.weight_S.tolist()):
        teacher.session.raise_if_stopped()
        log_prob = predict(teacher.stream.theta(sample)).cpu().double()
        mean_prob = mean_prob + weight * log_prob.exp()
        mean_entropy = mean_entropy + weight * entropy(log_prob)

    outside = Predictions(mean_prob.log().numpy(), {"expected_entropy": mean_entropy.numpy()})
    return {
        "ood_entropy": auroc(mean.entropy_N, outside.entropy_N),
        "ood_information": auroc(mean.mutual_information_N, outside.mutual_information_N),
    }
