"""The front's figure: over any two numbers, its marks where the numbers are."""

import pytest

from gped_nas.errors import ConfigError
from gped_nas.evaluate.measured import Key, Measured
from gped_nas.report.charts import charts, figure
from gped_nas.report.data import data_of, find
from gped_nas.report.front import first_pair, front_chart
from gped_nas.search.goals import Objective
from tests.report.example import FLOPS, NLL, STORAGE, make_snapshot

ACCURACY = Objective("accuracy", "maximize", "metric", "accuracy")


def front(snapshot, x="flops", y="nll"):
    data = data_of(snapshot)
    axes = {axis["name"]: axis for axis in data["axes"]}
    return front_chart(data, axes[x], axes[y])


def trace(chart, name):
    return next(t for t in chart.figure.data if t.name == name)


@pytest.mark.parametrize(
    ("objectives", "axes"),
    [
        ((NLL,), None),
        ((NLL, FLOPS), ("flops", "nll")),
        ((NLL, ACCURACY, STORAGE), ("storage_bytes", "nll")),
        ((FLOPS, NLL), ("flops", "nll")),
        ((NLL, ACCURACY), ("nll", "accuracy")),
    ],
)
def test_the_front_starts_with_a_cost_across_and_quality_up(objectives, axes):
    pair = first_pair(data_of(make_snapshot(objectives=objectives)))
    assert (None if pair is None else tuple(axis["name"] for axis in pair)) == axes


def test_charts_are_those_the_data_allow():
    sections = [chart.section for chart in charts(data_of(make_snapshot()))]
    assert sections == [
        "front",
        "hypervolume",
        "hypervolume-time",
        "importances",
        "training",
        "teacher",
    ]

    nothing = {
        "hypervolume": (),
        "random_order": (),
        "importances": {},
        "teacher": {},
        "records": (),
        "front": (),
    }
    bare = make_snapshot(objectives=(NLL,), chosen=None, knee=None, **nothing)
    assert charts(data_of(bare)) == []


def test_ids_are_unique_and_free_of_the_studys_texts():
    drawn = charts(data_of(make_snapshot(name="<evil>")))
    ids = [chart.id for chart in drawn]
    assert len(set(ids)) == len(ids)
    assert all(part.isalnum() for name in ids for part in name.split("-"))


def test_costs_are_across_on_a_log_axis_and_quality_is_up():
    chart = front(make_snapshot())
    assert chart.figure.layout.xaxis.type == "log"
    assert chart.figure.layout.yaxis.type is None
    assert chart.figure.layout.yaxis.title.text == "NLL (nats)"


def test_front_points_and_their_intervals_are_the_records():
    snapshot = make_snapshot()
    points = trace(front(snapshot), "front")
    assert points.error_y.visible and not points.error_x.visible
    data = data_of(snapshot)

    for trial in snapshot.front:
        record = find(data, trial)
        i = list(points.y).index(record["metrics"]["nll"])
        low, high = record["intervals"]["nll"]
        assert points.y[i] - points.error_y.arrayminus[i] == pytest.approx(low)
        assert points.y[i] + points.error_y.array[i] == pytest.approx(high)


def test_every_group_has_its_own_shape_and_color():
    chart = front(make_snapshot(), "flops", "storage_bytes")
    marks = [t.marker for t in chart.figure.data if t.name and t.mode == "markers"]
    assert len({mark.symbol for mark in marks}) == len(marks) == 10
    states = ("front", "dominated", "infeasible", "pruned")
    assert len({trace(chart, name).marker.color for name in states}) == 4


@pytest.mark.parametrize(
    ("up", "shape_of_y"), [(NLL, lambda steps: sorted(steps, reverse=True)), (ACCURACY, sorted)]
)
def test_the_step_line_joins_what_nothing_beats(up, shape_of_y):
    """Brute force: a point is on the line exactly when no other is at least as good in both."""
    chart = front(make_snapshot(), "flops", up.name)
    line = next(t for t in chart.figure.data if t.mode == "lines")
    points = []
    for name in ("front", "dominated"):
        points += zip(trace(chart, name).x, trace(chart, name).y, strict=True)

    sign = 1 if up.direction == "minimize" else -1

    def is_beaten(point):
        return any(
            other != point and other[0] <= point[0] and sign * other[1] <= sign * point[1]
            for other in points
        )

    best = {point for point in points if not is_beaten(point)}
    assert set(zip(line.x, line.y, strict=True)) == best
    assert list(line.x) == sorted(line.x)
    assert list(line.y) == shape_of_y(line.y)
    assert line.line.shape == "hv"


def test_the_ring_is_on_the_chosen_student():
    snapshot = make_snapshot()
    record = find(data_of(snapshot), snapshot.chosen)
    ring = trace(front(snapshot), "chosen")
    assert (ring.x[0], ring.y[0]) == (record["costs"]["flops"], record["metrics"]["nll"])


def test_a_reference_without_both_numbers_is_not_drawn():
    snapshot = make_snapshot()
    references = (snapshot.references[0].__class__("map", "MAP", {Key("nll"): Measured(0.2)}),)
    chart = front(make_snapshot(references=references))
    assert len(trace(chart, "MAP").x) == 0 and len(trace(chart, "front").x) > 0


def test_a_cost_of_zero_has_no_place_on_a_log_axis():
    snapshot = make_snapshot()
    records = tuple(r.replace(costs={**r.costs, "flops": 0}) for r in snapshot.records)
    chart = front(make_snapshot(records=records, references=()))
    assert all(t.name is None or len(t.x) == 0 for t in chart.figure.data)


def test_a_figure_is_found_by_name_and_drawn_over_any_axes():
    data = data_of(make_snapshot())
    assert figure(data, "front").layout.xaxis.title.text == "FLOPs"
    asked = figure(data, "front", x="storage_bytes", y="brier")
    assert asked.layout.xaxis.title.text == "storage (bytes)"
    assert asked.layout.yaxis.title.text == "Brier score (sum over classes)"

    with pytest.raises(ConfigError, match="figure 'fornt': unknown; did you mean 'front'"):
        figure(data, "fornt")
    with pytest.raises(ConfigError, match="axis 'breir': unknown; did you mean 'brier'"):
        figure(data, "front", x="breir")
    with pytest.raises(ConfigError, match="axis 'nll'"):
        figure(data, "teacher", x="nll")


def test_metrics_that_differ_much_are_seen_on_a_log_scale():
    snapshot = make_snapshot()
    records = list(snapshot.records)
    worst = records[snapshot.front[-1]]
    records[worst.trial] = worst.replace(measures={**worst.measures, Key("nll"): Measured(9.0)})
    chart = front(make_snapshot(records=tuple(records)))
    assert chart.figure.layout.yaxis.type == "log"


def test_texts_from_the_study_are_escaped():
    evil = '<a href="https://x">%{y}</a>'
    snapshot = make_snapshot()
    records = tuple(r.replace(genotype={"family": evil}) for r in snapshot.records)
    importances = {"nll": {evil: 0.5}}
    for chart in charts(data_of(make_snapshot(records=records, importances=importances))):
        assert "<a" not in chart.figure.to_json().replace("\\u003c", "<")
