"""Reports in a real browser with the network off."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from gped_nas.report import write_report
from tests.report.example import make_single, make_snapshot
from tests.report.test_page import evil_snapshot
from tests.report.test_regions import parted

PATIENCE_MS = 120_000
"""How long a page may take on a machine that is busy with other things; no test is about time."""
expect.set_options(timeout=PATIENCE_MS)
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SNAPSHOTS = {
    "one": make_single,
    "parted": parted,
    "some": make_snapshot,
    "many": lambda: make_snapshot(1000),
    "few": lambda: make_snapshot(7),
    "evil": evil_snapshot,
    "empty": lambda: make_snapshot(
        records=(),
        front=(),
        chosen=None,
        knee=None,
        rule="The front is empty.",
        references=(),
        hypervolume=(),
        random_order=(),
    ),
}


class Visit:
    """One page of a report and all that it asked for or complained about."""

    def __init__(
        self, browser: Browser, path: Path, *, thread_time: bool = False, **context: Any
    ) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.context = browser.new_context(offline=True, **context)
        self.context.set_default_timeout(PATIENCE_MS)
        self.context.route("**/*", self._answer)

        self.page: Page = self.context.new_page()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        if thread_time:
            self._meter = self.context.new_cdp_session(self.page)
            self._meter.send("Performance.enable", {"timeDomain": "threadTicks"})
        self.page.goto(path.as_uri())

    def thread_seconds(self) -> float:
        """What the page's thread has worked since it was opened with ``thread_time``."""
        metrics = self._meter.send("Performance.getMetrics")["metrics"]
        return float(next(m["value"] for m in metrics if m["name"] == "TaskDuration"))

    def _answer(self, route: Route) -> None:
        self.requests.append(route.request.url)
        if route.request.url.startswith("file:"):
            route.continue_()
        else:
            route.abort()

    def undrawn(self) -> list[str]:
        """Charts that hold no drawing when all had their turn."""
        without = self.page.locator(".chart:not(:has(.main-svg))")
        with contextlib.suppress(AssertionError):
            expect(without).to_have_count(0, timeout=PATIENCE_MS)
        ids: list[str] = without.evaluate_all("all => all.map(e => e.id)")
        return ids


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = os.environ.get("GPED_CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.fail("no browser: install chromium, or name one in GPED_CHROMIUM", pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The report of a snapshot by name, written once."""
    folder = tmp_path_factory.mktemp("reports")

    def report(name: str) -> Path:
        path = folder / f"{name}.html"
        if not path.exists():
            write_report(SNAPSHOTS[name](), path)
        return path

    return report


@pytest.fixture
def visit(browser: Browser, reports: Callable[[str], Path]) -> Iterator[Callable[..., Visit]]:
    visits = []

    def open_report(report: str | Path, **context: Any) -> Visit:
        path = reports(report) if isinstance(report, str) else report
        visits.append(Visit(browser, path, **context))
        return visits[-1]

    yield open_report
    for each in visits:
        each.context.close()
