"""What a candidate for a teacher is worth on training data that is held out.

Validation chooses students, so it must not choose their teacher too. A fifth of the training part
is held out, by a seeded carving that keeps groups together; of small data several fifths in turn,
until there are ``ENOUGH`` examples. Inputs and labels stay normalized as the whole training part
has them, so that a prior and a noise mean the same as in the teacher that is built at the end.

A candidate climbs rungs: a quarter of its samples on the first fold, all of them, then the other
folds. Its stream grows, so nothing is sampled twice.
"""

from dataclasses import dataclass, replace

import torch

from gped_nas.api.session import Session
from gped_nas.api.teacher import Teacher, sample_teacher
from gped_nas.data.base import Dataset
from gped_nas.data.rows import join
from gped_nas.data.splits import Split, carve
from gped_nas.evaluate.predictions import Floats
from gped_nas.evaluate.teacher import log_scores
from gped_nas.io import canonical_json, sha256_text
from gped_nas.posterior.base import ChainConfig, MethodConfig
from gped_nas.posterior.deep_ensemble import DeepEnsembleConfig
from gped_nas.posterior.map import MapConfig
from gped_nas.posterior.priors import Prior
from gped_nas.search.space import SearchSpace

ENOUGH = 600
"""Examples held out, where the data has so many."""
LARGEST = 10_000
"""Examples held out at most."""
SHARE, MAX_FOLDS = 5, 3
"""A fold is one in ``SHARE`` examples; there are at most ``MAX_FOLDS`` of them."""
MAP_SEEDS = 3
"""Networks of which a MAP candidate is the mean, unless more are asked for."""
FINAL_SEEDS = 5
"""Networks by MAP that the teacher is compared with at the end."""
_FIRST_SHARE = 4


@dataclass(frozen=True)
class Rung:
    """One step of a candidate.

    Attributes:
        fold: which one, from 0.
        is_whole: whether all its samples are drawn there.
    """

    fold: int
    is_whole: bool


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The folds, as datasets whose validation part is what is held out.

    Attributes:
        folds: at least one.
        text: what was done, for people.
    """

    folds: tuple[Dataset, ...]
    text: str

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """Those of every candidate, in order."""
        others = [Rung(fold, True) for fold in range(1, len(self.folds))]
        return (Rung(0, False), Rung(0, True), *others)

    @property
    def n(self) -> int:
        """Number of examples held out."""
        return sum(len(fold.validation) for fold in self.folds)


def hold_out(dataset: Dataset, seed: int, where: str) -> HeldOut:
    """Carve the training part.

    Args:
        dataset: the space's.
        seed: root of the permutations.
        where: of the space, for messages.

    Raises:
        DataError: there are too few examples to carve any.
    """
    num_train = len(dataset.train)
    size = min(num_train // SHARE, LARGEST)
    num_folds = min(MAX_FOLDS, -(-ENOUGH // max(size, 1)))

    remaining = dataset.train
    held_out = []
    for i in range(num_folds):
        fraction = size / len(remaining)
        held, remaining = carve(
            remaining, fraction, seed=seed + i, part="validation", where=f"{where}: held out"
        )
        held_out.append(held)

    folds = tuple(_fold(dataset, held_out, remaining, i) for i in range(num_folds))
    in_turn = "" if num_folds == 1 else f" in {num_folds} folds"
    text = (
        f"{sum(map(len, held_out)):,} of {num_train:,} training examples{in_turn}, drawn with "
        f"seed {seed}; validation and test are not touched"
    )
    return HeldOut(folds, text)


def _fold(dataset: Dataset, held_out: list[Split], remaining: Split, number: int) -> Dataset:
    """The dataset with one part held out, and the others back in the training part."""
    train = remaining
    for i, held in enumerate(held_out):
        train = train if i == number else _join(train, held)
    return replace(
        dataset,
        train=train,
        validation=held_out[number],
        unlabeled=dataset.unlabeled[:0],
        digest=sha256_text(canonical_json([dataset.digest, "held out", number, len(held_out)])),
    )


def _join(first: Split, second: Split) -> Split:
    group = None
    if first.group is not None and second.group is not None:
        group = torch.cat([first.group, second.group])
    return Split(join([first.x, second.x]), torch.cat([first.y, second.y]), group)


@dataclass(frozen=True, eq=False)
class Candidate:
    """Settings that a teacher could have.

    Attributes:
        method, prior: its settings.
        map_seeds: networks that stand for one by MAP.
    """

    method: MethodConfig
    prior: Prior
    map_seeds: int = MAP_SEEDS

    @property
    def is_map(self) -> bool:
        """Whether it is one network, which is judged over seeds."""
        return isinstance(self.method, MapConfig)

    def sampled(self, share: int) -> MethodConfig:
        """The method that is run for it, with one in ``share`` samples of each chain.

        Networks by MAP are the members of a deep ensemble: one stream has those of all seeds.
        """
        method = self.method
        if isinstance(method, MapConfig):
            settings = method.model_dump() | {"name": "deep_ensemble"}
            method = DeepEnsembleConfig(**settings, num_samples=self.map_seeds)
            return method
        if not isinstance(method, ChainConfig):
            return method

        draws = method.num_samples // method.chains
        fewer = max(1, -(-draws // share)) * method.chains
        return method.model_copy(update={"num_samples": fewer})

    def teacher(
        self, space: SearchSpace, dataset: Dataset, session: Session, *, is_whole: bool = True
    ) -> Teacher:
        """It, sampled, or a part of it. Raises as ``sample_teacher``."""
        method = self.sampled(1 if is_whole else _FIRST_SHARE)
        # candidates are raw: what is held out measures them and calibrates nothing
        tuned = replace(space, method=method, prior=self.prior, views=(), calibration="none")
        return sample_teacher(tuned, session, dataset=dataset)

    def losses(self, teacher: Teacher) -> Floats:
        """NLL of each validation example (N,), nats: of the average, of MAP the mean over seeds."""
        if self.is_map:
            mean_N: Floats = losses_by_sample(teacher).mean(axis=0)
            return mean_N
        return losses_of_average(teacher)


def losses_of_average(teacher: Teacher) -> Floats:
    """NLL of a teacher's average at each validation example (N,), nats."""
    losses_N: Floats = -teacher.averaged("validation").log_score(
        teacher.dataset.labels("validation")
    )
    return losses_N


def losses_by_sample(teacher: Teacher) -> Floats:
    """NLL of each sample alone at each validation example (S, N), nats."""
    dataset = teacher.dataset
    score_SN = log_scores(
        teacher.predicted("validation"),
        dataset.labels("validation"),
        dataset.label_normalization,
    )
    losses_SN: Floats = -score_SN.numpy()
    return losses_SN
