"""The bars of a run: one over the whole, one for its phase, others of its stages below."""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import replace

import pytest
from rich.console import Console
from rich.progress import Progress

import gped_nas as gn
from gped_nas.api import job
from gped_nas.api.bars import Bars, short_time
from gped_nas.api.standing import PHASES, Standing
from tests.cli.harness import N_TRIALS, Home


def _shown(progress: Progress) -> list[tuple[str, float, float | None, str]]:
    tasks = progress.tasks
    return [(task.description, task.completed, task.total, task.fields["says"]) for task in tasks]


@pytest.fixture
def progress() -> Progress:
    return Progress(console=Console(file=io.StringIO()), disable=True)


def test_the_whole_and_its_phase_are_drawn(progress: Progress) -> None:
    bars = Bars(progress)
    bars.follow(Standing("tiny"))
    assert _shown(progress) == [("tiny", 0, 5, "1 of 5"), ("data", 0, None, "")]

    teacher = Standing("tiny", "teacher", done=25, total=100, entered=0, updated=5)
    bars.follow(teacher)
    bars.report("teacher", 25, 100)  # that is its phase
    whole, phase = _shown(progress)
    assert whole == ("tiny", 1.25, 5, "2 of 5")
    assert phase[:3] == ("teacher", 25, 100) and phase[3].startswith("25 of 100, ")

    bars.follow(replace(teacher, phase="students", done=2, total=8, first=2))
    bars.report("students", 50, 200)
    assert [row[0] for row in _shown(progress)] == ["tiny", "students", "training steps"]
    assert _shown(progress)[2] == ("training steps", 50, 200, "50 of 200")

    bars.follow(Standing("tiny", "references"))
    assert _shown(progress) == [("tiny", 4, 5, "5 of 5"), ("references", 0, None, "")]


def test_stages_of_no_run_have_bars_of_their_own(progress: Progress) -> None:
    bars = Bars(progress)
    bars.report("teacher", 1, 4)
    bars.report("teacher", 2, 4)
    assert _shown(progress) == [("teacher", 2, 4, "2 of 4")]


@pytest.mark.parametrize(("seconds", "text"), [(12.4, "12 s"), (600, "10 min"), (9000, "2.5 h")])
def test_a_time_has_one_unit(seconds: float, text: str) -> None:
    assert short_time(seconds) == text


@pytest.mark.parametrize(
    ("arguments", "is_watched", "draws"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"progress": False}, True, False),
        ({"progress": True}, False, True),
    ],
    ids=["watched", "not watched", "refused", "wanted"],
)
def test_a_run_from_python_draws_where_somebody_looks(
    arguments: dict[str, bool],
    is_watched: bool,
    draws: bool,
    own: Home,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []

    @contextlib.contextmanager
    def bars(run: str) -> Iterator[Bars]:
        drawn = Bars(Progress(disable=True))
        monkeypatch.setattr(drawn, "follow", lambda standing: seen.append(standing.phase))
        yield drawn

    monkeypatch.setattr(job, "bars", bars)
    monkeypatch.setattr(job, "is_watched", lambda: is_watched)
    gn.run(own.space, out=own.out, n_trials=N_TRIALS, **arguments)  # type: ignore[arg-type]
    assert list(dict.fromkeys(seen)) == (list(PHASES) if draws else [])
