"""The report in a real browser, network off: all is drawn, nothing is asked for or complains."""

import pytest
from playwright.sync_api import expect

from gped_nas.report import write_comparison
from tests.report.example import make_snapshot

CHARTS = 6
HOVERED = """key => {
  const chart = document.getElementById('chart-front');
  const curve = chart.data.findIndex(trace => trace.customdata?.includes(key));
  const point = chart.data[curve].customdata.indexOf(key);
  Plotly.Fx.hover(chart, [{curveNumber: curve, pointNumber: point}]);
  return document.querySelector('#chart-front .hoverlayer').textContent;
}"""


@pytest.mark.parametrize(
    ("report", "width", "scheme"),
    [("some", 1440, "light"), ("some", 390, "dark"), ("one", 1440, "dark"), ("one", 390, "light")],
)
def test_every_figure_is_drawn_and_nothing_leaves(visit, report, width, scheme):
    seen = visit(report, viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert seen.page.locator(".chart").count() == CHARTS
    assert seen.undrawn() == []
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    assert len(seen.requests) == 1 and seen.requests[0].startswith("file:")
    assert seen.complaints == []


def test_a_thousand_trials_open_in_two_seconds(visit):
    """Seconds of the page's thread, which a busy machine does not stretch, until all is drawn."""
    seen = visit("many", thread_time=True)
    assert seen.undrawn() == []
    assert 0 < seen.thread_seconds() < 2
    assert seen.page.locator("#all-trials tbody tr").count() == 1000
    assert seen.page.locator("details.card").count() == 24
    assert len(seen.requests) == 1 and seen.complaints == []


def test_a_card_beyond_the_page_is_followed_to_its_file(visit):
    seen = visit("many")
    link = seen.page.locator("#front-table a[href*='many-cards-']").first
    trial = link.inner_text()
    link.click()
    expect(seen.page.locator(f"#student-{trial} > summary")).to_contain_text(f"Trial {trial}")
    assert all(url.startswith("file:") for url in seen.requests) and seen.complaints == []


def test_pictures_in_cards_are_decoded(visit):
    page = visit("some").page
    sizes = page.locator(".card.chosen .example img").evaluate_all(
        "all => all.map(e => [e.naturalWidth, e.complete])"
    )
    assert len(sizes) == 6 and all(size == [8, True] for size in sizes)


def test_ink_follows_the_color_scheme_and_paper_is_black_on_white(visit):
    seen = visit("some", color_scheme="light", viewport={"width": 760, "height": 900})
    ink = seen.page.locator("#chart-front .xtick text").first
    expect(ink).to_have_css("fill", "rgb(27, 31, 36)")
    seen.page.emulate_media(color_scheme="dark")
    expect(ink).to_have_css("fill", "rgb(228, 232, 236)")

    seen.page.emulate_media(color_scheme="dark", media="print")
    seen.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(ink).to_have_css("fill", "rgb(0, 0, 0)")
    expect(seen.page.locator("#budget")).to_be_hidden()
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 760, (
        "A4 at 96 dots an inch, less its margins"
    )
    assert seen.page.locator("details:not([open])").count() == 0
    paper = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 255, 255)"

    seen.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert seen.page.locator("details:not([open])").count() > 10
    assert seen.complaints == []


@pytest.mark.parametrize("name", ["some", "one"])
def test_paper_has_at_most_eight_pages(visit, name):
    """The verdict, the front, the chosen student's card and the comparison; the rest is named."""
    page = visit(name).page
    num_pages = page.pdf(format="A4").count(b"/Type /Page\n")
    assert 2 <= num_pages <= 8

    # drawn before the sheet is laid out
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    figure = page.locator("#chart-front")
    assert figure.evaluate("(box) => box.scrollHeight - box.clientHeight") <= 0
    for shown in ("h1", "#front-table", ".card.chosen", "#comparison", ".on-paper"):
        expect(page.locator(shown)).to_be_visible()
    for hidden in ("#all-trials", "#configuration", "#explorer"):
        expect(page.locator(hidden)).to_be_hidden()
    assert page.locator(".card:not(.chosen):visible").count() == 0


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_the_figure_is_on_the_first_screen(visit, width, height):
    """The verdict above it, and nearly all of the drawing."""
    page = visit("some", viewport={"width": width, "height": height}).page
    heading, chart = page.locator("h1").bounding_box(), page.locator("#chart-front").bounding_box()
    assert heading["y"] + heading["height"] < chart["y"]
    assert height - chart["y"] > 0.9 * chart["height"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_evil_texts_are_shown_as_they_are(visit):
    seen = visit("evil")
    page = seen.page
    assert seen.undrawn() == []
    assert page.locator("img:not([src^='data:image/png'])").count() == 0
    assert page.locator(".chart a[href]").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280

    hovered = page.evaluate(HOVERED, "reference-0")
    assert hovered.startswith("<b>bold</b><br><a href='https://x.y'>link</a></script><script>")
    assert len(hovered) < 400
    assert page.locator("#chart-front .hoverlayer a").count() == 0

    evil_axis = page.locator("[name='axis-y'] option").nth(3).inner_text()
    page.locator("[name='axis-y']").select_option(label=evil_axis)
    expect(page.locator("#chart-front .ytitle")).to_contain_text(
        "</script><script>alert(1)</script><img src=x"
    )
    assert page.locator("#chart-front .ytitle a, #chart-front .ytitle b").count() == 0
    page.locator("[name='space']").check()
    expect(page.locator("#space text").filter(has_text="</script>").first).to_be_visible()
    assert len(seen.requests) == 1 and seen.complaints == []


def test_a_picture_can_be_saved_without_breaking_the_policy(visit, tmp_path):
    seen = visit("some")
    chart = seen.page.locator("#chart-front")
    chart.hover()
    with seen.page.expect_download() as download:
        chart.locator('[data-title*="ownload"]').click()
    download.value.save_as(tmp_path / "front.png")
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
    assert len([url for url in seen.requests if url.startswith("http")]) == 0
    titles = seen.page.locator(".modebar-btn").evaluate_all("all => all.map(e => e.dataset.title)")
    assert titles
    for title in titles:
        assert "loud" not in (title or "") and "hare" not in (title or "")
    assert seen.complaints == []


def test_an_empty_study_is_drawn_without_complaint(visit):
    seen = visit("empty")
    assert seen.undrawn() == []
    assert seen.complaints == []
    assert "The front is empty" in seen.page.inner_text("body")


def test_without_javascript_the_answer_the_front_and_the_tables_are_there(visit):
    page = visit("some", java_script_enabled=False).page
    assert "loses " in page.inner_text("h1")
    assert page.locator("#all-trials tbody tr").count() == 48
    expect(page.locator("#chart-front svg.still")).to_be_visible()
    expect(page.locator("svg.parallel")).to_be_visible()
    for hidden in ("#explorer", "#budget", "#trials-filter"):
        expect(page.locator(hidden)).to_be_hidden()
    page.locator("details.card:not([open]) > summary").first.click()
    assert page.locator("details.card[open] svg.plot").count() >= 4


def test_a_comparison_is_drawn_without_complaint(visit, tmp_path):
    other = make_snapshot(30, name="<b>other</b>")
    write_comparison([make_snapshot(), other], tmp_path / "both.html")
    seen = visit(tmp_path / "both.html", viewport={"width": 390, "height": 900})
    assert seen.page.locator(".chart").count() == 3 and seen.undrawn() == []
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert "<b>other</b>" in seen.page.inner_text("h1 >> xpath=..")
    assert len(seen.requests) == 1 and seen.complaints == []
