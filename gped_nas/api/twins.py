"""Twins of a student: its genotype, taught by the labels alone, by one MAP network, by the teacher.

All that differs is what they learn from: genotype, recipe, inputs, seeds, pruning and storage are
those of the student. So the difference between the student and a twin is what its teacher gave it.
Since the student that was chosen is also the luckiest of many, it is trained anew too, with the
seeds of its twins.

* The **label twin** overfits where soft targets do not. It has a normal prior of its own, whose
  precision is chosen on validation from the grid of ``baseline``, by the mean over the seeds.
* The **MAP twin** learns from the MAP network that is the baseline: ordinary distillation.

The networks of one kind and seed, of all genotypes and precisions, are one population. They are
kept in the study's folder, so that a run that was killed goes on, and one that looks at other
students trains theirs alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from gped_nas import rng
from gped_nas.api.kept import KeptFiles
from gped_nas.api.kept_students import read_kept, write_kept
from gped_nas.api.lessons import label_set, one_network_set
from gped_nas.api.map_network import tuned_map_network
from gped_nas.api.students import Trainer
from gped_nas.distill.feed import DistillationSet
from gped_nas.distill.student import WEIGHTS_FILE, Student
from gped_nas.errors import DamageError
from gped_nas.io import canonical_json, sha256_text
from gped_nas.models.base import Genotype

Kind = Literal["label_twin", "map_twin", "student"]
LABEL_TWIN: Kind = "label_twin"
MAP_TWIN: Kind = "map_twin"
STUDENT: Kind = "student"


@dataclass(frozen=True)
class Training:
    """One network to be trained.

    Attributes:
        genotype: the student's.
        kind: what it learns from.
        seed: number of the seed, from 1.
        precision: of its prior; 0 is none.
        taught_by: which network teaches it, where several could; empty where one could.
    """

    genotype: Genotype
    kind: Kind
    seed: int
    precision: float = 0.0
    taught_by: str = ""

    @property
    def name(self) -> str:
        """Its folder below that of all twins."""
        of_genotype = sha256_text(canonical_json(self.genotype.to_json()))[:16]
        prior = f"-{self.precision:g}" if self.precision else ""
        taught = f"-{self.taught_by}" if self.taught_by else ""
        return f"{of_genotype}/{self.kind}-{self.seed}{prior}{taught}"


@dataclass(frozen=True, eq=False)
class Twins:
    """The twins of some genotypes, trained where they are asked for.

    Attributes:
        trainer: that of the study.
        kept: where they lie, and their digests.
        genotypes: whose twins.
    """

    trainer: Trainer
    kept: KeptFiles
    genotypes: Sequence[Genotype]
    _failed: set[Training] = field(default_factory=set)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The student, and the twins that it can have."""
        if self.trainer.teacher.stream.has_weights:
            return (STUDENT, LABEL_TWIN, MAP_TWIN)
        return (STUDENT, LABEL_TWIN)

    def populations(self) -> Iterator[list[Training]]:
        """What has to be trained, a population each: one kind, one seed, all that is not there."""
        space = self.trainer.teacher.space
        for seed in range(1, space.twins.seeds + 1):
            for kind in self.kinds:
                missing = [t for t in self._trainings(kind, seed) if not self._is_there(t)]
                at_once = space.search.students_at_once
                for start in range(0, len(missing), at_once):
                    yield missing[start : start + at_once]

    def _trainings(self, kind: Kind, seed: int) -> list[Training]:
        grid = self.trainer.teacher.space.baseline.precisions
        precisions = grid if kind == LABEL_TWIN else (0.0,)
        trainings = []
        for genotype in self.genotypes:
            trainings += [self._training(genotype, kind, seed, each) for each in precisions]
        return trainings

    def _training(
        self, genotype: Genotype, kind: Kind, seed: int, precision: float = 0.0
    ) -> Training:
        taught_by = self._fresh_network if kind == MAP_TWIN else ""
        return Training(genotype, kind, seed, precision, taught_by)

    @cached_property
    def _fresh_network(self) -> str:
        """The name of the MAP network that chose nothing; empty where the chosen one teaches."""
        baseline = self.trainer.teacher.space.baseline
        if not baseline.seeds:
            return ""
        of_first = baseline.model_dump(mode="json", exclude={"seeds"})  # whatever their number
        return f"fresh-{sha256_text(canonical_json(of_first))[:8]}"

    def _is_there(self, training: Training) -> bool:
        return (self._folder(training) / WEIGHTS_FILE).exists()  # written last

    def _folder(self, training: Training) -> Path:
        return self.kept.folder / "references" / "twins" / training.name

    def train(self, population: Sequence[Training]) -> None:
        """Train networks of one kind and seed, and write those that are of use.

        Raises:
            Interrupted: the session said stop.
        """
        self.trainer.session.raise_if_stopped()
        kind, seed = population[0].kind, population[0].seed
        trainer = self._trainer_of(kind)
        num_labels = len(trainer.teacher.dataset.train)
        trained = trainer.distill(
            [training.genotype for training in population],
            seed=rng.seed(trainer.teacher.space.seed, "twins", seed),
            ridges=[training.precision / num_labels for training in population],
        )

        written = []
        for training, network in zip(population, trained, strict=True):
            if network.failure:
                self._failed.add(training)
                continue
            spec = trainer.spec(training.genotype, reference=kind)
            written.append((self._folder(training), spec, network.params))
        write_kept(self.kept, written)

    def _trainer_of(self, kind: Kind) -> Trainer:
        if kind == STUDENT:
            return self.trainer
        return self._label_trainer if kind == LABEL_TWIN else self._map_trainer

    @cached_property
    def _label_trainer(self) -> Trainer:
        trainer = self.trainer
        return _on_one_answer(trainer, data=label_set(trainer.teacher, trainer.data))

    @cached_property
    def _map_trainer(self) -> Trainer:
        trainer = self.trainer
        best = tuned_map_network(trainer.teacher, self.kept)
        return _on_one_answer(trainer, one_network_set(trainer.teacher, trainer.data, best.predict))

    def sound_seeds(self, genotype: Genotype) -> list[int]:
        """The seeds with which all kinds of a genotype are of use."""
        failed = {(t.genotype, t.seed) for t in self._failed if not t.precision}
        seeds = range(1, self.trainer.teacher.space.twins.seeds + 1)
        return [seed for seed in seeds if (genotype, seed) not in failed]

    def networks(
        self, genotype: Genotype, seeds: Sequence[int]
    ) -> tuple[dict[Kind, list[Student]], float]:
        """The networks of a genotype by kind, one a seed, and the precision of its label twins.

        There are no label twins where none of the grid could be trained with all seeds.

        Raises:
            DamageError: one of their files is not what was written.
        """
        by_precision = self._label_twins(genotype, seeds)
        scores = {precision: self._nll(twins) for precision, twins in by_precision.items()}
        best = min(scores, key=lambda precision: scores[precision]) if scores else 0.0

        networks: dict[Kind, list[Student]] = {}
        for kind in self.kinds:
            if kind != LABEL_TWIN:
                trainings = [self._training(genotype, kind, seed) for seed in seeds]
                networks[kind] = [self._read(training) for training in trainings]
            elif best:
                networks[kind] = by_precision[best]
        return networks, best

    def _label_twins(
        self, genotype: Genotype, seeds: Sequence[int]
    ) -> Mapping[float, list[Student]]:
        by_precision = {}
        for precision in self.trainer.teacher.space.baseline.precisions:
            trainings = [Training(genotype, LABEL_TWIN, seed, precision) for seed in seeds]
            if not self._failed.intersection(trainings):
                by_precision[precision] = [self._read(training) for training in trainings]
        return by_precision

    def _read(self, training: Training) -> Student:
        """One of the networks, checked.

        Raises:
            DamageError: it is not the one that was written.
        """
        student = read_kept(self.kept, self._folder(training))
        if student.spec.genotype != training.genotype.to_json():
            raise DamageError(
                f"{self._folder(training)}: found a network of another genotype; delete it"
            )
        return student

    def _nll(self, networks: Sequence[Student]) -> float:
        """The mean NLL of networks on validation, nats."""
        dataset = self.trainer.teacher.dataset
        raw, labels = dataset.raw("validation"), dataset.labels("validation")
        predictors = [self.trainer.predictor(network) for network in networks]
        scores = [predictor.predict(raw).log_score(labels).mean() for predictor in predictors]
        return -float(np.mean(scores))


def _on_one_answer(trainer: Trainer, data: DistillationSet) -> Trainer:
    """The trainer of networks that learn what one network, or a label, says at each input.

    Every update rule would show just that, and nobody looks at validation on the way.
    """
    changes = {"mode": "cached", "update": "averaged", "rungs": 0, "patience": 0}
    recipe = trainer.recipe.model_copy(update=changes)
    return replace(trainer, data=data, recipe=recipe, rung_set=None)
