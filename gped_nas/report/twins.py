"""What a teacher gave a student: it beside its twins, in one sentence and as a table."""

from collections.abc import Callable, Iterable

from gped_nas.evaluate.measured import CLEAN, TEST, Key, parse_name, public_name
from gped_nas.report.beside import Evidence
from gped_nas.report.records import Data, plain
from gped_nas.report.sentences import NAMES, size_of
from gped_nas.report.words import spaced, things
from gped_nas.search.snapshot import PairedDifference, Reference, StudySnapshot, TwinsOf

_TOLD = ("nll", "accuracy", "rmse", "ece", "brier", "entropy_error")
"""Metrics of which the sentence says whether the student is better, in this order."""


def describe_bought(evidence: Evidence) -> str:
    """What the teacher bought at the student's size; empty where it has no twins."""
    twins = evidence.twins
    if twins is None or not twins.others:
        return ""

    parts = []
    for other in twins.others:
        rows = _told(twins, other)
        parts.append(f"beside its {_short(other)} the student is {_outcome(rows, evidence)}")
    seeds = things(twins.num_seeds, "training")
    each = f" (test, {seeds} of each)" if twins.num_seeds > 1 else " (test, one training of each)"
    return f"What the teacher bought at this size{each}: {'; '.join(parts)}."


def _told(twins: TwinsOf, other: Reference) -> list[PairedDifference]:
    """The student beside one of its twins, in the metrics that the sentence tells of."""
    rows = []
    for row in twins.comparisons:
        is_pair = (row.first, row.second) == ("student", other.name)
        if is_pair and row.metric in _TOLD and row.interval is not None:
            rows.append(row)
    return sorted(rows, key=lambda row: _TOLD.index(row.metric))


def _outcome(rows: Iterable[PairedDifference], evidence: Evidence) -> str:
    """What is better and what is worse: ``better in NLL (0.0123 nats [0.0050, 0.0200])``."""
    better: list[str] = []
    worse: list[str] = []
    for row in rows:
        words = evidence.metrics.get(row.metric)
        if words is None or row.interval is None or row.interval[0] <= 0 <= row.interval[1]:
            continue
        is_better = (row.difference > 0) == (words.direction == "maximize")
        low, high = sorted(abs(end) for end in row.interval)
        ends = ", ".join(size_of(end, row.metric).split()[0] for end in (low, high))
        size = f"{size_of(abs(row.difference), row.metric)} [{ends}]"
        text = f"{_name(row.metric, words.label)} ({size})"
        (better if is_better else worse).append(text)

    parts = []
    if better:
        parts.append(f"better in {' and '.join(better)}")
    if worse:
        parts.append(f"worse in {' and '.join(worse)}")
    return " and ".join(parts) or "not told apart from it in anything"


def _name(metric: str, label: str) -> str:
    """A metric in a sentence: ``error of E[H]``."""
    return NAMES.get(metric) or label.partition(" (")[0] or spaced(metric)


def _short(reference: Reference) -> str:
    return reference.label.partition(" (")[0]


def twins_data(snapshot: StudySnapshot, label_of: Callable[[str], str]) -> list[Data]:
    """A table for each student that has twins: a row a metric, on test.

    Args:
        snapshot: the study.
        label_of: a metric's name to its label.
    """
    tables = []
    for twins in snapshot.twins:
        if not twins.references:
            continue
        table: Data = {
            "trial": twins.trial,
            "num_seeds": twins.num_seeds,
            "predictors": [reference.label for reference in twins.references],
            "others": [_short(reference) for reference in twins.others],
            "rows": _rows(twins, label_of),
        }
        tables.append(table)
    return tables


def _rows(twins: TwinsOf, label_of: Callable[[str], str]) -> list[Data]:
    metrics = dict.fromkeys(row.metric for row in twins.comparisons if row.first == "student")
    rows = []
    for metric in metrics:
        key = parse_name(metric)
        name = public_name(Key(key.metric, key.condition or CLEAN, TEST))
        values = [reference.metrics.get(name) for reference in twins.references]
        row: Data = plain({"metric": metric, "label": label_of(metric), "values": values})
        row["differences"] = [_difference(twins, other, metric) for other in twins.others]
        rows.append(row)
    return rows


def _difference(twins: TwinsOf, other: Reference, metric: str) -> Data | None:
    """The student less one of its twins; None where it was not made."""
    for row in twins.comparisons:
        if (row.first, row.second, row.metric) == ("student", other.name, metric):
            difference: Data = plain(
                {"difference": row.difference, "interval": row.interval, "n": row.n, "why": row.why}
            )
            return difference
    return None
