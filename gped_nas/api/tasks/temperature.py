"""The task ``temperature``: answers at the one temperature that held-out labels ask for."""

from dataclasses import replace
from typing import Any

import numpy as np

from gped_nas.api.tasks.base import Row, add_task
from gped_nas.api.tasks.bench import Bench, Subject
from gped_nas.api.tasks.fitting import held_out
from gped_nas.evaluate.base import Metric
from gped_nas.evaluate.measured import Key, Measured
from gped_nas.evaluate.predictions import AnyPredictions, Floats, Labels
from gped_nas.evaluate.tempering import at_temperature, fitted_temperature

METRICS_OF = ("nll", "brier", "ece", "ece_debiased", "coverage_error")
"""What is measured of scaled answers."""


@add_task(
    "temperature",
    "answers at a temperature that is fitted after the fact",
    metrics=("temperature", "nll_change"),
)
def temperature(bench: Bench, argument: str) -> list[Row]:
    """The temperature, metrics at it, and what it gains."""
    table: list[Row] = []
    for subject in bench.subjects:
        table += _of(subject, bench)
    return table


def _of(subject: Subject, bench: Bench) -> list[Row]:
    answers = held_out(bench, subject)
    fitted = fitted_temperature(answers.predictions, answers.labels)
    temperature_N = answers.each(fitted_temperature)
    raw = answers.measured.predictions
    scaled = at_temperature(raw, temperature_N)

    why = "it is fitted, and no interval of it is known"
    of_itself = Key("temperature", part=bench.part)
    measures = {of_itself: Measured(fitted, n=len(answers.labels), why=why)}
    asked = (*METRICS_OF, _change_from(raw))
    measures |= bench.measures(replace(answers.measured, predictions=scaled, teacher=None), asked)
    return bench.rows(subject, measures, note=answers.note)


def _change_from(raw: AnyPredictions) -> Metric:
    """By how much the NLL is higher than that of answers as they were; below 0 is a gain."""

    def terms(predictions: Any, labels_N: Labels, teacher: Any) -> Floats:
        with np.errstate(invalid="ignore"):
            change_N = raw.log_score(labels_N) - predictions.log_score(labels_N)
        # a label that has no probability has none at any temperature
        both_N = np.isneginf(predictions.log_score(labels_N)) & np.isneginf(raw.log_score(labels_N))
        return np.where(both_N, 0.0, change_N)[:, None]

    return Metric(
        "nll_change",
        "minimize",
        "NLL at the temperature, less that without (nats)",
        terms,
        tasks=("classification", "regression"),
        always=False,
        unit="nats",
    )
