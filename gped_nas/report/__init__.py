"""The report of a study: ``write_report`` for a file, ``data_of`` for its numbers.

The function that makes the page bears its submodule's name: ``gped_nas.report.page.page``. Drawing libraries
are loaded when a page is made, not with this package.
"""

from pathlib import Path

from gped_nas import io
from gped_nas.report.data import data_of
from gped_nas.search.snapshot import StudySnapshot

__all__ = ["data_of", "write_report"]


def write_report(snapshot: StudySnapshot, path: Path) -> None:
    """Write a study's report as one self-contained HTML file, whole or not at all.

    Raises:
        EnvironmentProblem: the file cannot be written.
    """
    from gped_nas.report.page import page

    io.write_text(path, page(data_of(snapshot)))
