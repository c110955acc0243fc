"""The reports: ``write_report`` of one study, ``write_comparison`` of several.

``data_of`` gives the numbers of a report. The function that makes its page bears its submodule's
name: ``gped_nas.report.page.page``. Drawing libraries are loaded when a page is made, not with
this package.
"""

from collections.abc import Sequence
from pathlib import Path

from gped_nas import io
from gped_nas.report.data import data_of
from gped_nas.search.snapshot import StudySnapshot

__all__ = ["data_of", "write_comparison", "write_report"]


def write_report(snapshot: StudySnapshot, path: Path) -> None:
    """Write a study's report as one self-contained HTML file, whole or not at all.

    Cards that it has no room for go to ``<name>-cards.html`` beside it.

    Raises:
        EnvironmentProblem: the file cannot be written.
    """
    from gped_nas.report.page import more_page, page

    data = data_of(snapshot)
    cards_path = path.with_name(f"{path.stem}-cards.html")
    for target in (path, cards_path):
        io.remove_temporaries_of(target)
    cards_text = more_page(data, back=path.name)
    if cards_text is None:
        io.write_text(path, page(data))
        cards_path.unlink(missing_ok=True)
        return

    # the cards first: a report never links to a file that is not there
    io.write_text(cards_path, cards_text)
    io.write_text(path, page(data, more=cards_path.name))


def write_comparison(snapshots: Sequence[StudySnapshot], path: Path) -> None:
    """Write the comparison of studies as one self-contained HTML file.

    Raises:
        ConfigError: they cannot be compared, see ``search.comparison``.
        EnvironmentProblem: the file cannot be written.
    """
    from gped_nas.report.comparison import comparison_data, comparison_page

    text = comparison_page(comparison_data(snapshots))
    io.remove_temporaries_of(path)
    io.write_text(path, text)
