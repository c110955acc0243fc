"""The dashboard in a real browser: what is feasible; a front trial's note, plots and files."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
from playwright.sync_api import Page, expect

from gped_nas.api.dashboard import ARTIFACTS, furnish
from gped_nas.api.study import Study
from gped_nas.report.dashboard.server import application, listen
from tests.browser.conftest import PATIENCE_MS
from tests.report.example import make_snapshot
from tests.report.handmade import make_study

EVIL = "<img src=x onerror=\"document.title='owned'\">'\u202e"
FRONT = """() => document.getElementById("graph-pareto-front").data
    .map(trace => [trace.hovertemplate.replace(/.*<extra>(.*)<.extra>/, "$1"), trace.x.length])"""


@dataclass
class Served:
    """A dashboard that answers, and the study behind it."""

    study: Study
    storage: str
    address: tuple[str, int]

    @property
    def url(self) -> str:
        """Where the study's pages are."""
        return f"http://{self.address[0]}:{self.address[1]}/dashboard/studies/1"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    snapshot = make_snapshot()
    few = make_snapshot(
        name=EVIL,
        records=snapshot.records[:9],
        front=snapshot.front,
        split_text=EVIL,
        config={"name": EVIL, "dataset": {"name": EVIL}},
        teacher={**snapshot.teacher, "genotype": EVIL, "method": EVIL},
    )
    study = make_study(tmp_path_factory.mktemp("dashboard"), few, class_names=(EVIL, "b", "c"))
    storage = furnish(study)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = application(storage, port=port, artifacts=study.path / ARTIFACTS)
    with listen("127.0.0.1", port, app) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Served(study, storage, server.server_address)  # type: ignore[arg-type]
        server.shutdown()
        thread.join()


@pytest.fixture
def page(browser: Any, served: Served) -> Iterator[Page]:
    """A page that may ask the dashboard alone; every error it reports fails the test."""
    complaints: list[str] = []

    def complain_if_foreign(request: Any) -> None:
        if _is_foreign(request.url, served):
            complaints.append(request.url)

    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", complain_if_foreign)
    yield page

    assert page.title() != "owned" and page.locator("img[src=x]").count() == 0
    context.close()
    assert complaints == []


def _is_foreign(url: str, served: Served) -> bool:
    return not url.startswith((f"http://127.0.0.1:{served.address[1]}/", "data:", "blob:"))


def test_feasibility_is_optunas_and_the_plots_are_drawn(page: Page, served: Served) -> None:
    study = optuna.load_study(study_name=EVIL, storage=served.storage)
    trials = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    infeasible = sum(any(value > 0 for value in trial.constraints.values()) for trial in trials)
    assert 0 < infeasible < len(trials) > len(study.best_trials)

    page.goto(served.url)
    page.wait_for_function("() => document.getElementById('graph-pareto-front')?.data?.length")
    counts = dict(page.evaluate(FRONT))
    assert counts["Infeasible Trial"] == infeasible
    assert counts["Feasible Trial"] + counts["Best Trial"] == len(trials) - infeasible

    page.wait_for_function(
        "() => document.querySelectorAll('[id^=\"user-defined-plot:\"] .main-svg').length >= 6"
    )
    names = page.evaluate(
        "[...document.querySelectorAll('[id^=\"user-defined-plot:\"]')].map(e => e.id.slice(18))"
    )
    assert names == sorted(names)
    assert {"chart-front", "chart-hypervolume", "chart-teacher"} <= set(names)
    expect(page.get_by_text("NLL (nats) against FLOPs")).to_be_visible()
    assert page.get_by_text("-README.md").count() == 0, "dozens of equal icons"


def test_the_study_s_note_and_names_are_text(page: Page, served: Served) -> None:
    page.goto(f"{served.url}/note")
    note = page.get_by_role("heading", name="<img src=x onerror")
    expect(note).to_be_visible()
    text = page.inner_text("body")
    assert "<U+202E>" in text and "on the front: trials" in text


def test_a_front_trial_has_its_note_and_its_files(page: Page, served: Served) -> None:
    record = served.study.front_records()[0]
    page.goto(f"{served.url}/trials?numbers={record.trial}")
    expect(page.get_by_role("heading", name=f"Trial {record.trial}: ")).to_be_visible()
    expect(page.get_by_text(f"{record.metrics['nll']:.4g}", exact=True)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    best = optuna.load_study(study_name=EVIL, storage=served.storage).best_trials
    in_list = page.locator("nav, ul").get_by_text("Best Trial", exact=True)
    expect(in_list).to_have_count(len(best))

    link = page.get_by_role("link", name=f"trial-{record.trial}-weights.safetensors")
    answer = page.request.get(f"http://127.0.0.1:{served.address[1]}{link.get_attribute('href')}")
    source = served.study.path / "students" / str(record.trial) / "weights.safetensors"
    assert answer.body() == source.read_bytes()


def test_it_is_bound_to_loopback_alone(served: Served) -> None:
    assert served.address[0] == "127.0.0.1"
    port = f":{served.address[1]:04X}"
    tables = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    listening = [line.split()[1] for line in tables.splitlines() if line.split()[3] == "0A"]
    assert [address for address in listening if address.endswith(port)] == [f"0100007F{port}"]
