"""``evaluate --tasks scaling``: what samples and widths of a teacher take and give."""

import json
from typing import Any

import pytest

from gped_nas.api import timing
from gped_nas.api.tasks.scaling import numbers_of_samples, peak_bytes, wider
from gped_nas.evaluate.latency import Latency
from tests.cli.harness import Home, accepted, refused

WIDTHS = {"scaling:0.5": 4, "scaling:1": 8, "scaling:2": 16}


def _rows(home: Home, *args: object) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(
        accepted("evaluate", home.space, "--out", home.out, "-f", "json", *args).out
    )
    return rows


def test_a_teacher_is_measured_by_its_samples_at_three_widths(
    own: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    latencies: list[Latency] = []

    def time_calls(calls: list[Any], **settings: object) -> list[Latency]:
        latencies.append(Latency(0.001 * (1 + len(latencies)), 1.0, 30))
        return latencies[-1:]

    monkeypatch.setattr(timing, "time_calls", time_calls)
    rows = _rows(own, "--tasks", "scaling,prediction")
    by_task = {task: [row for row in rows if row["task"] == task] for task in WIDTHS}
    (teacher_nll,) = [
        row
        for row in rows
        if (row["task"], row["predictor"], row["metric"]) == ("prediction", "teacher", "nll")
    ]
    peaks = {}
    for task, table in by_task.items():
        values = {row["metric"]: row["value"] for row in table}
        assert {row["predictor"] for row in table} == {"teacher"}
        (genotype,) = {row["genotype"] for row in table}
        assert genotype.endswith(f"width={WIDTHS[task]})")
        names = [f"{name}_of_{num}" for num in (1, 2, 4) for name in _BY_NUMBER]
        assert list(values) == ["seconds_a_sample", "seconds_an_effective_sample", *names]

        assert values["seconds_a_sample"] > 0
        effective = values["seconds_an_effective_sample"]
        assert effective is None or effective > 0
        assert values["nll_of_4"] != values["nll_of_1"]
        peaks[task] = [values[f"peak_bytes_of_{num}"] for num in (1, 2, 4)]
        (of_two,) = [row for row in table if row["metric"] == "nll_of_2"]
        assert of_two["samples"] == 2 and of_two["low"] < of_two["value"] < of_two["high"]

    # all samples together are the teacher that every task judges
    own_width = {row["metric"]: row for row in by_task["scaling:1"]}
    for end in ("value", "low", "high"):
        assert own_width["nll_of_4"][end] == pytest.approx(teacher_nll[end], abs=1e-6)
    # two more networks take as many bytes as two more have numbers
    for task, width in WIDTHS.items():
        network = 4 * (64 * width + width + 10 * width + 10)
        assert peaks[task][2] - peaks[task][1] == 2 * network
    assert [latency.median_s for latency in latencies] == pytest.approx(
        [0.001 * (i + 1) for i in range(9)]
    )
    told = [row["value"] for task in by_task.values() for row in task if "latency" in row["metric"]]
    assert told == [float(i + 1) for i in range(9)]


_BY_NUMBER = ("nll", "peak_bytes", "latency_ms")


def test_networks_that_are_not_loaded_are_counted() -> None:
    import torch

    class Many:
        def networks(self):
            for _ in range(200):
                weight = torch.zeros(3, 5).clone()
                yield 0.005, lambda raw, weight=weight: raw @ weight.t()

    raw = torch.zeros(4, 5)
    assert peak_bytes(Many(), raw, 200) - peak_bytes(Many(), raw, 20) == 180 * 3 * 5 * 4


def test_widths_are_whole_and_no_less_than_one() -> None:
    genotype = {"depth": 2, "width": [3, 5], "head_width": 1, "kernel": 3}
    assert wider(genotype, 0.1) == {"depth": 2, "width": [1, 1], "head_width": 1, "kernel": 3}
    assert wider(genotype, 2) == {"depth": 2, "width": [6, 10], "head_width": 2, "kernel": 3}
    assert wider({"depth": 0}, 2) == {"depth": 0}


def test_numbers_of_samples_double_up_to_all_of_them() -> None:
    assert numbers_of_samples(1) == [1]
    assert numbers_of_samples(8) == [1, 2, 4, 8]
    assert numbers_of_samples(11) == [1, 2, 4, 8, 11]


@pytest.mark.parametrize("argument", ["x", "0", "nan"])
def test_what_multiplies_no_width_is_refused(finished: Home, argument: str) -> None:
    says = (f"scaling:{argument}", "multiplied")
    refused(2, "evaluate", finished.study, "--tasks", f"scaling:{argument}", says=says)


def test_students_have_no_samples_to_scale(own: Home) -> None:
    asked = ("evaluate", own.study, "--tasks", "scaling:1", "--subjects", "student", "-f", "json")
    says = ("nothing was measured", "it is of the teacher alone")
    refused(3, *asked, "--out", own.out, says=says)
