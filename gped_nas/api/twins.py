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

from gped_nas import rng
from gped_nas.api.kept import KeptFiles
from gped_nas.api.kept_students import write_kept
from gped_nas.api.lessons import label_set, one_network_set
from gped_nas.api.map_network import tuned_map_network
from gped_nas.api.students import Trainer
from gped_nas.api.twin_files import LABEL_TWIN, STUDENT, Kind, Training, TwinFiles
from gped_nas.distill.feed import DistillationSet
from gped_nas.distill.student import Student
from gped_nas.models.base import Genotype


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

    @cached_property
    def files(self) -> TwinFiles:
        """Where they lie."""
        return TwinFiles(self.trainer.teacher, self.kept, self.trainer.predictor)

    def populations(self) -> Iterator[list[Training]]:
        """What has to be trained, a population each: one kind, one seed, all that is not there."""
        space = self.trainer.teacher.space
        for seed in self.files.seeds:
            for kind in self.files.kinds:
                missing = [t for t in self._trainings(kind, seed) if not self.files.is_there(t)]
                at_once = space.search.students_at_once
                for start in range(0, len(missing), at_once):
                    yield missing[start : start + at_once]

    def _trainings(self, kind: Kind, seed: int) -> list[Training]:
        precisions = self.files.precisions if kind == LABEL_TWIN else (0.0,)
        trainings = []
        for genotype in self.genotypes:
            trainings += [self.files.training(genotype, kind, seed, each) for each in precisions]
        return trainings

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
            written.append((self.files.folder(training), spec, network.params))
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
        return [seed for seed in self.files.seeds if (genotype, seed) not in failed]

    def networks(
        self, genotype: Genotype, seeds: Sequence[int]
    ) -> tuple[dict[Kind, list[Student]], float]:
        """The networks of a genotype by kind, one a seed, and the precision of its label twins.

        There are no label twins where none of the grid could be trained with all seeds.

        Raises:
            DamageError: one of their files is not what was written.
        """
        by_precision = self._label_twins(genotype, seeds)
        best = self.files.best_precision(by_precision)

        networks: dict[Kind, list[Student]] = {}
        for kind in self.files.kinds:
            if kind != LABEL_TWIN:
                trainings = [self.files.training(genotype, kind, seed) for seed in seeds]
                networks[kind] = [self.files.read(training) for training in trainings]
            elif best:
                networks[kind] = by_precision[best]
        return networks, best

    def _label_twins(
        self, genotype: Genotype, seeds: Sequence[int]
    ) -> Mapping[float, list[Student]]:
        by_precision = {}
        for precision in self.files.precisions:
            trainings = [Training(genotype, LABEL_TWIN, seed, precision) for seed in seeds]
            if not self._failed.intersection(trainings):
                by_precision[precision] = [self.files.read(training) for training in trainings]
        return by_precision


def _on_one_answer(trainer: Trainer, data: DistillationSet) -> Trainer:
    """The trainer of networks that learn what one network, or a label, says at each input.

    Every update rule would show just that, and nobody looks at validation on the way.
    """
    changes = {"mode": "cached", "update": "averaged", "rungs": 0, "patience": 0}
    recipe = trainer.recipe.model_copy(update=changes)
    return replace(trainer, data=data, recipe=recipe, rung_set=None)
