"""Serve a study with the Optuna dashboard, after putting on it what one wants to see there."""

import shlex
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from gped_nas.api.note import STUDENTS
from gped_nas.api.study import Study
from gped_nas.distill.student import SPEC_FILE
from gped_nas.errors import DataError
from gped_nas.evaluate.measured import TEST, VALIDATION, Key, public_name
from gped_nas.export.card import card
from gped_nas.export.folder import CARD_FILE, write_export
from gped_nas.export.text import as_markdown
from gped_nas.models.labels import genotype_text
from gped_nas.report.beside import evidence_of
from gped_nas.report.verdict import judge_study
from gped_nas.search.record import TrialRecord
from gped_nas.search.region_words import describe_region
from gped_nas.search.snapshot import StudySnapshot
from gped_nas.search.task_rows import beside_teacher, label_of, shown_rows
from gped_nas.search.teacher_words import teacher_text

ARTIFACTS = "artifacts"
_LONGEST_VERDICT = 2_000


def serve_study(
    study: Study,
    *,
    port: int = 8080,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Furnish the study's dashboard and serve it on 127.0.0.1 until interrupted.

    Args:
        study: an open study.
        port: 1 to 65535.
        ready: called once the port answers.

    Raises:
        EnvironmentProblem: the dashboard is not installed, or the port is taken.
    """
    from gped_nas.report.dashboard import serve

    url = furnish(study)
    serve(url, port=port, artifacts=study.path / ARTIFACTS, ready=ready)


def furnish(study: Study) -> str:
    """Put notes, plots and the front's files on a study's dashboard; done twice it changes nothing.

    Returns:
        The study's storage URL.

    Raises:
        StudyError: the study belongs to another folder by now.
        EnvironmentProblem: the dashboard is not installed, or the study's folder cannot be written.
    """
    from gped_nas.report import data_of
    from gped_nas.report.dashboard import Wall
    from gped_nas.report.dashboard.plots import dashboard_figures

    study.check_bound()
    snapshot = study.snapshot()
    wall = Wall(study.storage_url, study.name, study.path / ARTIFACTS)
    wall.name_objectives([objective.name for objective in snapshot.objectives])

    notes = {}
    for trial in snapshot.front:
        record = snapshot.record(trial)
        try:
            files = wall.put_files(_export_files(study, record, snapshot))
            notes[trial] = trial_note(record, snapshot, files)
        except DataError as error:
            note = trial_note(record, snapshot, {})
            notes[trial] = f"{note}\n\nIts files are damaged: {as_markdown(str(error))}"

    wall.draw(dashboard_figures(data_of(snapshot)))
    wall.write(study_note(snapshot, judge_study(evidence_of(snapshot)).text), notes)
    wall.remember()
    return study.storage_url


def _export_files(study: Study, record: TrialRecord, snapshot: StudySnapshot) -> dict[str, bytes]:
    """The student's exported files, each named with its trial; none where it was not kept."""
    source = study.path / STUDENTS / str(record.trial)
    if not (source / SPEC_FILE).is_file():
        return {}

    with tempfile.TemporaryDirectory() as folder:
        paired = study.paired_differences(record.trial)
        evidence = evidence_of(snapshot, student=record, differences=paired)
        verdict = judge_study(evidence).text
        write_export(
            source,
            Path(folder),
            ["safetensors"],
            lambda spec: card(spec, record, snapshot, paired, verdict=verdict),
            spec_sha256=record.spec_sha256,
        )
        return {
            f"trial-{record.trial}-{path.name}": path.read_bytes()
            for path in sorted(Path(folder).iterdir())
        }


def study_note(snapshot: StudySnapshot, verdict: str) -> str:
    """A Markdown note: what was searched, what was found, where the report lies.

    User text is escaped.

    Args:
        snapshot: the study.
        verdict: on it, whole sentences.
    """
    objectives = [f"{as_markdown(o.label)} ({o.direction})" for o in snapshot.objectives]
    front = ", ".join(map(str, snapshot.front)) or "none"
    chosen = "none" if snapshot.chosen is None else f"trial {snapshot.chosen}"
    command = as_markdown(f"gped-search report {shlex.quote(snapshot.name)}")

    return "\n".join(
        [
            f"# {as_markdown(snapshot.name)}",
            "",
            as_markdown(verdict, limit=_LONGEST_VERDICT),
            "",
            f"Students of {as_markdown(teacher_text(snapshot.teacher))}.",
            f"Data: {as_markdown(snapshot.split_text)}",
            "",
            f"* objectives: {', '.join(objectives)}",
            f"* on the front: trials {front}",
            f"* region of interest: {as_markdown(describe_region(snapshot.region))}; outside are "
            f"{len(snapshot.outside)} complete trials",
            f"* chosen: {chosen}. {as_markdown(snapshot.rule)}",
            "",
            "Each trial of the front has a note of its own, which links to its weights, spec and "
            f"model card. {command} writes the full report with intervals, references "
            "and test figures.",
        ]
    )


def trial_note(record: TrialRecord, snapshot: StudySnapshot, files: Mapping[str, str]) -> str:
    """A Markdown note on a trial of the front: what it is and is worth, where its files are.

    Args:
        record: its record.
        snapshot: its study.
        files: its files by name to their addresses in the dashboard.
    """
    chosen = "chosen" if record.trial == snapshot.chosen else "on the front"
    genotype = genotype_text(record.genotype)
    lines = [f"# Trial {record.trial}: {chosen}", "", as_markdown(genotype), ""]

    lines += [
        "| metric | validation | 95 % interval | test | 95 % interval |",
        "| --- | --- | --- | --- | --- |",
    ]
    for key in record.measures:
        if key.part == VALIDATION:
            on_validation = _fill_cells(record, key)
            on_test = _fill_cells(record, key._replace(part=TEST))
            lines.append(f"| {as_markdown(public_name(key))} | {on_validation} | {on_test} |")

    lines += _asked_lines(record, snapshot)
    costs = ", ".join(f"{as_markdown(name)} {value:,}" for name, value in record.costs.items())
    command = f"gped-search export {shlex.quote(snapshot.name)} {record.trial} --to onnx"
    lines += ["", f"Costs: {costs}.", "", f"Take it home: {as_markdown(command)}"]

    if files:
        card_first = sorted(files, key=lambda name: not name.endswith(CARD_FILE))
        lines += ["", "Files: " + ", ".join(f"[{name}]({files[name]})" for name in card_first)]
    return "\n".join(lines)


def _asked_lines(record: TrialRecord, snapshot: StudySnapshot) -> list[str]:
    """A table of what tasks measured of a student beside the teacher; nothing where none did."""
    lines = []
    for row, of_teacher in beside_teacher(shown_rows(snapshot), record.trial):
        label = as_markdown(f"{label_of(row, snapshot)}, {row['part']}")
        cells = [_cell(row["value"]), "", ""]
        if row["low"] is not None:
            cells[1] = f"{row['low']:.4g} to {row['high']:.4g}"
        if of_teacher is not None:
            cells[2] = _cell(of_teacher["value"])
        lines.append(f"| {label} | {' | '.join(cells)} |")
    if not lines:
        return []
    head = [
        "| asked by evaluate | student | 95 % interval | teacher |",
        "| --- | --- | --- | --- |",
    ]
    return ["", *head, *lines]


def _cell(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _fill_cells(record: TrialRecord, key: Key) -> str:
    """Two cells of a table: a measure's value and its interval."""
    measured = record.measures.get(key)
    if measured is None:
        return " | "

    interval = ""
    if measured.interval is not None:
        low, high = measured.interval
        interval = f"{low:.4g} to {high:.4g}"
    return f"{measured.value:.4g} | {interval}"
