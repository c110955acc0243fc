"""The documentation's figures of a GPU are those of the reports, which ``card.sh`` fills."""

import json
import shutil

import pytest

from tests.figures import REPORTS, number, with_figures
from tests.gpu.figures import PAGES, TABLES, take


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_documentation_has_the_figures_of_the_reports(page):
    """``python -m tests.gpu.figures`` writes them anew."""
    text = page.read_text()
    assert "<!-- figures: " in text
    assert with_figures(text, TABLES) == text


def test_numbers_have_three_digits():
    shown = [number(value) for value in (0.0088, 0.5, 1.1, 12.94, 386.4, -0.25)]
    assert shown == [".009", ".500", "1.10", "12.9", "386", "-.250"]


def test_what_a_card_measured_replaces_what_it_measured_again(tmp_path):
    reports, out = tmp_path / "reports", tmp_path / "out"
    shutil.copytree(REPORTS, reports)
    out.mkdir()
    row = {
        "population": "mlp 8",
        "students": 8,
        "ms": {"kernel": [1.0, 2.0, 3.0], "loop": [10.0, 20.5, 30.0]},
        "roofline": {"least_ms": 0.5},
    }
    convolutions = {**row, "population": "cnn 8"}
    measured = {"hardware": {"name": "a card"}, "populations": [row, convolutions]}
    search = {"name": "fashion search", "state": "ok", "seconds": 99.6}
    parts = [
        {"name": "kernel", "state": "ok", "results": {"kernel-cuda.json": measured}},
        {**search, "results": {"status": {"finished": 1000}}},
        {"name": "digits search", "state": "skipped", "results": {}},
    ]
    (out / "card.json").write_text(json.dumps({"parts": parts}))
    (out / "card.log").write_text(
        "\n===== kernel: python bench\n 0.1  a line\n"
        "\n===== fashion search: gped-search run\n 1.0  phase 4 of 5: students\n"
        " 2.0  students: all 800 in 0.91 s\n 4.0  students: all 800 in 0.50 s\n"
        " 9.0  phase 5 of 5: references\n"
    )
    take(out, reports)

    page = with_figures("".join(path.read_text() for path in PAGES), TABLES, reports)
    assert "| way | 8 mlp | 32 mlp | 128 mlp | 256 mlp | equal |" in page
    assert "| **two launches** | 2.00 | .154 |" in page
    assert "| loop over students | 20.5 |  |" in page
    assert "| **students in turn, one graph** | 2.00 |" in page
    assert "| `fashion_sgld` | 1,000 | 100 | 1.4 | the report |" in page
    assert "| `digits_sgld` | 1,000 | 83 |" in page
