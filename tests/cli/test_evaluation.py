"""``gped-search evaluate``: who is asked, on which part, what is kept, what is refused."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score, roc_auc_score
from torch import Tensor

import gped_nas as gn
from gped_nas.api import evaluating
from gped_nas.api.tasks.attack import radii
from gped_nas.config import Config
from gped_nas.errors import Interrupted
from gped_nas.evaluate.conditions import CONDITIONS, add_condition
from gped_nas.evaluate.predictions import Predictions, subset
from tests.cli.harness import Home, accepted, refused

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


def test_nothing_that_may_be_chosen_is_asked_about_test_examples(own: Home) -> None:
    study = gn.open_study(own.study)
    front = {record.trial for record in study.front_records()}
    (other, *_) = [r.trial for r in study.records() if r.trial not in front]
    refused(
        *(2, "evaluate", own.study, "--tasks", "prediction"),
        *("--trial", other, "--part", "test"),
        says=("--part", f"trial {other} was not tested", "validation"),
    )


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
        (["--tasks", "ood:digits"], ("holds itself",)),
        (["--tasks", "ranking:400"], ("from 1 to 359",)),
        (["--tasks", "ranking:few"], ("'ranking:few'", "number of places")),
        (["--tasks", "shift"], ("expected shift:CONDITION",)),
        (["--tasks", "shift:clean"], ("shifts nothing",)),
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


def test_inputs_that_a_condition_made_are_saved_and_give_the_rows(own: Home) -> None:
    path = own.root / "inputs.npz"
    rows = asked(
        own,
        *("--tasks", "shift:permuted", "--metrics", "accuracy", "--subjects", "teacher,student"),
        *("--limit", 60, "--save-inputs", path),
    )
    study = gn.open_study(own.study)
    name = rows[-1]["predictor"]
    with np.load(path) as saved:
        assert set(saved) == {"x", "y", "index", "teacher@permuted", f"{name}@permuted"}
        made, labels, index = saved[f"{name}@permuted"], saved["y"], saved["index"]
    dataset = gn.load_dataset(gn.load_space(own.space))
    assert np.array_equal(labels, dataset.labels("test")[index])
    assert np.array_equal(
        np.sort(made.reshape(60, -1)), np.sort(dataset.raw("test")[index].flatten(1))
    )

    answer = study.load_student().predict(made)["predictive"].argmax(1).numpy()
    assert [row["metric"] for row in rows] == ["accuracy", "accuracy"]
    assert rows[-1]["value"] == pytest.approx((answer == labels).mean())
    assert rows[-1]["condition"] == "permuted" and rows[-1]["n"] == 60

    refused(
        *(5, "evaluate", own.study, "--tasks", "prediction"),
        *("--save-inputs", own.root / "no folder" / "x.npz"),
        says=("--save-inputs", "no folder"),
    )


def test_severities_are_rows_and_their_mean(own: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CONDITIONS, "_items", dict(CONDITIONS))

    class Settings(Config):
        severity: int = 1

    @add_condition("fading", "less contrast", settings=Settings, main="severity")
    def fading(raw: Tensor, *, settings: Settings) -> Tensor:
        return raw * (1 - settings.severity / 6)

    rows = asked(own, "--tasks", "shift:fading", "--subjects", "student", "--metrics", "nll,ece")
    conditions = [f"fading-s{i}" for i in range(1, 6)]
    by_metric = {name: [row for row in rows if row["metric"] == name] for name in ("nll", "ece")}
    for of_metric in by_metric.values():
        assert [row["condition"] for row in of_metric] == [*conditions, "fading"]
        *each, mean = of_metric
        assert mean["value"] == pytest.approx(np.mean([row["value"] for row in each]))
    assert by_metric["nll"][-1]["low"] < by_metric["nll"][-1]["value"]
    assert by_metric["ece"][-1]["low"] is None and by_metric["ece"][-1]["why"]


def test_attacked_inputs_are_within_the_radius_and_give_the_rows(own: Home) -> None:
    path = own.root / "attacked.npz"
    rows = asked(
        own,
        *("--tasks", "attack:pgd-0.02..0.1", "--subjects", "student", "--metrics", "accuracy"),
        *("--limit", 40, "--save-inputs", path),
    )
    student = gn.open_study(own.study).load_student()
    assert [row["epsilon"] for row in rows] == [0.02, 0.05, 0.1]
    assert rows[-1]["radius"] == "epsilon 0.1 (of 0..16: 1.6)"
    with np.load(path) as saved:
        for row in rows:
            made = saved[f"{row['predictor']}@{row['condition']}"]
            assert np.abs(made - saved["x"]).max() <= 16 * row["epsilon"] + 1e-4
            assert made.min() >= 0 and made.max() <= 16
            answer = student.predict(made)["predictive"].argmax(1).numpy()
            assert row["value"] == pytest.approx((answer == saved["y"]).mean())
    values = [row["value"] for row in rows]
    assert values == sorted(values, reverse=True) and values[0] > values[-1]


def test_everybody_is_asked_at_the_inputs_of_each(own: Home) -> None:
    args = ("--subjects", "map,student", "--metrics", "accuracy", "--limit", 40)
    matrix = asked(own, "--tasks", "transfer:fgsm-0.1", *args)
    alone = asked(own, "--tasks", "attack:fgsm-0.1", *args)
    names = [row["predictor"] for row in alone]
    assert [(row["inputs_of"], row["predictor"]) for row in matrix] == [
        (source, victim) for source in names for victim in names
    ]
    own_inputs = [row["value"] for row in matrix if row["inputs_of"] == row["predictor"]]
    assert own_inputs == [row["value"] for row in alone]
    assert all("it overstates robustness" in row["note"] for row in alone)
    assert matrix[1]["condition"] == "fgsm-0.1 of map"


def test_inputs_from_outside_are_told_apart_as_scikit_learn_says(own: Home) -> None:
    path = own.root / "outside.npz"
    rows = asked(
        own,
        *("--tasks", "ood:rotated,ood:fgsm-0.1", "--subjects", "student", "--limit", 50),
        *("--save-inputs", path),
    )
    student = gn.open_study(own.study).load_student()
    with np.load(path) as saved:
        x, outside = (
            saved["x"],
            {name: saved[f"{rows[0]['predictor']}@{name}"] for name in ("rotated", "fgsm-0.1")},
        )
    for name, made in outside.items():
        prob = np.concatenate(
            [student.predict(x)["predictive"], student.predict(made)["predictive"]]
        )
        entropy = -(prob * np.log(prob)).sum(1)
        is_outside = np.repeat([0, 1], 50)
        (row,) = [r for r in rows if r["metric"] == "ood_auroc_total" and r["condition"] == name]
        assert row["value"] == pytest.approx(roc_auc_score(is_outside, entropy), abs=1e-6)
        assert row["n"] == 100
        assert sum(row["curve"]["inside"]) == sum(row["curve"]["outside"]) == 50
        below = np.searchsorted(np.sort(entropy[50:]), row["curve"]["edges"][10], side="left")
        assert sum(row["curve"]["outside"][:10]) == pytest.approx(below, abs=1)

    assert {r["condition"] for r in rows} == {"rotated", "fgsm-0.1"}


def test_examples_are_ranked_as_scikit_learn_says(own: Home) -> None:
    rows = asked(
        own, "--tasks", "ranking:7", "--subjects", "teacher,student", "--part", "validation"
    )
    study = gn.open_study(own.study)
    space = gn.load_space(own.space)
    teacher = gn.build_teacher(space, gn.new_session("cpu")).averaged("validation")
    said = study.load_student().predict(gn.load_dataset(space).raw("validation"))

    expected = ndcg_score(
        teacher.expectations["expected_entropy"].T, said["expected_entropy"].numpy().T, k=7
    )
    by_metric = {row["metric"]: row for row in rows}
    assert by_metric["ndcg7_expected"]["value"] == pytest.approx(expected, abs=1e-5)
    assert {row["predictor"] for row in rows} == {f"trial {study.find('chosen').trial}"}


def test_who_rejects_what_it_is_unsure_of_has_a_curve(own: Home) -> None:
    rows = asked(own, "--tasks", "selective", "--subjects", "student", "--limit", 200)
    by_metric = {row["metric"]: row for row in rows}
    curve = by_metric["aurc_confidence"]["curve"]
    assert curve["coverage"][-1] == 1 and len(curve["risk"]) <= 101
    accuracy = asked(
        own,
        "--tasks",
        "prediction",
        "--subjects",
        "student",
        "--limit",
        200,
        "--metrics",
        "accuracy",
    )[0]["value"]
    assert curve["risk"][-1] == pytest.approx(1 - accuracy)
    at_half = curve["risk"][int(np.searchsorted(curve["coverage"], 0.5))]
    assert by_metric["accuracy_rejecting50_confidence"]["value"] == pytest.approx(
        1 - at_half, abs=0.02
    )


def test_of_many_samples_twenty_are_attacked_and_it_is_said(home: Home) -> None:
    path = home.root / "attacked.npz"
    args = ("--set", "teacher.method.num_samples=22", "--limit", 30, "--subjects", "teacher")
    rows = json.loads(
        accepted(
            *("evaluate", home.space, "--tasks", "attack:fgsm-0.05", "--metrics", "nll", *args),
            *("--save-inputs", path, "-f", "json"),
        ).out
    )
    assert rows[0]["note"].startswith("20 of 22 posterior samples, evenly spaced")

    space = gn.load_space(home.space, {"teacher.method.num_samples": 22})
    stream = gn.build_teacher(space, gn.new_session("cpu")).stream
    with np.load(path) as saved:
        x = gn.load_dataset(space).normalization(torch.from_numpy(saved["teacher@fgsm-0.05"]))
        labels = torch.from_numpy(saved["y"])
    places = [(2 * i + 1) * 22 // 40 for i in range(20)]
    prob = [space.family.forward(stream.params(i), x).softmax(-1) for i in places]
    nll = -torch.stack(prob).mean(0).log().gather(1, labels[:, None]).mean()
    assert rows[0]["value"] == pytest.approx(float(nll), rel=1e-4)


def test_a_curve_is_its_ends_and_one_two_five_between() -> None:
    assert radii(0.01, 0.3) == [0.01, 0.02, 0.05, 0.1, 0.2, 0.3]
    assert radii(0.03, 0.04) == [0.03, 0.04]


def test_a_table_has_a_column_a_predictor_and_wide_has_intervals(own: Home) -> None:
    args = ("--tasks", "prediction,shift:noise", "--metrics", "accuracy")
    result = accepted("evaluate", own.study, *args, "--subjects", "teacher,student")
    lines = result.out.splitlines()
    name = f"trial {gn.open_study(own.study).find('chosen').trial}"
    assert lines[0] == "prediction, on test, n 359"
    assert lines[1].split() == ["metric", "teacher", *name.split()]
    assert lines[3] == "shift:noise, on test, n 359"
    assert [line.split()[1] for line in lines[5:11]] == [
        *(f"noise-s{i}" for i in range(1, 6)),
        "noise",
    ]
    assert lines[11:] == ["noise: the mean over severities 1 to 5"]

    rows = asked(own, *args, "--subjects", "teacher,student")
    values = [row["value"] for row in rows if row["task"] == "prediction"]
    assert [float(text) for text in lines[2].split()[1:]] == pytest.approx(values, abs=5e-5)

    wide = accepted("evaluate", own.study, *args, "--subjects", "teacher,student", "--wide").out
    assert wide.splitlines()[1].split()[-4:] == ["value", "low", "high", "n"]


def test_a_trial_is_asked_of_studies_alone(home: Home) -> None:
    refused(
        *(2, "evaluate", home.space, "--tasks", "prediction", "--trial", "best"),
        says=("--trial", "a space"),
    )


def test_a_damaged_file_of_rows_is_told(own: Home) -> None:
    asked(own, "--tasks", "prediction")
    path = next((own.study / "evaluations").glob("prediction-teacher-*.json"))
    path.write_text(path.read_text().replace('"teacher"', '"taecher"'))
    refused(
        *(4, "evaluate", own.study, "--tasks", "prediction"),
        says=(path.name, "delete it"),
    )


def test_some_examples_of_predictions_are_theirs() -> None:
    log_prob = np.log([[0.7, 0.3], [0.2, 0.8], [0.5, 0.5]])
    whole = Predictions(log_prob, {"margin": np.array([1.0, 2.0, 3.0])})
    some = subset(whole, np.array([2, 0]))
    assert isinstance(some, Predictions)
    assert np.array_equal(some.log_prob_NC, log_prob[[2, 0]])
    assert some.expectations["margin"].ravel().tolist() == [3.0, 1.0]
