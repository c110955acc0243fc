"""The table and the pictures of searches for a goal are those of the report."""

import pytest

from tests.bench.bench_objectives import area, missed, summarize
from tests.bench.objectives_figures import PAGES, PICTURES, TABLES, draw, read
from tests.figures import with_figures

FEW = [{"flops": 100.0, "goal": 0.5}, {"flops": 1000.0, "goal": 0.75}]
MANY = [{"flops": 100.0, "goal": 0.25}, {"flops": 1000.0, "goal": 1.0}]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_page_has_the_figures_of_the_report(page):
    """``python -m tests.bench.objectives_figures`` writes them anew."""
    text = page.read_text()
    assert all(f"<!-- figures: {name} -->" in text for name in TABLES)
    assert with_figures(text, TABLES) == text


def test_the_pictures_are_of_the_report():
    pictures = draw(read())
    assert pictures.keys() == {path.name for path in PICTURES.glob("objective-*.svg")}
    for name, svg in pictures.items():
        assert (PICTURES / name).read_text() == svg
        assert f"pictures/{name}" in PAGES[0].read_text()


def test_an_area_is_of_orders_of_magnitude():
    """From 100 to 10,000 are two of them: the first at .5, the second at .75."""
    ends = (4.605170185988092, 9.210340371976184)
    assert area(FEW, ends) == pytest.approx((0.5 + 0.75) / 2)


def test_a_student_is_missed_where_none_that_costs_as_much_is_as_good():
    searches = {"goal": MANY, "nll": FEW}
    assert missed(searches, "goal", "nll") == [1, 2]
    assert missed(searches, "nll", "goal") == [1, 2]
    assert missed({"goal": FEW, "nll": FEW}, "goal", "nll") == [0, 2]


def test_both_searches_are_paired_by_seed():
    parts = [
        {"seed": seed, "hardware": {}, "searches": {"goal": goal, "nll": FEW}}
        for seed, goal in enumerate((FEW, MANY))
    ]
    figures = summarize(parts)
    assert figures["best of goal minus nll"]["values"] == [0.0, 0.25]
    assert figures["best of nll"]["mean"] == 0.75
