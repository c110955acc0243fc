"""``run --timeout``: it ends near its time, says what was done, and the same command goes on."""

import json

import pytest

import gped_nas as gn
from gped_nas.search.run import TimeLimit
from tests.cli.harness import N_TRIALS, Home, accepted, call, refused

ENDLESS_TEACHER = "teacher.method.burn_in=10000000"


def test_a_teacher_that_takes_longer_is_kept(home: Home) -> None:
    says = ("the time was over in the phase teacher", "the same command goes on")
    refused(3, "run", home.space, "--set", ENDLESS_TEACHER, "--timeout", "1", says=says)
    (chunk,) = home.cache.glob("streams/*/building/*/chain-00/chunk-*")
    assert next(chunk.glob("state-00-step.npy")).exists()
    assert json.loads(accepted("status", "tiny", "-f", "json").out)["phase"] == "teacher, 2 of 5"


def test_what_is_kept_of_a_teacher_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def has_begun(limit: TimeLimit) -> bool:
        return any(home.cache.glob("streams/*/building/*/chain-00/chunk-*"))

    with monkeypatch.context() as patch:
        patch.setattr(TimeLimit, "is_over", property(has_begun))
        says = ("phase teacher", " posterior samples are kept")
        refused(3, "run", home.space, "--timeout", "1h", says=says)
    home.run()


def test_a_search_ends_with_its_own_line_and_goes_on(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        # as if a second population would not end in time
        patch.setattr(TimeLimit, "has_room", property(lambda limit: limit.population_s == 0))
        # the time is over once the teacher is there: a population that was begun is finished
        is_there = (home.study / "study.db").exists
        patch.setattr(TimeLimit, "is_over", property(lambda limit: is_there()))
        ended = call("run", "tiny.yaml", "--timeout", "1h")
    assert ended.code == 0 and ended.out.startswith("front of tiny"), ended.err
    last = ended.err.splitlines()[-3:]
    assert last[0].startswith("the time limit ended the search: 3 trials are finished")
    assert last[0].endswith("go on with: gped-search run tiny.yaml")
    assert "a population took" in last[1] and last[2].endswith("--n-trials 3")

    study = gn.open_study(home.study)
    assert len(study.records()) == 3 and study.num_test_evaluations == 0
    assert [reference.name for reference in study.references()] == ["guess"]
    assert json.loads(accepted("status", "tiny", "-f", "json").out)["finished"] == 3

    accepted("run", "tiny.yaml", "--timeout", "1h")
    study = gn.open_study(home.study)
    assert len(study.records()) == N_TRIALS
    assert study.num_test_evaluations == len(study.front_records())
    assert "teacher" in [reference.name for reference in study.references()]
