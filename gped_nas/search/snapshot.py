"""A study at one instant as plain data, for reports, tables and notebooks: no handle to Optuna."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gped_nas.evaluate.measured import (
    Measured,
    Measures,
    finite_values,
    from_public,
    parse_name,
    to_public,
)
from gped_nas.search.finalists import Finalists
from gped_nas.search.goals import MetricWords, Objective
from gped_nas.search.record import TrialRecord
from gped_nas.search.region import Region

EXHAUSTED = "Every genotype of the space was tried"
"""How the note begins of a study whose search has nothing left to draw."""


@dataclass(frozen=True)
class Reference:
    """A predictor the students are compared with; never a candidate.

    Attributes:
        name: ``teacher`` (average over all posterior samples), ``single_sample`` (the best one by
            validation NLL), ``map`` (one optimized network of the teacher's genotype), ``unpruned``
            (a student of the teacher's genotype, never pruned: Bayesian dark knowledge),
            ``label_twin`` and ``map_twin`` (of the chosen student, see ``TwinsOf``), and ``plain``
            (the label twin of studies made before there were twins).
        label: for people.
        measures, costs: as in ``TrialRecord``; costs of serving it once.
        note: how it was made, one sentence.
        is_control: whether it is a plain network, which knows nothing of the teacher: if a student
            is no better at its price, the teacher did not help.
    """

    name: str
    label: str
    measures: Measures
    costs: Mapping[str, int | float] = field(default_factory=dict)
    note: str = ""
    is_control: bool = False

    @property
    def metrics(self) -> dict[str, float]:
        """Finite values by public name, as in ``TrialRecord``."""
        return finite_values(self.measures)

    def measured(self, name: str) -> Measured | None:
        """The measure of a public name; None where it was not made."""
        return self.measures.get(parse_name(name))

    def to_json(self) -> dict[str, Any]:
        """Plain data: keys as the attributes, measures as ``metrics``, ``intervals`` and ``n``."""
        return {
            "name": self.name,
            "label": self.label,
            **to_public(self.measures),
            "costs": dict(self.costs),
            "note": self.note,
            "is_control": self.is_control,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Reference":
        """The reference that ``to_json`` wrote, or an earlier version."""
        measures = from_public(
            data["metrics"], data.get("intervals"), data.get("n"), data.get("why")
        )
        return Reference(
            name=data["name"],
            label=data["label"],
            measures=measures,
            costs=data.get("costs", {}),
            note=data.get("note", ""),
            # before there were others, the MAP network was the only one
            is_control=data.get("is_control", data["name"] == "map"),
        )


@dataclass(frozen=True)
class PairedDifference:
    """A paired difference ``first - second`` of one metric on the same examples.

    Attributes:
        first, second: who.
        metric: what, on which ``part``.
        difference: its value.
        interval: its 95 % interval; None where none is honest, and ``why`` says why.
        n: number of examples.
        why: why there is no interval.
        p_value: of the exact test that both are equal, where the metric is a share of examples.
        seeds: how many trainings of each it is the mean of; the interval is then over these too.
    """

    first: str
    second: str
    metric: str
    part: str
    difference: float
    interval: tuple[float, float] | None
    n: int
    why: str = ""
    p_value: float | None = None
    seeds: int = 1


@dataclass(frozen=True)
class TwinsOf:
    """A student's genotype, trained anew with several seeds on what differs alone.

    Attributes:
        trial: the student's.
        num_seeds: trainings of each.
        references: ``student`` (by the teacher), ``label_twin`` (by labels alone) and ``map_twin``
            (by one MAP network); of each metric the mean over the seeds.
        comparisons: their paired test differences, over examples and seeds.
        judged: metrics that say whether the student is any better; all others are told.
    """

    trial: int
    num_seeds: int
    references: tuple[Reference, ...] = ()
    comparisons: tuple[PairedDifference, ...] = ()
    judged: tuple[str, ...] = ()

    @property
    def others(self) -> tuple[Reference, ...]:
        """Those that the student is compared with."""
        return tuple(r for r in self.references if r.name != "student")

    @property
    def judgments(self) -> tuple[PairedDifference, ...]:
        """The student beside its twins, in the metrics that say whether it is any better."""
        rows = [row for row in self.comparisons if row.first == "student"]
        return tuple(row for row in rows if row.metric in self.judged)


@dataclass(frozen=True)
class StudySnapshot:
    """A study at one instant.

    Attributes:
        name: the study's name (untrusted text).
        config: the resolved search space, plain data.
        objectives: in order; the first one is the quality that ranks the front.
        records: every trial by number.
        front: trial numbers of the non-dominated records inside the region, best by the first
            objective first.
        chosen: trial number of the student picked, or None when the front is empty.
        rule: how it was picked, one sentence.
        knee: trial number of the front's knee, by ``search.pareto.KNEE_RULE``; None when the front
            is empty.
        references: see ``Reference``.
        paired_differences: of test metrics on the same examples: references and teacher; the
            student and the teacher, and the student and plain networks.
        hypervolume: after each trial in ``records`` order, normalized to [0, 1] of the reference
            box.
        random_order: expected hypervolume after as many of the same trials in random order, see
            ``search.coverage.random_order``.
        reference_point: objective name to the worst value counted.
        best_point: objective name to the other end of the reference box.
        importances: objective name to parameter name to share; empty when there are too few trials.
        teacher: what is told of the stream: ``digest, num_samples, method, samples_to_nll`` (list
            of ``[number of samples, validation NLL]``), ``seconds`` (of sampling, once),
            ``diagnosis`` and ``verdict``; ``prediction_verdict`` once a front was concluded.
        provenance: versions, device, seeds, digests; flat mapping of text to text or number.
        num_test_evaluations: how many students' test predictions were made so far.
        split_text: the dataset's split in words.
        notes: things a reader must know, one sentence each.
        evidence: trial number of a front student to what its card shows, see ``evaluate.evidence``;
            an example's ``picture`` is a PNG in base64.
        class_names: one a class, in label order; empty for regression.
        metrics: what is to be said of each recorded metric, by its name without part and condition.
        twins: of the students that have them, the chosen one's first.
        region: which students are of use; None in a study that was begun before there was one.
        outside: trial numbers of the complete records that are of no use: on no front.
        finalists: genotypes of the front and near it over seeds; None without any.
        evaluations: rows that ``gped-search evaluate`` measured, see ``evaluate.measured.rows``.
    """

    name: str
    config: Mapping[str, Any]
    objectives: tuple[Objective, ...]
    records: tuple[TrialRecord, ...]
    front: tuple[int, ...]
    chosen: int | None
    rule: str
    references: tuple[Reference, ...]
    paired_differences: tuple[PairedDifference, ...]
    hypervolume: tuple[float, ...]
    reference_point: Mapping[str, float]
    importances: Mapping[str, Mapping[str, float]]
    teacher: Mapping[str, Any]
    provenance: Mapping[str, Any]
    num_test_evaluations: int
    split_text: str
    notes: tuple[str, ...] = ()
    knee: int | None = None
    random_order: tuple[float, ...] = ()
    best_point: Mapping[str, float] = field(default_factory=dict)
    evidence: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    metrics: Mapping[str, MetricWords] = field(default_factory=dict)
    twins: tuple[TwinsOf, ...] = ()
    region: Region | None = None
    outside: tuple[int, ...] = ()
    finalists: Finalists | None = None
    evaluations: tuple[Mapping[str, Any], ...] = ()

    def record(self, trial: int) -> TrialRecord:
        """The record of a trial number.

        Raises:
            KeyError: there is no such trial.
        """
        for record in self.records:
            if record.trial == trial:
                return record
        raise KeyError(trial)
