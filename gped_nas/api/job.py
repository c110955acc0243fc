"""Run a search: from a space to a study with its front, its references and its report."""

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gped_nas.api import evidence
from gped_nas.api.bars import bars, is_watched
from gped_nas.api.calibrating import remembered
from gped_nas.api.conclusion import conclude
from gped_nas.api.ending import end_of_search, watch_front, with_patience
from gped_nas.api.engines.opening import opened
from gped_nas.api.engines.workers import check_workers
from gped_nas.api.finalists import train_finalists
from gped_nas.api.finding import session_with_stream
from gped_nas.api.home import Home, find
from gped_nas.api.identity import identity
from gped_nas.api.latency import check_machine
from gped_nas.api.lessons import distillation_set
from gped_nas.api.measuring import check_finite
from gped_nas.api.nearness import compare_with_best
from gped_nas.api.note import REPORT
from gped_nas.api.preparing import describe, prepare_trainer, span_box
from gped_nas.api.recipes import training_notes
from gped_nas.api.regions import check_sizes
from gped_nas.api.restoring import restore
from gped_nas.api.sampling import stream_key
from gped_nas.api.session import Session, new_session
from gped_nas.api.standing import LOCK, PREDICTIONS, REFERENCES, TEACHER, Follower, Standing
from gped_nas.api.students import Trainer, keep_only
from gped_nas.api.study import Study
from gped_nas.api.teacher import Teacher, load_dataset, sample_teacher
from gped_nas.api.tuned import with_named_teacher
from gped_nas.api.twin_measures import compare_twins
from gped_nas.api.warm_start import Source, check_source, check_target, find_source, tell
from gped_nas.config import dump_yaml
from gped_nas.data.base import Dataset
from gped_nas.distill.feed import DistillationSet
from gped_nas.distill.phases import check_kernel
from gped_nas.errors import ConfigError, GateError, Interrupted
from gped_nas.io import lock, make_dir, remove_temporaries, write_text
from gped_nas.models.labels import TIMED_COSTS
from gped_nas.models.module import Modules
from gped_nas.search.database import storage_refusals
from gped_nas.search.ledger import Ledger
from gped_nas.search.objectives import check_measurable
from gped_nas.search.proposing.choosing import choose_sampler
from gped_nas.search.record import TrialRecord
from gped_nas.search.region import Region, outside
from gped_nas.search.run import TIMEOUT, TimeLimit, search
from gped_nas.search.space import SearchSpace
from gped_nas.search.space_file import load_space
from gped_nas.search.study import create_or_load
from gped_nas.search.teacher_words import describe_calibration
from gped_nas.search.trials import check_undamaged
from gped_nas.stream.key import StreamKey

_LONGEST_NAME = 255
"""Bytes that file systems take for a folder's name."""


def run(
    space: SearchSpace | str | Path,
    *,
    out: str | Path = "reports",
    study_name: str | None = None,
    storage: str | None = None,
    n_trials: int | None = None,
    timeout_s: float | None = None,
    stop_when_flat: int | None = None,
    seed: int | None = None,
    teacher: str | None = None,
    adopt: bool = False,
    from_study: str | Path | None = None,
    session: Session | None = None,
    modules: Modules | None = None,
    told: Callable[[TrialRecord, int], None] = lambda record, finished: None,
    progress: bool | None = None,
) -> Study:
    """Run a search, or go on with the one that is there, and write its report.

    Args:
        space: a search space, its file or its shipped name.
        out: folder of all studies.
        study_name: the name of its folder, and of the study unless the folder holds one that was
            called otherwise; the space's by default.
        storage: an Optuna storage URL; a SQLite file in the study's folder by default.
        n_trials: finished trials wanted, earlier runs included; the space's by default.
        timeout_s: seconds after which it ends, with what is finished and without references: no
            population is begun that would not end in time. The same call goes on.
        stop_when_flat: trials without a gain of hypervolume beyond its noise after which it ends, 0
            for none; the space's ``search.stop_when_flat`` by default.
        seed: root of every seed; the space's by default.
        teacher: ``"tuned"`` for the one that ``tune_teacher`` found; the space's own by default.
        adopt: take the study over from the folder that it belongs to.
        from_study: another study whose students the sampler of a new one is told of, see
            ``search.earlier``: a name in ``out``, a folder, or a name in the same storage.
        session: how to run.
        modules: what builds the teacher's network where its family is ``module``, by the name that
            the space has for it; one of a ``SearchSpace`` may have it from ``load_space``.
        told: called with each record and the number of finished trials.
        progress: whether to draw bars; by default on a terminal and in a notebook, unless a session
            was given, which has its own.

    Returns:
        The study.

    Raises:
        GateError: no student is of use, at the end or when the time was over.
        Interrupted: the session said stop; the same call goes on from there.
        GpedError: see the parts.
    """
    limit = TimeLimit(timeout_s)
    if not isinstance(space, SearchSpace):
        space = load_space(space, {} if seed is None else {"seed": seed}, modules=modules)
    elif seed is not None and seed != space.seed:
        raise ConfigError(
            f"seed: found {seed}, the space says {space.seed}; give the seed when loading the space"
        )
    elif modules:
        space = space.with_modules(modules)

    space = with_named_teacher(space, teacher)
    if stop_when_flat is not None:
        space = with_patience(space, stop_when_flat)
    n_trials = space.search.n_trials if n_trials is None else n_trials
    if n_trials < 1:
        raise ConfigError(f"--n-trials: found {n_trials}, expected at least 1")

    name = study_name or space.name
    check_study_name(name, "--study-name")

    if session is None:
        session = new_session()
        draws = is_watched() if progress is None else progress
    else:
        draws = bool(progress)
    with bars(name) if draws else contextlib.nullcontext() as drawn:
        if drawn is not None:
            session = replace(session, progress=drawn.report, follow=drawn.follow)
        return _start(
            space,
            name=name,
            out=Path(out),
            storage=storage,
            n_trials=n_trials,
            limit=limit,
            adopt=adopt,
            from_study=from_study,
            session=session,
            told=told,
        )


def check_study_name(name: str, where: str) -> None:
    """Refuse a name that can be no folder.

    Args:
        name: of a study.
        where: what gave it, for the message.

    Raises:
        ConfigError: it cannot.
    """
    is_folder = name.isprintable() and "/" not in name and not name.startswith(".")
    if not is_folder or not name.strip() or len(name.encode()) > _LONGEST_NAME:
        raise ConfigError(
            f"{where}: found {name[:80]!r}, expected a name that can be a folder: no '/', no "
            f"leading dot, no control characters, at most {_LONGEST_NAME} bytes"
        )


def _start(
    space: SearchSpace,
    *,
    name: str,
    out: Path,
    storage: str | None,
    n_trials: int,
    limit: TimeLimit,
    adopt: bool,
    from_study: str | Path | None,
    session: Session,
    told: Callable[[TrialRecord, int], None],
) -> Study:
    """As ``run``, whose arguments were checked."""
    session.follow(Standing(name))
    check_workers(space, session.workers)
    if space.module is not None:
        space.module.require()
    dataset = load_dataset(space)
    space = space.with_facts(dataset.input_shape, dataset.num_outputs)
    space.check_reachable(dataset.input_shape, dataset.num_outputs)
    check_sizes(space, dataset.input_shape, dataset.num_outputs)
    check_kernel(space.recipe.kernel, session.device, f"{space.source}: recipe")
    key = stream_key(space, dataset)
    source = None
    if from_study is not None:
        source = find_source(from_study, storage=storage, out=out)
        sampler = choose_sampler(space, n_trials).name
        check_source(source, space, sampler, identity(space, key.digest))

    folder = make_dir(out / name)
    with lock(folder / LOCK, wait=False) as file, storage_refusals(name):
        follower = Follower(name, file, session.follow)
        job = _Job(
            space=space,
            dataset=dataset,
            key=key,
            home=find(folder, name, storage, adopts=adopt),
            n_trials=n_trials,
            limit=limit,
            session=replace(session, progress=follower.beside(session.progress)),
            told=told,
            follower=follower,
            source=source,
        )

        try:
            return job.run()
        except (Interrupted, GateError):
            raise  # stopped, or out of time: it says where
        except Exception:
            follower.clear()
            raise


@dataclass(frozen=True, eq=False)
class _Job:
    """One run of a study; the folder's lock is held.

    Attributes:
        space, dataset, key: what is searched, what on, and whose students these are.
        home: the study's folder and storage.
        n_trials, session, told: as in ``run``.
        limit: how long it may take.
        follower: told how far it is.
        source: the study whose students a new one is told of.
    """

    space: SearchSpace
    dataset: Dataset
    key: StreamKey
    home: Home
    n_trials: int
    limit: TimeLimit
    session: Session
    told: Callable[[TrialRecord, int], None]
    follower: Follower
    source: Source | None = None

    def run(self) -> Study:
        """All of it, in order."""
        ledger = self.open_ledger()
        remove_temporaries(self.folder)
        self.follower.enter(TEACHER)  # who is refused leaves nothing that a run had done
        teacher, data = self.sample_in_time(ledger)
        ledger = ledger or self._create_or_load()
        with self.home.bound(ledger):
            if not self.home.is_inside:
                self.follower.share(ledger.write_standing)
            study, trainer = self.prepare(ledger, teacher, data)
            if self.source is not None:
                tell(self.source, ledger)
            if self.search(study, trainer) == TIMEOUT:
                return self.pause(study, trainer)
            self.follower.enter(REFERENCES)
            front = self.conclude(study, trainer)
            self.report(study, front)
        return self._with_workers(study)

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return self.home.path

    @property
    def name(self) -> str:
        """The study's name in its storage."""
        return self.home.name

    def open_ledger(self) -> Ledger | None:
        """The ledger of a study that is there; one of another space is refused before any work."""
        if not self.home.is_made():
            return None

        ledger = self._create_or_load()
        self.home.check(ledger)
        check_machine(self.name, ledger.document.description)
        # Damaged ones are refused before any work, too.
        ledger.tests()
        check_undamaged(ledger.records())
        if self.source is not None:
            check_target(self.source, ledger)
        return ledger

    def _create_or_load(self) -> Ledger:
        return create_or_load(
            self.home.url,
            self.name,
            self.space.objectives,
            identity(self.space, self.key.digest),
            bind=self.home.bind,
        )

    def sample_in_time(self, ledger: Ledger | None) -> tuple[Teacher, DistillationSet]:
        """As ``sample``, within the time limit.

        Raises:
            GateError: it passed before.
        """
        should_stop = self.session.should_stop
        session = replace(self.session, should_stop=lambda: should_stop() or self.limit.is_over)
        try:
            teacher, data = replace(self, session=session).sample(ledger)
        except Interrupted:
            if should_stop():
                raise
            now = self.follower.now
            done = f", {now.words} are kept" if now.words else ""
            raise GateError(
                f"--timeout: the time was over in the phase {now.phase}{done}; "
                "the same command goes on from there"
            ) from None
        teacher.session = self.session
        return teacher, data

    def sample(self, ledger: Ledger | None) -> tuple[Teacher, DistillationSet]:
        """The teacher, and what its students learn from.

        A new study is made after its teacher: one that cannot be had (it diverged, or an import
        does not fit) leaves none behind that would refuse the settings once they are mended.
        """
        description = None if ledger is None else ledger.document.description
        session = session_with_stream(
            self.space, self.dataset, self.session, description, self.folder
        )
        teacher = sample_teacher(
            self.space, session, dataset=self.dataset, calibration=remembered(description)
        )
        bounded = self.space.goal_names
        where = f"{self.space.source}: objectives and constraints"
        check_measurable(
            bounded,
            where,
            has_weights=teacher.stream.has_weights,
            num_samples=teacher.stream.num_samples,
            num_examples=len(self.dataset.validation),
        )
        check_finite(teacher, bounded, where)
        self.follower.enter(PREDICTIONS)
        data = distillation_set(teacher)
        teacher.averaged("validation")  # a damaged stream is told before anything is written
        if ledger is None:
            # refuses an axis without ends; those of latencies are timed later
            span_box(self.space, self.dataset, dict.fromkeys(TIMED_COSTS, (1.0, 2.0)))
        return teacher, data

    def prepare(
        self, ledger: Ledger, teacher: Teacher, data: DistillationSet
    ) -> tuple[Study, Trainer]:
        """The study, described, and who trains its students."""
        write_text(self.folder / "config.yaml", dump_yaml(self.space.resolved))
        study = Study(self.folder, self.name, ledger, self.home.url)

        validation = teacher.averaged("validation")
        describe(study, teacher, validation)
        return study, prepare_trainer(study, teacher, data, validation)

    def search(self, study: Study, trainer: Trainer) -> str:
        """Ask, train and tell until there are enough trials, and note why it ended before that."""
        self._enter_students(study)
        region = study.region
        for record in study.ledger.records():
            trainer.put_in_place(record)  # of a run that was killed before it did

        watch = watch_front(study, self.space)
        with opened(trainer, self.n_trials) as engine:

            def told(record: TrialRecord, finished: int) -> None:
                trainer.put_in_place(record)
                self.follower.note_workers(engine.num_workers, engine.idle_share)
                self._tell(region, record, finished)

            reason = search(
                self.space,
                study.ledger,
                engine,
                n_trials=self.n_trials,
                limit=self.limit,
                input_shape=self.dataset.input_shape,
                num_classes=self.dataset.num_outputs,
                told=told,
                should_stop=self.session.should_stop,
                watch=watch,
            )
            self.follower.note_workers(engine.num_workers, engine.idle_share)
        end = end_of_search(reason, watch)
        trained = training_notes(study.ledger, self.space, trainer.data)
        of_module = self.space.module.notes() if self.space.module else ()
        fit = trainer.teacher.calibration
        fitted = () if fit is None else (describe_calibration(fit.to_json()),)
        earlier = study.ledger.earlier
        of_teacher = (*of_module, *fitted, *([earlier.words] if earlier else ()))
        is_of_before = not study.ledger.counts_trainings
        chosen = choose_sampler(self.space, self.n_trials, is_of_before=is_of_before)
        study.ledger.change(
            notes=(
                *self.dataset.notes,
                *of_teacher,
                *trained,
                *chosen.sentences,
                *filter(None, (end.sentence,)),
            ),
            end=end,
        )
        return reason

    def _enter_students(self, study: Study) -> None:
        records = study.ledger.records()
        states = Counter(record.state for record in records)
        del states["running"]  # those of a run that was killed are taken back now
        self.follower.enter_students(
            states,
            finished=sum(record.is_counted for record in records),
            total=self.n_trials,
            at_once=self.space.search.students_at_once,
        )

    def _tell(self, region: Region | None, record: TrialRecord, finished: int) -> None:
        self.follower.end_trial(record.state, finished)
        is_outside = bool(outside([record], self.space.objectives, region))
        self.told(record.replace(is_outside=is_outside), finished)

    def pause(self, study: Study, trainer: Trainer) -> Study:
        """End at the time limit: the front as it is, without tests and references.

        Raises:
            GateError: no student is on it.
        """
        front = self._fix_front(study, trainer)
        study.write_report()
        if not front:
            what, _ = study.explain_empty_front()
            raise GateError(
                f"study '{self.name}': the time was over with {self.follower.now.words} finished, "
                f"and {what}; the same command goes on from there"
            )
        return replace(self._with_workers(study), population_s=self.limit.population_s)

    def _with_workers(self, study: Study) -> Study:
        now = self.follower.now
        return replace(study, num_workers=now.workers, idle_share=now.idle_share)

    def _fix_front(self, study: Study, trainer: Trainer) -> list[TrialRecord]:
        """The front; students that are not on it are deleted."""
        front = study.front_records()
        study.ledger.fence.check()  # else another run may need what is deleted here
        unfinished = study.ledger.rows()  # somebody may be writing their students just now
        keep_only(trainer.folder, [*(record.trial for record in front), *unfinished])
        return front

    def conclude(self, study: Study, trainer: Trainer) -> list[TrialRecord]:
        """Fix the front, test what is new on it, and delete what is not on it.

        Students of it that are not there are trained again.
        """
        front = self._fix_front(study, trainer)
        notes = restore(trainer, front, study.records())
        if notes:
            study.ledger.change(notes=(*study.ledger.document.notes, *notes))
        trainer.seal(front)
        compare_with_best(study.ledger, trainer, front)
        train_finalists(
            study.ledger, self.folder, trainer, front, region=study.region, limit=self.limit
        )
        conclude(study.ledger, self.folder, trainer, front)
        compare_twins(study.ledger, self.folder, trainer, front, study.chosen(), limit=self.limit)
        evidence.gather(self.folder, trainer, front)
        return front

    def report(self, study: Study, front: Sequence[TrialRecord]) -> None:
        """Write the report.

        Raises:
            GateError: no student is on the front, or none of it is to be used.
        """
        study.write_report()
        self.follower.clear()
        if not front or study.chosen() is None:
            what, remedy = study.explain_empty_front()
            raise GateError(
                f"study '{self.name}': finished, and {what}; see {self.folder / REPORT}; {remedy}"
            )
