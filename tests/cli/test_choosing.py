"""Which student a verb is about: a number, ``chosen``, ``best``, or the best one within bounds."""

import csv
import io
import json
from typing import Any

import numpy as np
import pytest

import gped_nas as gn
from gped_nas.errors import ConfigError
from tests.cli.harness import N_TRIALS, Home, accepted, call, contents, refused, without_region


def _rows(*command: object) -> Any:
    return json.loads(accepted(*command, "--format", "json").out)


def _marked(text: str) -> list[str]:
    """First words of the lines that are marked as chosen."""
    return [line.split()[0] for line in text.splitlines() if line.endswith("<- chosen")]


def _largest(front: list[Any]) -> int:
    return max(row["costs"]["storage_bytes"] for row in front)


def test_the_chosen_and_the_best_are_found_by_name(finished: Home) -> None:
    study = gn.open_study(finished.study)
    chosen = study.chosen()
    assert chosen is not None and study.find("chosen") == chosen
    assert study.find("best") == study.best() == study.front_records()[0]
    assert study.find(str(chosen.trial)) == study.find(chosen.trial) == chosen

    nlls = {row["metrics"]["nll"]: row["trial"] for row in _rows("front", finished.study)}
    assert _rows("show", finished.study, "best")["trial"] == nlls[min(nlls)]
    assert _rows("show", finished.study, "chosen")["trial"] == chosen.trial


@pytest.mark.parametrize("trial", ["chosenn", "first", "-1", "1.5"])
def test_what_is_no_trial_is_refused(finished: Home, trial: str) -> None:
    refused(2, "show", finished.study, "--", trial, says=(f"found '{trial}'", "'chosen'"))
    with pytest.raises(ConfigError, match="expected a trial's number"):
        gn.open_study(finished.study).find(trial)


def test_verbs_that_list_students_mark_the_chosen_one(finished: Home) -> None:
    chosen = str(gn.open_study(finished.study).find("chosen").trial)
    for verb in ("front", "trials", "pick"):
        assert _marked(accepted(verb, finished.study).out) == [chosen]
        assert _marked(accepted(verb, finished.study, "--wide").out) == [chosen]
    assert accepted("show", finished.study, chosen).out.splitlines()[0].endswith("<- chosen")
    others = [trial for trial in map(str, range(N_TRIALS)) if trial != chosen]
    assert "<- chosen" not in accepted("show", finished.study, others[0]).out


def test_figures_of_a_class_stand_with_its_name(finished: Home) -> None:
    text = accepted("show", finished.study, "best").out
    assert "recall by class, 95 % interval" in text
    table = text.split("recall by class")[1].split("layers")[0].splitlines()[2:]
    rows = {words[0]: words[1:] for words in map(str.split, table) if words}

    dataset = gn.load_dataset(gn.load_space(finished.space))
    student = gn.open_study(finished.study).load_student("best")
    answers = student.predict(dataset.raw("validation"))["predictive"].argmax(1).numpy()
    labels = dataset.labels("validation")
    for label, name in enumerate(dataset.class_names):
        recall, low, high, *precision, n = map(float, rows[name])
        is_label, is_answer = labels == label, answers == label
        assert n == is_label.sum() and low <= recall <= high
        assert recall == pytest.approx(is_answer[is_label].mean(), abs=1e-3)
        # a class that is never answered has none
        expected = [is_label[is_answer].mean()] if is_answer.any() else []
        assert precision == pytest.approx(expected, abs=1e-3)


def test_a_short_table_has_six_columns_and_a_wide_one_all(finished: Home) -> None:
    short = accepted("front", finished.study).out.splitlines()[0].split()
    assert short == ["trial", "student", "nll", "accuracy", "flops", "storage_bytes"]
    wide = accepted("front", finished.study, "--wide").out.splitlines()[0].split()
    assert {"genotype", "kl_to_teacher", "test_nll", "macs", "params"} <= set(wide)


def test_csv_has_intervals(finished: Home) -> None:
    rows = list(csv.DictReader(io.StringIO(accepted("front", finished.study, "-f", "csv").out)))
    for row, expected in zip(rows, _rows("front", finished.study), strict=True):
        ends = [float(row["nll_low"]), float(row["nll_high"])]
        assert ends == expected["intervals"]["nll"]
        assert int(row["test_accuracy_n"]) == expected["n"]["test_accuracy"]
        assert "<- chosen" not in row.values()


def test_an_export_without_a_trial_is_that_of_the_chosen_one(
    finished: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    study = gn.open_study(finished.study)
    chosen, best = study.find("chosen").trial, study.find("best").trial
    assert accepted("export", finished.study).out == f"tiny-{chosen}\n"
    assert accepted("export", finished.study, "best", "--into", "b").out == "b\n"
    assert gn.load_student("b").spec.about["trial"] == str(best)


def test_predict_asks_a_student_of_a_study(finished: Home, tmp_path: Any) -> None:
    array = tmp_path / "x.npy"
    np.save(array, np.full((1, 1, 8, 8), 3.0, np.float32))
    folders = finished.study / "students"
    study = gn.open_study(finished.study)
    for options in ([], ["--trial", "best"]):
        trial = study.find(options[-1] if options else "chosen").trial
        rows = _rows("predict", finished.study, array, *options)
        assert rows == _rows("predict", folders / str(trial), array)

    folder = folders / str(study.find("best").trial)
    refused(2, "predict", folder, array, "--trial", "best", says=("is no study",))


def test_bounds_have_units(finished: Home) -> None:
    front = _rows("front", finished.study)
    by_unit = _rows("pick", finished.study, "--within", f"{_largest(front)}B,1GFLOPs")
    assert by_unit == _rows("pick", finished.study, "--within", f"storage_bytes={_largest(front)}")
    assert by_unit == front[0]
    tight = front[-1]["costs"]["storage_bytes"]
    assert _rows("pick", finished.study, "--within", f"{tight}B") != front[0]


def test_a_front_within_bounds_marks_what_is_picked_there(finished: Home) -> None:
    front = _rows("front", finished.study)
    chosen = gn.open_study(finished.study).find("chosen")
    size, nll = chosen.costs["storage_bytes"], chosen.metrics["nll"]
    smaller = [row for row in front if row["costs"]["storage_bytes"] < size]
    better = [row for row in front if row["metrics"]["nll"] < nll]
    bound = f"{size - 1}B" if smaller else f"nll={max(r['metrics']['nll'] for r in better)!r}"

    inside = smaller or better
    assert 0 < len(inside) < len(front)
    assert _rows("front", finished.study, "--within", bound) == inside
    assert list(gn.open_study(finished.study).front(bound).index) == [r["trial"] for r in inside]
    picked = _rows("pick", finished.study, "--within", bound)["trial"]
    assert _marked(accepted("front", finished.study, "--within", bound).out) == [str(picked)]
    refused(3, "front", finished.study, "--within", "1B", says=("the nearest is trial",))


def test_where_none_is_within_the_nearest_is_named(finished: Home) -> None:
    front = _rows("front", finished.study)
    smallest = min(front, key=lambda row: row["costs"]["storage_bytes"])
    size = smallest["costs"]["storage_bytes"]
    says = (f"the nearest is trial {smallest['trial']} with storage_bytes {size:,}",)
    refused(3, "pick", finished.study, "--within", f"{size - 1}B", says=says)


def test_a_run_prints_the_student_within_bounds_and_changes_nothing(own: Home) -> None:
    again = ("run", own.space, "--out", own.out, "--n-trials", N_TRIALS)
    front = _rows("front", own.study)
    free = str(_rows("status", own.study)["chosen"])
    (other,) = [row for row in front if str(row["trial"]) != free][:1]
    before = contents(own.study / "students")
    accuracy = other["metrics"]["accuracy"]
    bound = f"{other['costs']['storage_bytes']}B,accuracy={accuracy}"
    picked = _rows("pick", own.study, "--within", bound)["trial"]

    run = call(*again, "--within", bound)
    assert run.code == 0 and _marked(run.out) == [str(picked)]
    assert _marked(accepted("front", own.study).out) == [free]
    assert contents(own.study / "students") == before

    none = call(*again, "--within", "1B")
    assert none.code == 3 and _marked(none.out) == [] and "the nearest is trial" in none.err


def test_bounds_are_read_before_any_work(home: Home) -> None:
    for within, says in (("1MB,latency=3", "latency"), ("rmse=3", "not defined"), ("5 cats", "5")):
        refused(2, "run", home.space, "--out", home.out, "--within", within, says=(says,))
    assert not home.out.exists() and not home.cache.exists()


def test_before_there_were_regions_students_near_a_guess_are_marked(
    own: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_region(own)
    front = _rows("front", own.study)
    last = str(front[-1]["trial"])
    monkeypatch.setattr("gped_nas.search.guess.near_guesses", lambda *_: {int(last)})
    lines = accepted("front", own.study).out.splitlines()
    (marked,) = [line for line in lines if "near a guess" in line]
    assert marked.split()[0] == last
    assert "near a guess" not in accepted("front", own.study, "-f", "csv").out
