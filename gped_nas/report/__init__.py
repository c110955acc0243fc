"""The reports: ``write_report`` of one study, ``write_comparison`` of several.

``data_of`` gives the numbers of a report. The function that makes its page bears its submodule's
name: ``gped_nas.report.page.page``. Drawing libraries are loaded when a page is made, not with
this package.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from gped_nas import io
from gped_nas.report.data import data_of
from gped_nas.search.snapshot import StudySnapshot

__all__ = ["data_of", "write_comparison", "write_report"]


def write_report(snapshot: StudySnapshot, path: Path) -> None:
    """Write a study's report as one self-contained HTML file, whole or not at all.

    Cards that it has no room for go to ``<name>-cards-<digest>.html`` beside it. Its name is its
    content's, so that a report that is not replaced yet keeps its own.

    Raises:
        EnvironmentProblem: the file cannot be written.
    """
    from gped_nas.report.page import more_page, page

    data = data_of(snapshot)
    cards = more_page(data, back=path.name)
    more = ""
    if cards is not None:
        more = f"{path.stem}-cards-{io.sha256_text(cards)[:8]}.html"

    _make_folder(path)
    for name in {path.name, more, *_temporary_cards(path)} - {""}:
        io.remove_temporaries_of(path.with_name(name))
    # the cards first: a report never links to a file that is not there
    if cards is not None:
        io.write_text(path.with_name(more), cards)
    io.write_text(path, page(data, more=more))

    for name in _names_of_cards(path, path.parent.iterdir()) - {more}:
        path.with_name(name).unlink(missing_ok=True)


def _names_of_cards(path: Path, files: Iterable[Path]) -> set[str]:
    """Which of these files are cards of this report, or were of an earlier one."""
    pattern = re.compile(re.escape(f"{path.stem}-cards") + r"(-[0-9a-f]{8})?\.html")
    return {file.name for file in files if pattern.fullmatch(file.name)}


def _temporary_cards(path: Path) -> set[str]:
    """Names of the cards that killed writers left half written."""
    temporaries = path.parent.glob(".*.html.*.tmp")
    names = [Path(file.name[1:].rpartition(".html.")[0] + ".html") for file in temporaries]
    return _names_of_cards(path, names)


def write_comparison(snapshots: Sequence[StudySnapshot], path: Path) -> None:
    """Write the comparison of studies as one self-contained HTML file.

    Raises:
        ConfigError: they cannot be compared, see ``search.comparison``.
        EnvironmentProblem: the file cannot be written.
    """
    from gped_nas.report.comparison import comparison_data, comparison_page

    text = comparison_page(comparison_data(snapshots))
    _make_folder(path)
    io.remove_temporaries_of(path)
    io.write_text(path, text)


def _make_folder(path: Path) -> None:
    """Make the folder of a file where there is none."""
    if not path.parent.is_dir():
        io.make_dir(path.parent)
