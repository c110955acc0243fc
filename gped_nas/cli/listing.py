"""Students as rows: six columns that fit a terminal, or with ``--wide`` all of them."""

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

from gped_nas.cli.output import Format, print_rows
from gped_nas.cli.progress import say
from gped_nas.models.labels import TIMED_COSTS, short_genotype

MARK = "<- chosen"
NEAR = "near a guess"
OUTSIDE = "outside the region"
_COSTS = ("macs", "params", "storage_bytes")
_QUALITY = ("nll", "accuracy", "rmse", "kl_to_teacher")
_TESTED = ("test_nll", "test_nll_above_teacher", "test_accuracy", "test_rmse")


def print_students(
    records: Sequence[Any],
    study: Any,
    format: Format,
    *,
    wide: bool,
    chosen: int | None,
    title: str = "",
    states: Sequence[str] | None = None,
) -> None:
    """Records as a table or CSV, a row each; in a table those of a front say if they hardly know.

    Args:
        records: in the order of the rows.
        study: theirs.
        format: CSV has all columns, with intervals, and no mark.
        wide: whether a table has all columns.
        chosen: the trial that is marked as chosen; None for none.
        title: of a table.
        states: what became of each trial, to be said with the reason; None to say nothing of it.
    """
    is_csv = format is Format.csv
    if wide or is_csv:
        rows = full_rows(records, study)
    else:
        rows = _short_rows(records, study, num_qualities=2 if states is None else 1)

    from gped_nas.search.guess import near_guesses

    # with a region, who is near a guess is outside of it
    is_marked = states is None and study.region is None
    near = near_guesses(records, study.objectives) if is_marked else frozenset()
    apart = {record.trial for record in study.outside_records()} if states is not None else set()
    shown = []
    for i, (row, record) in enumerate(zip(rows, records, strict=True)):
        mark = ""
        if not is_csv:
            marks = {
                MARK: record.trial == chosen,
                NEAR: record.trial in near,
                OUTSIDE: record.trial in apart,
            }
            mark = ", ".join(text for text, is_set in marks.items() if is_set)
        if states is not None:
            row = {"trial": record.trial, "state": states[i]} | row
            row["reason"] = record.reason or mark or record.origin
        elif mark:
            row[""] = mark
        shown.append(row | _intervals(record, row) if is_csv else row)
    print_rows(shown, format, title=title)


def full_rows(records: Sequence[Any], study: Any) -> list[dict[str, Any]]:
    """A row a record, with those of the objectives and usual metrics that any of them has."""
    from gped_nas.api.frames import name_student

    measured = {name for record in records for name in record.metrics}
    columns = [*_qualities(study, measured), *(name for name in _TESTED if name in measured)]
    names, costs = [*dict.fromkeys(columns)], _costs(records)

    rows = []
    for record in records:
        row = {"trial": record.trial, "genotype": name_student(record)}
        row |= _values(record, names, costs)
        rows.append(row)
    return rows


def _costs(items: Sequence[Any]) -> list[str]:
    """Names of the usual costs, and of latencies where any of these items has one."""
    timed = [name for name in TIMED_COSTS if any(name in item.costs for item in items)]
    return [*_COSTS, *timed]


def _short_rows(records: Sequence[Any], study: Any, num_qualities: int) -> list[dict[str, Any]]:
    """As ``full_rows``, with the first qualities and costs, and the student in few words."""
    measured = {name for record in records for name in record.metrics}
    qualities, costs = short_columns(study, measured, num_qualities)
    rows = []
    for record in records:
        student = short_genotype(record.genotype) if "family" in record.genotype else ""
        row = {"trial": record.trial, "student": student}
        rows.append(row | _values(record, qualities, costs))
    return rows


def short_columns(
    study: Any, measured: Collection[str], num_qualities: int = 2
) -> tuple[list[str], list[str]]:
    """Names of the qualities and of the two costs of a short row."""
    costs = [goal.name for goal in study.objectives if goal.kind == "cost"]
    costs = list(dict.fromkeys([*costs, "storage_bytes", "macs"]))
    return _qualities(study, measured)[:num_qualities], costs[:2]


def _qualities(study: Any, measured: Collection[str]) -> list[str]:
    """Of the names that were measured the objectives, and those that are usually asked for."""
    objectives = [objective.name for objective in study.objectives]
    names = dict.fromkeys(name for name in (*objectives, *_QUALITY) if name in measured)
    return list(names)


def _values(item: Any, qualities: Sequence[str], costs: Sequence[str]) -> dict[str, Any]:
    """Numbers of a student or of a reference by name; None for one that it lacks."""
    metrics = {name: item.metrics.get(name) for name in qualities}
    return metrics | {name: item.costs.get(name) for name in costs}


def _intervals(record: Any, names: Collection[str]) -> dict[str, Any]:
    """The ends of the 95 % intervals of these metrics, and the number of examples behind each."""
    ends: dict[str, Any] = {}
    for name in names:
        measured = record.measured(name) if name in record.metrics else None
        if measured is not None:
            ends |= {f"{name}_low": measured.low, f"{name}_high": measured.high}
            ends[f"{name}_n"] = measured.n
    return ends


def print_finalists(study: Any, format: Format, trial: int | None = None) -> None:
    """The finalists, a row each: means over fresh seeds, with 95 % intervals; nothing without any.

    Args:
        study: theirs.
        format: of the table.
        trial: the one that is asked for; all by default.
    """
    finalists = study.finalists
    if finalists is None:
        return
    quality = study.objectives[0].name
    costs = [goal.name for goal in study.objectives if goal.kind == "cost"]
    front = {record.trial for record in study.front_records()}

    rows = []
    for finalist in finalists.students:
        if trial not in (None, finalist.trial):
            continue
        measured = finalist.measured(quality)
        row = {"trial": finalist.trial, "front": "yes" if finalist.trial in front else "near"}
        row["by the means"] = "yes" if finalist.is_on_front else "no"
        row[quality] = None if measured is None else measured.value
        row["low"] = None if measured is None else measured.low
        row["high"] = None if measured is None else measured.high
        row |= {name: finalist.costs.get(name) for name in costs}
        row["not told from"] = ", ".join(map(str, finalist.tied_with[:3]))
        rows.append(row)
    if rows:
        title = f"genotypes over {finalists.seeds} fresh seeds, means and 95 % intervals"
        print_rows(rows, format, title=title)


def finalist_json(study: Any, trial: int) -> dict[str, Any]:
    """What a trial's JSON has of its genotype over seeds; nothing of who is no finalist."""
    row = None if study.finalists is None else study.finalists.of(trial)
    return {} if row is None else {"finalist": asdict(row)}


def print_references(study: Any, *, wide: bool) -> None:
    """What the front is compared with, a row each with the columns of the front."""
    references = study.references()
    measured = {name for reference in references for name in reference.metrics}
    qualities, costs = short_columns(study, measured)
    if wide:
        tested = [name for name in _TESTED if name in measured]
        qualities, costs = [*_qualities(study, measured), *tested], _costs(references)

    rows = []
    for reference in references:
        rows.append({"reference": reference.label} | _values(reference, qualities, costs))
    if rows:
        print_rows(rows, Format.table, title="what it is compared with")


def print_classes(record: Any, study: Any) -> None:
    """The recall and the precision of each class, by its name; nothing where none were kept."""
    from gped_nas.api.evidence_files import read
    from gped_nas.api.snapshots import summary_of
    from gped_nas.report.cards import classes

    evidence = read(study.path, [record]).get(record.trial, {})
    names = summary_of(study).class_names
    rows = []
    for figures in classes(evidence.get("confusion", ()), names):
        low, high = figures["interval"]
        row = {"class": figures["name"], "recall": figures["recall"], "low": low, "high": high}
        rows.append(row | {"precision": figures["precision"], "n": figures["n"]})
    if rows:
        title = "recall by class, 95 % interval"
        print_rows(rows, Format.table, title=title)


def warn_of_outside(study: Any) -> None:
    """Say how many complete students are of no use, and what would be."""
    from gped_nas.search.region_words import note_outside

    for note in note_outside(study.records(), study.objectives, study.region):
        say(note)


def warn_of_teacher(study: Any) -> None:
    """Say so where what students imitate is worth nothing, or has seen where they are chosen."""
    from gped_nas.report.holdout import describe_gap

    if study.is_teacher_guess or study.is_without_use:
        say(
            "the teacher is not better than a guess from the training labels: no student of it is "
            "to be used; mend the teacher, see `gped-search teacher info`"
        )

    snapshot = study.snapshot()
    for reference in snapshot.references:
        gap = describe_gap(reference, snapshot.metrics) if reference.name == "teacher" else ""
        if gap:
            say(f"warning: {gap}")
