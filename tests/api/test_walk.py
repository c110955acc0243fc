"""One whole run, counted: what is made once is made once.

The tiny digits study has three views (one of which asks posterior samples), five targets, four
trials in two populations, and 120 steps.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch import Tensor

import gped_nas as gn
from gped_nas.api import students
from gped_nas.data.views import View
from gped_nas.stream import format as stream_format
from gped_nas.stream.reader import Stream
from gped_nas.targets import base as targets
from gped_nas.targets.layout import HeadLayout
from tests.cli.harness import Home

SETTINGS = {
    "views": [{"policy": "clean"}, {"policy": "noise"}, {"policy": "disagreement", "samples": 2}],
    "targets": ["predictive", "expected_entropy", "second_moment", "utility", "variance"],
    "search": {"n_trials": 4, "students_at_once": 2},
    "recipe": {"steps": 60, "warmup": 5, "rungs": 2},
}


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a run did what, by what it did and to whom."""
    counts: Counter[str] = Counter()

    def count(owner: Any, name: str, key: Callable[..., str]) -> None:
        whole = getattr(owner, name)

        def counted(*args: Any, **more: Any) -> Any:
            counts[key(*args)] += 1
            return whole(*args, **more)

        monkeypatch.setattr(owner, name, counted)

    count(View, "inputs", lambda view, *rest: f"inputs of {view.name}")
    count(HeadLayout, "__init__", lambda *args: "layouts")
    count(targets, "resolve", lambda *args: "lists of targets resolved")
    count(stream_format, "sha256_plain", lambda path: f"digest of {path}")

    blocks = Stream.prediction_maps

    def maps(stream: Stream, name: str) -> Iterator[Any]:
        counts[f"predictions of {name}"] += 1
        return blocks(stream, name)

    monkeypatch.setattr(Stream, "prediction_maps", maps)

    distill = students.distill

    def population(*args: Any, **more: Any) -> Any:
        counts["populations"] += 1
        before = counts["layouts"]
        trained = distill(*args, **more)
        counts["layouts made in training"] += counts["layouts"] - before
        return trained

    monkeypatch.setattr(students, "distill", population)
    loss = HeadLayout.loss

    def lossy(layout: HeadLayout, *args: Any) -> Tensor:
        counts["losses"] += 1
        before = counts["lists of targets resolved"]
        value = loss(layout, *args)
        counts["targets resolved in a step"] += counts["lists of targets resolved"] - before
        return value

    monkeypatch.setattr(HeadLayout, "loss", lossy)
    return counts


def test_inputs_are_made_once_and_predictions_read_once(home: Home, counts: Counter[str]) -> None:
    space = gn.load_space(home.space, SETTINGS)
    study = gn.run(space, out="reports")
    assert {record.state for record in study.records()} <= {"complete", "duplicate"}

    parts = ["validation-clean", "test-clean"]
    parts += [f"distillation-{policy}" for policy in ("clean", "noise", "disagreement")]
    for what in ("inputs", "predictions"):
        once = {name: n for name, n in counts.items() if name.startswith(f"{what} of ")}
        assert sorted(name.removeprefix(f"{what} of ").rpartition("-")[0] for name in once) == (
            sorted(parts)
        )
        assert set(once.values()) == {1}, once

    # two populations of trials, and the unpruned student that they are compared with
    assert counts["populations"] == 3
    assert counts["losses"] > 100
    assert counts["layouts made in training"] == 0
    assert counts["targets resolved in a step"] == 0
    digests = [n for name, n in counts.items() if name.startswith("digest of ")]
    assert max(digests) <= 2, counts
    print(counts)
