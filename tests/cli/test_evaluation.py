"""``gped-search evaluate``: who is asked, on which part, what is kept, what is refused."""

import json
from typing import Any

import numpy as np
import pytest

import gped_nas as gn
from gped_nas.api import evaluating, places
from gped_nas.api.tasks import base
from gped_nas.api.tasks.base import Row, add_task
from gped_nas.api.tasks.bench import Bench
from gped_nas.errors import ConfigError, Interrupted
from gped_nas.evaluate.predictions import Predictions, subset
from gped_nas.search.ledger import Ledger
from tests.cli.harness import Home, accepted, call, refused

TASKS = "prediction,misclassification"


def asked(home: Home, *args: object) -> list[dict[str, Any]]:
    """The rows of the tiny study."""
    result = accepted("evaluate", home.study, "--out", home.out, "-f", "json", *args)
    rows: list[dict[str, Any]] = json.loads(result.out)
    return rows


def test_everybody_is_asked_on_test_and_agrees_with_the_records(own: Home) -> None:
    rows = asked(own, "--tasks", TASKS)
    study = gn.open_study(own.study)
    chosen = study.chosen()
    assert chosen is not None

    names = ["teacher", "single_sample", "map", "unpruned", f"trial {chosen.trial}"]
    assert list(dict.fromkeys(row["predictor"] for row in rows)) == names
    assert {row["part"] for row in rows} == {"test"}

    recorded = {name: study.reference(name).metrics for name in names[:-1]}
    recorded[names[-1]] = chosen.metrics
    for row in rows:
        if row["task"] == "prediction":
            expected = recorded[row["predictor"]][f"test_{row['metric']}"]
            assert row["value"] == pytest.approx(expected, abs=1e-9), row


def test_rows_are_kept_and_not_measured_again(own: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    first = asked(own, "--tasks", TASKS)
    num_measured: list[str] = []
    write = evaluating.write_place
    monkeypatch.setattr(
        evaluating,
        "write_place",
        lambda folder, kept: (num_measured.append(kept.place["task"]), write(folder, kept)),
    )
    assert asked(own, "--tasks", TASKS) == first
    assert num_measured == []

    kept = gn.open_study(own.study).evaluations()
    assert [{k: v for k, v in row.items() if k not in ("limit", "seed")} for row in kept] != []
    assert {json.dumps(row) for row in first} == {
        json.dumps({k: v for k, v in row.items() if k not in ("limit", "seed")}) for row in kept
    }

    other_seed = asked(own, "--tasks", TASKS, "--seed", 5)
    assert len(num_measured) == 10
    assert [row["value"] for row in other_seed] == [row["value"] for row in first]


def test_an_evaluation_that_was_stopped_goes_on(own: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []
    write = evaluating.write_place
    monkeypatch.setattr(
        evaluating,
        "write_place",
        lambda folder, kept: (measured.append(str(kept.place)), write(folder, kept)),
    )
    study = gn.open_study(own.study)
    session = gn.new_session("cpu", should_stop=lambda: len(measured) == 3)
    with pytest.raises(Interrupted):
        study.evaluate(TASKS, session=session)
    assert len(measured) == 3

    rows = study.evaluate(TASKS).rows
    assert len(measured) == len(set(measured)) == 10
    assert {row["task"] for row in rows} == {"prediction", "misclassification"}


def test_what_a_task_says_of_each_subject_is_told_once(
    own: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base.TASKS, "_items", dict(base.TASKS))

    @add_task("noting", "what is said")
    def noting(bench: Bench, argument: str) -> list[Row]:
        bench.notes.append("what must be known")
        return []

    evaluation = gn.open_study(own.study).evaluate("noting", subjects=["unpruned", "student"])
    assert evaluation.notes == ["what must be known"]


def test_a_stopped_evaluation_says_the_command_that_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(what: object, options: object) -> None:
        raise Interrupted("stopped")

    monkeypatch.setattr(evaluating, "find_place", stop)
    storages = (["--storage", "mysql://u:secret@host/x"], ["--storage=mysql://u:secret@host/x"])
    for storage in storages:
        result = call("evaluate", "my study", "--tasks", "prediction", *storage)
        assert result.code == 130 and "secret" not in result.err
        again = "gped-search evaluate 'my study' --tasks prediction --storage $GPED_STORAGE"
        assert f"go on with: {again}\n" in result.err


def test_nothing_that_may_be_chosen_is_asked_about_test_examples(own: Home) -> None:
    own.run("--n-trials", 8)  # the first four are all on the front
    study = gn.open_study(own.study)
    front = {record.trial for record in study.front_records()}
    complete = [record.trial for record in study.records() if record.state == "complete"]
    # the last of them was on no front, and so never tested
    (*_, other) = [trial for trial in complete if trial not in front]
    refused(
        *(2, "evaluate", own.study, "--tasks", "prediction"),
        *("--trial", other, "--part", "test"),
        says=("--part", f"trial {other} was not tested", "validation"),
    )


def test_the_folder_of_a_student_is_no_way_round_that(
    own: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = gn.open_study(own.study)
    (first, *_) = study.front_records()
    folder = own.study / "students" / str(first.trial)
    asked_for = ("--tasks", "prediction", "--part", "test", "--out", own.out)
    accepted("evaluate", folder, *asked_for)

    monkeypatch.setattr(Ledger, "tests", lambda ledger: {})
    refused(
        *(2, "evaluate", folder, *asked_for),
        says=("--part", f"trial {first.trial} was not tested", "validation"),
    )


def test_nobody_is_asked_where_nobody_is_there(home: Home) -> None:
    asked_for = ("--tasks", "scaling", "--subjects", "unpruned")
    refused(3, "evaluate", home.space, *asked_for, says=("unpruned is left out", "ask others"))


def test_a_space_is_its_teacher_without_any_trial(home: Home) -> None:
    result = accepted("evaluate", home.space, "--tasks", TASKS, "-f", "json")
    rows = json.loads(result.out)
    assert {row["predictor"] for row in rows} == {"teacher", "single_sample"}
    assert {row["part"] for row in rows} == {"validation"}
    assert not home.study.exists()

    few = json.loads(
        accepted("evaluate", home.space, "--tasks", TASKS, "-f", "json", "--limit", 40).out
    )
    assert {row["n"] for row in few} == {40}


def test_a_student_alone_is_asked_beside_its_teacher_and_its_data(own: Home) -> None:
    taken = own.root / "taken"
    accepted("export", own.study, "--into", taken)
    beside = accepted("evaluate", taken, "--tasks", "prediction", "--out", own.out, "-f", "json")
    rows = json.loads(beside.out)
    assert {row["predictor"] for row in rows} == {"teacher", "student"}
    assert "nll_above_teacher" in {row["metric"] for row in rows if row["predictor"] == "student"}

    refused(
        *(2, "evaluate", taken, "--tasks", "prediction", "--out", own.root / "nowhere"),
        says=("--space",),
    )
    other = own.root / "other.yaml"
    text = own.space.read_text()
    other.write_text(text.replace("{name: digits}", "{name: digits, seed: 3}"))
    refused(
        *(2, "evaluate", taken, "--tasks", "prediction", "--space", other),
        says=("another dataset", "inputs normalized by"),
    )


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--tasks", "misclasification"], ("unknown task", "did you mean 'misclassification'")),
        (["--tasks", ","], ("--tasks", "expected some of")),
        (["--tasks", "prediction:all"], ("takes no argument",)),
        (["--tasks", "prediction", "--part", "tests"], ("--part", "did you mean 'test'")),
        (["--tasks", "prediction", "--subjects", "techer"], ("did you mean 'teacher'",)),
        (["--tasks", "prediction", "--limit", "0"], ("--limit", "at least 1")),
        (["--tasks", "prediction", "--space", "digits_mlp"], ("--space", "leave it out")),
        (["--tasks", "prediction", "--set", "seed=3"], ("--set", "leave it out")),
        (["--tasks", "attack:permuted"], ("expected an attack", "shift:permuted")),
        (["--tasks", "attack:apgd-0.3..0.1"], ("the smaller radius first",)),
        (["--tasks", "attack:apgd--0.1"], ("epsilon", "greater than or equal to 0")),
        (["--tasks", "attack:apgdd-0.1"], ("did you mean 'apgd'",)),
        (["--tasks", "ood:nowhere"], ("unknown set 'nowhere'",)),
        (["--tasks", "ood:nowhere.npz"], ("nowhere.npz", "no such file")),
        (["--tasks", "ood:digits"], ("holds itself",)),
        (["--tasks", "ood"], ("expected ood:SET", "write ood:permuted")),
        (["--tasks", "ranking:400"], ("from 1 to 359", "write ranking:20")),
        (["--tasks", "ranking:few"], ("'ranking:few'", "number of places")),
        (["--tasks", "shift"], ("expected shift:CONDITION", "write shift:noise")),
        (["--tasks", "shift:clean"], ("shifts nothing",)),
        (["--tasks", "shift:fgsm-0.1"], ("which is an attack", "write attack:fgsm-0.1")),
        (["--tasks", "shift:permutd"], ("did you mean 'permuted'",)),
        (
            ["--tasks", "prediction", "--metrics", "acuracy"],
            ("--metrics", "did you mean 'accuracy'"),
        ),
        (["--tasks", "prediction", "--metrics", "ood_auroc_total"], ("ood:SET",)),
        (["--tasks", "prediction", "--trial", "best one"], ("TRIAL",)),
    ],
)
def test_what_cannot_be_asked_is_refused(
    finished: Home, args: list[str], says: tuple[str, ...]
) -> None:
    refused(2, "evaluate", finished.study, *args, says=says)


def test_a_table_has_a_column_a_predictor_and_wide_has_intervals(own: Home) -> None:
    args = ("--tasks", "prediction,shift:noise", "--metrics", "accuracy,nll_above_teacher")
    result = accepted("evaluate", own.study, *args, "--subjects", "teacher,student")
    lines = result.out.splitlines()
    name = f"trial {gn.open_study(own.study).find('chosen').trial}"
    assert lines[0] == "prediction, on test, n 359"
    assert lines[1].split() == ["metric", "teacher", *name.split()]
    assert lines[4] == "shift:noise, on test, n 359"
    # what the student alone has stands beside the rest of its condition
    conditions = [line.split()[1] for line in lines[6:18]]
    assert conditions[::2] == [*(f"noise-s{i}" for i in range(1, 6)), "noise"]
    assert conditions[1::2] == conditions[::2]
    assert lines[18:] == ["noise: the mean over severities 1 to 5"]

    rows = asked(own, *args, "--subjects", "teacher,student")
    is_shown = {"task": "prediction", "metric": "accuracy"}
    values = [row["value"] for row in rows if is_shown.items() <= row.items()]
    assert [float(text) for text in lines[2].split()[1:]] == pytest.approx(values, abs=5e-5)

    wide = accepted("evaluate", own.study, *args, "--subjects", "teacher,student", "--wide").out
    assert wide.splitlines()[1].split()[-4:] == ["value", "low", "high", "n"]


def test_a_trial_is_asked_of_studies_alone(home: Home) -> None:
    refused(
        *(2, "evaluate", home.space, "--tasks", "prediction", "--trial", "best"),
        says=("--trial", "a space"),
    )


def test_who_is_not_there_is_told(home: Home) -> None:
    place = ("evaluate", home.space, "--tasks", "prediction", "--limit", "10")
    some = accepted(*place, "--subjects", "teacher,student")
    assert "student is left out: there is none here" in some.err
    refused(
        *(3, *place, "--subjects", "student"),
        says=("student is left out: there is none here", "nothing was measured"),
    )


def test_a_twin_is_looked_for_without_its_student(
    finished: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials: list[int] = []
    monkeypatch.setattr(places, "label_twin_subject", lambda *args: trials.append(args[-1]))
    study = gn.open_study(finished.study)
    study.evaluate("prediction", subjects="label_twin")
    assert trials == [study.find("chosen").trial]


def test_a_twin_of_several_students_is_told(finished: Home) -> None:
    subjects = ("--subjects", "label_twin", "--trial", "front")
    refused(
        *(3, "evaluate", finished.study, "--tasks", "prediction", *subjects),
        says=("label_twin is left out: it is of one student", "nothing was measured"),
    )


def test_a_text_alone_is_one_of_a_kind(own: Home) -> None:
    study = gn.open_study(own.study)
    rows = study.evaluate(
        "prediction", subjects="student", trials="best", metrics="nll", limit=10
    ).rows
    assert [(row["metric"], row["n"]) for row in rows] == [("nll", 10)]
    with pytest.raises(ConfigError, match="limit: found 2.5"):
        study.evaluate("prediction", limit=2.5)


def test_a_damaged_file_of_rows_is_told(own: Home) -> None:
    asked(own, "--tasks", "prediction")
    path = next((own.study / "evaluations").glob("prediction-teacher-*.json"))
    path.write_text(path.read_text().replace('"teacher"', '"taecher"'))
    refused(
        *(4, "evaluate", own.study, "--tasks", "prediction"),
        says=(path.name, "delete it"),
    )
    for text, why in {'{"rows": []}': "no digest", "{": "damaged (not valid JSON"}.items():
        path.write_text(text)
        refused(
            *(4, "evaluate", own.study, "--tasks", "prediction"),
            says=(path.name, why, "delete it"),
        )


def test_some_examples_of_predictions_are_theirs() -> None:
    log_prob = np.log([[0.7, 0.3], [0.2, 0.8], [0.5, 0.5]])
    whole = Predictions(log_prob, {"margin": np.array([1.0, 2.0, 3.0])})
    some = subset(whole, np.array([2, 0]))
    assert isinstance(some, Predictions)
    assert np.array_equal(some.log_prob_NC, log_prob[[2, 0]])
    assert some.expectations["margin"].ravel().tolist() == [3.0, 1.0]
