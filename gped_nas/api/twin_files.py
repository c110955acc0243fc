"""Twins as they lie in a study's folder: where each is, and which precision label twins have."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from gped_nas.api.kept import KeptFiles
from gped_nas.api.kept_students import read_kept
from gped_nas.api.teacher import Teacher
from gped_nas.distill.student import WEIGHTS_FILE, Student
from gped_nas.errors import DamageError
from gped_nas.evaluate.conditions import Predictor
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
class TwinFiles:
    """The twins of a study that are there.

    Attributes:
        teacher: the study's.
        kept: where they lie, and their digests.
        predictor: a network as it is asked.
    """

    teacher: Teacher
    kept: KeptFiles
    predictor: Callable[[Student], Predictor]

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The student, and the twins that it can have."""
        if self.teacher.stream.has_weights:
            return (STUDENT, LABEL_TWIN, MAP_TWIN)
        return (STUDENT, LABEL_TWIN)

    @property
    def seeds(self) -> range:
        """The numbers of all seeds."""
        return range(1, self.teacher.space.twins.seeds + 1)

    @property
    def precisions(self) -> tuple[float, ...]:
        """Those that label twins are trained with."""
        return tuple(self.teacher.space.baseline.precisions)

    def training(
        self, genotype: Genotype, kind: Kind, seed: int, precision: float = 0.0
    ) -> Training:
        """One of the networks, by what it is made with."""
        taught_by = self._fresh_network if kind == MAP_TWIN else ""
        return Training(genotype, kind, seed, precision, taught_by)

    @cached_property
    def _fresh_network(self) -> str:
        """The name of the MAP network that chose nothing; empty where the chosen one teaches."""
        baseline = self.teacher.space.baseline
        if not baseline.seeds:
            return ""
        of_first = baseline.model_dump(mode="json", exclude={"seeds"})  # whatever their number
        return f"fresh-{sha256_text(canonical_json(of_first))[:8]}"

    def is_there(self, training: Training) -> bool:
        """Whether a network was trained, and kept."""
        return (self.folder(training) / WEIGHTS_FILE).exists()  # written last

    def folder(self, training: Training) -> Path:
        """Where a network lies."""
        return self.kept.folder / "references" / "twins" / training.name

    def read(self, training: Training) -> Student:
        """One of the networks, checked.

        Raises:
            DamageError: it is not the one that was written.
        """
        student = read_kept(self.kept, self.folder(training))
        if student.spec.genotype != training.genotype.to_json():
            raise DamageError(
                f"{self.folder(training)}: found a network of another genotype; delete it"
            )
        return student

    def label_twin(self, genotype: Genotype) -> Student | None:
        """The label twin of a genotype: of the first seed, of the best precision over all seeds.

        None where the study has none.

        Raises:
            DamageError: a file of one is not what was written.
        """
        seeds = []
        for seed in self.seeds:
            others = [kind for kind in self.kinds if kind != LABEL_TWIN]
            if all(self.is_there(self.training(genotype, kind, seed)) for kind in others):
                seeds.append(seed)

        by_precision: dict[float, list[Student]] = {}
        for precision in self.precisions:
            trainings = [self.training(genotype, LABEL_TWIN, seed, precision) for seed in seeds]
            if trainings and all(map(self.is_there, trainings)):
                by_precision[precision] = [self.read(training) for training in trainings]

        best = self.best_precision(by_precision)
        return by_precision[best][0] if best else None

    def best_precision(self, by_precision: Mapping[float, Sequence[Student]]) -> float:
        """The precision whose networks have the lowest mean NLL on validation; 0 without any."""
        scores = {precision: self._nll(networks) for precision, networks in by_precision.items()}
        return min(scores, key=lambda precision: scores[precision]) if scores else 0.0

    def _nll(self, networks: Sequence[Student]) -> float:
        """The mean NLL of networks on validation, nats."""
        dataset = self.teacher.dataset
        raw, labels = dataset.raw("validation"), dataset.labels("validation")
        predictors = [self.predictor(network) for network in networks]
        scores = [predictor.predict(raw).log_score(labels).mean() for predictor in predictors]
        return -float(np.mean(scores))
