"""The figures: one for each pair of objectives and each diagram, with the marks where the numbers are."""

import pytest

from gped_nas.report.data import data_of, find
from gped_nas.report.figures import charts
from gped_nas.search.snapshot import Objective
from tests.report.example import FLOPS, NLL, STORAGE, make_snapshot

ACCURACY = Objective("accuracy", "maximize", "metric", "accuracy")


def fronts(snapshot):
    return [chart for chart in charts(data_of(snapshot)) if chart.section == "front"]


def trace(chart, name):
    return next(t for t in chart.figure.data if t.name == name)


@pytest.mark.parametrize(
    ("objectives", "pairs"),
    [((NLL,), 0), ((NLL, FLOPS), 1), ((NLL, FLOPS, STORAGE), 3), ((NLL, ACCURACY), 1)],
)
def test_one_front_for_each_pair_of_objectives(objectives, pairs):
    assert len(fronts(make_snapshot(objectives=objectives))) == pairs


def test_one_reliability_diagram_for_each_front_student():
    snapshot = make_snapshot()
    sections = [chart.section for chart in charts(data_of(snapshot))]
    assert [f"reliability-{trial}" for trial in snapshot.front] == sections[-len(snapshot.front) :]
    assert sections[3:6] == ["hypervolume", "importances", "teacher"]


def test_ids_are_unique_and_free_of_the_studys_texts():
    drawn = charts(data_of(make_snapshot(name="<evil>")))
    ids = [chart.id for chart in drawn]
    assert len(set(ids)) == len(ids)
    assert all(part.isalnum() for name in ids for part in name.split("-"))


def test_costs_are_across_on_a_log_axis_and_quality_is_up():
    chart = fronts(make_snapshot())[0]
    assert chart.figure.layout.xaxis.type == "log"
    assert chart.figure.layout.yaxis.type is None
    assert chart.figure.layout.yaxis.title.text == "NLL (nats)"


def test_front_points_and_their_intervals_are_the_records():
    snapshot = make_snapshot()
    points = trace(fronts(snapshot)[0], "front")
    data = data_of(snapshot)
    for trial in snapshot.front:
        record = find(data, trial)
        i = list(points.y).index(record["metrics"]["nll"])
        low, high = record["intervals"]["nll"]
        assert points.y[i] - points.error_y.arrayminus[i] == pytest.approx(low)
        assert points.y[i] + points.error_y.array[i] == pytest.approx(high)


def test_every_group_has_its_own_shape_and_colour():
    chart = fronts(make_snapshot())[2]
    marks = [t.marker for t in chart.figure.data if t.name and t.mode == "markers"]
    assert len({mark.symbol for mark in marks}) == len(marks) == 9
    states = [trace(chart, name).marker.color for name in ("front", "dominated", "infeasible", "pruned")]
    assert len(set(states)) == 4


@pytest.mark.parametrize(("up", "shape_of_y"), [(NLL, lambda steps: sorted(steps, reverse=True)), (ACCURACY, sorted)])
def test_the_step_line_joins_what_nothing_beats(up, shape_of_y):
    """Brute force: a front point is on the line exactly when no other is at least as good in both."""
    chart = fronts(make_snapshot(objectives=(up, FLOPS)))[0]
    line = next(t for t in chart.figure.data if t.mode == "lines")
    points = list(zip(trace(chart, "front").x, trace(chart, "front").y, strict=True))
    sign = 1 if up.direction == "minimize" else -1
    best = {p for p in points if not any(q != p and q[0] <= p[0] and sign * q[1] <= sign * p[1] for q in points)}
    assert set(zip(line.x, line.y, strict=True)) == best
    assert list(line.x) == sorted(line.x)
    assert list(line.y) == shape_of_y(line.y)
    assert line.line.shape == "hv"


def test_the_ring_is_on_the_chosen_student():
    snapshot = make_snapshot()
    record = find(data_of(snapshot), snapshot.chosen)
    ring = trace(fronts(snapshot)[0], "chosen")
    assert (ring.x[0], ring.y[0]) == (record["costs"]["flops"], record["metrics"]["nll"])


def test_a_reference_without_both_numbers_is_not_drawn():
    snapshot = make_snapshot()
    references = (snapshot.references[0].__class__("map", "MAP", {"nll": 0.2}),)
    names = [t.name for t in fronts(make_snapshot(references=references))[0].figure.data]
    assert "MAP" not in names and "front" in names


def test_a_cost_of_zero_has_no_place_on_a_log_axis():
    snapshot = make_snapshot()
    records = tuple(r.replace(costs={**r.costs, "flops": 0}) for r in snapshot.records)
    chart = fronts(make_snapshot(records=records, references=()))[0]
    assert all(t.name is None or len(t.x) == 0 for t in chart.figure.data)


def test_the_teachers_reliability_is_drawn_when_it_is_told():
    bins = [{"confidence": 0.9, "accuracy": 0.91, "count": 12}]
    teacher = {**make_snapshot().teacher, "reliability": bins}
    chart = charts(data_of(make_snapshot(teacher=teacher)))[-1]
    assert [t.name for t in chart.figure.data] == ["perfect", "teacher", "student"]


def test_texts_from_the_study_are_escaped():
    evil = '<a href="https://x">%{y}</a>'
    snapshot = make_snapshot()
    records = tuple(r.replace(genotype={"family": evil}) for r in snapshot.records)
    importances = {"nll": {evil: 0.5}}
    for chart in charts(data_of(make_snapshot(records=records, importances=importances))):
        assert "<a" not in chart.figure.to_json().replace("\\u003c", "<")
