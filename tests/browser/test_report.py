"""The report in a real browser, network off: all is drawn, nothing is asked for, nothing complains."""

import os
import shutil

import pytest
from playwright.sync_api import expect, sync_playwright

from gped_nas.report import write_report
from tests.report.example import make_snapshot
from tests.report.test_page import evil_snapshot

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
FRONT = 3
OTHERS = 3


@pytest.fixture(scope="module")
def browser():
    path = os.environ.get("GPED_CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.fail("no browser: install chromium, or name one in GPED_CHROMIUM", pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


class Visit:
    """One page of a report and all that it asked for or complained about."""

    def __init__(self, browser, path, **context):
        self.requests, self.complaints = [], []
        self.context = browser.new_context(offline=True, **context)
        self.context.route("**/*", self._answer)
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(path.as_uri())

    def _answer(self, route):
        self.requests.append(route.request.url)
        if route.request.url.startswith("file:"):
            route.continue_()
        else:
            route.abort()

    def undrawn(self):
        return self.page.evaluate(
            "[...document.querySelectorAll('.chart')].filter(e => !e.querySelector('.main-svg')).map(e => e.id)"
        )


@pytest.fixture
def visit(browser, tmp_path):
    visits = []

    def open_report(snapshot, **context):
        path = tmp_path / "report.html"
        write_report(snapshot, path)
        visits.append(Visit(browser, path, **context))
        return visits[-1]

    yield open_report
    for each in visits:
        each.context.close()


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_figure_is_drawn_and_nothing_leaves(visit, tmp_path, width, scheme):
    snapshot = make_snapshot()
    seen = visit(snapshot, viewport={"width": width, "height": 900}, color_scheme=scheme)
    seen.page.screenshot(path=tmp_path / f"report-{width}-{scheme}.png", full_page=True)
    assert seen.page.locator(".chart").count() == FRONT + OTHERS + len(snapshot.front)
    assert seen.undrawn() == []
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    assert [url for url in seen.requests if not url.startswith("file:")] == []
    assert len(seen.requests) == 1
    assert seen.complaints == []


def test_ink_follows_the_colour_scheme(visit):
    seen = visit(make_snapshot(), color_scheme="light")
    ink = seen.page.locator(".chart .xtick text").first
    expect(ink).to_have_css("fill", "rgb(27, 31, 36)")
    seen.page.emulate_media(color_scheme="dark")
    expect(ink).to_have_css("fill", "rgb(228, 232, 236)")
    assert seen.complaints == []


def test_evil_texts_do_nothing(visit):
    seen = visit(evil_snapshot())
    assert seen.undrawn() == []
    assert seen.page.locator("img").count() == 0
    assert seen.page.locator(".chart a[href]").count() == 0
    assert len(seen.requests) == 1
    assert seen.complaints == []


def test_a_picture_can_be_saved_without_breaking_the_policy(visit, tmp_path):
    seen = visit(make_snapshot())
    chart = seen.page.locator("#chart-front-0")
    chart.hover()
    with seen.page.expect_download(timeout=10_000) as download:
        chart.locator('[data-title*="ownload"]').click()
    download.value.save_as(tmp_path / "front.png")
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
    assert len([url for url in seen.requests if url.startswith("http")]) == 0
    assert seen.complaints == []


def test_there_is_no_button_to_a_cloud(visit):
    titles = visit(make_snapshot()).page.locator(".modebar-btn").evaluate_all("all => all.map(e => e.dataset.title)")
    assert titles
    assert not [title for title in titles if title and ("loud" in title or "hare" in title)]


def test_all_trials_can_be_sorted(visit):
    page = visit(make_snapshot()).page
    header = page.get_by_role("button", name="NLL (nats)")
    cells = "[...document.querySelectorAll('.sortable tbody tr')].map(r => r.cells[3].dataset.sort)"
    header.click()
    values = [float(v) for v in page.evaluate(cells) if v]
    assert values == sorted(values)
    header.click()
    values = page.evaluate(cells)
    numbers = [float(v) for v in values if v]
    assert numbers == sorted(numbers, reverse=True)
    assert values[len(numbers) :] == [""] * (len(values) - len(numbers))


def test_an_empty_study_is_drawn_without_complaint(visit):
    seen = visit(make_snapshot(records=(), front=(), chosen=None, references=(), hypervolume=()))
    assert seen.undrawn() == []
    assert seen.complaints == []
    assert "The front is empty" in seen.page.inner_text("body")


def test_without_javascript_the_answer_and_the_tables_are_there(visit):
    snapshot = make_snapshot()
    page = visit(snapshot, java_script_enabled=False).page
    assert "is the student to use" in page.inner_text("h1")
    assert page.locator(".sortable tbody tr").count() == len(snapshot.records)
