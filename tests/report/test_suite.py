"""The page of a grid."""

from gped_nas.report.suite import diagram, suite_page
from tests.report.test_page import Page
from tests.suite.example import HOSTILE, make_data


def test_the_page_has_means_ranks_and_what_was_not_measured() -> None:
    text = suite_page(make_data())
    page = Page(text)
    assert page.scripts == [] and not page.attributes("src")
    assert HOSTILE in page.text
    for shown in (
        "0.2250",
        "87.50 %",
        "average rank",
        "1.35 p < 0.001",
        "it left the finite numbers <b>",
    ):
        assert shown in page.text
    assert text == suite_page(make_data())


def test_a_rank_that_is_not_told_from_the_best_one_is_bold() -> None:
    """Six seeds in one order: CD is 1.35, so that rank 2 is not told from 1, and 3 is."""
    text = suite_page(make_data())
    assert text.count("<b>1.00</b>") == text.count("<b>2.00</b>") == 2
    assert "<b>3.00</b>" not in text and "3.00" in text


def test_a_diagram_names_every_treatment_and_bars_what_is_not_told_apart() -> None:
    (ranking,) = [each for each in make_data()["rankings"] if each["metric"] == "nll"]
    drawing = str(diagram(ranking))
    for name in ("swag 1.00", "=sgld 2.00", "map 3.00", "CD 1.35"):
        assert name in drawing
    assert drawing.count('stroke-width="4"') == len(ranking["groups"]) == 2


def test_a_grid_of_one_method_and_subject_has_no_ranks() -> None:
    data = make_data()
    data["rankings"] = []
    assert (
        "average rank"
        not in Page(suite_page(data))
        .text.split("Mean over seeds")[1]
        .split("average ranks, 1 the best")[1]
    )
