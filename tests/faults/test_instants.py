"""Die just before anything on disk changes, at one instant after another; resuming must not show
it.
"""

import json
import random
from pathlib import Path

import pytest

from tests.faults.checks import (
    assert_finished,
    assert_kept,
    assert_no_leftovers,
    assert_whole,
    sealed,
    told,
    trials,
    write_space,
)
from tests.faults.conftest import SOAK, STEP_S, Undisturbed
from tests.faults.forks import KILLED, Forks


def _chosen(num: int, few: int) -> list[int]:
    """All instants under soak; else the few at the middle of equal parts of the run, moved by a
    seeded draw.
    """
    if SOAK:
        return list(range(1, num + 1))
    draw = random.Random(num)
    return sorted({1 + int((i + draw.random()) * num / few) for i in range(few)})


def test_a_build_killed_at_an_instant_ends_bit_identical(
    forks: Forks, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """The sweep passes every flush, rename, and every making and removing of a file, two chains'
    burn-in included.
    """
    num = len(undisturbed.build.instants)
    kinds = {kind for kind, _ in undisturbed.build.instants}
    assert kinds == {"fsync", "rename", "mkdir", "remove"}
    build = ("teacher", "build", str(undisturbed.space))
    landed = 0
    for at in _chosen(num, 5):
        cache = tmp_path / str(at)
        killed = forks.run(*build, cache=cache, step_s=STEP_S, die="any", at=at)
        assert killed.code == KILLED, killed.stderr
        landed += 1
        assert_whole(cache)
        resumed = forks.run(*build, cache=cache, step_s=STEP_S)
        assert resumed.code == 0, f"after instant {at} {killed.instants[-1]}: {resumed.stderr}"
        assert sealed(cache) == undisturbed.sealed[0], f"after instant {at} {killed.instants[-1]}"
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
    for at in _chosen(num, 2):
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


def test_a_record_written_before_a_kill_is_told_and_not_trained_again(
    forks: Forks, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    run = ("run", str(undisturbed.space), "--out", str(tmp_path))
    assert forks.run(*run, cache=undisturbed.cache, die="tell", at=1).code == KILLED
    before = trials(tmp_path / "tiny")
    assert before[0][0] == "RUNNING" and before[0][1] is not None
    assert before[1] == ("RUNNING", None)
    resumed = forks.run(*run, cache=undisturbed.cache)
    assert resumed.code == 0, resumed.stderr
    after = trials(tmp_path / "tiny")
    assert after[0] == ("COMPLETE", before[0][1])
    assert after[1] == ("FAIL", None)
    # 4 genotypes: one was told from its record, the other three trained now, two and then one at a
    # time
    assert [kind for kind, _ in resumed.instants].count("train") == 2
    assert_finished(tmp_path / "tiny", 4)


def test_a_view_killed_half_written_seals_nothing_of_it(
    forks: Forks, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """Shards of a view that were whole are kept, so its folder is not made anew; the temporary file
    must still go.
    """
    instants = undisturbed.build.instants
    renamed = max(
        i for i, (kind, what) in enumerate(instants) if kind == "rename" and ".log_prob" in what
    )
    assert instants[renamed - 1][0] == "fsync"
    cache, build = tmp_path / "cache", ("teacher", "build", str(undisturbed.space))
    killed = forks.run(
        *build, cache=cache, step_s=STEP_S, die="any", at=renamed
    )  # counted from 1: the flush
    assert killed.code == KILLED
    assert any(cache.glob("streams/*/building/view-*/.log_prob*.tmp"))
    assert forks.run(*build, cache=cache, step_s=STEP_S).code == 0
    assert sealed(cache) == undisturbed.sealed[0]


def test_a_reference_killed_half_written_is_made_again(
    forks: Forks, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """The unpruned student's spec is there and its weights are not."""
    instants = undisturbed.search.instants
    renamed = max(
        i
        for i, (kind, what) in enumerate(instants)
        if kind == "rename" and "unpruned/.weights" in what
    )
    assert _kill_and_resume(forks, undisturbed, tmp_path / "out", "any", renamed + 1) == KILLED


def test_no_genotype_is_trained_again_after_a_kill(
    forks: Forks, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """Two genotypes, eight trials: when the fifth is told both are known, and what is left are
    duplicates.
    """
    space = write_space(
        tmp_path,
        students=[{"family": "mlp", "genotype": {"depth": 1, "width": {"choices": [2, 3]}}}],
        search={"sampler": "random", "n_trials": 8, "students_at_once": 2},
    )
    run = ("run", str(space), "--out", str(tmp_path))
    assert forks.run(*run, cache=undisturbed.cache, die="tell", at=5).code == KILLED
    before = told(tmp_path / "tiny")
    assert len({json.dumps(json.loads(text or "")["genotype"]) for _, text in before.values()}) == 2
    resumed = forks.run(*run, cache=undisturbed.cache)
    assert resumed.code == 0, resumed.stderr
    assert "train" not in {kind for kind, _ in resumed.instants}
    assert_kept(before, tmp_path / "tiny")
    assert len(assert_finished(tmp_path / "tiny", 8)) == 2


def _kill_and_resume(forks: Forks, undisturbed: Undisturbed, out: Path, kind: str, at: int) -> int:
    """Kill a study at an instant, resume it, compare; the exit code of the killed run."""
    run = ("run", str(undisturbed.space), "--out", str(out))
    study = out / "tiny"
    killed = forks.run(*run, cache=undisturbed.cache, die=kind, at=at)
    assert_whole(out)
    before = told(study)
    resumed = forks.run(*run, cache=undisturbed.cache)
    where = f"after instant {at} {killed.instants[-1]}"
    assert resumed.code == 0, f"{where}: {resumed.stderr}"
    assert_kept(before, study)
    complete = assert_finished(study, 4)
    assert set(complete) == set(undisturbed.complete), where
    for genotype, record in complete.items():
        # which students trained together may differ, and with it the last bits of float32
        expected = undisturbed.complete[genotype]
        assert record["metrics"]["nll"] == pytest.approx(expected["metrics"]["nll"], rel=1e-4), (
            where
        )
        assert record["costs"] == expected["costs"], where
    assert_whole(out)
    assert_no_leftovers(out)
    assert sealed(undisturbed.cache) == undisturbed.sealed[1], where
    return killed.code


def test_a_build_that_ends_at_90_percent_resumes_for_less_than_a_fifth(
    forks: Forks, tmp_path: Path
) -> None:
    """Updates of the teacher are counted, and the clock counts them: this build takes 20 s, a chunk
    is 1 s of it.
    """
    # 2 chains of 200 + 5 * 20 = 300 updates: 600 in all, 1/30 s each
    space = write_space(tmp_path, method={"num_samples": 10, "burn_in": 200, "thinning": 20})
    build, step_s = ("teacher", "build", str(space)), 1 / 30
    whole = forks.run(*build, cache=tmp_path / "whole", step_s=step_s)
    assert (whole.code, whole.steps) == (0, 600), whole.stderr
    for how, code in (("die", KILLED), ("stop", 143)):
        cache = tmp_path / how
        first = forks.run(*build, cache=cache, step_s=step_s, **{how: "step", "at": 540})
        assert first.code == code, first.stderr
        resumed = forks.run(*build, cache=cache, step_s=step_s)
        assert resumed.code == 0, resumed.stderr
        assert 0 < resumed.steps < 600 / 5, how
        assert sealed(cache) == sealed(tmp_path / "whole"), how
