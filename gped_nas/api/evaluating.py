"""Ask a study, a space's teacher or a student to do tasks, and keep the rows.

On which part: that of ``part``. By default a study that came to its end is measured on its test
part, and everything else on validation, so that nothing is ever chosen by what test examples say:

* Students of a front, and what they are compared with, were chosen on validation before; the run
  measured them on test already.
* A search that has not ended, or a student that is not on its front, may still be chosen. Its test
  part is refused, also of a student that is named by its folder.
* A space, or a student without its study, is measured on validation, unless ``part`` says test:
  then it is up to the caller to choose nothing by it.
"""

import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from gped_nas import __version__
from gped_nas.api.evaluations import Kept, in_order, read_place, write_place
from gped_nas.api.places import Options, Place, find_place
from gped_nas.api.session import Session, new_session
from gped_nas.api.subjects import teacher_digest
from gped_nas.api.tasks.base import OPTION, Asked, LeftOut, Row, parse_tasks
from gped_nas.api.tasks.bench import SUBJECTS, Bench, Examples, Subject, check_limit
from gped_nas.errors import ConfigError, EnvironmentProblem, nearest
from gped_nas.evaluate.base import METRICS
from gped_nas.io import canonical_json, make_dir, sha256_text, write_bytes

if TYPE_CHECKING:
    import pandas as pd

    from gped_nas.api.study import Study
    from gped_nas.models.module import Modules
    from gped_nas.search.space import SearchSpace

MeasuredPart = Literal["validation", "test"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was measured.

    Attributes:
        rows: a measure each, see ``evaluate.measured.rows``.
        notes: who was left out and why, and what a reader must know, a sentence each.
        part: of the dataset.
        folder: where the rows are kept.
    """

    rows: list[Row]
    notes: list[str]
    part: str
    folder: Path

    def frame(self) -> "pd.DataFrame":
        """The rows as a pandas frame."""
        import pandas as pd

        return pd.DataFrame(self.rows)


def evaluate_tasks(
    what: "Study | SearchSpace | str | Path",
    tasks: str | Sequence[str],
    *,
    part: MeasuredPart | None = None,
    trials: int | str | Sequence[int | str] = (),
    subjects: str | Sequence[str] = (),
    metrics: str | Sequence[str] = (),
    limit: int | None = None,
    seed: int | None = None,
    space: "SearchSpace | str | Path | None" = None,
    overrides: Mapping[str, Any] | None = None,
    storage: str | None = None,
    out: str | Path = "reports",
    session: Session | None = None,
    modules: "Modules | None" = None,
    save_inputs: str | Path | None = None,
) -> Evaluation:
    """Rows of tasks: of a study's teacher, references and students, of a teacher, or of a student.

    What was measured before is read. What is measured is kept: with the study, or in
    ``<out>/<space>-evaluation``.

    Args:
        what: a study, a space, or the folder of a student or of an export of one; or a name: of a
            study in ``out`` before a shipped space.
        tasks: ``"misclassification"``, ``"ood:permuted"``, or several.
        part: ``"validation"`` or ``"test"``; see the module for the default.
        trials: whose students of a study are judged, one or several: numbers, ``"chosen"``,
            ``"best"``, and ``"front"`` for all of it; the chosen one by default.
        subjects: who is judged, one or several of ``tasks.bench.SUBJECTS``; everybody there is by
            default.
        metrics: which ones ``prediction``, ``shift``, ``attack``, ``transfer`` and ``active``
            measure; the usual ones by default.
        limit: number of examples, drawn by the seed; all of the part by default.
        seed: root of all that is drawn; the space's by default.
        space: where a student's study is not known, the space that it was searched in.
        overrides: settings of a space that is read here, as in ``load_space``.
        storage: where a study lies, if not in its folder.
        out: folder of all studies.
        session: how to run.
        modules: what builds a teacher's network where its family is ``module``, as in ``run``.
        save_inputs: an npz file, written over: the inputs that conditions made, by
            ``subject@condition``, beside ``x`` and ``y`` as they are and, with a limit, their
            ``index`` in the part. All tasks are measured anew then.

    Raises:
        ConfigError, RegistryError: an unknown task, subject, metric or part, or one that does not
            fit.
        GateError: the front of a study is empty, so that the student that is asked for is not.
        DataError: a student of another dataset; or a task without its data.
        Interrupted: the session said stop; the same call goes on from there.
        GpedError: see the parts.
    """
    asked = parse_tasks([tasks] if isinstance(tasks, str) else tasks)
    trials = [trials] if isinstance(trials, int | str) else trials
    subjects = [subjects] if isinstance(subjects, str) else subjects
    metrics = [metrics] if isinstance(metrics, str) else metrics
    _check(part, subjects, metrics, limit)
    inputs_file = None if save_inputs is None else Path(save_inputs)
    _check_file(inputs_file)
    session = session or new_session()
    options = Options(
        session=session,
        out=Path(out),
        kinds=subjects,
        trials=trials,
        part=part,
        space=space,
        overrides=overrides,
        storage=storage,
        modules=modules,
    )
    place = find_place(what, options)
    place = replace(place, notes=(*place.notes, *_not_there(subjects, place)))

    root = place.seed if seed is None else seed
    bench = Bench(
        examples=Examples(place.dataset, place.part, root, limit),
        teacher=place.teacher,
        subjects=place.subjects,
        session=session,
        metrics=tuple(dict.fromkeys(metrics)),
        inputs=None if inputs_file is None else {},
    )
    _check_tasks(asked, bench)
    evaluation = _Evaluating(bench, place).all_of(asked)
    if inputs_file is not None:
        _save(bench, inputs_file)
    return evaluation


def _check(
    part: str | None, subjects: Collection[str], metrics: Collection[str], limit: int | None
) -> None:
    if part is not None and part not in get_args(MeasuredPart):
        parts = get_args(MeasuredPart)
        raise ConfigError(f"--part: found '{part}'{nearest(part, parts)}")
    for name in subjects:
        if name not in SUBJECTS:
            raise ConfigError(f"--subjects: found '{name}'{nearest(name, SUBJECTS)}")
    for name in metrics:
        metric = METRICS.find(name, "--metrics")
        if metric.task == "certificate":
            raise ConfigError(
                f"--metrics: found '{name}', which is proven within a radius; ask for it with the "
                "task certify:linf-RADIUS"
            )
        if metric.task != "prediction":
            raise ConfigError(
                f"--metrics: found '{name}', which is of inputs from outside; ask for it with the "
                "task ood:SET"
            )
    check_limit(limit)


def _not_there(kinds: Sequence[str], place: Place) -> list[str]:
    """Say which of those that are asked for by their kind nobody is, where no note does yet."""
    there = {subject.kind for subject in place.subjects}
    missing = [kind for kind in dict.fromkeys(kinds) if kind not in there]
    explained = " ".join(place.notes)
    return [f"{kind} is left out: there is none here" for kind in missing if kind not in explained]


def _check_tasks(asked: Sequence[Asked], bench: Bench) -> None:
    """Refuse tasks that cannot be asked of these examples, before any is measured."""
    kind = bench.dataset.task
    for each in asked:
        if kind not in each.task.kinds:
            raise ConfigError(
                f"{OPTION}: found '{each.text}', which is for {' or '.join(each.task.kinds)}, but "
                f"dataset '{bench.dataset.name}' is for {kind}; leave it out"
            )
        if each.task.needs_teacher and bench.teacher is None:
            raise ConfigError(
                f"{OPTION}: found '{each.text}', which compares with the teacher, and the teacher "
                "of this student is not here; leave it out, or build the teacher of its space"
            )
        each.task.check(bench, each.argument)


@dataclass(frozen=True, eq=False)
class _Evaluating:
    """Measures what is missing.

    Attributes:
        bench: with all subjects.
        place: where rows are kept.
    """

    bench: Bench
    place: Place

    def all_of(self, asked: Sequence[Asked]) -> Evaluation:
        """The rows of all tasks, in order; those that are not kept are measured."""
        session, table, notes = self.bench.session, list[Row](), list(self.place.notes)
        units = [(each, group) for each in asked for group in self._groups(each)]
        for i, (each, group) in enumerate(units):
            session.raise_if_stopped()
            session.progress("evaluation", i, len(units))
            kept = self._unit(each, group)
            table += kept.rows
            notes += kept.notes
        session.progress("evaluation", len(units), len(units))
        notes = list(dict.fromkeys(notes))  # a task may say the same of each subject
        return Evaluation(table, notes, self.bench.part, self.place.folder)

    def _groups(self, asked: Asked) -> list[tuple[Subject, ...]]:
        """Who is measured together."""
        subjects = self.bench.subjects
        if not subjects:
            return []
        return [subjects] if asked.task.is_together else [(subject,) for subject in subjects]

    def _unit(self, asked: Asked, group: tuple[Subject, ...]) -> Kept:
        """A task of one subject, or of all where they meet: kept, or measured now."""
        bench = self.bench.of(group, asked.text)
        where = {
            "task": asked.text,
            "subject": " ".join(subject.name for subject in group),
            "part": bench.part,
            "limit": bench.examples.limit,
            "seed": bench.seed,
            "metrics": list(bench.metrics) if asked.task.takes_metrics else [],
        }
        identity = self._identity(asked, group, bench)
        kept = None
        if bench.inputs is None:  # inputs are wanted, and are not kept
            kept = read_place(self.place.folder, where, identity)
        if kept is None:
            kept = Kept([], [], where, identity, self._student(group))
            try:
                rows = asked.task.measure(bench, asked.argument)
            except LeftOut as why:
                rows = []
                bench.leave_out(group[0], str(why))
            kept = replace(kept, rows=[in_order(row) for row in rows], notes=list(bench.notes))
            write_place(make_dir(self.place.folder), kept)
        return kept

    def _identity(self, asked: Asked, group: Sequence[Subject], bench: Bench) -> str:
        """Digest of everything that the rows of a unit follow from."""
        teacher = "" if bench.teacher is None else teacher_digest(bench.teacher)
        return sha256_text(
            canonical_json(
                {
                    "subjects": [[each.digest, each.predictor is None] for each in group],
                    "teacher": teacher,
                    "dataset": bench.dataset.digest,
                    "version": [__version__, asked.task.version],
                    "settings": asked.task.settings(bench, asked.argument),
                }
            )
        )

    def _student(self, group: Sequence[Subject]) -> str:
        """The digest of the trial's student that a unit is of."""
        return group[0].digest if len(group) == 1 and group[0].trial is not None else ""


def _check_file(path: Path | None) -> None:
    """Refuse a file that cannot be written, before anything is measured.

    Raises:
        EnvironmentProblem: its folder is not there, or it is a folder itself.
    """
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise EnvironmentProblem(
            f"--save-inputs: found {path}, expected a file in a folder that is there"
        )


def _save(bench: Bench, path: Path) -> None:
    """Write the inputs that conditions made, beside those that they were made of."""
    assert bench.inputs is not None, "they are wanted"
    arrays = {"x": bench.raw[:].numpy(), "y": np.asarray(bench.labels), **bench.inputs}
    if bench.examples.index is not None:
        arrays["index"] = bench.examples.index.numpy()

    packed = io.BytesIO()
    np.savez(packed, **arrays)  # type: ignore[arg-type]  # its stubs take no mapping
    write_bytes(path, packed.getvalue())
