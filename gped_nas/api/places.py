"""What an evaluation is of: a study, the teacher of a space, or a student."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gped_nas.api.calibrating import remembered
from gped_nas.api.finding import session_with_stream
from gped_nas.api.note import STUDENTS, STUDY_FILE
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
from gped_nas.api.teacher import Teacher, load_dataset, sample_teacher
from gped_nas.data.base import Dataset, Part
from gped_nas.distill.student import SPEC_FILE
from gped_nas.errors import ConfigError, DataError, GpedError, StudyError
from gped_nas.models.module import Modules
from gped_nas.search.space import SearchSpace
from gped_nas.search.space_file import load_space, parse_space

FRONT = "front"


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


def find_place(
    what: Study | SearchSpace | str | Path,
    *,
    trials: Sequence[int | str],
    kinds: Collection[str],
    part: Part | None,
    space: SearchSpace | str | Path | None,
    overrides: Mapping[str, Any] | None,
    storage: str | None,
    out: Path,
    session: Session,
    modules: Modules | None,
) -> Place:
    """Who is judged, and where. Args and errors are those of ``evaluate_tasks``."""
    wanted = _wanted(kinds)
    if isinstance(what, str | Path) and (Path(what) / SPEC_FILE).is_file():
        _refuse("a student", {"--trial": trials})
        return _of_student(
            Path(what), wanted, part, space, overrides, storage, out, session, modules
        )

    if isinstance(what, str | Path):
        places = (Path(what), out / what)
        if any((place / STUDY_FILE).is_file() for place in places):
            what = open_study(what, storage=storage, out=out)
    if isinstance(what, Study):
        _refuse("a study, which has its own", {"--space": space, "--set": overrides})
        return _of_study(what, trials, wanted, part, session, modules)

    _refuse("a space", {"--space": space, "--trial": trials})
    return _of_space(_read_space(what, overrides, modules), kinds, part, out, session)


def _read_space(
    space: SearchSpace | str | Path, overrides: Mapping[str, Any] | None, modules: Modules | None
) -> SearchSpace:
    if not isinstance(space, SearchSpace):
        return load_space(space, overrides, modules=modules)
    return space.with_modules(modules) if modules else space


def _refuse(what: str, given: Mapping[str, Any]) -> None:
    """Refuse options that mean nothing for what is evaluated.

    Raises:
        ConfigError: one was given.
    """
    for option, value in given.items():
        if value:
            raise ConfigError(f"{option}: found with {what}; leave it out")


def _wanted(kinds: Collection[str]) -> Callable[[str], bool]:
    return lambda kind: not kinds or kind in kinds


def _of_space(
    space: SearchSpace,
    kinds: Collection[str],
    part: Part | None,
    out: Path,
    session: Session,
) -> Place:
    """A teacher and one of its samples; a MAP network where somebody asks for it by its name."""
    wanted = _wanted(kinds)
    dataset = load_dataset(space)
    space = space.with_facts(dataset.input_shape, dataset.num_outputs)
    teacher = sample_teacher(space, session, dataset=dataset)
    subjects = _of_teacher(teacher, wanted)
    if MAP in kinds:  # it is trained here: nobody pays for it unasked
        network = map_subject(teacher, None)
        subjects += [] if network is None else [network]
    return Place(
        dataset=dataset,
        teacher=teacher,
        subjects=tuple(subjects),
        part=part or "validation",
        seed=space.seed,
        folder=out / f"{space.name}-evaluation",
        notes=(*_test_note(part), *_chosen_there(part or "validation", subjects)),
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


def _of_teacher(teacher: Teacher, wanted: Callable[[str], bool]) -> list[Subject]:
    subjects: list[Subject | None] = []
    if wanted(TEACHER):
        subjects.append(teacher_subject(teacher))
    if wanted(SAMPLE):
        subjects.append(sample_subject(teacher))
    return [subject for subject in subjects if subject is not None]


def _of_study(
    study: Study,
    trials: Sequence[int | str],
    wanted: Callable[[str], bool],
    part: Part | None,
    session: Session,
    modules: Modules | None,
) -> Place:
    """The teacher of a study, its references, and some of its students."""
    numbers, notes = [], []
    if wanted(STUDENT) and (trials or study.chosen() is not None):
        numbers = _numbers(study, trials or [CHOSEN])
    elif wanted(STUDENT):
        notes.append(f"no student is asked: {'; '.join(study.explain_empty_front())}")
    measured = _part(study, numbers, part)
    teacher = study_teacher(study, session, modules)
    subjects = _of_teacher(teacher, wanted)

    kept = ReadFiles(study.path, study.ledger)
    makers: dict[str, Callable[[], Subject | None]] = {
        MAP: lambda: map_subject(teacher, kept),
        UNPRUNED: lambda: unpruned_subject(study, teacher),
    }
    if len(numbers) == 1:  # whose twin it is, must be clear
        makers[LABEL_TWIN] = lambda: label_twin_subject(study, teacher, numbers[0])
    for kind, make in makers.items():
        if not wanted(kind):
            continue
        try:
            subject = make()
        except DataError as why:
            notes.append(f"{kind} is left out: {why}")
            continue
        if subject is not None:
            subjects.append(subject)

    for number in numbers:
        subjects.append(_trial(study, number, teacher))
    notes += _chosen_there(measured, subjects)
    return Place(
        dataset=teacher.dataset,
        teacher=teacher,
        subjects=tuple(subjects),
        part=measured,
        seed=teacher.space.seed,
        folder=study.path,
        notes=tuple(notes),
    )


def study_teacher(study: Study, session: Session, modules: Modules | None = None) -> Teacher:
    """The teacher of a study, where its stream lies.

    Raises:
        StudyError: the study has none yet, or its stream is not there and cannot be made here.
        GpedError: see ``sample_teacher``.
    """
    description = study.ledger.document.description
    if description is None:
        raise StudyError(
            f"study '{study.name}': it has no teacher yet; repeat its `gped-search run`"
        )
    space = parse_space(description.config, f"study '{study.name}'", modules)
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
    return student_subject(student, name, STUDENT, folder=folder, teacher=teacher, trial=number)


def _of_student(
    folder: Path,
    wanted: Callable[[str], bool],
    part: Part | None,
    space: SearchSpace | str | Path | None,
    overrides: Mapping[str, Any] | None,
    storage: str | None,
    out: Path,
    session: Session,
    modules: Modules | None,
) -> Place:
    """A student in a folder of its own, beside its teacher where that is known."""
    student = load_student(folder)
    about = student.spec.about
    study = None if space is not None else _study_of(folder, about, storage, out)
    if study is not None:
        teacher: Teacher | None = study_teacher(study, session, modules)
        assert teacher is not None, "a study has one"
        dataset, seed, kept_in = teacher.dataset, teacher.space.seed, study.path
    elif space is not None:
        space = _read_space(space, overrides, modules)
        dataset, seed = load_dataset(space), space.seed
        teacher, kept_in = (
            _teacher_of(space, dataset, about, session),
            out / f"{space.name}-evaluation",
        )
    else:
        raise ConfigError(
            f"{folder}: found a student whose study is not in {out}, expected the data that it is "
            "asked about; name the space that it was searched in with --space"
        )

    check_of_dataset(student, dataset, str(folder))
    subjects = [] if teacher is None else _of_teacher(teacher, wanted)
    subjects = [subject for subject in subjects if subject.kind == TEACHER]
    subjects.append(student_subject(student, STUDENT, STUDENT, folder=folder, teacher=teacher))
    notes = (*_test_note(part), *_chosen_there(part or "validation", subjects))
    if teacher is None:
        notes += ("the teacher of this student is not here: it is judged alone",)
    return Place(
        dataset=dataset,
        teacher=teacher,
        subjects=tuple(subjects),
        part=part or "validation",
        seed=seed,
        folder=kept_in,
        notes=notes,
    )


def _study_of(
    folder: Path, about: Mapping[str, Any], storage: str | None, out: Path
) -> Study | None:
    """The study that a student is of: the one that its folder lies in, or one of its name."""
    of_folder = folder.absolute().parents[1] if len(folder.absolute().parts) > 2 else folder
    for place in (of_folder, out / str(about.get("study", ""))):
        if not (place / STUDY_FILE).is_file():
            continue
        study = open_study(place, storage=storage, out=out)
        description = study.ledger.document.description
        if description is not None and description.stream is not None:
            if description.stream.digest == about.get("stream"):
                return study
    return None


def _teacher_of(
    space: SearchSpace, dataset: Dataset, about: Mapping[str, Any], session: Session
) -> Teacher | None:
    """The teacher of a space, if a student is its; None where it is not built."""
    from gped_nas.api.teacher import load_teacher

    try:
        teacher = load_teacher(space, session)
    except GpedError:
        return None
    return teacher if teacher.stream.digest == about.get("stream") else None
