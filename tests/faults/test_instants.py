"""Die just before anything on disk changes, at any instant; resuming must not show it."""

import json
import random
from pathlib import Path

import pytest

from tests.faults.checks import (
    assert_finished,
    assert_kept,
    assert_no_leftovers,
    assert_whole,
    recorded,
    sealed,
    trials,
    write_space,
)
from tests.faults.conftest import SOAK, STEP_S, Undisturbed
from tests.faults.forks import KILLED, Forks


def _choose(num: int, few: int) -> list[int]:
    """All instants under soak; else one, drawn by a seed, of each of a few parts of the run."""
    if SOAK:
        return list(range(1, num + 1))
    draw = random.Random(num)
    return sorted({1 + int((i + draw.random()) * num / few) for i in range(few)})


def test_a_build_killed_at_an_instant_ends_bit_identical(
    forks: Forks, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """The sweep passes every flush, rename, making and removing of a file, burn-in included."""
    num = len(undisturbed.build.instants)
    kinds = {kind for kind, _ in undisturbed.build.instants}
    assert kinds == {"fsync", "rename", "mkdir", "remove"}

    build = ("teacher", "build", str(undisturbed.space))
    landed = 0
    for at in _choose(num, 5):
        cache = tmp_path / str(at)
        killed = forks.run(*build, cache=cache, step_s=STEP_S, die="any", at=at)
        assert killed.code == KILLED, killed.stderr
        landed += 1
        assert_whole(cache)

        resumed = forks.run(*build, cache=cache, step_s=STEP_S)
        moment = f"after instant {at} {killed.instants[-1]}"
        assert resumed.code == 0, f"{moment}: {resumed.stderr}"
        assert sealed(cache) == undisturbed.sealed[0], moment
        assert_whole(cache)
        assert_no_leftovers(cache)

    print(f"\n{landed} of {num} instants of a build")
    assert landed >= (num if SOAK else 4)


def test_a_study_killed_at_an_instant_ends_the_same(
    forks: Forks, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """The sweep passes the statements that make the database and its tables, too."""
    num = len(undisturbed.search.instants)
    landed = 0
    for at in _choose(num, 2):
        assert _kill_and_resume(forks, undisturbed, tmp_path / str(at), "any", at) == KILLED
        landed += 1
    print(f"\n{landed} of {num} instants of a study")
    assert landed >= (num if SOAK else 1)


@pytest.mark.parametrize(
    ("kind", "at"),
    [
        pytest.param("train", 2, id="after a population was asked for, before it trained"),
        pytest.param("trained", 1, id="after a population trained, before its records"),
    ],
)
def test_a_study_killed_between_its_own_steps(
    forks: Forks, undisturbed: Undisturbed, tmp_path: Path, kind: str, at: int
) -> None:
    assert _kill_and_resume(forks, undisturbed, tmp_path, kind, at) == KILLED


def test_a_trial_finished_before_a_kill_is_kept_and_not_trained_again(
    forks: Forks, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    run = ("run", str(undisturbed.space), "--out", str(tmp_path))
    assert forks.run(*run, cache=undisturbed.cache, die="tell", at=2).code == KILLED
    before = trials(tmp_path / "tiny")
    state, record = before[0]
    assert state == before[1][0] == "COMPLETE"
    assert record is not None
    assert before[2] == before[3] == ("RUNNING", None)

    resumed = forks.run(*run, cache=undisturbed.cache)
    assert resumed.code == 0, resumed.stderr
    after = trials(tmp_path / "tiny")
    assert after[0] == ("COMPLETE", record)
    assert after[2] == after[3] == ("FAIL", None)

    # 4 genotypes: a population of two has its records, the other two trained now.
    assert [kind for kind, _ in resumed.instants].count("train") == 1
    assert_finished(tmp_path / "tiny", 4)


def test_a_view_killed_half_written_seals_nothing_of_it(
    forks: Forks, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """Whole shards of a view are kept in its folder; the temporary file must go."""
    instants = undisturbed.build.instants
    rename = _last_rename(instants, ".log_prob")
    assert instants[rename - 1][0] == "fsync"

    # Instants are counted from 1, so that number ``rename`` is the flush.
    cache = tmp_path / "cache"
    build = ("teacher", "build", str(undisturbed.space))
    killed = forks.run(*build, cache=cache, step_s=STEP_S, die="any", at=rename)
    assert killed.code == KILLED
    assert any(cache.glob("streams/*/building/view-*/.log_prob*.tmp"))

    assert forks.run(*build, cache=cache, step_s=STEP_S).code == 0
    assert sealed(cache) == undisturbed.sealed[0]


def test_a_reference_killed_half_written_is_made_again(
    forks: Forks, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """The unpruned student's spec is there and its weights are not."""
    rename = _last_rename(undisturbed.search.instants, "unpruned/.weights")
    assert _kill_and_resume(forks, undisturbed, tmp_path / "out", "any", rename + 1) == KILLED


def _last_rename(instants: list[list[str]], part: str) -> int:
    """Index of the last renaming of a path with this part."""
    renames = []
    for i, (kind, what) in enumerate(instants):
        if kind == "rename" and part in what:
            renames.append(i)
    return renames[-1]


def test_no_genotype_is_trained_again_after_a_kill(
    forks: Forks, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """Two genotypes, eight trials: once both are told, all others are repeats and not counted."""
    space = write_space(
        tmp_path,
        students=[{"family": "mlp", "genotype": {"depth": 1, "width": {"choices": [2, 3]}}}],
        search={"sampler": "random", "n_trials": 8, "students_at_once": 2, "keep": {}},
    )
    run = ("run", str(space), "--out", str(tmp_path))
    assert forks.run(*run, cache=undisturbed.cache, die="tell", at=6).code == KILLED
    before = recorded(tmp_path / "tiny")
    genotypes = [json.loads(text or "")["genotype"] for _, text in before.values()]
    assert len({json.dumps(genotype) for genotype in genotypes}) == 2

    resumed = forks.run(*run, cache=undisturbed.cache)
    assert resumed.code == 0, resumed.stderr
    assert "train" not in {kind for kind, _ in resumed.instants}
    assert_kept(before, tmp_path / "tiny")
    assert len(assert_finished(tmp_path / "tiny", 2)) == 2


def _kill_and_resume(forks: Forks, undisturbed: Undisturbed, out: Path, kind: str, at: int) -> int:
    """Kill a study at an instant, resume it, compare; the exit code of the killed run."""
    run = ("run", str(undisturbed.space), "--out", str(out))
    study = out / "tiny"
    killed = forks.run(*run, cache=undisturbed.cache, die=kind, at=at)
    assert_whole(out)
    before = recorded(study)

    resumed = forks.run(*run, cache=undisturbed.cache)
    moment = f"after instant {at} {killed.instants[-1]}"
    assert resumed.code == 0, f"{moment}: {resumed.stderr}"
    assert_kept(before, study)
    complete = assert_finished(study, 4)
    assert set(complete) == set(undisturbed.complete), moment

    # Which students trained together may differ, and with it the last bits of float32.
    for genotype, record in complete.items():
        expected = undisturbed.complete[genotype]
        nll = pytest.approx(expected["metrics"]["nll"], rel=1e-4)
        assert record["metrics"]["nll"] == nll, moment
        assert record["costs"] == expected["costs"], moment

    assert_whole(out)
    assert_no_leftovers(out)
    assert sealed(undisturbed.cache) == undisturbed.sealed[1], moment
    return killed.code


def test_a_build_that_ends_at_90_percent_resumes_for_less_than_a_fifth(
    forks: Forks, tmp_path: Path
) -> None:
    """Updates of the teacher move the clock: this build takes 20 s, a chunk is 1 s of it."""
    # 2 chains of 200 + 5 * 20 = 300 updates: 600 in all, 1/30 s each
    space = write_space(tmp_path, method={"num_samples": 10, "burn_in": 200, "thinning": 20})
    build = ("teacher", "build", str(space))
    step_s = 1 / 30
    whole = forks.run(*build, cache=tmp_path / "whole", step_s=step_s)
    assert (whole.code, whole.steps) == (0, 600), whole.stderr

    for how, code in (("die", KILLED), ("stop", 143)):
        cache = tmp_path / how
        ended = forks.run(*build, cache=cache, step_s=step_s, **{how: "step", "at": 540})
        assert ended.code == code, ended.stderr

        resumed = forks.run(*build, cache=cache, step_s=step_s)
        assert resumed.code == 0, resumed.stderr
        assert 0 < resumed.steps < 600 / 5, how
        assert sealed(cache) == sealed(tmp_path / "whole"), how
