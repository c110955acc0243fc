"""Statistics of all samples of a stream, some inputs at a time, cached beside it."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from gped_nas.io import canonical_json, sha256_arrays, sha256_text
from gped_nas.stream.reader import Stream
from gped_nas.targets.base import StatisticTarget
from gped_nas.targets.expectations import answer_to_probe, meaning_of, probe_of
from gped_nas.targets.statistics import fitted_to, statistic

_NUMBERS = 8_000_000
"""Predictions in memory at a time."""


def stream_fit(stream: Stream, target: StatisticTarget, views: Sequence[str]) -> Tensor | None:
    """What a statistic has to know of all inputs of these views, float32; None if nothing.

    Args:
        stream: with predictions at the views.
        target: the statistic.
        views: names of the views that students learn at: what is fitted is one for all of them.

    Raises:
        StreamError: there is no such view, or it is corrupt.
    """
    if target.fit is None:
        return None

    digests = [[view, *stream.view_digests(view)] for view in views]
    of = sha256_text(canonical_json([*_sources(stream, target), digests]))
    stem = f"{target.name}-fit-{of[:16]}-{stream.digest_as_read[:16]}"
    cached = stream.cached(stem, of)
    if cached is not None:
        return cached

    parts = (part for view in views for part in _parts(stream, view))
    fitted = fitted_to(target, parts, stream.weight_S)
    assert fitted is not None, "the target has a fit"
    stream.cache(stem, of, fitted.float())
    return fitted.float()


def stream_statistic(
    stream: Stream, target: StatisticTarget, view: str, fitted: Tensor | None
) -> Tensor:
    """What all samples of a stream say of a statistic at a view: (N, G), float32.

    It is computed in float64.

    Args:
        stream: with predictions at the view.
        target: the statistic.
        view: the view's name.
        fitted: what ``stream_fit`` gave.

    Raises:
        StreamError: there is no such view, or it is corrupt.
    """
    digest = "" if fitted is None else sha256_arrays(fitted.numpy())
    of = sha256_text(
        canonical_json([*_sources(stream, target), view, stream.view_digests(view), digest])
    )
    stem = f"{target.name}-{of[:16]}-{view}-{stream.digest_as_read[:16]}"
    cached = stream.cached(stem, of)
    if cached is not None:
        return cached

    weight_S = stream.weight_S
    values = [statistic(target, part, weight_S, fitted) for part in _parts(stream, view)]
    result = torch.cat(values).float()
    stream.cache(stem, of, result)
    return result


def _parts(stream: Stream, view: str) -> Iterator[Tensor]:
    """What all samples predict at a view, some inputs at a time, (S, n, C) float64."""
    num_inputs = stream.num_inputs(view)
    size = max(1, _NUMBERS // (stream.num_samples * stream.key.num_predicted))
    for start in range(0, num_inputs, size):
        yield stream.predictions_at(view, slice(start, start + size)).double()


def _sources(stream: Stream, target: StatisticTarget) -> list[str]:
    """Digests of what a statistic is made of beside the view."""
    probe = probe_of(stream, target)
    of_probe = statistic(target, probe, torch.full((2,), 0.5))
    return [
        meaning_of(target),
        answer_to_probe(stream, target),
        sha256_arrays(of_probe.numpy()),
        stream.digest_as_read,
    ]
