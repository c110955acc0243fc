"""What a reader does with a report, checked against the records: axes, budgets, cards, tables."""

import csv
import io
import json

import pytest
from playwright.sync_api import expect

from gped_nas.report import write_report
from gped_nas.search.record import TrialRecord
from tests.report.example import make_snapshot
from tests.report.test_regions import BOUND, parted

DRAWN = """group => {
  const trace = document.getElementById('chart-front').data.find(t => t.meta.group === group);
  const bars = trace.error_y;
  return {keys: trace.customdata, x: trace.x, y: trace.y, high: bars?.array, low: bars?.arrayminus};
}"""
CLICK = """trial => document.getElementById('chart-front')
    .emit('plotly_click', {points: [{customdata: trial}]})"""
VISIBLE_TRIALS = """[...document.querySelectorAll('#all-trials tbody tr:not([hidden])')]
    .map(row => +row.cells[0].textContent)"""


def read_trace(page, group):
    return page.evaluate(DRAWN, group)


def is_in(group, record, front):
    """Whether a record is drawn in a group of the front's figure."""
    if group == "front":
        return record.trial in front
    return record.state == group and record.trial not in front


def test_any_two_numbers_are_drawn_with_their_intervals(visit):
    snapshot = make_snapshot()
    seen = visit("some")
    page = seen.page
    for x, y in (("flops", "nll"), ("storage_bytes", "brier"), ("accuracy", "ece")):
        page.locator("[name='axis-x']").select_option(x)
        page.locator("[name='axis-y']").select_option(y)

        for group in ("front", "complete", "infeasible"):
            trace = read_trace(page, group)
            expected = [r.trial for r in snapshot.records if is_in(group, r, snapshot.front)]
            assert sorted(trace["keys"]) == expected
            for trial, across, up in zip(trace["keys"], trace["x"], trace["y"], strict=True):
                record = snapshot.record(trial)
                assert (across, up) == pytest.approx((record.value(x), record.value(y)), rel=1e-5)

        trace = read_trace(page, "front")
        marks = zip(trace["keys"], trace["y"], trace["low"], trace["high"], strict=True)
        for trial, value, low, high in marks:
            interval = snapshot.record(trial).measured(y).interval
            assert (value - low, value + high) == pytest.approx(interval, rel=1e-4)

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
    complete = [record for record in snapshot.records if record.state == "complete"]
    points = [(record.value("flops"), record.value("accuracy")) for record in complete]

    def is_beaten(point):
        return any(q != point and q[0] <= point[0] and q[1] >= point[1] for q in points)

    best = sorted({point for point in points if not is_beaten(point)})
    step = read_trace(page, "step")
    assert step["x"] == pytest.approx([x for x, _ in best], rel=1e-5)
    assert step["y"] == pytest.approx([y for _, y in best], rel=1e-5)


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
    answer = page.locator("#budget-answer")
    named = []
    for budget in (
        {"storage_bytes": 4},
        {"flops": 6, "accuracy": 3},
        {"storage_bytes": 0, "nll": 0},
    ):
        bounds = {}
        for name, index in budget.items():
            bounds[name] = sorted({record.value(name) for record in front})[index]
            page.locator(f"#budget [data-name='{name}']").fill(str(index))

        fits = [record for record in front if fits_all(record, bounds)]
        if fits:
            best = min(fits, key=lambda record: record.value("nll")).trial
            expect(answer).to_contain_text(f"Trial {best}:")
            expect(answer).to_contain_text(f"{len(fits)} of {len(front)} on the front fit")
        else:
            best = None
            expect(answer).to_contain_text("No student on the front is within this budget")
        assert read_trace(page, "within")["keys"] == ([] if best is None else [best])
        named.append(best)

        # the command that is shown picks the same student
        command = page.locator("#budget-command").inner_text()
        assert command.startswith("gped-search pick digits_mlp --within ")
        assert command.count("--within") == len(bounds)
        for name, bound in bounds.items():
            written = float(command.split(f"--within {name}=")[1].split()[0])
            assert written == pytest.approx(bound, rel=1e-5) and within(bound, name, written)

        page.get_by_role("button", name="Any budget").click()
        expect(answer).to_contain_text(f"Trial {snapshot.chosen}:")
        expect(page.locator("#budget-command")).to_have_text("gped-search pick digits_mlp")
    assert None in named and len(set(named)) == 3


def fits_all(record, bounds):
    return all(within(record.value(name), name, bound) for name, bound in bounds.items())


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

    page.evaluate(CLICK, others[1])
    expect(page.locator(f"#student-{others[1]}")).to_have_attribute("open", "")

    # a dominated student has no card, but a row
    dominated = [r.trial for r in snapshot.records if is_in("complete", r, snapshot.front)]
    page.evaluate(CLICK, dominated[0])
    expect(page.locator(f"#trial-{dominated[0]}")).to_be_in_viewport()
    assert seen.complaints == []


def test_all_trials_can_be_sorted_and_filtered(visit):
    snapshot = make_snapshot()
    page = visit("some").page
    table = page.locator("#all-trials")
    with_nll = [record for record in snapshot.records if "nll" in record.metrics]
    rising = [r.trial for r in sorted(with_nll, key=lambda record: record.metrics["nll"])]

    header = table.locator("th[data-name='nll'] button")
    header.click()
    assert page.evaluate(VISIBLE_TRIALS)[: len(rising)] == rising
    header.click()
    assert page.evaluate(VISIBLE_TRIALS)[: len(rising)] == rising[::-1]
    assert table.locator("th[aria-sort='descending']").count() == 1

    page.locator("#trials-filter [name='state']").select_option("infeasible")
    infeasible = [record for record in snapshot.records if record.state == "infeasible"]
    assert set(page.evaluate(VISIBLE_TRIALS)) == {record.trial for record in infeasible}
    expect(page.locator("#trials-shown")).to_have_text(f"{len(infeasible)} of 48 trials")

    page.locator("#trials-filter [name='text']").fill("INT8")
    small = {r.trial for r in infeasible if r.genotype["storage_dtype"] == "int8"}
    assert set(page.evaluate(VISIBLE_TRIALS)) == small and 0 < len(small) < len(infeasible)


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
    nll_column = table["columns"].index("nll")
    assert list(rows[0]) == table["columns"]
    for row, record, values in zip(rows, snapshot.records, table["rows"], strict=True):
        assert int(row["trial"]) == record.trial
        assert (row["state"], row["reason"]) == (record.state, record.reason)
        if "nll" not in record.metrics:
            assert row["nll"] == ""
            continue
        assert row["nll"] == str(values[nll_column])
        assert float(row["nll"]) == pytest.approx(record.metrics["nll"], rel=1e-5)
        assert int(row["flops"]) == record.costs["flops"]


def test_formulas_stay_texts_in_the_csv(visit, tmp_path):
    genotype = {"family": "mlp", "note": "=1+1"}
    record = TrialRecord(0, "failed", genotype, reason='@SUM(A1), a "quote"')
    empty = {"front": (), "chosen": None, "knee": None, "hypervolume": (), "random_order": ()}
    snapshot = make_snapshot(records=(record,), **empty)
    write_report(snapshot, tmp_path / "report.html")
    page = visit(tmp_path / "report.html").page
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV", exact=True).click()
    download.value.save_as(tmp_path / "trials.csv")

    (row,) = csv.DictReader(io.StringIO((tmp_path / "trials.csv").read_text()))
    assert row["note"] == "'=1+1" and row["reason"] == '\'@SUM(A1), a "quote"'


def test_who_is_outside_lies_on_a_shelf_and_is_found_in_the_table(visit):
    snapshot = parted()
    seen = visit("parted")
    page = seen.page
    nll = {record.trial: record.metrics.get("nll") for record in snapshot.records}
    apart = sorted(snapshot.outside)

    # the shelf is on the axis where the region ends, whichever way it lies
    for x, y, axis in (("flops", "nll", "y"), ("nll", "storage_bytes", "x")):
        page.locator("[name='axis-x']").select_option(x)
        page.locator("[name='axis-y']").select_option(y)
        trace = read_trace(page, "outside")
        (shelf,) = {round(value, 6) for value in trace[axis]}
        assert sorted(trace["keys"]) == apart
        assert BOUND < shelf < min(nll[trial] for trial in apart)
        (line,) = page.evaluate("document.getElementById('chart-front').layout.shapes")
        assert line[f"{axis}0"] == line[f"{axis}1"] == pytest.approx(BOUND)

    # on axes where it does not end, everybody lies where he is
    page.locator("[name='axis-x']").select_option("flops")
    page.locator("[name='axis-y']").select_option("accuracy")
    trace = read_trace(page, "outside")
    for trial, value in zip(trace["keys"], trace["y"], strict=True):
        assert value == pytest.approx(snapshot.record(trial).metrics["accuracy"], rel=1e-5)
    assert page.evaluate("document.getElementById('chart-front').layout.shapes") == []

    page.locator("#trials-filter [name='state']").select_option("outside")
    assert sorted(page.evaluate(VISIBLE_TRIALS)) == apart
    assert seen.complaints == []
