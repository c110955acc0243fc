"""What a study remembers besides its trials: one document, versioned and validated.

It is one attribute of the Optuna study, ``gped:document``, always written whole. Only the process
that asks writes it, so nothing is ever read, changed and written back by two. Whatever somebody
else writes has an attribute of its own. Documents and tests are sealed with a digest; those that
were made before there were digests are read without.

============================  ==========================================================
``gped:document``             this document, by the process that asks
``gped:earlier``              what it was told of another study, written once
``gped:test:<trial>``         the test evaluation of one student, written once
``gped:dashboard``            what the dashboard put on its wall, by the dashboard
``gped:row`` of a trial       its row, see ``search.rows``
``gped:home``, of the system  the folder that it belongs to, see ``search.binding``
``gped:standing``, likewise   how far a run is, for who sees the storage alone; advice
============================  ==========================================================

Version 1 is the model below. Studies made before it have a dozen attributes of free form, see
``OLD_KEYS``; ``read_document`` reads both.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gped_nas.errors import StudyError
from gped_nas.evaluate.measured import Direction, Key, Measured, Measures, from_public, to_public
from gped_nas.io import digest_of
from gped_nas.search.choice import FrontDifferences
from gped_nas.search.finalists import Finalists
from gped_nas.search.goals import MetricWords, Objective
from gped_nas.search.region import Region
from gped_nas.search.snapshot import PairedDifference, Reference, TwinsOf
from gped_nas.spelling import as_today

VERSION = 1
DOCUMENT = "gped:document"
STANDING = "gped:standing"
TEST = "gped:test:"
"""Before a trial number: the attribute of that student's test evaluation."""

OLD_KEYS = (
    "axes",
    "box",
    "class_names",
    "config",
    "identity",
    "notes",
    "objectives",
    "precision",
    "provenance",
    "references",
    "split",
    "stream",
    "teacher",
    "test",
)
"""Attributes ``gped:<key>`` of a study made before there was a document."""

Number = int | float
Model = TypeVar("Model", bound=BaseModel)


class Stored(BaseModel):
    """Base of what is stored as a JSON attribute: frozen, strict, nothing unknown in it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def to_json(self) -> dict[str, Any]:
        """Plain data, of what was given; ``validate`` reads it back."""
        return self.model_dump(mode="json", exclude_unset=True)


class StreamPlace(Stored):
    """The teacher's stream.

    Attributes:
        path: its folder on the machine that began the study.
        digest: of everything that is sealed in it.
    """

    path: str
    digest: str


class TeacherSummary(Stored):
    """What reports tell of the teacher; see ``StudySnapshot.teacher``.

    Studies made earlier told less of it, and a later version may tell more: both are taken as they
    are.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)

    digest: str = ""
    num_samples: int = 0
    method: str = ""
    genotype: str = ""
    samples_to_nll: tuple[tuple[Number, Number], ...] = ()
    seconds: Number = 0.0
    reliability: tuple[dict[str, Any], ...] = ()
    diagnosis: dict[str, Any] = Field(default_factory=dict)
    verdict: dict[str, Any] = Field(default_factory=dict)
    given: dict[str, Any] | None = None
    calibration: dict[str, Any] | None = None


class Box(Stored):
    """The ends of a box, one number an objective, in their order.

    Attributes:
        best: where an objective is perfect, or the cost of the space's smallest genotype.
        worst: the worst value that still counts.
    """

    best: tuple[Number, ...]
    worst: tuple[Number, ...]


class StoredWords(Stored):
    """``MetricWords`` of one metric."""

    label: str
    direction: Direction
    unit: str = ""

    @property
    def words(self) -> MetricWords:
        """The words."""
        return MetricWords(self.label, self.direction, self.unit)


class StoredMeasures(Stored):
    """A table of measures in its public form; see ``evaluate.measured``."""

    metrics: dict[str, Number | None]
    intervals: dict[str, tuple[Number, Number]] = Field(default_factory=dict)
    n: dict[str, int] = Field(default_factory=dict)
    why: dict[str, str] = Field(default_factory=dict)

    @property
    def measures(self) -> dict[Key, Measured]:
        """The table."""
        return from_public(self.metrics, self.intervals, self.n, self.why)


class StoredReference(StoredMeasures):
    """A ``Reference`` in its public form."""

    name: str
    label: str
    costs: dict[str, Number] = Field(default_factory=dict)
    note: str = ""
    is_control: bool = False

    @staticmethod
    def of(reference: Reference) -> "StoredReference":
        """A reference as it is stored."""
        return validate(StoredReference, reference.to_json(), reference.name)

    @property
    def reference(self) -> Reference:
        """The reference as everybody else knows it."""
        return Reference.from_json(self.to_json())


class LatencyFacts(Stored):
    """How students are timed.

    Attributes:
        settings: those of the space.
        machine: what their latencies hold for, see ``evaluate.latency.machine``.
    """

    settings: dict[str, Any]
    machine: dict[str, Any]


class Description(Stored):
    """What never changes while a study grows; written once its teacher is there.

    Attributes:
        config: the resolved search space, plain data.
        split_text: the dataset's split in words.
        class_names: in label order; empty for regression.
        stream: where the teacher lies.
        teacher: what is told of it.
        provenance: versions, device, seeds, digests.
        box: the ends that objectives declare; hypervolumes may end before, see ``search.volume``.
        metrics: label, direction and unit of each metric by its name, as they were registered.
        guess: who knows the training labels alone, on validation; None in studies that were begun
            before there was one.
        latency: where and how students are timed; None where they are not.
    """

    config: dict[str, Any] = Field(default_factory=dict)
    split_text: str = ""
    class_names: tuple[str, ...] = ()
    stream: StreamPlace | None = None
    teacher: TeacherSummary = TeacherSummary()
    provenance: dict[str, str | Number] = Field(default_factory=dict)
    box: Box | None = None
    metrics: dict[str, StoredWords] = Field(default_factory=dict)
    guess: StoredReference | None = None
    latency: LatencyFacts | None = None


class References(Stored):
    """What the front is compared with.

    Attributes:
        baseline: the settings that the references were made with.
        references: the predictors, as they are stored.
        comparisons: paired test differences between them.
        prediction_verdict: on the teacher's predictions beside the MAP network's, see
            ``api.prediction_verdict``; None of studies that were concluded before there was one.
    """

    baseline: dict[str, Any] | None = None
    references: tuple[StoredReference, ...] = ()
    comparisons: tuple[PairedDifference, ...] = ()
    prediction_verdict: dict[str, Any] | None = None

    @staticmethod
    def of(
        references: Iterable[Reference],
        comparisons: Iterable[PairedDifference] = (),
        baseline: dict[str, Any] | None = None,
        prediction_verdict: dict[str, Any] | None = None,
    ) -> "References":
        """The references as they are stored."""
        stored = tuple(StoredReference.of(reference) for reference in references)
        return References(
            baseline=baseline,
            references=stored,
            comparisons=tuple(comparisons),
            prediction_verdict=prediction_verdict,
        )

    @property
    def predictors(self) -> tuple[Reference, ...]:
        """The references as everybody else knows them."""
        return tuple(stored.reference for stored in self.references)


class Twins(Stored):
    """A student's genotype by what it learned from; see ``TwinsOf``.

    Attributes:
        trial: the student's.
        settings: what they were made with.
        num_seeds: trainings of each that count.
        references, comparisons, judged: as in ``TwinsOf``.
    """

    trial: int
    settings: dict[str, Any]
    num_seeds: int
    references: tuple[StoredReference, ...] = ()
    comparisons: tuple[PairedDifference, ...] = ()
    judged: tuple[str, ...] = ()

    @property
    def twins(self) -> TwinsOf:
        """The twins as everybody else knows them."""
        references = tuple(stored.reference for stored in self.references)
        return TwinsOf(self.trial, self.num_seeds, references, self.comparisons, self.judged)


class StudentTest(StoredMeasures):
    """What a student is worth on test, measured once.

    Attributes:
        comparisons: paired differences to the teacher and to plain networks.
    """

    comparisons: tuple[PairedDifference, ...] = ()

    @staticmethod
    def of(measures: Measures, comparisons: Iterable[PairedDifference] = ()) -> "StudentTest":
        """A test evaluation as it is stored."""
        differences = [asdict(comparison) for comparison in comparisons]
        stored = {**to_public(measures), "comparisons": differences}
        return validate(StudentTest, stored, "test")


class SearchEnd(Stored):
    """Why the search of the last run ended.

    Attributes:
        reason: ``done``, ``flat``, ``timeout`` or ``exhausted``, see ``search.run``.
        sentence: the same for people; empty where there is nothing to tell.
        flatness: of the front, see ``search.flatness.Flatness``; None where nobody asked.
    """

    reason: str
    sentence: str = ""
    flatness: dict[str, Number | None] | None = None


class StudyDocument(Stored):
    """See the module.

    Attributes:
        version: of this model.
        identity: part name to digest of everything that must not change between runs.
        objectives: in order.
        counted: what a finished trial is. ``trained``: a student that was trained for it, whose
            other storage types and repeats do not count. ``drawn``, in studies that were begun
            before: each draw, and no student is stored in another type than its own.
        description: None until the teacher is there.
        region: which students are of use; written with the description, and anew where another
            one is asked for. None in studies that were begun before there was one.
        precision: what ``recipe.precision: auto`` was decided to be; None where nothing was.
        lr: which of ``recipe.lr_probe`` was chosen; None where there was nothing to choose.
        lr_losses: each of them with its loss on validation, None where it diverged.
        notes: things a reader must know, one sentence each.
        references: None until a front was concluded.
        front_differences: of the front that was concluded last; None where its first objective is
            no quality, and of studies that were concluded before they were written.
        twins: of the chosen student, then of others of the front.
        files: name in the study's folder to SHA-256 of what the references are made of.
        finalists: genotypes of the front and near it over seeds; None without any.
        end: why the last search ended; None before one did, and of earlier versions.
    """

    version: Literal[1] = 1
    identity: dict[str, str]
    objectives: tuple[Objective, ...]
    counted: Literal["drawn", "trained"] = "drawn"
    description: Description | None = None
    region: Region | None = None
    precision: str | None = None
    lr: Number | None = None
    lr_losses: tuple[tuple[Number, Number | None], ...] = ()
    notes: tuple[str, ...] = ()
    references: References | None = None
    front_differences: FrontDifferences | None = None
    twins: tuple[Twins, ...] = ()
    files: dict[str, str] = Field(default_factory=dict)
    finalists: Finalists | None = None
    end: SearchEnd | None = None

    @property
    def predictors(self) -> tuple[Reference, ...]:
        """The references; the guess alone until a front was concluded."""
        if self.references is not None:
            return self.references.predictors
        guess = self.description.guess if self.description else None
        return () if guess is None else (guess.reference,)

    def with_changes(self, **changes: Any) -> "StudyDocument":
        """A copy with some fields changed."""
        return self.model_copy(update=changes)

    def to_json(self) -> dict[str, Any]:
        """Plain data; ``read_document`` reads it back."""
        return {"version": self.version, **super().to_json()}


def read_document(attributes: Mapping[str, Any], where: str) -> StudyDocument | None:
    """The document among a study's attributes, of this version or from before there was one.

    Args:
        attributes: the study's user attributes.
        where: the study, for messages.

    Returns:
        None where the attributes are not those of a study of ours.

    Raises:
        StudyError: it is damaged, or of a later version.
    """
    if DOCUMENT in attributes:
        stored = attributes[DOCUMENT]
        _check_version(stored, where)
        data, _ = unseal(stored, DOCUMENT, f"{where}: {DOCUMENT}")
        return validate(StudyDocument, data, f"{where}: {DOCUMENT}")

    if isinstance(attributes.get("gped:identity"), dict):
        return validate(StudyDocument, _from_old_keys(attributes), f"{where}: gped:")

    return None


def read_tests(attributes: Mapping[str, Any], where: str) -> dict[int, StudentTest]:
    """The test evaluations among a study's attributes, by trial number.

    Raises:
        StudyError: one is damaged.
    """
    stored: dict[str, Any] = {}

    # Studies made before each test had an attribute of its own have one mapping of all of them.
    together = attributes.get("gped:test", {})
    if not isinstance(together, dict):
        raise _damaged(f"{where}: gped:test", "found no mapping of trials")
    for trial, evaluation in together.items():
        stored[trial] = evaluation

    for key, evaluation in attributes.items():
        if key.startswith(TEST):
            stored[key.removeprefix(TEST)] = evaluation

    tests = {}
    for trial, evaluation in stored.items():
        if not (trial.isascii() and trial.isdigit()):
            raise _damaged(f"{where}: {TEST}{trial}", "found no trial number in its name")
        data, _ = unseal(evaluation, f"{TEST}{trial}", f"{where}: {TEST}{trial}")
        tests[int(trial)] = validate(StudentTest, data, f"{where}: {TEST}{trial}")
    return dict(sorted(tests.items()))


def _from_old_keys(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The plain data of a document, from the attributes of a study made before there was one."""
    old = {key: attributes.get(f"gped:{key}") for key in OLD_KEYS}
    document: dict[str, Any] = {"identity": old["identity"]}

    # Labels and kinds of objectives came with the teacher; until then only names were known.
    if old["axes"] is None:
        document["objectives"] = _label_objectives(old["objectives"])
    else:
        document["objectives"] = old["axes"]

    described = {
        "config": as_today(old["config"]),
        "split_text": old["split"],
        "class_names": old["class_names"],
        "stream": old["stream"],
        "teacher": _finite_curve(old["teacher"]),
        "provenance": old["provenance"],
        "box": old["box"],
    }
    # The box was written last: where it is, the description is whole.
    if old["box"] is not None:
        document["description"] = {
            key: value for key, value in described.items() if value is not None
        }

    for key in ("precision", "notes", "references"):
        if old[key] is not None:
            document[key] = old[key]
    return document


def _label_objectives(objectives: Any) -> list[dict[str, Any]]:
    """Objectives of which only names and directions are stored, with a kind and a label."""
    if not isinstance(objectives, list):
        return []
    return [
        {"kind": "metric", "label": stored.get("name"), **stored}
        for stored in objectives
        if isinstance(stored, dict)
    ]


def _finite_curve(teacher: Any) -> Any:
    """What an older study tells of its teacher, without points of the curve that are not numbers.

    They are those of posterior samples without weight.
    """
    curve = teacher.get("samples_to_nll") if isinstance(teacher, dict) else None
    if not isinstance(curve, list):
        return teacher

    points = [point for point in curve if not _has_nan(point)]
    return {**teacher, "samples_to_nll": points}


def _has_nan(point: object) -> bool:
    numbers = point if isinstance(point, list) else []
    return any(isinstance(number, float) and math.isnan(number) for number in numbers)


def _check_version(stored: object, where: str) -> None:
    version = stored.get("version") if isinstance(stored, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise StudyError(
            f"{where}: made by a later gped-search (document version {version}, expected "
            f"{VERSION}); upgrade gped-nas"
        )


def validate(model: type[Model], stored: object, where: str) -> Model:
    """Plain data that was stored as a JSON attribute, as the model that it was written from.

    Raises:
        StudyError: somebody changed it to something else.
    """
    try:
        # As JSON, in which a tuple is a list; nothing else is taken for another type.
        return model.model_validate_json(json.dumps(stored))
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"]) or "the whole"
        raise _damaged(f"{where}: {key}", problem["msg"]) from None
    except RecursionError:
        raise _damaged(where, "nested too deeply") from None


def seal(data: Mapping[str, Any], of: str) -> dict[str, Any]:
    """Plain data with a digest of itself and of what it belongs to.

    Args:
        data: what is to be stored as a JSON attribute.
        of: what it says something of, ``trial 3`` for example: under another one it is no use.
    """
    assert not {"digest", "of"} & set(data), "these are the seal's own names"
    return {**data, "digest": digest_of({**data, "of": of})}


def unseal(stored: object, of: str, where: str) -> tuple[Any, bool]:
    """What ``seal`` was given, and whether it was sealed: what was made before seals is not.

    Raises:
        StudyError: its digest is that of something else.
    """
    if not isinstance(stored, dict) or "digest" not in stored:
        return stored, False

    data = {name: value for name, value in stored.items() if name != "digest"}
    try:
        is_whole = "of" not in data and stored["digest"] == digest_of({**data, "of": of})
    except (ValueError, RecursionError):  # no number, or nested too deeply
        is_whole = False
    if not is_whole:
        raise _damaged(where, "its digest does not fit")
    return data, True


def _damaged(where: str, problem: str) -> StudyError:
    return StudyError(
        f"{where}: {problem}; it was changed by something other than gped-search; restore the "
        "study from a backup, or choose another --study-name"
    )
