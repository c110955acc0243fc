"""Still drawings: well-formed, marks where the numbers are, texts as texts."""

import math
import re
from xml.etree import ElementTree

import pytest

from gped_nas.evaluate.measured import from_public
from gped_nas.report import svg
from gped_nas.report.data import data_of
from gped_nas.report.front import first_pair
from gped_nas.search.record import TrialRecord
from tests.report.example import make_snapshot

EVIL = "<a href='x' onclick=\"y\">&amp;"


def parsed(drawing):
    return ElementTree.fromstring(str(drawing))


def of_class(drawing, name):
    return [e for e in parsed(drawing).iter() if name in e.get("class", "").split()]


def card():
    return data_of(make_snapshot())["cards"][0]


def test_every_drawing_is_one_element_with_a_description():
    data = data_of(make_snapshot())
    first_card = data["cards"][0]
    drawings = [
        svg.layers(first_card),
        svg.reliability(first_card, data["teacher"]["reliability"]),
        svg.spread(first_card),
        svg.front(data, *first_pair(data)),
        svg.parallel(data),
    ]
    for drawing in drawings:
        root = parsed(drawing)
        assert root.tag == "svg" and root[0].tag == "title" and root[0].text


def test_bars_of_layers_have_areas_like_their_units():
    """Heights go with the square root: of 100 units 25 stay, so the bar is half as high."""
    sizes = {"before": {"inputs": 4, "outputs": 100}, "after": {"outputs": 25}}
    drawing = svg.layers({"layers": [{"layer": "a", "kind": "linear", **sizes}]})
    before, after = (of_class(drawing, name)[1] for name in ("before", "after"))
    assert float(after.get("height")) == pytest.approx(float(before.get("height")) / 2)


def test_a_layer_that_is_gone_is_said_to_be():
    layer = {"layer": "a", "kind": "linear", "before": {"inputs": 4, "outputs": 8}, "after": None}
    assert "8 → 0" in str(svg.layers({"layers": [layer]}))


def test_marks_of_a_reliability_diagram_are_at_their_bins():
    student = {"trial": 3, "reliability": [{"confidence": 0.5, "accuracy": 1.0, "count": 4}]}
    (mark,) = of_class(svg.reliability(student, []), "mark")
    plot = svg._Plot
    assert float(mark.get("cx")) == plot.left + plot.side / 2
    assert float(mark.get("cy")) == plot.top


def test_the_still_front_has_a_mark_for_each_student_and_a_ring():
    data = data_of(make_snapshot())
    drawing = svg.front(data, *first_pair(data))
    complete = [r for r in data["records"] if r["state"] == "complete"]
    assert len(of_class(drawing, "student")) == len(data["front"])
    assert len(of_class(drawing, "near")) == len(complete) - len(data["front"])
    assert len(of_class(drawing, "ring")) == 1
    assert len(of_class(drawing, "mark-line")) == len(data["references"])


def test_parallel_lines_are_the_front_and_the_layer_behind_it():
    data = data_of(make_snapshot())
    strands = of_class(svg.parallel(data), "strand")
    assert len(strands) == len(data["front"]) + len(data["near"])
    assert len(of_class(svg.parallel(data), "chosen")) == 1
    links = {e.get("href") for e in parsed(svg.parallel(data)).iter("a")}
    assert links == {f"#student-{trial}" for trial in data["front"]}


def test_parallel_axes_run_from_their_smallest_to_their_largest_value():
    """Two students of widths 10 and 1000, NLL .4 and .1: their lines cross from end to end."""
    records = []
    for trial, (width, nll) in enumerate([(10, 0.4), (1000, 0.1)]):
        genotype = {"family": "mlp", "width": [width]}
        measures = from_public({"nll": nll})
        costs = {"flops": 10 + trial}
        records.append(TrialRecord(trial, "complete", genotype, measures=measures, costs=costs))
    front = {"front": (0, 1), "chosen": 1, "knee": 0}
    data = data_of(make_snapshot(records=tuple(records), references=(), **front))

    heights = {}
    for strand in of_class(svg.parallel(data), "strand"):
        points = re.findall(r"([\d.]+) ([\d.]+)", strand.get("d"))
        heights[strand.get("class")] = [float(y) for _, y in points]
    assert heights["strand front"][:2] == heights["strand chosen"][1::-1]


def test_settings_that_span_decades_are_seen_on_a_log_scale():
    """.001 is half way from .00001 to .1 in decades, and at the bottom otherwise."""
    column = svg._number_column("penalty", {0: 1e-5, 1: 1e-3, 2: 1e-1}, is_log=False)
    assert column.heights[1] == pytest.approx(0.5)
    column = svg._number_column("width", {0: 10.0, 1: 20.0, 2: 30.0}, is_log=False)
    assert column.heights[1] == pytest.approx(0.5)


def test_drawings_of_nothing_are_empty():
    empty = data_of(make_snapshot(records=(), front=(), chosen=None, knee=None, references=()))
    assert svg.parallel(empty) == "" and svg.front(empty, *first_pair(empty)) == ""


def test_texts_of_the_study_are_escaped():
    snapshot = make_snapshot()
    records = tuple(
        r.replace(genotype={**r.genotype, EVIL: r.trial, "family": EVIL}) for r in snapshot.records
    )
    data = data_of(make_snapshot(records=records))
    expected = {"svg", "title", "path", "text", "a", "circle"}
    for drawing in (svg.parallel(data), svg.front(data, *first_pair(data))):
        assert {e.tag for e in parsed(drawing).iter()} <= expected
        assert not any(key.startswith("on") for e in parsed(drawing).iter() for key in e.keys())


def test_a_description_is_escaped():
    """It holds labels of metrics, which plug-ins write, and names of layers."""
    root = parsed(svg.drawing(10, 10, EVIL, []))
    assert [e.tag for e in root.iter()] == ["svg", "title"] and root[0].text == EVIL


@pytest.mark.parametrize(("low", "high"), [(0.07, 2.3), (1.0, 1.0), (-4.0, 17.0), (0.001, 0.0012)])
def test_linear_ticks_are_few_round_and_inside(low, high):
    scale = svg._Scale([low, high], False)
    assert all(-1e-9 <= scale(tick) <= 1 + 1e-9 for tick in scale.ticks)
    assert len(scale.ticks) <= 8 and (high == low or len(scale.ticks) >= 2)
    assert 0 < scale(low) <= scale(high) < 1 and math.isfinite(scale(high))
