"""One whole run, counted: what is made once is made once.

The tiny digits study has three views, one of which asks posterior samples, five targets, four
trials in two populations, and validation at two rungs.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import gped_nas as gn
from gped_nas.api import students
from gped_nas.api import teacher as teachers
from gped_nas.data.views import View
from gped_nas.io import Array
from gped_nas.stream import format as stream_format
from gped_nas.stream.reader import Stream
from gped_nas.targets.base import TARGETS
from gped_nas.targets.layout import HeadLayout
from tests.cli.harness import Home

SETTINGS = {
    "views": [{"policy": "clean"}, {"policy": "noise"}, {"policy": "disagreement", "samples": 2}],
    "targets": ["predictive", "expected_entropy", "second_moment", "utility", "variance"],
    "search": {
        "n_trials": 4,
        "students_at_once": 2,
        "keep": {},
        "every_dtype": False,
        "sampler": "brute_force",
    },
    "recipe": {"steps": 60, "warmup": 5, "rungs": 2},
}
VIEWS = [
    "distillation-clean",
    "distillation-disagreement",
    "distillation-noise",
    "test-clean",
    "validation-clean",
]
"""Names of the views of a run, less the digest that each ends with."""


class Counts:
    """How often a run did what, and to what.

    Attributes:
        inputs: views whose inputs were made.
        predictions: views whose predictions were read.
        hashed: sealed files that were hashed.
        averages: how often the teacher's samples were averaged.
        in_training: layouts made, and targets looked up by name, while students were trained.
        layouts: the layouts that populations were trained with.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inputs: Counter[str] = Counter()
        self.predictions: Counter[str] = Counter()
        self.hashed: Counter[str] = Counter()
        self.averages = 0
        self.in_training = 0
        self.layouts: list[HeadLayout] = []
        self._is_training = False

        def note(owner: Any, name: str, take: Callable[[Any], None]) -> None:
            """Have ``take`` told the first argument of every call."""
            original = getattr(owner, name)

            def noted(argument: Any, *args: Any, **more: Any) -> Any:
                take(argument)
                return original(argument, *args, **more)

            monkeypatch.setattr(owner, name, noted)

        def note_training(_: Any) -> None:
            self.in_training += self._is_training

        def note_average(_: Any) -> None:
            self.averages += 1

        def note_lookup(registry: Any) -> None:
            if registry is TARGETS:
                note_training(registry)

        note(View, "inputs", lambda view: self.inputs.update([view.name]))
        note(stream_format, "sha256_plain", lambda path: self.hashed.update([str(path)]))
        note(teachers, "averaged", note_average)
        note(HeadLayout, "__init__", note_training)
        note(type(TARGETS), "__getitem__", note_lookup)

        maps, distill = Stream.prediction_maps, students.distill

        def prediction_maps(stream: Stream, name: str) -> Iterator[Array]:
            self.predictions[name] += 1
            return maps(stream, name)

        def population(genotypes: Any, data: Any, *args: Any, **more: Any) -> Any:
            self.layouts += [data.layout, more["validation"].layout]
            self._is_training = True
            trained = distill(genotypes, data, *args, **more)
            self._is_training = False
            return trained

        monkeypatch.setattr(Stream, "prediction_maps", prediction_maps)
        monkeypatch.setattr(students, "distill", population)


def test_what_is_made_once_is_made_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = Counts(monkeypatch)
    study = gn.run(gn.load_space(home.space, SETTINGS), out="reports")
    assert {record.state for record in study.records()} <= {"complete", "duplicate"}

    for views in (counts.inputs, counts.predictions):
        assert sorted(name.rpartition("-")[0] for name in views) == VIEWS
        assert set(views.values()) == {1}, views
    assert set(counts.hashed.values()) == {1}, counts.hashed
    assert counts.averages == 2, "once on validation and once on test"

    # Two populations of trials and the unpruned student that they are compared with, each with
    # what rungs look at.
    assert len(counts.layouts) == 6
    assert len(set(map(id, counts.layouts))) == 1
    assert counts.in_training == 0
