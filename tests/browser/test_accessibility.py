"""The report for those who do not see it, judged by axe-core."""

from importlib.resources import files

from gped_nas.report import write_comparison
from gped_nas.report.suite import suite_page
from tests.report.example import make_snapshot
from tests.suite.example import make_data

AXE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
GRAVE = ("serious", "critical")


def grave(page, **options):
    """Rules that are broken seriously, with the first element that breaks each."""
    page.evaluate(
        "document.querySelectorAll('details').forEach(details => { details.open = true; })"
    )
    page.evaluate(AXE)
    run = "options => axe.run(document, {resultTypes: ['violations'], ...options})"
    violations = page.evaluate(run, options)["violations"]
    return [(v["id"], v["nodes"][0]["html"][:200]) for v in violations if v["impact"] in GRAVE]


def test_a_report_has_no_serious_fault(visit):
    seen = visit("few")
    assert seen.undrawn() == []
    assert grave(seen.page) == []


def test_dark_colors_can_be_told_apart(visit):
    seen = visit("one", color_scheme="dark")
    assert seen.undrawn() == []
    assert grave(seen.page, runOnly=["color-contrast"]) == []


def test_three_axes_and_a_small_screen_have_no_serious_fault(visit):
    seen = visit("one", viewport={"width": 390, "height": 800})
    seen.page.locator("[name='space']").check()
    assert seen.undrawn() == []
    assert grave(seen.page) == []


def test_a_comparison_has_no_serious_fault(visit, tmp_path):
    write_comparison([make_snapshot(5), make_snapshot(7, name="other")], tmp_path / "both.html")
    seen = visit(tmp_path / "both.html")
    assert seen.undrawn() == []
    assert grave(seen.page) == []


def test_a_grid_of_evaluations_has_no_serious_fault(visit, tmp_path):
    (tmp_path / "suite.html").write_text(suite_page(make_data()))
    seen = visit(tmp_path / "suite.html", color_scheme="dark")
    assert grave(seen.page) == []
