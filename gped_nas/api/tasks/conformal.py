"""The task ``conformal:ALPHA``: sets that miss the label with a probability of at most alpha."""

from functools import partial
from math import ceil

import numpy as np

from gped_nas.api.tasks.base import OPTION, Row, add_task
from gped_nas.api.tasks.bench import Bench, Subject
from gped_nas.api.tasks.fitting import held_out
from gped_nas.errors import ConfigError
from gped_nas.evaluate.conformal import Conformal, rules_for, scores_of_labels, threshold
from gped_nas.evaluate.predictions import AnyPredictions, Labels


def _alpha(argument: str) -> float:
    """The share of labels that sets may miss.

    Raises:
        ConfigError: it is none.
    """
    try:
        alpha = float(argument)
    except ValueError:
        alpha = np.nan
    if not 0 < alpha < 1:
        raise ConfigError(
            f"{OPTION}: found 'conformal:{argument}', expected the share of labels that sets may "
            "miss, above 0 and below 1; write conformal:0.1"
        )
    return alpha


def _check(bench: Bench, argument: str) -> None:
    _alpha(argument)


@add_task(
    "conformal",
    "sets and intervals that hold the label",
    argument="ALPHA",
    default="0.1",
    metrics=("split_", "aps_"),
    check=_check,
)
def conformal(bench: Bench, argument: str) -> list[Row]:
    """Coverage and size, by each rule there is."""
    table: list[Row] = []
    for subject in bench.subjects:
        table += _of(subject, bench, _alpha(argument))
    return table


def _of(subject: Subject, bench: Bench, alpha: float) -> list[Row]:
    answers = held_out(bench, subject)
    num_needed = ceil((1 - alpha) / alpha)
    few = (
        f"{answers.num_fitted} labels to fit on are too few for {1 - alpha:g}, which takes "
        f"{num_needed}: sets have every label"
    )

    table: list[Row] = []
    for rule in rules_for(answers.predictions):
        fit = partial(_fitted, rule, alpha)
        fitted = Conformal(rule, answers.each(fit), few)
        is_regression = bench.dataset.task == "regression"
        asked = fitted.metrics(is_regression=is_regression)
        note = answers.note
        if np.isinf(fitted.threshold_N).any():
            note = f"{note}; {few}"
        table += bench.rows(subject, bench.measures(answers.measured, asked), note=note)
    return table


def _fitted(rule: str, alpha: float, predictions: AnyPredictions, labels_N: Labels) -> float:
    return threshold(scores_of_labels(rule, predictions, labels_N), alpha)
