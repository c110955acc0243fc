"""Several studies that differ in their seed alone, summarized: what one run's luck is worth."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gped_nas.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from gped_nas.api.study import Study

_COLUMNS = ("mean", "sd", "n", "low", "high")


def summarise(studies: "Sequence[Study]", *, trial: str = "chosen") -> "pd.DataFrame":
    """The chosen students of several studies: mean, standard deviation and interval of each number.

    The interval is Student's t of the mean over studies: it covers the luck of training, search and
    teacher, where intervals within one study cover the choice of examples.

    Args:
        studies: two or more that differ in their seed alone, or in their name.
        trial: which student of each: ``"chosen"`` or ``"best"``.

    Returns:
        A row a metric or cost that every student has, and one a reference's metric on test
        (``teacher: test_nll``); columns ``mean``, ``sd`` (of one study, n - 1 in the denominator),
        ``n``, and ``low`` and ``high`` of the 95 % interval of the mean.

    Raises:
        ConfigError: fewer than two studies, one of them twice, or they have other objectives or
            settings than their seed.
        GateError: one has no such student.
    """
    import pandas as pd

    _check(studies)
    values: dict[str, list[float]] = {}
    for study in studies:
        for name, value in study.find(trial).values.items():
            values.setdefault(name, []).append(float(value))
        for reference in study.references():
            for name, value in reference.metrics.items():
                if name.startswith("test_"):
                    values.setdefault(f"{reference.name}: {name}", []).append(value)

    rows = {name: _summary(each) for name, each in values.items() if len(each) == len(studies)}
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=list(_COLUMNS))
    return frame.astype({"n": "int64"})


def _check(studies: "Sequence[Study]") -> None:
    if len(studies) < 2:
        raise ConfigError(f"summarise: found {len(studies)} studies, expected at least two")
    paths = {study.path.resolve() for study in studies}
    if len(paths) < len(studies):
        raise ConfigError("summarise: found a study twice; give each seed's study once")

    first, *others = studies
    for study in others:
        if study.objectives != first.objectives:
            raise ConfigError(f"summarise: '{study.name}' has other objectives than '{first.name}'")
        differing = sorted(_settings(study).items() ^ _settings(first).items())
        if differing:
            raise ConfigError(
                f"summarise: '{study.name}' and '{first.name}' differ in {differing[0][0]}; "
                "expected studies that differ in their seed alone"
            )


def _settings(study: "Study") -> dict[str, str]:
    """What must be equal: everything that decides a study, but its seed."""
    config = study.snapshot().config
    return {part: str(value) for part, value in config.items() if part not in ("seed", "name")}


def _summary(values: Sequence[float]) -> tuple[float, float, int, float, float]:
    from scipy.stats import t

    n = len(values)
    mean = math.fsum(values) / n
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(t.ppf(0.975, n - 1)) * sd / math.sqrt(n)
    return mean, sd, n, mean - half, mean + half
