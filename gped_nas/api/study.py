"""A study as users hold it: its records, its front, its report."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gped_nas.api.evaluations import read_rows
from gped_nas.api.frames import frame_of
from gped_nas.api.note import REPORT, STUDENTS, Note
from gped_nas.api.picking import find_trial, records_within
from gped_nas.api.snapshots import deciding, front_of, losses_of, snapshot_of, summary_of
from gped_nas.api.standing import LOCK
from gped_nas.errors import ConfigError, GateError, nearest
from gped_nas.io import is_locked
from gped_nas.search.choice import choose
from gped_nas.search.database import storage_errors
from gped_nas.search.document import Description, SearchEnd, StudentTest
from gped_nas.search.finalists import Finalists
from gped_nas.search.goals import Objective
from gped_nas.search.guess import is_teacher_guess
from gped_nas.search.ledger import Ledger
from gped_nas.search.record import TrialRecord
from gped_nas.search.region import Region, outside
from gped_nas.search.region_words import explain_empty_front
from gped_nas.search.snapshot import PairedDifference, Reference, StudySnapshot, TwinsOf

if TYPE_CHECKING:
    import pandas as pd

    from gped_nas.api.evaluating import Evaluation
    from gped_nas.api.stream import TeacherStream
    from gped_nas.distill.student import Student
    from gped_nas.report.verdict import StudyVerdict


_OF_TRAINING = ("Labels count ", "Step size ", "Genotypes were proposed by ")
"""How the notes begin that say what the space leaves open."""


@dataclass(frozen=True, eq=False)
class Study:
    """A study and its folder.

    Attributes:
        path: its folder, ``reports/<study>``.
        name: its name in the storage.
        ledger: its document, its trials and their tests.
        storage_url: the database that the ledger lies in.
        population_s: seconds that a population of students took, if the run that gave this study
            ended at its time limit; None otherwise.
        num_workers: how many populations that run trained at the same time.
        idle_share: the share of their time for which its workers had nothing to do; None where
            nobody waited, or of a study that was opened.
    """

    path: Path
    name: str
    ledger: Ledger
    storage_url: str
    population_s: float | None = None
    num_workers: int = 1
    idle_share: float | None = None

    def records(self) -> list[TrialRecord]:
        """Every trial by number, with its test metrics where they were made."""
        tests = self.ledger.tests()
        return [_with_test(record, tests.get(record.trial)) for record in self.ledger.records()]

    def record(self, trial: int) -> TrialRecord:
        """The record of a trial number.

        Raises:
            ConfigError: the study has no such trial.
        """
        num_trials = self.ledger.num_trials()
        if not 0 <= trial < num_trials:
            numbers = f"0 to {num_trials - 1}" if num_trials else "none yet"
            raise ConfigError(f"study '{self.name}': no trial {trial}; there are: {numbers}")
        return _with_test(self.ledger.record(trial), self.ledger.tests().get(trial))

    def paired_differences(self, trial: int) -> tuple[PairedDifference, ...]:
        """Test differences between a trial's student and the teacher, and plain networks.

        They are paired: all of them answered the same examples.

        There are none unless the student was tested.
        """
        test = self.ledger.tests().get(trial)
        return () if test is None else test.comparisons

    def comparisons(self, trial: int) -> tuple[PairedDifference, ...]:
        """The old name of ``paired_differences``."""
        warnings.warn(
            "Study.comparisons is called paired_differences now", DeprecationWarning, stacklevel=2
        )
        return self.paired_differences(trial)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What the front is about."""
        return self.ledger.document.objectives

    @property
    def region(self) -> Region | None:
        """Which students are of use; None in a study that was begun before there was a region."""
        return self.ledger.document.region

    @property
    def is_without_use(self) -> bool:
        """Whether no student is to be used, since the teacher has no skill; see ``Region``."""
        region = self.region
        return region is not None and region.lacks_skill

    def outside_records(self) -> list[TrialRecord]:
        """The complete records that are outside the region, by number: of no use at any size."""
        records = self.records()
        return [records[trial] for trial in outside(records, self.objectives, self.region)]

    @property
    def stream_path(self) -> Path:
        """The folder of the teacher's stream: where it lies now, or lay when the study began."""
        from gped_nas.api.finding import stream_roots
        from gped_nas.api.session import Session

        place = self._description.stream
        if place is None:
            return Path()
        name = Path(place.path).name
        folders = [root / name for root in stream_roots(place, self.path, Session().streams)]
        return next((folder for folder in folders if folder.is_dir()), Path(place.path))

    @property
    def num_test_evaluations(self) -> int:
        """How many students' test predictions were made so far."""
        return len(self.ledger.tests())

    @property
    def _description(self) -> Description:
        """What is told of the study; nothing yet of one whose teacher is not there."""
        return self.ledger.document.description or Description()

    def front(self, within: str | Sequence[str] | Mapping[str, float] = ()) -> "pd.DataFrame":
        """The front as a pandas frame, a row a student, best by the first objective first.

        The index is the trial number. Columns: the student, the objectives, the other metrics, the
        other costs, and as ``nll_low`` and ``nll_high`` the ends of 95 % intervals.

        Args:
            within: bounds as ``pick`` takes them; all of the front without any.

        Raises:
            ConfigError, GateError: see ``pick``.
        """
        return frame_of(self.front_records(within), [o.name for o in self.objectives])

    def front_records(
        self, within: str | Sequence[str] | Mapping[str, float] = ()
    ) -> list[TrialRecord]:
        """The non-dominated complete records, best by the first objective first.

        Args, raises: as ``front``.
        """
        if within:
            return records_within(self, within)
        records = self.records()
        return [records[number] for number in front_of(records, self.objectives, self.region)]

    def references(self) -> tuple[Reference, ...]:
        """What students are compared with; until a front was concluded the guess alone.

        Twins are those of the chosen student.
        """
        predictors, twins = self.ledger.document.predictors, self.twins()
        chosen = self.chosen() if twins else None
        if chosen is None:
            return predictors
        others = [row.others for row in twins if row.trial == chosen.trial]
        return (*predictors, *sum(others, ()))

    def twins(self) -> tuple[TwinsOf, ...]:
        """What the teacher gave to its students: each beside its twins, the chosen one first.

        There are none until a front was concluded, and none with ``twins: {seeds: 0}``.
        """
        return tuple(stored.twins for stored in self.ledger.document.twins)

    def training_notes(self) -> tuple[str, ...]:
        """How students were proposed and trained where the space leaves it open, in sentences."""
        return tuple(note for note in self.ledger.document.notes if note.startswith(_OF_TRAINING))

    def reference(self, name: str) -> Reference:
        """What students are compared with, by name: ``teacher``, ``map``, ``unpruned``, ...

        Raises:
            ConfigError: there is none of that name, or none yet.
        """
        by_name = {reference.name: reference for reference in self.references()}
        if name not in by_name:
            raise ConfigError(f"study '{self.name}': no reference '{name}'{nearest(name, by_name)}")
        return by_name[name]

    def load_student(self, trial: int | str = "chosen") -> "Student":
        """The student of a trial, ready to predict; or ``"unpruned"``, the reference of that name.

        Raises:
            ConfigError, GateError: see ``find``.
            DataError: its files are missing or damaged; only students of the front are kept.
        """
        from gped_nas.api.predict import load_student

        if trial == "unpruned":
            return load_student(self.path / "references" / "unpruned")
        return load_student(self.path / STUDENTS / str(self.find(trial).trial))

    def load_teacher(self) -> "TeacherStream":
        """The teacher's stream, to be read.

        Raises:
            StreamError: it is missing or damaged.
        """
        from gped_nas.api.stream import load_stream

        return load_stream(self.stream_path)

    def table(
        self,
        format: str = "text",
        *,
        metrics: Sequence[str] | None = None,
        costs: Sequence[str] = ("macs", "storage_bytes"),
    ) -> str:
        """The front and what it is compared with as a table, for a paper or a README.

        Args:
            format: ``text``, ``markdown``, ``latex`` (booktabs) or ``html``.
            metrics: columns, with their 95 % intervals; by default NLL and accuracy, or RMSE, on
                test.
            costs: columns after them.

        Raises:
            ConfigError: an unknown format or name.
        """
        from gped_nas.api.tables import table_of, written

        return written(table_of(self, metrics, costs), format)

    def _repr_html_(self) -> str:
        """What a notebook shows: how many trials, the verdict, and the front."""
        from html import escape

        records = self.records()
        num_complete = sum(record.state == "complete" for record in records)
        lines = [f"<b>{escape(self.name)}</b>: {num_complete} of {len(records)} trials complete"]
        if self.front_records():
            lines += [escape(self.verdict().sentence), self.table("html")]
        return "<br>".join(lines)

    @property
    def finalists(self) -> Finalists | None:
        """Genotypes of the front and near it over fresh seeds; None without ``finalists``."""
        return self.ledger.document.finalists

    @property
    def end(self) -> SearchEnd | None:
        """Why the last search ended; None before one did, and of earlier versions."""
        return self.ledger.document.end

    @property
    def is_teacher_guess(self) -> bool:
        """Whether the teacher is not better than a guess from the training labels."""
        return is_teacher_guess(self._description.teacher.diagnosis)

    def explain_empty_front(self) -> tuple[str, str]:
        """Why no student is chosen, and what to do."""
        return explain_empty_front(self.records(), self.objectives, self.region)

    def trials(self) -> "pd.DataFrame":
        """Every trial as a pandas frame, a row a trial by number.

        Columns are those of ``front``, with state and reason.
        """
        records = self.records()
        frame = frame_of(records, [o.name for o in self.objectives])
        frame.insert(1, "state", [r.state for r in records])
        frame.insert(2, "reason", [r.reason or r.origin for r in records])
        return frame

    def chosen(self) -> TrialRecord | None:
        """The student to take when no budget is given; see ``search.choice``.

        None when the front is empty, or the teacher has no skill that a student could keep.
        """
        if self.is_without_use:
            return None
        front = self.front_records()
        document = self.ledger.document
        index, _ = choose(
            front,
            self.objectives,
            losses_of(self, front),
            document.front_differences,
            deciding(document, [record.trial for record in front]),
        )
        return None if index is None else front[index]

    def best(self) -> TrialRecord | None:
        """The best student by the first objective on validation, whatever it costs.

        None when the front is empty, or the teacher has no skill that a student could keep.
        """
        front = self.front_records()
        return front[0] if front and not self.is_without_use else None

    def find(self, trial: int | str) -> TrialRecord:
        """The record of a trial by its number, or of the one that is ``chosen`` or ``best``.

        Raises:
            ConfigError: there is no such trial.
            GateError: the front is empty, so that none is chosen and none is best.
        """
        return find_trial(self, trial)

    def pick(self, within: str | Sequence[str] | Mapping[str, float]) -> TrialRecord:
        """The front's best record by the first objective among those within bounds.

        Args:
            within: bounds as ``"100kB,2MFLOPs"``, or metric or cost name to its bound: at most, at
                least for a maximized metric.

        Raises:
            ConfigError: an unknown name, or one that students of this study have no number of.
            GateError: no record of the front is within them.
        """
        return records_within(self, within)[0]

    def verdict(
        self, trial: int | None = None, *, within: Mapping[str, float] | None = None
    ) -> "StudyVerdict":
        """What is to be said of the chosen student, or of another one, see ``report.verdict``.

        Args:
            trial: number of the trial that it is about; the chosen one by default.
            within: bounds as ``pick`` takes them: it is then about the student that they leave.

        Raises:
            ConfigError: there is no such trial, or a bound on what was not measured.
        """
        from gped_nas.report.beside import evidence_of
        from gped_nas.report.verdict import judge_study

        snapshot = summary_of(self)
        if trial is None and within and snapshot.front:
            try:
                trial = self.pick(within).trial
            except GateError:
                return judge_study(evidence_of(snapshot, student=None, within=within))
        if trial is None:
            return judge_study(evidence_of(snapshot))

        record = self.record(trial)
        paired = self.paired_differences(trial)
        return judge_study(evidence_of(snapshot, student=record, differences=paired))

    def evaluate(self, tasks: str | Sequence[str], **how: Any) -> "Evaluation":
        """Rows of tasks, of the teacher, the references and the chosen student.

        Args:
            tasks: ``"misclassification"``, ``"ood:permuted"``, or several.
            how: arguments of ``gped_nas.evaluate_tasks``, whose errors these are.
        """
        from gped_nas.api.evaluating import evaluate_tasks

        return evaluate_tasks(self, tasks, **how)

    def evaluations(self) -> list[dict[str, Any]]:
        """The rows that evaluations of the study measured so far, of the students it has now.

        Each has ``limit`` and ``seed`` beside what a row has.

        Raises:
            StreamError: a file of them is damaged.
        """
        return read_rows(self.path, {record.spec_sha256 for record in self.records()})

    def snapshot(self) -> StudySnapshot:
        """The study at this instant, as plain data."""
        return snapshot_of(self)

    def is_at_work(self) -> bool:
        """Whether a run works on the study, here or elsewhere, as far as can be told."""
        if is_locked(self.path / LOCK):
            return True
        binding = self.ledger.fence.read()
        return binding is not None and binding.is_held(self.ledger.owner, self.ledger.now())

    def write_report(self, path: Path | None = None) -> Path:
        """Write ``report.html`` (or ``path``) and return where.

        Raises:
            StudyError: the study belongs to another folder by now.
            EnvironmentProblem: it cannot be written.
        """
        from gped_nas.report import write_report

        if path is None:
            self.check_bound()
        target = path or self.path / REPORT
        write_report(self.snapshot(), target)
        return target

    def check_bound(self) -> None:
        """Refuse to write for a study that belongs to another folder by now.

        Raises:
            StudyError: it does.
        """
        from gped_nas.api.home import Home

        note = Note.read(self.path)
        if note is None:
            return
        with storage_errors(self.storage_url):
            Home(self.path, self.name, self.storage_url, note).check(self.ledger)

    def figure(self, name: str = "front", *, x: str | None = None, y: str | None = None) -> Any:
        """A Plotly figure of the report.

        Args:
            name: ``front``, ``hypervolume``, ``importances``, ``training`` or ``teacher``.
            x, y: metrics or costs that the front is drawn over; the first cost and the first
                quality by default.

        Raises:
            ConfigError: there is none of that name, or nothing of an axis' name was recorded.
        """
        from gped_nas.report import data_of
        from gped_nas.report.charts import figure

        return figure(data_of(self.snapshot()), name, x=x, y=y)


def compare_studies(studies: Sequence[Study], path: str | Path | None = None) -> Path:
    """Write the comparison of studies, one HTML file.

    It shows fronts, hypervolumes, and what was configured differently.

    Args:
        studies: two to six, of the same objectives.
        path: where to write; ``<first>-against-<others>.html`` beside the first study's folder by
            default.

    Returns:
        Where it was written.

    Raises:
        ConfigError: they cannot be compared.
        EnvironmentProblem: the file cannot be written.
    """
    from gped_nas.report import write_comparison

    if path is None:
        name, *other_names = [study.name for study in studies] or ["nothing"]
        folder = studies[0].path.parent if studies else Path()
        stem = f"{name}-against-{'-'.join(other_names)}"[:150]  # file systems refuse long names
        path = folder / f"{stem}.html"
    write_comparison([study.snapshot() for study in studies], Path(path))
    return Path(path)


def _with_test(record: TrialRecord, test: StudentTest | None) -> TrialRecord:
    """The record with the measures of its student's test, where there was one."""
    if test is None:
        return record
    return record.replace(measures={**record.measures, **test.measures})
