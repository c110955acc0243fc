"""Averages of targets over posterior samples: the arrow that the project is named after.

Predictions come in blocks of posterior samples. A block is read once, for all targets: blocks
outside, targets inside. The averages of a stream's view are cached beside the stream.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from gped_nas.errors import ConfigError
from gped_nas.io import canonical_json, sha256_arrays, sha256_text
from gped_nas.stream.reader import Stream
from gped_nas.targets.base import (
    MAIN_TARGET,
    TARGETS,
    DerivedTarget,
    LearnedTarget,
    MeanTarget,
    QuantileTarget,
    StatisticTarget,
    Target,
    Targets,
    resolve,
    try_values,
)
from gped_nas.targets.statistics import of_one_sample, statistic


def sample_values(targets: Iterable[Target], predictions_BC: Tensor) -> dict[str, Tensor]:
    """What single posterior samples say, one an input: ``{target: (B, G)}``.

    Targets without a loss of their own are left out.

    Args:
        targets: of any kind.
        predictions_BC: what the sample predicts at each input; see ``likelihoods.Prediction``.
    """
    values = {}
    for target in targets:
        if isinstance(target, StatisticTarget):
            values[target.name] = of_one_sample(target, predictions_BC)
        elif isinstance(target, LearnedTarget):
            values[target.name] = target.values(predictions_BC)
    return values


def expect(target: Target, predictions_SNC: Tensor, weight_S: Tensor) -> Tensor:
    """What posterior samples say of a target on average.

    Args:
        target: a mean, which is applied to each posterior sample on its own and then averaged, a
            statistic of all samples, or a derived one, which is computed from what is said of the
            targets that it requires.
        predictions_SNC: log-probabilities of the samples, nats, or means and variances; see
            ``likelihoods.Prediction``.
        weight_S: non-negative weights on any scale; normalized here.

    Returns:
        (N, G) on the device and in the dtype of the predictions, in the units of ``target``.

    Raises:
        ConfigError: the target is of kind ``quantile``, or the weights sum to zero.

    Source: Vadera, Jalaian & Marlin 2020, arXiv:2005.08110, equation 2.
    """
    return expect_all([target], predictions_SNC, weight_S)[target.name]


def expect_all(targets: Targets, predictions_SNC: Tensor, weight_S: Tensor) -> dict[str, Tensor]:
    """``expect`` for several targets at once: ``{target: (N, G)}``. Raises as ``expect``."""
    targets = resolve(targets)
    needed = _with_sources(targets)

    total = weight_S.sum()
    if not bool(total > 0):
        raise ConfigError(
            f"weights of posterior samples: found a sum of {float(total)}, expected more than 0"
        )
    weight_S = (weight_S / total).to(predictions_SNC.dtype)

    values = average_blocks(_means(needed), [predictions_SNC], weight_S)
    for target in needed.values():
        if isinstance(target, StatisticTarget):
            values[target.name] = statistic(target, predictions_SNC, weight_S)
    return _complete(targets, needed, values)


def means_behind(targets: Targets) -> list[MeanTarget]:
    """The means that averages of these targets are made of, each once.

    Raises:
        ConfigError: a target is of kind ``quantile``, or is or follows from a ``statistic``.
    """
    needed = _with_sources(resolve(targets))
    _refuse_statistics(needed)
    return _means(needed)


def expect_from(targets: Targets, averages: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``expect_all`` from the averages of ``means_behind``. Raises as that."""
    targets = resolve(targets)
    return _complete(targets, _with_sources(targets), averages)


def meaning_of(target: Target) -> str:
    """Digest of a target's settings and version; see ``_address``."""
    return sha256_text(canonical_json([target.to_json(), target.version]))


def stream_expectations(
    stream: Stream, targets: Targets, view: str, *, device: torch.device | None = None
) -> dict[str, Tensor]:
    """``expect_all`` over a stream's predictions at a view: ``{target: (N, G)}``, float32.

    Averages are accumulated in float64 and cached beside the stream. What is not cached is computed
    in one read of the predictions.

    Args:
        stream: with predictions at the view.
        targets: what to average.
        view: the view's name.
        device: where averages are computed, if the targets can be; here by default.

    Raises:
        ConfigError: a target is of kind ``quantile``, or is or follows from a ``statistic``, of
            which ``stream_statistics`` has the averages' place.
        StreamError: there is no such view, or it is corrupt.
    """
    targets = resolve(targets)
    needed = _with_sources(targets)
    _refuse_statistics(needed)
    addresses = {target.name: _address(stream, target, view) for target in _means(needed)}

    averages: dict[str, Tensor] = {}
    missing: list[MeanTarget] = []
    for target in _means(needed):
        cached = stream.cached(*addresses[target.name])
        if cached is None:
            missing.append(target)
        else:
            averages[target.name] = cached

    if missing:
        there = torch.device("cpu")
        if device is not None and all(_runs_on(device, stream, target) for target in missing):
            there = device
        blocks = (block.to(there).double() for block in stream.prediction_blocks(view))
        weight_S = stream.weight_S.to(there)
        for name, average in average_blocks(missing, blocks, weight_S).items():
            averages[name] = average.float().cpu()
            stream.cache(*addresses[name], averages[name])

    return _complete(targets, needed, averages)


def average_blocks(
    targets: Sequence[MeanTarget], blocks: Iterable[Tensor], weight_S: Tensor
) -> dict[str, Tensor]:
    """The weighted averages of targets over posterior samples, each block of them read once.

    Args:
        targets: what to average.
        blocks: predictions (rows, N, C) in the order of the samples.
        weight_S: weights of the samples, summing to 1, in the dtype of the predictions.

    Returns:
        ``{target: (N, G)}`` in that dtype.
    """
    totals = {target.name: weight_S.new_zeros(()) for target in targets}
    start = 0

    for block in blocks:
        stop = start + len(block)
        weight = weight_S[start:stop]
        start = stop
        for target in targets:
            part = torch.einsum("s,sng->ng", weight, target.values(block))
            totals[target.name] = totals[target.name] + part

    return totals


def _runs_on(device: torch.device, stream: Stream, target: MeanTarget) -> bool:
    """Whether a target's function, which may be anybody's, takes tensors on a device."""
    try:
        return target.values(probe_of(stream, target).to(device)).device.type == device.type
    except Exception:
        # what is wrong with it is told where it is called
        return False


def _with_sources(targets: Iterable[Target]) -> dict[str, Target]:
    """Targets by name with those that they are computed from, which come first.

    Raises:
        ConfigError: one is of kind ``quantile``.
    """
    listed = {target.name: target for target in targets}
    needed: dict[str, Target] = {}

    def add(target: Target) -> None:
        if isinstance(target, QuantileTarget):
            raise ConfigError(
                f"target '{target.name}' is of kind quantile; averaging its samples would be "
                "wrong: it would give the mean"
            )
        if isinstance(target, DerivedTarget):
            for name in target.requires:
                add(listed[name] if name in listed else TARGETS[name])
        needed[target.name] = target

    for target in listed.values():
        add(target)
    return needed


def _refuse_statistics(needed: Mapping[str, Target]) -> None:
    for target in needed.values():
        if isinstance(target, StatisticTarget):
            raise ConfigError(
                f"target '{target.name}' is a statistic of all samples; found averages alone, "
                "expected stored samples"
            )


def _means(targets: Mapping[str, Target]) -> list[MeanTarget]:
    return [target for target in targets.values() if isinstance(target, MeanTarget)]


def _complete(
    targets: Iterable[Target], needed: Mapping[str, Target], averages: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Averages and what is derived from them, of the targets asked for, in their order."""
    values = dict(averages)
    for target in needed.values():
        if isinstance(target, DerivedTarget):
            sources = {name: needed[name].shown(values[name]) for name in target.requires}
            values[target.name] = target.derive(sources)

    return {target.name: values[target.name] for target in targets}


def _address(stream: Stream, target: MeanTarget, view: str) -> tuple[str, str]:
    """Where an average is cached: the stem of its files, and the digest of all it is made of."""
    meaning = meaning_of(target)
    stem = f"{target.name}-{meaning[:8]}-{view}-{stream.digest_as_read[:16]}"
    sources = [meaning, answer_to_probe(stream, target), view, stream.digest_as_read]
    return stem, sha256_text(canonical_json([*sources, stream.view_digests(view)]))


def answer_to_probe(stream: Stream, target: LearnedTarget) -> str:
    """Digest of what a target makes of fixed predictions.

    ``Target.version`` says that a target has come to mean something else. Whoever edits a function
    in a notebook forgets to raise it: the average of before must not be taken for the new one's.
    """
    return sha256_arrays(try_values(target.name, target.values, probe_of(stream, target)).numpy())


def probe_of(stream: Stream, target: Target) -> Tensor:
    """Fixed predictions, (2, 3, C): log-probabilities, or means and variances."""
    probe = torch.linspace(0.0, 5.0, 6 * stream.key.num_predicted, dtype=torch.float64)
    predicted = probe.view(2, 3, -1).log_softmax(-1)
    if target.prediction == "normal" and target.name != MAIN_TARGET["normal"]:
        # variances are positive; averages that were cached before there was a choice stay found
        predicted[..., 1].exp_()
    return predicted
