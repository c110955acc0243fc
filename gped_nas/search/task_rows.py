"""Rows that ``gped-search evaluate`` measured, as everybody shows them.

A kept row has a predictor (``trial 3``, ``teacher``, ...), a task, a metric, a condition and a
part; see ``evaluate.measured.rows``. It is called ``metric@condition`` as a recorded metric is. A
row without a condition has in that place what its task was asked with, or the task itself:
``latency_ms@onnx-1``, ``nll@temperature``, unless its metric begins with that. A condition that
does not begin with what its task was asked with has both: ``nll@bald 20-labels``. Where a measure
was made of several numbers of examples, that of most of them is shown.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gped_nas.evaluate.measured import CLEAN, Key, public_name
from gped_nas.models.labels import TIMED_COSTS
from gped_nas.search.snapshot import StudySnapshot

Row = Mapping[str, Any]
RECORDED = "prediction"
"""The task whose rows a record has anyway."""
TEACHER = "teacher"
_TRIAL = re.compile(r"trial (\d+)")


def name_of(row: Row) -> str:
    """A row's measure by its public name."""
    task, _, argument = str(row["task"]).partition(":")
    condition = row["condition"]
    if condition == CLEAN:
        # a task may measure what a record has too, such as the NLL of tempered answers
        condition = argument or (CLEAN if row["metric"].startswith(task) else task)
    elif not condition.startswith(argument):
        condition = f"{argument} {condition}"
    return public_name(Key(row["metric"], condition, row["part"]))


def trial_of(row: Row) -> int | None:
    """The trial whose student a row is of; None of the teacher and references."""
    match = _TRIAL.fullmatch(str(row["predictor"]))
    return int(match[1]) if match else None


def shown_rows(snapshot: StudySnapshot) -> list[Row]:
    """The rows to be shown, each measure of a predictor once."""
    best: dict[tuple[str, str, str], Row] = {}
    for row in snapshot.evaluations:
        if row["task"] == RECORDED:
            continue
        key = (row["predictor"], row["task"], name_of(row))
        if key not in best or _num(row) > _num(best[key]):
            best[key] = row
    return list(best.values())


def _num(row: Row) -> int:
    return int(row["n"] or 0)


def label_of(row: Row, snapshot: StudySnapshot) -> str:
    """A row's measure for people, with its condition."""
    metric = row["metric"]
    words = snapshot.metrics.get(metric)
    label = words.label if words else TIMED_COSTS.get(metric, metric.replace("_", " "))
    _, at, condition = name_of(row).partition("@")
    return f"{label}, {condition}" if at else label


def beside_teacher(rows: Sequence[Row], trial: int) -> list[tuple[Row, Row | None]]:
    """The rows of a trial's student, each with the teacher's of the same name and examples.

    None stands for the teacher's where there is none, or one of other examples.

    Args:
        rows: of ``shown_rows``.
        trial: the student's.
    """
    of_teacher = {_question(row): row for row in rows if row["predictor"] == TEACHER}
    pairs = []
    for row in rows:
        if trial_of(row) == trial:
            pairs.append((row, of_teacher.get(_question(row))))
    return pairs


def _question(row: Row) -> tuple[Any, ...]:
    """What two rows have in common that answer the same question about the same examples."""
    return (row["task"], name_of(row), row.get("limit"), row.get("seed"))
