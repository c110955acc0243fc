"""The tables of what students keep are those of the report."""

import pytest

from tests.bench.bench_kept import over_seeds, summarize
from tests.bench.kept_figures import PAGES, TABLES, cell, kept
from tests.figures import with_figures


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_page_has_the_figures_of_the_report(page):
    """``python -m tests.bench.kept_figures`` writes them anew."""
    text = page.read_text()
    assert "<!-- figures: " in text
    assert with_figures(text, TABLES) == text


def test_an_interval_over_seeds_is_students():
    """1, 2, 3: mean 2, deviation 1, t of two degrees 4.303 over the root of 3."""
    figure = over_seeds([1.0, 2.0, 3.0])
    assert figure["mean"] == 2.0
    assert figure["high"] - figure["mean"] == pytest.approx(4.303 / 3**0.5, abs=1e-3)
    assert cell(figure) == "2.00 ± 2.48"
    assert "low" not in over_seeds([1.0]) and over_seeds([]) == {}


def test_students_are_paired_with_their_twins_by_seed():
    def part(seed, student, twin):
        row = {"task": "prediction", "metric": "nll", "condition": "clean", "n": 9, "part": "test"}
        rows = [
            {**row, "predictor": f"trial {seed}", "value": student},
            {**row, "predictor": "label_twin", "value": twin},
            {**row, "predictor": "map", "value": None},
        ]
        facts = {"space": "s", "settings": {}, "hardware": {}, "seconds": {}, "notes": []}
        return {"seed": seed, "rows": rows, **facts}

    case = summarize([part(0, 1.0, 3.0), part(1, 2.0, 4.0)])
    (line,) = case["lines"]
    assert line["student minus"]["label_twin"]["values"] == [-2.0, -2.0]
    assert set(line["figures"]) == {"student", "label_twin"}
    assert "| `prediction` | `nll` |" in kept(case)
