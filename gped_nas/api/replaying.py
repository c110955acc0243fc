"""Proposers compared on the students that studies trained already: ``gped-search replay``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gped_nas import rng
from gped_nas.api.opening import open_study
from gped_nas.api.places import study_space
from gped_nas.api.study import Study
from gped_nas.api.teacher import load_dataset
from gped_nas.config import parse, parse_value
from gped_nas.errors import ConfigError, StudyError
from gped_nas.io import canonical_json
from gped_nas.models.base import Genotype
from gped_nas.models.costs import genotype_cost
from gped_nas.search.document import Description, StudyDocument
from gped_nas.search.proposing.choosing import with_chosen_sampler
from gped_nas.search.proposing.facts import facts_of
from gped_nas.search.replaying.file import PoolFile, read_pool
from gped_nas.search.replaying.players import Player, player_of
from gped_nas.search.replaying.pool import Recorded, pool_of
from gped_nas.search.replaying.race import Factor, Run, Track, factors, play, random_target
from gped_nas.search.space import SearchConfig, SearchSpace
from gped_nas.search.space_file import parse_space
from gped_nas.search.volume import reference_box

BASELINE = "random every_dtype=false"
"""What others are compared with: students drawn at random, each in the type that was drawn."""
PROPOSERS = ("random", "tpe", "auto")
"""What is compared by default."""
_COVERED = ("students", "objectives", "constraints", "recipe", "teacher and dataset (the stream)")
"""Parts of a study's identity in which the studies of a pool are equal."""


@dataclass(frozen=True)
class ReplayRow:
    """How one proposer did.

    Attributes:
        proposer: as it was asked for.
        num_reached, num_runs: repetitions that reached the target, and all.
        factors: by ``steps``, ``macs`` and ``seconds``, what the baseline spends over what this one
            does until the target, counted student by student.
        whole: the same, whole populations being paid.
    """

    proposer: str
    num_reached: int
    num_runs: int
    factors: Mapping[str, Factor]
    whole: Mapping[str, Factor]


@dataclass(frozen=True)
class Replay:
    """What a replay says; its intervals hold for this pool and teacher alone.

    Attributes:
        studies: names of the pool's studies, one a seed.
        num_members: trainings in the pool.
        num_target: the target is the median front of so many random trainings.
        target: its hypervolume, as a share of the box.
        at_once: students of a population.
        rows: of the proposers, the baseline first.
    """

    studies: tuple[str, ...]
    num_members: int
    num_target: int
    target: float
    at_once: int
    rows: tuple[ReplayRow, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def replay(
    studies: str | Path | Study | Sequence[str | Study],
    *,
    proposers: Sequence[str] = PROPOSERS,
    repeats: int = 100,
    target: int = 64,
    at_once: int | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Replay:
    """Compare proposers on trained students, without training any.

    Args:
        studies: a study, or several of one space whose seeds differ; or a pool's JSON file.
        proposers: samplers, each perhaps with settings of ``search``: ``tpe``, or
            ``costs_known start_up=12``.
        repeats: repetitions of each.
        target: the front to reach is the median one of so many random trainings; at most half of
            the pool.
        at_once: students of a population; that of the studies' space by default.
        seed: of everything that is drawn.
        progress: called with what is done, how often and of how many.

    Raises:
        ConfigError: a proposer that is none, or a number out of range.
        StudyError: the studies are not of one space, or have too few trainings in common.
        DataError: the file is no pool.
    """
    if repeats < 2:
        raise ConfigError(f"--repeats: found {repeats}, expected at least 2")
    file = _file_of(studies)
    course = Course.of(file, at_once)
    most = len(course.track.pool.members) // 2
    if not 2 <= target <= most:
        raise ConfigError(
            f"--target: found {target}, expected 2 to {most}, half of the "
            f"{len(course.track.pool.members)} trainings of the pool"
        )

    asked = [(BASELINE, course.space_of(BASELINE))]
    for name in proposers:
        if name != BASELINE:
            asked.append((name, course.space_of(name)))
    volume = random_target(course.track, target, seed)
    runs: list[list[Run]] = []
    for i, (_, space) in enumerate(asked):
        of_proposer = []
        for repetition in range(repeats):
            progress("replays", i * repeats + repetition, len(asked) * repeats)
            drawn = rng.seed(seed, "replay", repetition)
            of_proposer.append(course.run(space, volume, limit=2 * target, seed=drawn))
        runs.append(of_proposer)

    rows = []
    for (name, _), of_proposer in zip(asked, runs, strict=True):
        rows.append(
            ReplayRow(
                proposer=name,
                num_reached=sum(bool(run.volumes[-1] >= volume) for run in of_proposer),
                num_runs=len(of_proposer),
                factors=factors(of_proposer, runs[0], volume, whole=False, seed=seed),
                whole=factors(of_proposer, runs[0], volume, whole=True, seed=seed),
            )
        )
    names = tuple(study.name for study in file.studies)
    num_members = len(course.track.pool.members)
    return Replay(names, num_members, target, volume, course.at_once, tuple(rows))


def _file_of(studies: str | Path | Study | Sequence[str | Study]) -> PoolFile:
    given: list[Any] = [studies] if isinstance(studies, str | Path | Study) else list(studies)
    if len(given) == 1 and not isinstance(given[0], Study):
        path = Path(given[0])
        if path.suffix == ".json":
            return read_pool(path)
    return file_of([each if isinstance(each, Study) else open_study(each) for each in given])


def file_of(studies: Sequence[Study]) -> PoolFile:
    """What a replay of studies needs, as one file holds it.

    Raises:
        StudyError: they are not of one space, or the first one has no teacher yet.
    """
    _check_same(studies)
    first = studies[0]
    space = study_space(first)
    dataset = load_dataset(space)
    shape, num_outputs = dataset.input_shape, space.num_outputs(dataset.num_outputs)
    document = first.ledger.document
    assert document.description is not None, "the study has a space"
    if document.description.box is None:
        raise StudyError(
            f"study '{first.name}': it has no reference box yet; repeat its `gped-search run`"
        )

    recorded = []
    for study in studies:
        drawn_macs = {}
        records = study.ledger.records()
        for record in records:
            if record.measures:
                genotype = Genotype.from_json(record.genotype)
                drawn_macs[record.trial] = float(genotype_cost(genotype, shape, num_outputs).macs)
        recorded.append(Recorded(study.name, records, study.ledger.params(), drawn_macs))
    return PoolFile(
        config=document.description.config,
        input_shape=shape,
        num_classes=dataset.num_outputs,
        axes=document.description.box,
        region=document.region,
        studies=tuple(recorded),
    )


@dataclass(frozen=True)
class Course:
    """A pool with everything that runs on it need.

    Attributes:
        space: of the studies.
        file: what is known of them.
        track: the pool and its measure.
        at_once: students of a population.
    """

    space: SearchSpace
    file: PoolFile
    track: Track
    at_once: int

    @staticmethod
    def of(file: PoolFile, at_once: int | None) -> "Course":
        space = parse_space(file.config, "the space of the pool")
        box = reference_box(space.objectives, file.axes, file.region)
        track = Track(
            pool_of(file.studies), space.objectives, box, file.region, space.recipe.prune_at
        )
        return Course(space, file, track, at_once or space.search.students_at_once)

    def player(self, space: SearchSpace, seed: int) -> Player:
        """Who chooses as a space's sampler does; its region is the one that the space asks for."""
        region = self.file.region
        if region is not None and space.search.keep != self.space.search.keep:
            region = region.asking(space.search.keep, space.objectives)
        # what facts_of reads of a study
        document = StudyDocument(
            identity={},
            objectives=space.objectives,
            description=Description(box=self.file.axes),
            region=region,
        )
        facts = facts_of(space, document, self.file.input_shape, self.file.num_classes)
        return player_of(space, self.track.pool, facts, seed)

    def space_of(self, proposer: str) -> SearchSpace:
        """The space as a proposer searches it.

        Raises:
            ConfigError: it is none.
        """
        name, *settings = proposer.split()
        where = f"--proposer {proposer}"
        changes: dict[str, Any] = {"sampler": name}
        for setting in settings:
            key, equals, text = setting.partition("=")
            if not equals:
                raise ConfigError(f"{where}: found '{setting}', expected KEY=VALUE of search")
            changes[key] = parse_value(text, where)
        search = {**self.space.search.model_dump(exclude_unset=True), **changes}
        search["students_at_once"] = self.at_once
        space = replace(self.space, search=parse(SearchConfig, search, where))
        # for one trial, so that no space is small enough to be listed
        space = with_chosen_sampler(space, 1)
        self.player(space, 0)  # refuses what is no way to draw
        return space

    def run(self, space: SearchSpace, volume: float, *, limit: int, seed: int) -> Run:
        """One repetition of a proposer."""
        return play(
            self.track,
            self.player(space, seed),
            at_once=self.at_once,
            limit=limit,
            target=volume,
            seed=seed,
            every_dtype=space.search.every_dtype,
        )


def _check_same(studies: Sequence[Study]) -> None:
    """Refuse studies that are no pool together.

    Raises:
        StudyError: they differ in more than their seeds, or do not differ.
    """
    first = studies[0].ledger.document.identity
    seeds = set()
    for study in studies:
        identity = study.ledger.document.identity
        differing = [part for part in _COVERED[:-1] if identity.get(part) != first.get(part)]
        if differing:
            raise StudyError(
                f"study '{study.name}': found {', '.join(differing)} other than those of study "
                f"'{studies[0].name}', expected studies of one space whose seeds differ; replay "
                "them apart"
            )
        seeds.add(canonical_json([identity.get("seed"), identity.get(_COVERED[-1]), study.name]))
    if len(seeds) < len(studies):
        raise StudyError(
            f"study '{studies[0].name}': found twice, expected studies whose seeds differ; name "
            "each of them once"
        )
