"""What the teacher gave its students: they and their twins, measured over examples and seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gped_nas.api.conclusion import compared_metrics
from gped_nas.api.kept import KeptFiles
from gped_nas.api.measuring import as_posterior
from gped_nas.api.over_seeds import OverSeeds
from gped_nas.api.references import average_of
from gped_nas.api.students import Trainer
from gped_nas.api.twin_files import LABEL_TWIN, MAP_TWIN, STUDENT, Kind
from gped_nas.api.twins import Twins
from gped_nas.data.base import Part
from gped_nas.distill.student import Student
from gped_nas.evaluate.conditions import Predictor
from gped_nas.evaluate.measured import TEST, Key, public_name
from gped_nas.evaluate.resamples import Resamples, draw_resamples
from gped_nas.evaluate.seeds import Sampled, differences, means
from gped_nas.models.base import Genotype
from gped_nas.models.costs import cost_of
from gped_nas.search.document import StoredReference
from gped_nas.search.document import Twins as StoredTwins
from gped_nas.search.ledger import Ledger
from gped_nas.search.record import TrialRecord
from gped_nas.search.run import TimeLimit
from gped_nas.search.snapshot import PairedDifference, Reference

PARTS: tuple[Part, Part] = ("validation", "test")
LABELS: Mapping[Kind, str] = {
    STUDENT: "student over seeds",
    LABEL_TWIN: "label twin",
    MAP_TWIN: "MAP twin",
}
PAIRS: tuple[tuple[Kind, Kind], ...] = (
    (STUDENT, LABEL_TWIN),
    (STUDENT, MAP_TWIN),
    (MAP_TWIN, LABEL_TWIN),
)
LATER = "The student was not compared with its twins: the time was over. The same command goes on."
"""The note of a study whose twins are not all there."""


def compare_twins(
    ledger: Ledger,
    folder: Path,
    trainer: Trainer,
    front: Sequence[TrialRecord],
    chosen: TrialRecord | None,
    *,
    limit: TimeLimit,
) -> None:
    """Train and measure the twins that are missing of a front, unless the space wants none.

    Args:
        ledger: the study's; what was measured is written to it.
        folder: the study's folder.
        trainer: that of the study.
        front: the fixed front, best by the first objective first.
        chosen: the one of it that is chosen.
        limit: of the run: when its time is over, no further population is begun.

    Raises:
        DamageError: a twin's file is not what was written.
        Interrupted: the session said stop; what was trained is kept.
    """
    space = trainer.teacher.space
    if chosen is None or not space.twins.seeds:
        return

    settings = {
        "seeds": space.twins.seeds,
        "baseline": space.baseline.model_dump(mode="json"),
    }
    rows = {row.trial: row for row in ledger.document.twins if row.settings == settings}
    records = having_twins(front, chosen, space.twins.students)
    missing = [record for record in records if record.trial not in rows]
    if missing:
        genotypes = [Genotype.from_json(record.genotype) for record in missing]
        twins = Twins(trainer, KeptFiles(folder, ledger), genotypes)
        for population in twins.populations():
            if limit.is_over:
                ledger.change(notes=(*ledger.document.notes, LATER))
                return
            twins.train(population)

        judge = _Judge(trainer)
        for record, genotype in zip(missing, genotypes, strict=True):
            trainer.session.raise_if_stopped()
            rows[record.trial] = judge.compare(record.trial, genotype, twins, settings)

    in_order = tuple(rows[record.trial] for record in records)
    if in_order != ledger.document.twins:
        ledger.change(twins=in_order)


def having_twins(front: Sequence[TrialRecord], chosen: TrialRecord, num: int) -> list[TrialRecord]:
    """The chosen student, then others at equal distances along the front, its ends among them."""
    others = [record for record in front if record.trial != chosen.trial]
    num_others = min(num - 1, len(others))
    if num_others == 1:
        return [chosen, others[0]]
    places = [round(i * (len(others) - 1) / max(1, num_others - 1)) for i in range(num_others)]
    return [chosen, *(others[place] for place in places)]


@dataclass(frozen=True, eq=False)
class _Group:
    """The networks of one kind, one a seed.

    Attributes:
        kind: what they learned from.
        students: the networks.
        predictors: the same, as they are judged.
    """

    kind: Kind
    students: Sequence[Student]
    predictors: Sequence[Predictor]


class _Judge:
    """Measures the twins of a study."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        num_test, seed = len(trainer.teacher.dataset.test), trainer.teacher.space.seed
        resamples: dict[Part, Resamples] = {
            "validation": trainer.resamples,
            "test": draw_resamples(
                num_test, root=seed, part="test", device=trainer.session.accelerator
            ),
        }
        teacher = average_of(trainer.teacher).predictions
        self._over_seeds = OverSeeds(trainer, teacher, resamples)

    def compare(
        self, trial: int, genotype: Genotype, twins: Twins, settings: dict[str, Any]
    ) -> StoredTwins:
        """The twins of a trial's genotype as they are stored; none where no seed is of use."""
        seeds = twins.sound_seeds(genotype)
        if not seeds:
            return StoredTwins(trial=trial, settings=settings, num_seeds=0)

        networks, precision = twins.networks(genotype, seeds)
        sampled: dict[Kind, dict[Key, Sampled]] = {}
        references = []
        for kind, students in networks.items():
            group = self._group(kind, students)
            sampled[kind] = self._sample(group)
            reference = self._reference(group, sampled[kind], precision, len(seeds))
            references.append(StoredReference.of(reference))

        comparisons: list[PairedDifference] = []
        for first, second in PAIRS:
            if first in sampled and second in sampled:
                comparisons += self._differ(first, second, sampled, len(seeds))
        return StoredTwins(
            trial=trial,
            settings=settings,
            num_seeds=len(seeds),
            references=tuple(references),
            comparisons=tuple(comparisons),
            judged=tuple(compared_metrics(self._trainer)),
        )

    def _group(self, kind: Kind, students: Sequence[Student]) -> _Group:
        """A label twin has learned nothing but its label: all else is that of a certain network."""
        predictors: list[Predictor] = []
        for student in students:
            predictor: Predictor = self._trainer.predictor(student)
            if kind == LABEL_TWIN:
                predictor = as_posterior(self._trainer.teacher, predictor)
            predictors.append(predictor)
        return _Group(kind, students, predictors)

    def _sample(self, group: _Group) -> dict[Key, Sampled]:
        """Every metric under every condition on both parts."""
        sampled: dict[Key, Sampled] = {}
        for part in PARTS:
            sampled |= self._over_seeds.sample(group.predictors, part)
        return sampled

    def _reference(
        self, group: _Group, sampled: Mapping[Key, Sampled], precision: float, num_seeds: int
    ) -> Reference:
        """The mean over the seeds, and what a network of the kind costs on average."""
        root = self._trainer.teacher.space.seed
        return Reference(
            name=group.kind,
            label=LABELS[group.kind],
            measures=means(sampled, root=root),
            costs=self._mean_cost(group.students),
            note=_describe(group.kind, self._trainer, precision, num_seeds),
            is_control=group.kind == LABEL_TWIN,
        )

    def _mean_cost(self, students: Sequence[Student]) -> dict[str, int]:
        shape = self._trainer.teacher.dataset.input_shape
        costs = []
        for student in students:
            spec = student.spec
            costs.append(asdict(cost_of(spec.family, student.shapes, shape, spec.storage_dtype)))
        return {name: round(float(np.mean([cost[name] for cost in costs]))) for name in costs[0]}

    def _differ(
        self, first: Kind, second: Kind, sampled: Mapping[Kind, Mapping[Key, Sampled]], seeds: int
    ) -> list[PairedDifference]:
        """The paired test differences of two kinds."""
        root = self._trainer.teacher.space.seed
        rows = []
        for key, measured in differences(sampled[first], sampled[second], root=root).items():
            if key.part != TEST:
                continue
            if measured.value is None:
                continue
            row = PairedDifference(
                first=first,
                second=second,
                metric=public_name(Key(key.metric, key.condition)),
                part="test",
                difference=measured.value,
                interval=measured.interval,
                n=measured.n or 0,
                why=measured.why,
                seeds=seeds,
            )
            rows.append(row)
        return rows


def _describe(kind: Kind, trainer: Trainer, precision: float, num_seeds: int) -> str:
    """How the networks of a kind were made."""
    space = trainer.teacher.space
    seeds = "1 training" if num_seeds == 1 else f"the mean of {num_seeds} trainings"
    if kind == STUDENT:
        return f"The chosen student's genotype, distilled from the teacher anew: {seeds}."
    if kind == MAP_TWIN:
        return (
            "A network of the chosen student's genotype, distilled from the MAP network by the "
            f"same recipe: {seeds}."
        )
    precisions = ", ".join(f"{value:g}" for value in space.baseline.precisions)
    return (
        "A network of the chosen student's genotype, trained on labels alone by the same recipe: "
        f"{seeds}; prior precision {precision:g} of {precisions} by validation NLL."
    )
