"""``run --stop-when-flat``: it ends where the front gets no better, says so, and stays ended."""

import json

import gped_nas as gn
from tests.cli.harness import Home, accepted, call, refused

# the tiny space has no 40 trainings
WIDE = ("--set", "search.sampler=random", "--set", "students.0.genotype.width={int: [2, 60]}")


def num_counted(study: gn.Study) -> int:
    return sum(record.is_counted for record in study.records())


def test_a_flat_front_ends_the_search_and_is_told(home: Home) -> None:
    ended = call("run", "tiny.yaml", *WIDE, "--n-trials", "40", "--stop-when-flat", "2")
    assert ended.code == 0, ended.err
    (line,) = [line for line in ended.err.splitlines() if "The front is flat" in line]
    assert "in 2 trials after trial" in line and line.endswith(
        "--stop-when-flat 0 searches further"
    )

    study = gn.open_study(home.study)
    num = num_counted(study)
    assert 3 <= num < 40 and study.end is not None and study.end.reason == "flat"
    assert study.end.sentence in study.snapshot().notes
    assert "The front is flat" in (home.study / "report.html").read_text()
    status = json.loads(accepted("status", home.study, "-f", "json").out)
    assert (status["ended"], status["why"]) == ("flat", study.end.sentence)

    # the same command decides the same, and another one goes on
    accepted("run", "tiny.yaml", *WIDE, "--n-trials", "40", "--stop-when-flat", "2")
    assert num_counted(gn.open_study(home.study)) == num
    accepted("run", "tiny.yaml", *WIDE, "--n-trials", num + 1, "--stop-when-flat", "0")
    study = gn.open_study(home.study)
    assert num_counted(study) == num + 1 and study.end is not None
    assert study.end.reason == "done" and study.end.flatness is None


def test_what_cannot_be_is_refused(home: Home) -> None:
    refused(2, "run", home.space, "--stop-when-flat", "-1", says=("--stop-when-flat",))
    wrong = "search.stop_when_flat=-1"
    refused(2, "run", home.space, "--set", wrong, says=("search.stop_when_flat",))
