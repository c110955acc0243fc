"""What an evaluation is of: a study, the teacher of a space, or a student."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gped_nas.api.calibrating import remembered
from gped_nas.api.finding import session_with_stream
from gped_nas.api.note import STUDENTS, STUDY_FILE, is_study
from gped_nas.api.opening import open_study
from gped_nas.api.picking import CHOSEN
from gped_nas.api.predict import load_student
from gped_nas.api.session import Session
from gped_nas.api.study import Study
from gped_nas.api.subjects import (
    ReadFiles,
    check_of_dataset,
    label_twin_subject,
    map_subject,
    sample_subject,
    student_subject,
    teacher_subject,
    unpruned_subject,
)
from gped_nas.api.tasks.bench import LABEL_TWIN, MAP, SAMPLE, STUDENT, TEACHER, UNPRUNED, Subject
from gped_nas.api.teacher import Teacher, load_dataset, load_teacher, sample_teacher
from gped_nas.data.base import Dataset, Part
from gped_nas.distill.student import SPEC_FILE
from gped_nas.errors import ConfigError, DamageError, DataError, GpedError, StudyError
from gped_nas.models.module import Modules
from gped_nas.search.document import Description
from gped_nas.search.space import SearchSpace
from gped_nas.search.space_file import load_space, parse_space

FRONT = "front"


@dataclass(frozen=True, eq=False)
class Options:
    """What ``evaluate_tasks`` was asked for, as far as it says who is judged and where.

    Attributes:
        kinds: of subjects; everybody there is where none is named.
        trials, part, space, overrides, storage, out, session, modules: as there.
    """

    session: Session
    out: Path
    kinds: Collection[str] = ()
    trials: Sequence[int | str] = ()
    part: Part | None = None
    space: SearchSpace | str | Path | None = None
    overrides: Mapping[str, Any] | None = None
    storage: str | None = None
    modules: Modules | None = None

    def wants(self, kind: str) -> bool:
        """Whether a kind of subject is judged."""
        return not self.kinds or kind in self.kinds

    def read_space(self, space: SearchSpace | str | Path) -> SearchSpace:
        """A space, with the settings and modules that were given."""
        if not isinstance(space, SearchSpace):
            return load_space(space, self.overrides, modules=self.modules)
        return space.with_modules(self.modules) if self.modules else space


@dataclass(frozen=True, eq=False)
class Place:
    """See the module.

    Attributes:
        dataset: whose examples are answered.
        teacher: whom subjects are compared with; None where a student is judged alone.
        subjects: who is judged.
        part: where.
        seed: the space's.
        folder: below which rows are kept.
        notes: what a reader must know.
    """

    dataset: Dataset
    teacher: Teacher | None
    subjects: tuple[Subject, ...]
    part: Part
    seed: int
    folder: Path
    notes: tuple[str, ...] = ()


def find_place(what: Study | SearchSpace | str | Path, options: Options) -> Place:
    """Who is judged, and where. Errors are those of ``evaluate_tasks``."""
    if isinstance(what, str | Path) and (Path(what) / SPEC_FILE).is_file():
        _refuse("a student", {"--trial": options.trials})
        return _of_student(Path(what), options)

    if isinstance(what, str | Path) and is_study(what, options.out):
        what = open_study(what, storage=options.storage, out=options.out)
    if isinstance(what, Study):
        given = {"--space": options.space, "--set": options.overrides}
        _refuse("a study, which has its own", given)
        return _of_study(what, options)

    _refuse("a space", {"--space": options.space, "--trial": options.trials})
    return _of_space(options.read_space(what), options)


def _refuse(what: str, given: Mapping[str, Any]) -> None:
    """Refuse options that mean nothing for what is evaluated.

    Raises:
        ConfigError: one was given.
    """
    for option, value in given.items():
        if value:
            raise ConfigError(f"{option}: found with {what}; leave it out")


def _of_space(space: SearchSpace, options: Options) -> Place:
    """A teacher and one of its samples; a MAP network where somebody asks for it by its name."""
    dataset = load_dataset(space)
    space = space.with_facts(dataset.input_shape, dataset.num_outputs)
    teacher = sample_teacher(space, options.session, dataset=dataset)
    subjects = _of_teacher(teacher, options)
    if MAP in options.kinds:  # it is trained here: nobody pays for it unasked
        network = map_subject(teacher, None)
        subjects += [] if network is None else [network]

    part = options.part or "validation"
    return Place(
        dataset=dataset,
        teacher=teacher,
        subjects=tuple(subjects),
        part=part,
        seed=space.seed,
        folder=options.out / f"{space.name}-evaluation",
        notes=(*_test_note(part), *_chosen_there(part, subjects)),
    )


def _test_note(part: Part | None) -> tuple[str, ...]:
    if part != "test":
        return ()
    return ("these are test examples: choose nothing by them",)


def _chosen_there(part: Part, subjects: Sequence[Subject]) -> list[str]:
    """Say whose figures are too good, because they were chosen on the examples of this part."""
    chosen = [subject.name for subject in subjects if subject.kind in (SAMPLE, MAP, STUDENT)]
    if part != "validation" or not chosen:
        return []
    return [f"{', '.join(chosen)}: chosen on validation, so that figures there are too good"]


def _of_teacher(teacher: Teacher, options: Options) -> list[Subject]:
    subjects: list[Subject | None] = []
    if options.wants(TEACHER):
        subjects.append(teacher_subject(teacher))
    if options.wants(SAMPLE):
        subjects.append(sample_subject(teacher))
    return [subject for subject in subjects if subject is not None]


def _of_study(study: Study, options: Options) -> Place:
    """The teacher of a study, its references, and some of its students."""
    numbers, notes = _students(study, options)
    part = _part(study, numbers, options.part)
    teacher = study_teacher(study, options.session, options.modules)

    subjects = _of_teacher(teacher, options)
    references, missing = _references(study, teacher, numbers, options)
    subjects += references
    if options.wants(STUDENT):
        subjects += [_trial(study, number, teacher) for number in numbers]
    return Place(
        dataset=teacher.dataset,
        teacher=teacher,
        subjects=tuple(subjects),
        part=part,
        seed=teacher.space.seed,
        folder=study.path,
        notes=(*notes, *missing, *_chosen_there(part, subjects)),
    )


def _students(study: Study, options: Options) -> tuple[list[int], list[str]]:
    """The trials whose students or twins are asked; a note where there is none to be asked."""
    if not options.wants(STUDENT) and not options.wants(LABEL_TWIN):
        return [], []
    if options.trials or study.chosen() is not None:
        return _numbers(study, options.trials or [CHOSEN]), []
    return [], [f"no student is asked: {'; '.join(study.explain_empty_front())}"]


def _references(
    study: Study, teacher: Teacher, numbers: Sequence[int], options: Options
) -> tuple[list[Subject], list[str]]:
    """What a study is compared with, as far as it is there; a note of what is not."""
    kept = ReadFiles(study.path, study.ledger)
    makers: dict[str, Callable[[], Subject | None]] = {
        MAP: lambda: map_subject(teacher, kept),
        UNPRUNED: lambda: unpruned_subject(study, teacher),
    }
    if len(numbers) == 1:  # whose twin it is, must be clear
        makers[LABEL_TWIN] = lambda: label_twin_subject(study, teacher, numbers[0])

    subjects: list[Subject] = []
    notes: list[str] = []
    if LABEL_TWIN in options.kinds and len(numbers) > 1:
        notes.append(f"{LABEL_TWIN} is left out: it is of one student, ask for one by --trial")
    for kind, make in makers.items():
        if not options.wants(kind):
            continue
        try:
            subject = make()
        except DamageError:
            raise
        except DataError as why:
            notes.append(f"{kind} is left out: {why}")
            continue
        if subject is not None:
            subjects.append(subject)
    return subjects, notes


def _description(study: Study) -> Description:
    description = study.ledger.document.description
    if description is None:
        raise StudyError(
            f"study '{study.name}': it has no teacher yet; repeat its `gped-search run`"
        )
    return description


def study_space(study: Study, modules: Modules | None = None) -> SearchSpace:
    """The space of a study, with its teacher's settings.

    Raises:
        StudyError: the study has no teacher yet.
    """
    return parse_space(_description(study).config, f"study '{study.name}'", modules)


def study_teacher(study: Study, session: Session, modules: Modules | None = None) -> Teacher:
    """The teacher of a study, where its stream lies.

    Raises:
        StudyError: the study has none yet, or its stream is not there and cannot be made here.
        GpedError: see ``sample_teacher``.
    """
    description = _description(study)
    space = study_space(study, modules)
    dataset = load_dataset(space)
    space = space.with_facts(dataset.input_shape, dataset.num_outputs)
    session = session_with_stream(space, dataset, session, description, study.path)
    return sample_teacher(space, session, dataset=dataset, calibration=remembered(description))


def _numbers(study: Study, trials: Sequence[int | str]) -> list[int]:
    """The numbers of the trials that are asked for, each once."""
    numbers: dict[int, None] = {}
    for trial in trials:
        if trial == FRONT:
            numbers |= dict.fromkeys(record.trial for record in study.front_records())
        else:
            numbers[study.find(trial).trial] = None
    return list(numbers)


def _part(study: Study, numbers: Sequence[int], part: Part | None) -> Part:
    """The part where a study is measured, see ``api.evaluating``.

    Raises:
        ConfigError: test, of what may still be chosen.
    """
    tested = study.ledger.tests()
    untested = [number for number in numbers if number not in tested]
    is_over = study.ledger.document.references is not None and not untested
    if part is None:
        return "test" if is_over else "validation"
    if part == "test" and not is_over:
        what = f"trial {untested[0]} was not tested" if untested else "its search has not ended"
        raise ConfigError(
            f"--part: found test, but in study '{study.name}' {what}: it may still be chosen, and "
            "nothing is chosen by test examples; take validation, or a student of the front of a "
            "study that came to its end"
        )
    return part


def _trial(study: Study, number: int, teacher: Teacher) -> Subject:
    """The student of a trial."""
    folder = study.path / STUDENTS / str(number)
    student = study.load_student(number)
    name = f"trial {number}"
    return student_subject(
        student, name, STUDENT, folder=folder, session=teacher.session, trial=number
    )


def _of_student(folder: Path, options: Options) -> Place:
    """A student in a folder of its own, beside its teacher where that is known."""
    student = load_student(folder)
    origin = student.spec.about
    study = None if options.space is not None else _study_of(folder, origin, options)
    teacher: Teacher | None
    if study is not None:
        teacher = study_teacher(study, options.session, options.modules)
        dataset, seed, kept_in = teacher.dataset, teacher.space.seed, study.path
    elif options.space is not None:
        space = options.read_space(options.space)
        dataset, seed = load_dataset(space), space.seed
        teacher = _teacher_of(space, origin, options.session)
        kept_in = options.out / f"{space.name}-evaluation"
    else:
        raise ConfigError(
            f"{folder}: found a student whose study is not in {options.out}, expected the data "
            "that it is asked about; name the space that it was searched in with --space"
        )

    check_of_dataset(student, dataset, str(folder))
    trial = origin.get("trial")  # a reference has none
    if study is not None and trial is not None and options.part == "test":
        _part(study, [int(trial)], options.part)

    subjects = []
    if teacher is not None and options.wants(TEACHER):
        subjects.append(teacher_subject(teacher))
    if options.wants(STUDENT):
        subjects.append(
            student_subject(student, STUDENT, STUDENT, folder=folder, session=options.session)
        )

    part = options.part or "validation"
    notes = [*_test_note(part), *_chosen_there(part, subjects)]
    if teacher is None:
        notes.append("the teacher of this student is not here: it is judged alone")
    return Place(dataset, teacher, tuple(subjects), part, seed, kept_in, tuple(notes))


def _study_of(folder: Path, origin: Mapping[str, Any], options: Options) -> Study | None:
    """The study that a student is of: the one that its folder lies in, or one of its name.

    Args:
        folder: the student's.
        origin: what its spec says of where it comes from.
        options: where studies are.
    """
    parents = folder.absolute().parents
    of_folder = parents[1] if len(parents) > 1 else folder
    for place in (of_folder, options.out / str(origin.get("study", ""))):
        if not (place / STUDY_FILE).is_file():
            continue
        study = open_study(place, storage=options.storage, out=options.out)
        description = study.ledger.document.description
        if description is not None and description.stream is not None:
            if description.stream.digest == origin.get("stream"):
                return study
    return None


def _teacher_of(space: SearchSpace, origin: Mapping[str, Any], session: Session) -> Teacher | None:
    """The teacher of a space, if a student is its; None where it is not built."""
    try:
        teacher = load_teacher(space, session)
    except GpedError:
        return None
    return teacher if teacher.stream.digest == origin.get("stream") else None
