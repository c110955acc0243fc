"""A study at one instant: its front, its place in the reference box, and all that reports show."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gped_nas.api import evidence_files
from gped_nas.api.evaluations import read_rows
from gped_nas.errors import StudyError
from gped_nas.search.choice import FrontDifferences, choose
from gped_nas.search.coverage import random_order
from gped_nas.search.document import Box, Description, References, StudyDocument
from gped_nas.search.finalists import describe_ties
from gped_nas.search.goals import MetricWords, Objective
from gped_nas.search.pareto import Floats, knee, pareto_front
from gped_nas.search.record import TrialRecord
from gped_nas.search.region import Region, inside, outside
from gped_nas.search.region_words import explain_empty_front, note_outside
from gped_nas.search.snapshot import Reference, StudySnapshot
from gped_nas.search.trials import check_undamaged
from gped_nas.search.volume import coverage, losses_in, reference_box

if TYPE_CHECKING:
    from gped_nas.api.study import Study


def front_of(
    records: Sequence[TrialRecord], objectives: Sequence[Objective], region: Region | None
) -> list[int]:
    """Trial numbers of the non-dominated records, best by the first objective first.

    Who is outside the region is not among them.

    Raises:
        DamageError: a record is damaged, and might be on the front.
    """
    check_undamaged(records)
    useful = inside(records, objectives, region)
    if not useful:
        return []

    points = np.array([[record.value(goal.name) for goal in objectives] for record in useful])
    is_on_front = pareto_front(points, [objective.direction for objective in objectives])
    front = [useful[index] for index in np.flatnonzero(is_on_front)]

    leading = objectives[0]
    sign = -1 if leading.direction == "maximize" else 1
    front.sort(key=lambda record: (sign * record.value(leading.name), record.trial))
    return [record.trial for record in front]


def deciding(document: StudyDocument, front: Sequence[int]) -> FrontDifferences | None:
    """What decides between the students of a front over seeds; None without its finalists."""
    return None if document.finalists is None else document.finalists.deciding(front)


def _note_ties(document: StudyDocument, front: Sequence[int]) -> tuple[str, ...]:
    """Which students of the front are not told from cheaper ones, a sentence."""
    if document.finalists is None:
        return ()
    return tuple(filter(None, (describe_ties(document.finalists, front),)))


def losses_of(study: "Study", records: Sequence[TrialRecord]) -> Floats:
    """Objectives of records as losses in [0, 1] of the reference box, shape (N, M)."""
    objectives = study.objectives
    if not records:
        return np.empty((0, len(objectives)))
    box = reference_box(objectives, _axes_of(study), study.region)
    return losses_in(box, records, objectives)


def _axes_of(study: "Study") -> Box:
    """The ends that each objective declares."""
    description = study.ledger.document.description
    if description is None or description.box is None:
        raise StudyError(
            f"study '{study.name}': it has trials and no reference box; restore its storage"
        )
    return description.box


def snapshot_of(study: "Study") -> StudySnapshot:
    """A study at this instant, as plain data."""
    summary = summary_of(study)
    history: list[float] = []
    at_random: list[float] = []
    if summary.records:
        covered = coverage(summary.records, study.objectives, _axes_of(study), study.region)
        history = covered.history.tolist()
        at_random = random_order(covered.losses).tolist()

    return replace(
        summary,
        hypervolume=tuple(history),
        random_order=tuple(at_random),
        importances=study.ledger.importances(study.objectives),
        evaluations=tuple(
            read_rows(study.path, {record.spec_sha256 for record in summary.records})
        ),
        evidence=evidence_files.read(
            study.path, [summary.records[trial] for trial in summary.front]
        ),
    )


def summary_of(study: "Study") -> StudySnapshot:
    """The snapshot without what only figures show: these take longer than all the rest."""
    records = study.records()
    document = study.ledger.document
    objectives = document.objectives
    description = document.description or Description()
    references = document.references or References()
    region = document.region
    box = Box(best=(), worst=())
    if description.box is not None:
        box = reference_box(objectives, description.box, region)

    front = front_of(records, objectives, region)
    front_records = [records[trial] for trial in front]
    front_losses = losses_of(study, front_records)
    over_seeds = deciding(document, front)
    index, rule = choose(
        front_records, objectives, front_losses, document.front_differences, over_seeds
    )
    is_worthless = region is not None and region.lacks_skill
    chosen = None if index is None or is_worthless else front[index]
    if chosen is None and records:
        what, remedy = explain_empty_front(records, objectives, region)
        rule = (
            f"{'No student is chosen' if front else 'The front is empty'}, since {what}; {remedy}."
        )

    paired = list(references.comparisons)
    if chosen is not None:
        paired += study.paired_differences(chosen)
    twins = [stored.twins for stored in document.twins]
    others: list[Reference] = []
    for row in twins:
        if row.trial == chosen:
            others += row.others
            paired += row.judgments

    names = [o.name for o in objectives]
    student_seconds = round(sum(r.seconds for r in records), 1)
    return StudySnapshot(
        name=study.name,
        config=description.config,
        objectives=objectives,
        records=tuple(records),
        front=tuple(front),
        chosen=chosen,
        rule=rule,
        references=(*document.predictors, *others),
        paired_differences=tuple(paired),
        hypervolume=(),
        reference_point=dict(zip(names, box.worst, strict=False)),
        importances={},
        teacher=description.teacher.to_json() | _prediction_verdict(references),
        provenance={**description.provenance, "student seconds": student_seconds},
        num_test_evaluations=study.num_test_evaluations,
        split_text=description.split_text,
        notes=(
            *document.notes,
            *note_outside(records, objectives, region),
            *_note_ties(document, front),
        ),
        finalists=document.finalists,
        region=region,
        outside=outside(records, objectives, region),
        knee=front[knee(front_losses)] if front else None,
        best_point=dict(zip(names, box.best, strict=False)),
        class_names=description.class_names,
        metrics=_words_of(description, records, (*references.predictors, *others)),
        twins=tuple(twins),
    )


def _prediction_verdict(references: References) -> dict[str, Any]:
    """What is told of the teacher's predictions once a front was concluded."""
    verdict = references.prediction_verdict
    return {} if verdict is None else {"prediction_verdict": verdict}


def _words_of(
    description: Description, records: Sequence[TrialRecord], references: Sequence[Reference]
) -> dict[str, MetricWords]:
    """What is to be said of the metrics: as the study stored it, and what is registered today."""
    words = {name: stored.words for name, stored in description.metrics.items()}
    tables = [source.measures for source in records]
    tables += [source.measures for source in references]
    recorded = {key.metric for key in set().union(*tables)}
    if recorded <= set(words):
        return words

    # Studies made before the words were stored get those of today's metrics, which torch measures.
    from gped_nas.search.objectives import registered_words

    return registered_words() | words
