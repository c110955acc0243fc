"""The task ``ood:SET``: whether uncertainty tells inputs from outside from those of the data.

A set is one that the space lists, or a name: ``noise``, ``rotated``, a dataset, a condition of the
inputs themselves, or the path of a file or a folder: ``ood:other.npz``, ``ood:./pictures``. Of an
attack the question is whether an attacker is noticed: ``ood:pgd-0.1`` looks for wrong answers
alone, ``ood:sly-0.1`` for wrong answers that look sure.
"""

import numpy as np

from gped_nas.api.measuring import is_attack
from gped_nas.api.tasks.attack import attackable, warnings_as_notes
from gped_nas.api.tasks.base import OPTION, Row, add_task
from gped_nas.api.tasks.bench import Bench, Subject, metrics_named
from gped_nas.evaluate.judging import evaluate_or_explain
from gped_nas.evaluate.measured import Key, Measured
from gped_nas.evaluate.outside import Inside, Outside, OutsideSettings, detection_labels
from gped_nas.evaluate.outside_names import parse_outside
from gped_nas.evaluate.predictions import AnyPredictions, joined
from gped_nas.evaluate.resamples import draw_resamples
from gped_nas.evaluate.scores import SCORES

_BINS = 20
_ENDINGS = (".npz", ".npy", ".csv", ".parquet")
"""Of files whose path may stand for a set."""


def _set(bench: Bench, name: str) -> Outside:
    """The set of this name: of the space, or any other.

    Raises:
        ConfigError, RegistryError: see ``parse_outside``.
    """
    space = None if bench.teacher is None else bench.teacher.space
    for outside in () if space is None else space.outside:
        if outside.name == name:
            return outside

    if "/" in name or name.endswith(_ENDINGS):
        return Outside(name, OutsideSettings(path=name))
    return parse_outside(name, OPTION, () if space is None else space.conditions)


def _check(bench: Bench, argument: str) -> None:
    _set(bench, argument).check(bench.dataset, bench.seed, OPTION)


@add_task(
    "ood",
    "noticing inputs from outside",
    argument="SET",
    example="permuted",
    metrics=("ood_",),
    check=_check,
    settings=lambda bench, argument: _set(bench, argument).key(),
)
def ood(bench: Bench, argument: str) -> list[Row]:
    """AUROC, AUPR and FPR95 by each score; an input from outside is the positive class.

    The distributions of a score stand in the row of its AUROC, as counts: ``{"edges": [...],
    "inside": [...], "outside": [...]}``.
    """
    outside = _set(bench, argument)
    inside = Inside(bench.dataset, bench.part, bench.raw, bench.labels, bench.seed)
    table: list[Row] = []
    for subject in bench.subjects:
        asked, note = _as_asked(bench, subject, outside)
        notes: list[str] = [note] if note else []
        with warnings_as_notes(notes):
            raw = outside.inputs(inside, asked.asked())
        bench.save(asked, raw, outside.name)

        within = bench.answers(asked).predictions
        beyond = asked.asked().predict(raw)
        rows = bench.rows(subject, _measures(bench, within, beyond, outside.name))
        for row in rows:
            row.update({"note": "; ".join(notes)} if notes else {})
            score = row["metric"].removeprefix("ood_auroc_")
            if score in SCORES:
                row["curve"] = _histogram(score, within, beyond)
        table += rows
    return table


def _as_asked(bench: Bench, subject: Subject, outside: Outside) -> tuple[Subject, str]:
    """Who is asked, and what must be said of it: an attack takes a few samples of a teacher."""
    return attackable(bench, subject) if is_attack(outside.condition) else (subject, "")


def _measures(
    bench: Bench, within: AnyPredictions, beyond: AnyPredictions, name: str
) -> dict[Key, Measured]:
    """The metrics of detection by every score that the predictions have."""
    both = joined(within, beyond)
    is_real = bench.dataset.task == "regression"
    return evaluate_or_explain(
        both,
        detection_labels(len(within), len(beyond), is_real=is_real),
        resamples=draw_resamples(len(both), root=bench.seed, part=f"{bench.part} and outside"),
        condition=name,
        part=bench.part,
        asked=metrics_named("ood_"),
        task="ood",
    )


def _histogram(
    score: str, within: AnyPredictions, beyond: AnyPredictions
) -> dict[str, list[float]]:
    """How many inputs inside and outside have which score."""
    scores_in, scores_out = SCORES[score].of(within), SCORES[score].of(beyond)
    edges = np.histogram_bin_edges(np.concatenate([scores_in, scores_out]), _BINS)
    return {
        "edges": edges.tolist(),
        "inside": np.histogram(scores_in, edges)[0].tolist(),
        "outside": np.histogram(scores_out, edges)[0].tolist(),
    }
