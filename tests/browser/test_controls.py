"""What a reader does with a report: other axes, a budget, a card, the table. Checked against the
records.
"""

import csv
import io
import json

import pytest
from playwright.sync_api import expect

from gped_nas.report import write_report
from gped_nas.search.record import TrialRecord
from tests.report.example import make_snapshot

DRAWN = """group => {
  const trace = document.getElementById('chart-front').data.find(t => t.meta.group === group);
  return {keys: trace.customdata, x: trace.x, y: trace.y, high: trace.error_y?.array, low: trace.error_y?.arrayminus};
}"""


def drawn(page, group):
    return page.evaluate(DRAWN, group)


def test_any_two_numbers_are_drawn_with_their_intervals(visit):
    snapshot = make_snapshot()
    seen = visit("some")
    page = seen.page
    for x, y in (("flops", "nll"), ("storage_bytes", "brier"), ("accuracy", "ece")):
        page.locator("[name='axis-x']").select_option(x)
        page.locator("[name='axis-y']").select_option(y)
        for group in ("front", "complete", "infeasible"):
            found = drawn(page, group)
            expected = [
                r
                for r in snapshot.records
                if (
                    r.trial in snapshot.front
                    if group == "front"
                    else r.state == group and r.trial not in snapshot.front
                )
            ]
            assert sorted(found["keys"]) == [r.trial for r in expected]
            for trial, across, up in zip(found["keys"], found["x"], found["y"], strict=True):
                record = snapshot.record(trial)
                assert (across, up) == pytest.approx((record.value(x), record.value(y)), rel=1e-5)
        found = drawn(page, "front")
        for trial, value, low, high in zip(
            found["keys"], found["y"], found["low"], found["high"], strict=True
        ):
            bounds = snapshot.record(trial).measured(y).interval
            assert (value - low, value + high) == pytest.approx(bounds, rel=1e-4)
    kinds = page.evaluate(
        "['xaxis', 'yaxis'].map(a => document.getElementById('chart-front').layout[a].type)"
    )
    assert kinds == ["linear", "linear"]
    page.locator("[name='log-x']").check()
    assert page.evaluate("document.getElementById('chart-front').layout.xaxis.type") == "log"
    expect(page.locator("#explorer-title")).to_have_text(
        "ECE (15 bins, L1) against accuracy (share)"
    )
    page.locator("[name='intervals']").uncheck()
    assert page.locator("#chart-front .errorbar").count() == 0
    assert seen.complaints == []


def test_the_step_line_joins_what_nothing_beats(visit):
    """Brute force over all complete students, for axes where one is better high."""
    snapshot = make_snapshot()
    page = visit("some").page
    page.locator("[name='axis-y']").select_option("accuracy")
    found = drawn(page, "step")
    points = [
        (r.value("flops"), r.value("accuracy")) for r in snapshot.records if r.state == "complete"
    ]
    best = {p for p in points if not any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points)}
    assert found["x"] == pytest.approx([x for x, _ in sorted(best)], rel=1e-5)
    assert found["y"] == pytest.approx([y for _, y in sorted(best)], rel=1e-5)


def test_three_axes_turn_by_keyboard(visit):
    snapshot = make_snapshot()
    seen = visit("some")
    page = seen.page
    page.locator("[name='space']").check()
    expect(page.locator("#chart-front")).to_be_hidden()
    expect(page.locator("[name='axis-z']")).to_be_visible()
    marks = page.locator("#space path")
    complete = sum(r.state in ("complete", "infeasible") for r in snapshot.records)
    assert marks.count() == complete + len(snapshot.references) + 2
    before = marks.first.get_attribute("transform")
    page.locator("#space").press("ArrowLeft")
    assert page.locator("#space path").first.get_attribute("transform") != before
    page.locator("[name='space']").uncheck()
    expect(page.locator("#chart-front .main-svg").first).to_be_visible()
    assert seen.complaints == []


def test_a_budget_names_the_best_student_within_it(visit):
    """A budget says which of the front's values, from the smallest, each slider is put on."""
    snapshot = make_snapshot()
    front = [snapshot.record(trial) for trial in snapshot.front]
    page = visit("some").page
    answer, found = page.locator("#budget-answer"), []
    for budget in (
        {"storage_bytes": 4},
        {"flops": 6, "accuracy": 3},
        {"storage_bytes": 0, "nll": 0},
    ):
        bounds = {
            name: sorted({r.value(name) for r in front})[place] for name, place in budget.items()
        }
        for name, place in budget.items():
            page.locator(f"#budget [data-name='{name}']").fill(str(place))
        fits = [
            r for r in front if all(within(r.value(n), n, bound) for n, bound in bounds.items())
        ]
        if fits:
            best = min(fits, key=lambda r: r.value("nll")).trial
            expect(answer).to_contain_text(f"Trial {best}:")
            expect(answer).to_contain_text(f"{len(fits)} of {len(front)} on the front fit")
        else:
            best = None
            expect(answer).to_contain_text("No student on the front is within this budget")
        assert drawn(page, "within")["keys"] == ([] if best is None else [best])
        found.append(best)
        command = page.locator("#budget-command").inner_text()
        assert command.startswith("gped-search pick digits_mlp --within ") and command.count(
            "--within"
        ) == len(bounds)
        for name, bound in bounds.items():
            written = float(command.split(f"--within {name}=")[1].split()[0])
            assert written == pytest.approx(bound, rel=1e-5) and within(bound, name, written)
        page.get_by_role("button", name="Any budget").click()
        expect(answer).to_contain_text(f"Trial {snapshot.chosen}:")
        expect(page.locator("#budget-command")).to_have_text("gped-search pick digits_mlp")
    assert None in found and len(set(found)) == 3


def within(value, name, bound):
    return value >= bound if name == "accuracy" else value <= bound


def test_a_card_opens_by_keyboard_and_by_a_click_on_its_mark(visit):
    snapshot = make_snapshot()
    others = [trial for trial in snapshot.front if trial != snapshot.chosen]
    seen = visit("some")
    page = seen.page
    card = page.locator(f"#student-{others[0]}")
    page.locator(f"#front-table a[href='#student-{others[0]}']").focus()
    page.keyboard.press("Enter")
    expect(card).to_have_attribute("open", "")
    expect(card.locator("> summary")).to_be_focused()
    page.keyboard.press("Enter")
    expect(card).not_to_have_attribute("open", "")
    page.evaluate(
        """trial => document.getElementById('chart-front').emit('plotly_click', {points: [{customdata: trial}]})""",
        others[1],
    )
    expect(page.locator(f"#student-{others[1]}")).to_have_attribute("open", "")
    dominated = next(
        r.trial for r in snapshot.records if r.state == "complete" and r.trial not in snapshot.front
    )
    page.evaluate(
        """trial => document.getElementById('chart-front').emit('plotly_click', {points: [{customdata: trial}]})""",
        dominated,
    )
    expect(page.locator(f"#trial-{dominated}")).to_be_in_viewport()
    assert seen.complaints == []


def test_all_trials_can_be_sorted_and_filtered(visit):
    snapshot = make_snapshot()
    page = visit("some").page
    table = page.locator("#all-trials")
    trials = "[...document.querySelectorAll('#all-trials tbody tr:not([hidden])')].map(r => +r.cells[0].textContent)"
    with_nll = [r for r in snapshot.records if "nll" in r.metrics]
    header = table.locator("th[data-name='nll'] button")
    header.click()
    rising = [r.trial for r in sorted(with_nll, key=lambda r: r.metrics["nll"])]
    assert page.evaluate(trials)[: len(rising)] == rising
    header.click()
    assert page.evaluate(trials)[: len(rising)] == rising[::-1]
    assert table.locator("th[aria-sort='descending']").count() == 1
    page.locator("#trials-filter [name='state']").select_option("infeasible")
    infeasible = {r.trial for r in snapshot.records if r.state == "infeasible"}
    assert set(page.evaluate(trials)) == infeasible
    expect(page.locator("#trials-shown")).to_have_text(f"{len(infeasible)} of 48 trials")
    page.locator("#trials-filter [name='text']").fill("INT8")
    small = {
        r.trial
        for r in snapshot.records
        if r.trial in infeasible and r.genotype["storage_dtype"] == "int8"
    }
    assert set(page.evaluate(trials)) == small and 0 < len(small) < len(infeasible)


def test_trials_go_home_as_csv_and_json(visit, tmp_path):
    snapshot = make_snapshot()
    page = visit("some").page
    texts = {}
    for kind in ("CSV", "JSON"):
        with page.expect_download() as download:
            page.get_by_role("button", name=kind, exact=True).click()
        download.value.save_as(tmp_path / kind)
        texts[kind] = (tmp_path / kind).read_text()
    rows = list(csv.DictReader(io.StringIO(texts["CSV"])))
    table = json.loads(texts["JSON"])["table"]
    assert list(rows[0]) == table["columns"]
    for row, record, values in zip(rows, snapshot.records, table["rows"], strict=True):
        assert (int(row["trial"]), row["state"], row["reason"]) == (
            record.trial,
            record.state,
            record.reason,
        )
        assert row["nll"] == (
            "" if "nll" not in record.metrics else str(values[table["columns"].index("nll")])
        )
        if "nll" in record.metrics:
            assert float(row["nll"]) == pytest.approx(record.metrics["nll"], rel=1e-5)
            assert int(row["flops"]) == record.costs["flops"]


def test_formulas_stay_texts_in_the_csv(visit, tmp_path):
    records = (
        TrialRecord(0, "failed", {"family": "mlp", "note": "=1+1"}, reason='@SUM(A1), a "quote"'),
    )
    snapshot = make_snapshot(
        records=records, front=(), chosen=None, knee=None, hypervolume=(), random_order=()
    )
    write_report(snapshot, tmp_path / "report.html")
    page = visit(tmp_path / "report.html").page
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV", exact=True).click()
    download.value.save_as(tmp_path / "trials.csv")
    (row,) = csv.DictReader(io.StringIO((tmp_path / "trials.csv").read_text()))
    assert row["note"] == "'=1+1" and row["reason"] == '\'@SUM(A1), a "quote"'
