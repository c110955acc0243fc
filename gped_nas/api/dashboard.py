"""Serve a study with the Optuna dashboard, after leaving a note on it that says what one looks at."""

from gped_nas.api.study import DATABASE, Study, storage_from_environment
from gped_nas.search.study import sqlite_url


def serve_study(study: Study, *, storage: str | None, port: int) -> None:
    """Serve on 127.0.0.1 until interrupted.

    Raises:
        EnvironmentProblem: the dashboard is not installed, or the port is taken.
    """
    from gped_nas.report.dashboard import annotate, serve

    file = study.path / DATABASE
    url = storage or storage_from_environment() if not file.is_file() else sqlite_url(file)
    assert url is not None, "open_study has read it"
    annotate(url, study.name, note(study), metric_names=[o.name for o in study.objectives])
    serve(url, port=port)


def note(study: Study) -> str:
    """A Markdown note: what was searched, what was found, where the report lies. User text is escaped."""
    from gped_nas.report.dashboard import as_markdown_text

    snapshot = study.snapshot()
    teacher = snapshot.teacher
    lines = [
        f"# {as_markdown_text(study.name)}",
        "",
        f"Students of {as_markdown_text(str(teacher.get('genotype', 'a teacher')))}, "
        f"{teacher.get('num_samples', 0)} posterior samples ({as_markdown_text(str(teacher.get('method', '')))}).",
        f"Data: {as_markdown_text(snapshot.split_text)}",
        "",
        f"* objectives: {', '.join(f'{o.label} ({o.direction})' for o in snapshot.objectives)}",
        f"* on the front: trials {', '.join(map(str, snapshot.front)) or 'none'}",
        f"* chosen: trial {snapshot.chosen}. {snapshot.rule}",
        "",
        "`gped-search report` writes the full report with intervals, references and test figures.",
    ]
    return "\n".join(lines)
