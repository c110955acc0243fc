"""Who is judged: the teacher, what a study has beside it, and students."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from gped_nas.api.certifying import network_of_params, network_of_sample
from gped_nas.api.kept import KeptFiles
from gped_nas.api.map_network import tuned_map_networks
from gped_nas.api.measuring import as_posterior, can_be_asked, ensemble, network
from gped_nas.api.references import alone, best_sample_index
from gped_nas.api.session import Session
from gped_nas.api.study import Study
from gped_nas.api.tasks.bench import LABEL_TWIN, MAP, SAMPLE, TEACHER, UNPRUNED, Subject
from gped_nas.api.teacher import Teacher
from gped_nas.api.twin_files import TwinFiles
from gped_nas.data.base import Dataset, Part
from gped_nas.distill.student import SPEC_FILE, Student, load_student
from gped_nas.errors import DataError
from gped_nas.evaluate.certify.networks import network_of_student
from gped_nas.evaluate.conditions import Forward
from gped_nas.evaluate.predictions import AnyPredictions
from gped_nas.evaluate.student import StudentPredictor
from gped_nas.io import canonical_json, sha256_arrays, sha256_text
from gped_nas.models.base import Genotype

BY_PREDICTIONS = "it is known by its predictions alone, so that it cannot be asked anything else"
BY_AVERAGES = "its samples are not stored, so that it cannot be asked anything else"
IN_PYTHON = "its module is built in Python alone, so that it cannot be asked anything else here"


def teacher_subject(teacher: Teacher) -> Subject:
    """The teacher's average."""
    return Subject(
        TEACHER,
        TEACHER,
        digest=teacher_digest(teacher),
        predictor=ensemble(teacher) if can_be_asked(teacher) else None,
        kept=teacher.averaged,
        why_kept=_why_kept(teacher),
    )


def _why_kept(teacher: Teacher) -> str:
    """Why a teacher that cannot be asked cannot."""
    if teacher.running is not None:
        return BY_AVERAGES
    return IN_PYTHON if teacher.stream.has_weights else BY_PREDICTIONS


def teacher_digest(teacher: Teacher) -> str:
    """Digest of what a teacher answers."""
    fit = teacher.calibration
    read_by = None if fit is None else fit.to_json()
    names = [target.to_json() for target in teacher.space.targets]
    return sha256_text(canonical_json([teacher.stream.digest, read_by, names]))


def sample_subject(teacher: Teacher) -> Subject | None:
    """The best single posterior sample; None where samples are not stored."""
    if not teacher.stream.is_stored:
        return None
    best, is_asked = best_sample_index(teacher), can_be_asked(teacher)

    def kept(part: Part) -> AnyPredictions:
        return alone(teacher, teacher.predicted(part)[best])

    return Subject(
        SAMPLE,
        SAMPLE,
        digest=sha256_text(canonical_json([teacher_digest(teacher), best])),
        predictor=ensemble(teacher, [best]) if is_asked else None,
        kept=kept,
        why_kept=_why_kept(teacher),
        certifiable=partial(network_of_sample, teacher, best) if is_asked else None,
    )


class ReadFiles(KeptFiles):
    """A study's kept files, to be read alone: nothing is trained, and nothing is written."""

    def remember_all(self, digests: Mapping[Path, str]) -> None:
        """Nothing: whoever reads leaves the document as it is."""

    def write(self, path: Path, data: bytes) -> None:
        """Refuse to write.

        Raises:
            DataError: always.
        """
        raise DataError(f"{path}: not there; `gped-search run` of the study makes it")


def map_subject(teacher: Teacher, kept: KeptFiles | None) -> Subject | None:
    """The MAP network; None where the teacher's networks are not known.

    Args:
        teacher: whose genotype it has.
        kept: where the networks lie; they are trained, and kept nowhere, by default.

    Raises:
        DataError: a study that is only read has none.
    """
    module = teacher.space.module
    if not teacher.stream.has_weights or (module is not None and not module.is_bound):
        return None
    best = tuned_map_networks(teacher, kept)[0]
    weights = [p.numpy() for _, p in sorted(best.params.items())]
    return Subject(
        MAP,
        MAP,
        digest=sha256_arrays(*weights),
        predictor=network(teacher, best.forward),
        certifiable=partial(network_of_params, teacher, best.params),
    )


@dataclass(frozen=True, eq=False)
class _Stoppable(StudentPredictor):
    """A student that asks before each pass whether to stop: an attack takes thousands of them.

    Attributes:
        session: whom it asks.
    """

    session: Session = field(default_factory=Session)

    def networks(self) -> Iterator[tuple[float, Forward]]:
        """Its one network, with weight 1."""
        self.session.raise_if_stopped()
        return super().networks()


def _predictor(student: Student, session: Session) -> StudentPredictor:
    return _Stoppable(student, session.accelerator, session)


def student_subject(
    student: Student,
    name: str,
    kind: str,
    *,
    folder: Path,
    session: Session,
    trial: int | None = None,
) -> Subject:
    """A student that was read from its files."""
    spec = (folder / SPEC_FILE).read_bytes()
    return Subject(
        name,
        kind,
        digest=student.spec_sha256 or hashlib.sha256(spec).hexdigest(),
        predictor=_predictor(student, session),
        trial=trial,
        student=student,
        folder=folder,
        certifiable=partial(network_of_student, student),
    )


def unpruned_subject(study: Study, teacher: Teacher) -> Subject | None:
    """The student of the teacher's genotype; None where the study has none."""
    folder = study.path / "references" / "unpruned"
    if not (folder / SPEC_FILE).is_file():
        return None
    digest = ReadFiles(study.path, study.ledger).digest_of(folder / SPEC_FILE)
    student = load_student(folder, spec_sha256=digest)
    return student_subject(student, UNPRUNED, UNPRUNED, folder=folder, session=teacher.session)


def label_twin_subject(study: Study, teacher: Teacher, trial: int) -> Subject | None:
    """The network of a student's genotype that labels alone taught; None where there is none."""
    genotype = Genotype.from_json(study.record(trial).genotype)
    files = TwinFiles(
        teacher,
        ReadFiles(study.path, study.ledger),
        lambda network: _predictor(network, teacher.session),
    )
    twin = files.label_twin(genotype)
    if twin is None:
        return None
    # it has learned nothing but its label: all else is that of a certain network
    certain = as_posterior(teacher, _predictor(twin, teacher.session))
    return Subject(
        LABEL_TWIN,
        LABEL_TWIN,
        digest=twin.spec_sha256,
        predictor=certain,
        certifiable=partial(network_of_student, twin),
    )


def check_of_dataset(student: Student, dataset: Dataset, where: str) -> None:
    """Refuse a student that was distilled on another dataset.

    Args:
        student: who is to be judged.
        dataset: on whose examples.
        where: the student, for messages.

    Raises:
        DataError: shape, classes or normalization differ.
    """
    spec = student.spec
    facts = [
        ("inputs of shape", spec.input_shape, dataset.raw_shape),
        ("the classes", spec.class_names, dataset.class_names),
        ("labels normalized by", spec.label_normalization, dataset.label_normalization),
        ("inputs normalized by", spec.normalization.to_json(), dataset.normalization.to_json()),
    ]
    for what, of_student, of_dataset in facts:
        if of_student != of_dataset:
            raise DataError(
                f"{where}: found a student of another dataset than '{dataset.name}': {what} "
                f"{_short(of_student)}, expected {_short(of_dataset)}; name the space that it was "
                "searched in"
            )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
