"""Trains the finalists of a study anew, and measures their genotypes over seeds and examples.

A training is of one genotype and one root seed: initialization and the order of batches. It answers
for every storage type. The networks are kept in the study's folder, so that a run that was killed
trains those alone that are missing. None of them is ever a trial's student.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from gped_nas import rng
from gped_nas.api.kept import KeptFiles
from gped_nas.api.kept_students import read_kept, write_kept
from gped_nas.api.over_seeds import OverSeeds
from gped_nas.api.students import Trainer
from gped_nas.data.base import Part
from gped_nas.distill.student import WEIGHTS_FILE, Student
from gped_nas.evaluate.measured import Key, parse_name, public_name, to_public
from gped_nas.evaluate.predictions import AnyPredictions
from gped_nas.evaluate.seeds import Sampled, difference_error, differences, means
from gped_nas.io import canonical_json, sha256_text
from gped_nas.models.base import Genotype
from gped_nas.models.costs import cost_of
from gped_nas.search.choice import FrontDifferences, StudentDifference
from gped_nas.search.finalists import Finalist, Finalists, near_front
from gped_nas.search.goals import Objective
from gped_nas.search.ledger import Ledger
from gped_nas.search.pareto import pareto_front
from gped_nas.search.record import TrialRecord
from gped_nas.search.region import Region, inside
from gped_nas.search.run import TimeLimit

LATER = "The finalists were not trained: the time was over. The same command goes on."
"""The note of a study whose finalists are not all there."""


def train_finalists(
    ledger: Ledger,
    folder: Path,
    trainer: Trainer,
    front: Sequence[TrialRecord],
    *,
    region: Region | None,
    limit: TimeLimit,
) -> None:
    """Train and measure the finalists that are missing, unless the space wants none.

    Args:
        ledger: the study's; what was measured is written to it.
        folder: the study's folder.
        trainer: that of the study.
        front: the fixed front, best by the first objective first.
        region: of the study.
        limit: of the run: when its time is over, no further population is begun.

    Raises:
        DamageError: a finalist's file is not what was written.
        Interrupted: the session said stop; what was trained is kept.
    """
    cfg = trainer.teacher.space.finalists
    document = ledger.document
    if not front or not cfg.seeds or document.description is None or not document.description.box:
        return

    records = ledger.records()
    useful = inside(records, document.objectives, region)
    best = document.description.box.best
    near = near_front(useful, front, document.objectives, best, cfg.near)
    members = [*front, *near]

    earlier = document.finalists
    asked = (cfg.seeds, cfg.near, [record.trial for record in members])
    if earlier is not None:
        trials = [row.trial for row in earlier.students]
        if (earlier.seeds, earlier.near, trials) == asked:
            return

    trainings = _Trainings(trainer, KeptFiles(folder, ledger), records)
    for seed in range(1, cfg.seeds + 1):
        for population in trainings.populations(members, seed):
            if limit.is_over:
                ledger.change(notes=(*ledger.document.notes, LATER))
                return
            trainings.train(population, members, seed)

    judge = _Judge(trainer, trainings, document.objectives, cfg.seeds)
    ledger.change(finalists=judge.finalists(members, len(front), cfg.near))


@dataclass(frozen=True, eq=False)
class _Trainings:
    """The networks of finalists: where they lie, and who trains them.

    Attributes:
        trainer: that of the study.
        kept: where they lie, and their digests.
        records: of all trials, by number.
    """

    trainer: Trainer
    kept: KeptFiles
    records: Sequence[TrialRecord]
    _failed: set[tuple[Genotype, int]] = field(default_factory=set)

    def folder(self, record: TrialRecord, seed: int) -> Path:
        """Where the network of a trial's genotype and a seed lies."""
        name = sha256_text(canonical_json(dict(record.genotype)))[:16]
        return self.kept.folder / "references" / "finalists" / name / str(seed)

    def is_there(self, record: TrialRecord, seed: int) -> bool:
        """Whether it was trained, and kept."""
        return (self.folder(record, seed) / WEIGHTS_FILE).exists()  # written last

    def trained_genotype(self, record: TrialRecord) -> Genotype:
        """The genotype that a trial's student was trained as, whatever it is stored in."""
        return Genotype.from_json(self.records[record.trained_in].genotype)

    def populations(self, members: Sequence[TrialRecord], seed: int) -> Iterator[list[Genotype]]:
        """What has to be trained with a seed, a population each."""
        missing: dict[Genotype, None] = {}
        for record in members:
            if not self.is_there(record, seed):
                missing[self.trained_genotype(record)] = None

        genotypes = [*missing]
        at_once = self.trainer.teacher.space.search.students_at_once
        for start in range(0, len(genotypes), at_once):
            yield genotypes[start : start + at_once]

    def train(
        self, genotypes: Sequence[Genotype], members: Sequence[TrialRecord], seed: int
    ) -> None:
        """Train a population, and write its networks for every member that they answer for.

        Raises:
            Interrupted: the session said stop.
        """
        self.trainer.session.raise_if_stopped()
        root = rng.seed(self.trainer.teacher.space.seed, "finalists", seed)
        trained = self.trainer.distill(genotypes, seed=root)

        written = []
        for genotype, network in zip(genotypes, trained, strict=True):
            if network.failure:
                self._failed.add((genotype, seed))
                continue
            for record in members:
                if self.trained_genotype(record) == genotype and not self.is_there(record, seed):
                    stored = Genotype.from_json(record.genotype)
                    spec = self.trainer.spec(stored, reference="finalist")
                    written.append((self.folder(record, seed), spec, network.params))
        write_kept(self.kept, written)

    def students(self, record: TrialRecord, num_seeds: int) -> list[Student]:
        """The networks of a trial's genotype, one a seed that did not fail.

        Raises:
            DamageError: one of their files is not what was written.
        """
        seeds = range(1, num_seeds + 1)
        there = [seed for seed in seeds if self.is_there(record, seed)]
        return [read_kept(self.kept, self.folder(record, seed)) for seed in there]


@dataclass(frozen=True, eq=False)
class _Judge:
    """Measures finalists.

    Attributes:
        trainer: that of the study.
        trainings: their networks.
        objectives: of the study, in order.
        seeds: fresh trainings that were asked for.
    """

    trainer: Trainer
    trainings: _Trainings
    objectives: Sequence[Objective]
    seeds: int
    _sampled: dict[int, dict[Key, Sampled]] = field(default_factory=dict)

    def finalists(self, members: Sequence[TrialRecord], num_front: int, near: float) -> Finalists:
        """What is stored of all of them.

        Args:
            members: of the front first, then the others.
            num_front: how many are of the front.
            near: see ``Finalists``.
        """
        rows = [self._measure(record) for record in members]
        rows = self._with_front(rows)
        rows = [self._with_ties(row, rows) for row in rows]
        return Finalists(self.seeds, near, tuple(rows), self._differ(rows[:num_front]))

    def _measure(self, record: TrialRecord) -> Finalist:
        """Means over the seeds; nothing where one of them failed: it cannot be relied on."""
        self.trainer.session.raise_if_stopped()
        students = self.trainings.students(record, self.seeds)
        if len(students) < self.seeds:
            return Finalist(record.trial, len(students))

        teacher: dict[Part, AnyPredictions] = {"validation": self.trainer.validation}
        over_seeds = OverSeeds(self.trainer, teacher, {"validation": self.trainer.resamples})
        predictors = [self.trainer.predictor(student) for student in students]
        sampled = over_seeds.sample(predictors, "validation")
        self._sampled[record.trial] = sampled
        public = to_public(means(sampled, root=self.trainer.teacher.space.seed))
        return Finalist(
            trial=record.trial,
            num_seeds=len(students),
            metrics=public["metrics"],
            intervals=public["intervals"],
            n=public["n"],
            why=public["why"],
            costs=self._mean_costs(students),
        )

    def _mean_costs(self, students: Sequence[Student]) -> Mapping[str, float]:
        shape = self.trainer.teacher.dataset.input_shape
        rows = []
        for student in students:
            spec = student.spec
            rows.append(asdict(cost_of(spec.family, student.shapes, shape, spec.storage_dtype)))
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

    def _values(self, row: Finalist) -> list[float]:
        """The objectives by the means; infinite or not a number where there is none."""
        values = []
        for goal in self.objectives:
            measured = row.measured(goal.name)
            mean = row.costs.get(goal.name) if measured is None else measured.value
            values.append(float("nan") if mean is None else mean)
        return values

    def _with_front(self, rows: Sequence[Finalist]) -> list[Finalist]:
        """The same, of whom the best by the means say so."""
        # a cost that is timed is not known of a finalist, and tells none from another
        values = np.array([self._values(row) for row in rows])
        known = ~np.isnan(values).all(axis=0)
        directions = [goal.direction for goal in self.objectives]
        of_known = [each for each, is_known in zip(directions, known, strict=True) if is_known]
        is_best = np.zeros(len(rows), bool)
        if of_known:
            is_best = pareto_front(values[:, known], of_known)
        return [
            replace(row, is_on_front=bool(best)) for row, best in zip(rows, is_best, strict=True)
        ]

    def _with_ties(self, row: Finalist, rows: Sequence[Finalist]) -> Finalist:
        """The same with the cheaper ones that it is not told from."""
        quality = self.objectives[0]
        if quality.kind != "metric" or row.trial not in self._sampled:
            return row

        tied = []
        for other in rows:
            if other.trial in self._sampled and self._is_cheaper(other, row):
                ends = self._difference(row, other, quality)
                is_told = ends is not None and (
                    ends[1] < 0 if quality.direction == "minimize" else ends[0] > 0
                )
                if not is_told:
                    tied.append(other)
        cost = next((goal.name for goal in self.objectives if goal.kind == "cost"), "macs")
        tied.sort(key=lambda other: -other.costs.get(cost, 0.0))
        return replace(row, tied_with=tuple(other.trial for other in tied))

    def _is_cheaper(self, first: Finalist, second: Finalist) -> bool:
        """Whether a finalist costs less in something and more in nothing."""
        names = [goal.name for goal in self.objectives if goal.kind == "cost"]
        pairs = [(first.costs[n], second.costs[n]) for n in names if n in first.costs]
        return all(mine <= theirs for mine, theirs in pairs) and any(
            mine < theirs for mine, theirs in pairs
        )

    def _difference(
        self, first: Finalist, second: Finalist, quality: Objective
    ) -> tuple[float, float] | None:
        """The 95 % interval of the paired difference over seeds and examples."""
        key = parse_name(quality.name)
        mine, theirs = self._sampled[first.trial], self._sampled[second.trial]
        if key not in mine or key not in theirs:
            return None
        root = self.trainer.teacher.space.seed
        return differences({key: mine[key]}, {key: theirs[key]}, root=root)[key].interval

    def _differ(self, rows: Sequence[Finalist]) -> FrontDifferences | None:
        """Those on the front by the means beside the best of them."""
        quality = self.objectives[0]
        key = parse_name(quality.name)
        rows = [row for row in rows if row.is_on_front and row.trial in self._sampled]
        sampled = {row.trial: self._sampled[row.trial].get(key) for row in rows}
        known: dict[int, Sampled] = {}
        for trial, of_trial in sampled.items():
            if of_trial is not None and of_trial.values_RK is not None:
                known[trial] = of_trial
        if quality.kind != "metric" or not known:
            return None

        sign = 1.0 if quality.direction == "minimize" else -1.0
        best = min(known, key=lambda trial: sign * known[trial].values_K.mean())
        others = []
        for trial, of_trial in known.items():
            if trial != best:
                difference, error = difference_error(of_trial, known[best])
                others.append(StudentDifference(trial, difference, error))
        return FrontDifferences(public_name(key), best, known[best].n, tuple(others))
