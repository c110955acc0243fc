"""How far a run is: its phases, its rate, and what stands in the lock that it holds."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gped_nas.api import standing
from gped_nas.api.standing import (
    PHASES,
    PREDICTIONS,
    STUDENTS,
    TEACHER,
    Follower,
    Standing,
    find_folder,
    parse_standing,
    read_standing,
)
from gped_nas.io import lock


class Clock:
    """Time that passes when a test says so."""

    now = 1000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(standing, "time", clock)
    return clock


@pytest.fixture
def told() -> list[Standing]:
    return []


@pytest.fixture
def follower(tmp_path: Path, told: list[Standing], clock: Clock) -> Iterator[Follower]:
    with lock(tmp_path / "lock", wait=False) as file:
        yield Follower("tiny", file, told.append)


def test_a_phase_has_a_rate_and_an_end(follower: Follower, clock: Clock) -> None:
    follower.enter(TEACHER)
    assert (follower.now.place, follower.now.words) == ("teacher, 2 of 5", "")
    assert follower.now.per_second is None and follower.now.end is None

    # 40 were there from an earlier run; 10 of the 60 others took 5 seconds
    follower.hear("teacher", 40, 100)
    clock.now += 5
    follower.hear("teacher", 50, 100)
    assert follower.now.words == "50 of 100 posterior samples"
    assert follower.now.per_second == 2.0
    assert follower.now.end == 1000 + 5 + 50 / 2


def test_the_next_view_begins_anew(follower: Follower, clock: Clock) -> None:
    follower.enter(PREDICTIONS)
    follower.hear("predictions (clean)", 100, 100)
    clock.now += 50
    follower.hear("predictions (noise)", 10, 100)
    clock.now += 2
    follower.hear("predictions (noise)", 30, 100)
    assert follower.now.per_second == 10.0


def test_a_population_in_training_counts_by_its_steps(follower: Follower, clock: Clock) -> None:
    follower.enter(TEACHER)
    follower.enter_students({"complete": 3, "failed": 1}, 3, 10, at_once=4)
    clock.now += 10
    follower.hear("students", 50, 200)
    assert follower.now.done == 3 + 4 * 0.25 and follower.now.words == "4 of 10 trials"
    assert follower.now.end == 1010 + 6 / 0.1

    follower.end_trial("complete", 4)
    follower.end_trial("failed", 4)
    assert follower.now.states == {"complete": 4, "failed": 2}
    assert follower.now.num_finished == 4

    # the last population is smaller
    follower.end_trial("infeasible", 9)
    follower.hear("students", 200, 200)
    assert follower.now.done == 10


def test_a_reader_sees_who_holds_the_lock_and_what_was_written_last(
    follower: Follower, clock: Clock, tmp_path: Path, told: list[Standing]
) -> None:
    assert read_standing(tmp_path) == (None, True)
    for phase in PHASES:
        follower.enter(phase)
        assert read_standing(tmp_path) == (follower.now, True)
    assert [each.phase for each in told] == list(PHASES)

    follower.enter_students({"complete": 1}, 1, 20, at_once=10)
    follower.hear("students", 1, 2)
    assert read_standing(tmp_path)[0] != follower.now  # it is written once a second
    clock.now += 1
    follower.hear("students", 2, 2)
    assert read_standing(tmp_path) == (follower.now, True)

    follower.clear()
    assert read_standing(tmp_path) == (None, True)
    assert (tmp_path / "lock").read_bytes() == b""


def test_other_machines_hear_each_phase_at_once_and_the_rest_now_and_then(
    follower: Follower, clock: Clock
) -> None:
    shared: list[dict[str, Any] | None] = []
    follower.share(shared.append)
    for phase in (TEACHER, STUDENTS):
        follower.enter(phase)
        follower.hear("teacher", 1, 100)
    phases = [each["phase"] for each in shared if each is not None]
    assert phases == ["data", TEACHER, STUDENTS]

    follower.enter_students({"complete": 3}, 3, 10, at_once=4)
    for seconds, expected in ((9, 3), (1, 4), (1, 4), (9, 5)):
        clock.now += seconds
        follower.end_trial("complete", 4)
        assert len(shared) == expected
    heard = parse_standing(shared[-1])
    assert heard == follower.now and heard.num_finished == 4
    follower.clear()
    assert shared[-1] is None


def test_what_a_run_leaves_has_no_holder(tmp_path: Path, clock: Clock) -> None:
    with lock(tmp_path / "lock", wait=False) as file:
        follower = Follower("tiny", file, lambda standing: None)
        follower.enter_students({"complete": 123_456}, 123_456, 1_000_000, at_once=10)
    assert read_standing(tmp_path) == (follower.now, False)

    # the next run begins with an empty text: no end of the longer one is left
    with lock(tmp_path / "lock", wait=False) as file:
        Follower("tiny", file, lambda standing: None).enter(TEACHER)
        assert json.loads((tmp_path / "lock").read_text())["phase"] == TEACHER


@pytest.mark.parametrize("text", ["", "{", "[]", '{"phase": 3}', '{"study": "a", "phase": "x"}'])
def test_a_text_that_is_none_of_ours_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "lock").write_text(text)
    assert read_standing(tmp_path) == (None, False)


def test_a_study_is_found_before_it_is_made(tmp_path: Path) -> None:
    assert find_folder("tiny", tmp_path) == tmp_path / "tiny"
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "lock").touch()
    folder = str(tmp_path / "tiny")
    assert find_folder(folder, tmp_path / "reports") == Path(folder)


def test_students_are_a_phase() -> None:
    assert Standing("tiny", STUDENTS).number == 4
