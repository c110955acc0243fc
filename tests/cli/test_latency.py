"""A study of how fast students answer: measured, bounded, picked by, and held to its machine."""

import json
from typing import Any

import pytest

import gped_nas as gn
from gped_nas.api import latency, timing
from gped_nas.api.identity import identity
from gped_nas.evaluate.latency import Latency
from tests.cli.harness import TINY, Home, accepted, refused

ASKED = (
    *("--set", 'objectives=["nll","latency_ms"]'),
    *("--set", "constraints.latency_ms=2.5"),
    *("--set", "latency.runtime=torch"),
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The n-th predictor of those that are timed together takes n ms; how many were together."""
    together: list[int] = []

    def time_calls(calls, *, threads, repeats):
        assert (threads, repeats) == (1, 30)
        for call in calls:
            call()  # who is timed can answer
        together.append(len(calls))
        seconds = [0.001 * (i + 1) for i in range(len(calls))]
        return [Latency(value, 2 * value, 30, (value, 1.5 * value)) for value in seconds]

    monkeypatch.setattr(timing, "time_calls", time_calls)
    return together


def test_a_front_of_how_fast_students_answer(
    home: Home, clock: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    home.run(*ASKED)
    # the ends of the axis; three students at once, then the last; unpruned, teacher, network
    assert clock == [2, 3, 1, 3]

    study = gn.open_study(home.study)
    measured = [record for record in study.records() if record.state in ("complete", "infeasible")]
    for record in measured:
        assert record.costs["latency_ms"] in (1.0, 2.0, 3.0)
        assert record.costs["latency_p95_ms"] == 2 * record.costs["latency_ms"]
        assert record.extra["latency"] == {
            "repeats": 30,
            "blocks_ms": [record.costs["latency_ms"], 1.5 * record.costs["latency_ms"]],
        }
    broken = [record for record in measured if record.state == "infeasible"]
    assert broken, "the third of a population is too slow"
    for record in broken:
        assert record.reason == "latency_ms is 3, expected latency_ms <= 2.5"

    references = {reference.name: reference.costs for reference in study.references()}
    assert references["unpruned"]["latency_ms"] == 1.0
    assert references["teacher"]["latency_ms"] == 2.0
    assert references["single_sample"]["latency_ms"] == references["map"]["latency_ms"] == 3.0
    assert "latency_ms" not in references["guess"]

    rows = json.loads(accepted("front", home.study, "--format", "json").out)
    assert all(row["costs"]["latency_ms"] >= 1 for row in rows)
    picked = accepted("pick", home.study, "--within", "latency_ms<=2", "--format", "json").out
    assert json.loads(picked)
    refused(3, "pick", home.study, "--within", "latency_ms<=0.5", says=("latency_ms <= 0.5",))
    wide = accepted("front", home.study, "--wide").out.splitlines()
    assert "latency_p95_ms" in wide[0]
    assert "latency (ms)" in (home.study / "report.html").read_text()
    _goes_on_where_it_began_and_nowhere_else(home, monkeypatch)


def _goes_on_where_it_began_and_nowhere_else(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    here = latency.machine("torch")
    monkeypatch.setattr(latency, "machine", lambda runtime, device: {**here, "processor": "Z80"})
    says = ("tiny", "another machine", f"processor Z80 instead of {here['processor']}")
    refused(4, "run", home.space, *ASKED, "--n-trials", "5", "--out", home.out, says=says)

    monkeypatch.setattr(latency, "machine", lambda runtime, device: here)
    home.run(*ASKED, "--n-trials", "5")
    assert len(gn.open_study(home.study).records()) >= 5


def test_who_does_not_ask_has_the_identity_of_before(home: Home) -> None:
    space = gn.load_space(home.space)
    assert space.latency is None
    assert "latency" not in space.resolved
    assert "latency" not in identity(space, "stream")

    asked = gn.load_space(home.space, {"objectives": ["nll", "latency_p95_ms"]})
    assert asked.latency is not None and asked.latency.runtime == "onnx"
    assert "latency" in identity(asked, "stream")
    alone = gn.load_space(home.space, {"latency": {"batch": 256}})
    assert alone.latency is not None and alone.latency.batch == 256
    assert identity(asked, "stream")["latency"] != identity(alone, "stream")["latency"]


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("runtime: tflite", "latency.runtime"),
        ("batch: 0", "latency.batch"),
        ("repeats: 5", "latency.repeats"),
        ("threads: 0", "latency.threads"),
        ("bach: 1", "latency.bach"),
    ],
)
def test_impossible_settings_are_refused(home: Home, setting: str, says: str) -> None:
    home.space.write_text(TINY + f"latency: {{{setting}}}\n")
    refused(2, "space", home.space, says=(says,))


def _evaluate(home: Home, *args: object) -> list[dict[str, Any]]:
    result = accepted("evaluate", home.study, "--out", home.out, "-f", "json", *args)
    rows: list[dict[str, Any]] = json.loads(result.out)
    return rows


def test_everybody_is_timed_side_by_side(own: Home, clock: list[int]) -> None:
    rows = _evaluate(own, "--tasks", "latency:torch")
    assert clock == [5, 5]  # teacher, sample, MAP, unpruned and student together, in each batch
    assert [row["batch"] for row in rows] == [1] * 10 + [256] * 10
    assert {row["runtime"] for row in rows} == {"torch"}
    assert {row["metric"] for row in rows} == {"latency_ms", "latency_p95_ms"}

    medians = [row["value"] for row in rows if row["metric"] == "latency_ms"]
    assert medians == [1.0, 2.0, 3.0, 4.0, 5.0] * 2
    first = rows[0]
    assert (first["predictor"], first["n"], first["low"]) == ("teacher", 30, None)
    assert first["machine"]["processor"] and "onnxruntime" not in first["machine"]

    assert _evaluate(own, "--tasks", "latency:torch") == rows
    assert len(clock) == 2, "what was timed is kept"

    accepted("report", own.study)
    report = (own.study / "report.html").read_text()
    assert "latency (ms), torch-256" in report and "What else they were asked" in report


def test_on_another_machine_everybody_is_timed_anew(
    own: Home, clock: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("--tasks", "latency:torch-7", "--subjects", "student")
    _evaluate(own, *asked)
    here = latency.machine("torch")
    monkeypatch.setattr(latency, "machine", lambda runtime, device: {**here, "cores": 64})
    (row, _) = _evaluate(own, *asked)
    assert row["machine"]["cores"] == 64
    assert clock == [1, 1]


@pytest.mark.parametrize(
    "argument", ["tflite", "onnx-0", "onnx-x", "onnx-1-1", "torch-99999", "onnx 1"]
)
def test_what_is_no_runtime_and_batch_is_refused(finished: Home, argument: str) -> None:
    says = (f"latency:{argument}", "expected")
    refused(2, "evaluate", finished.study, "--tasks", f"latency:{argument}", says=says)
