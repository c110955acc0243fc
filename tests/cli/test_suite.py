"""``gped-search suite``: one command from a grid to its tables; what is measured is kept."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import gped_nas as gn
from gped_nas.api import suite as api_suite
from gped_nas.api import suite_cells
from gped_nas.api.suite_spaces import Spaces
from gped_nas.api.tasks.base import TASKS, Task, parse_tasks
from gped_nas.errors import DivergenceError
from gped_nas.suite.cells import cells_of
from tests.cli.harness import Home, accepted, refused
from tests.report.test_page import Page


def _write(home: Home, **changes: Any) -> Path:
    grid = {
        "name": "small",
        "methods": ["own", "map"],
        "teachers": [{"digits": {"space": "tiny.yaml"}}],
        "tasks": ["prediction", "misclassification"],
        "seeds": 2,
    }
    path = home.root / "grid.yaml"
    path.write_text(yaml.safe_dump({**grid, **changes}))
    return path


def test_a_codec_is_a_method_of_a_grid(home: Home) -> None:
    """It reads the samples of the space's own method, as many draws as there are samples."""
    methods = ["own", {"law": {"name": "low_rank", "rank": 1}}]
    grid = _write(home, methods=methods, tasks=["prediction"], seeds=1, limit=50)
    accepted("suite", grid, "--out", home.out, "--set", "teacher.method.num_samples=4")

    lines = (home.out / "small-suite" / "rows.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    values = {
        row["method"]: row["value"]
        for row in rows
        if (row["subject"], row["metric"]) == ("teacher", "nll")
    }
    assert set(values) == {"own", "law"} and values["own"] != values["law"]


def test_a_grid_without_students_becomes_tables_and_is_measured_once(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = _write(home)
    suite = ("suite", grid, "--out", home.out)
    planned = json.loads(accepted(*suite, "--dry-run", "--format", "json").out)
    assert len(planned) == 8 and not any(cell["is_done"] for cell in planned)
    assert not home.out.exists() and not home.cache.exists()

    result = accepted(*suite, "--format", "json")
    means = json.loads(result.out)
    folder = home.out / "small-suite"
    assert f"report: {folder / 'suite.html'}" in result.err
    assert "cell 8 of 8: digits / map / none / misclassification / seed 1" in result.err

    # every row of every cell, on two forms
    lines = (folder / "rows.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    with (folder / "rows.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["metric"] for row in table] == [row["metric"] for row in rows]
    assert {row["subject"] for row in rows} == {"teacher", "single_sample"}
    assert {row["part"] for row in rows} == {"test"}

    # a number follows from the teacher alone
    for seed in (0, 1):
        teacher = gn.load_teacher(gn.load_space(home.space, {"seed": seed}))
        labels = teacher.dataset.labels("test")
        (row,) = [
            row
            for row in rows
            if (row["metric"], row["subject"]) == ("nll", "teacher")
            and (row["method"], row["seed"]) == ("own", seed)
        ]
        assert row["value"] == pytest.approx(-teacher_score(teacher, labels), abs=1e-9)

    data = json.loads((folder / "suite.json").read_text())
    assert data["problems"] == [] and data["cells"] == 8
    whole = [{"schema_version": 1, **mean, "part": "test"} for mean in data["means"]]
    assert [{**mean, "part": "test"} for mean in means] == whole
    rankings = {(r["metric"], r["fixed"]): r for r in data["rankings"]}
    assert set(rankings["nll", "teacher"]["names"]) == {"own", "map"}
    assert rankings["nll", "teacher"]["blocks"] == 2

    page = Page((folder / "suite.html").read_text())
    assert not page.attributes("src")
    assert r"\begin{tabular}" in (folder / "tables.tex").read_text()

    # nothing is measured again, and a cell that another grid shares is not either
    monkeypatch.setattr(suite_cells, "evaluate_tasks", _never)
    before = (folder / "rows.jsonl").read_bytes()
    accepted(*suite)
    assert (folder / "rows.jsonl").read_bytes() == before
    _write(home, name="smaller", methods=["map"], seeds=[1])
    accepted(*suite)
    assert len((home.out / "smaller-suite" / "rows.jsonl").read_text().splitlines()) < len(rows)
    planned = json.loads(accepted(*suite, "--dry-run", "--format", "json").out)
    assert [cell["is_done"] for cell in planned] == [True, True]
    changed = (*suite, "--dry-run", "--format", "json", "--set", "teacher.prior.precision=2.0")
    assert [cell["is_done"] for cell in json.loads(accepted(*changed).out)] == [False, False]


def teacher_score(teacher: Any, labels: Any) -> float:
    """The mean log-probability of the labels, from the samples' predictions alone."""
    prob = teacher.predicted("test").double().exp().mean(dim=0)
    return float(prob[range(len(labels)), labels].log().mean())


def _never(*arguments: object, **options: object) -> None:
    raise AssertionError("measured again")


def test_students_are_distilled_or_searched_and_share_one_teacher(home: Home) -> None:
    tiny = {"tiny": {"family": "mlp", "genotype": {"depth": 1, "width": 16}}}
    students = ["front", "best", tiny]
    result = gn.run_suite(
        {
            "name": "students",
            "teachers": [{"digits": {"space": str(home.space)}}],
            "students": students,
            "metrics": ["nll", "entropy_error", "crps"],
        },
        overrides={"recipe.steps": 100, "search.n_trials": 2},
        out=home.out,
    )
    subjects = {mean["subject"] for mean in result.data["means"]}
    assert {"teacher", "chosen student", "best student", "tiny student"} <= subjects
    assert {mean["metric"] for mean in result.data["means"]} == {"nll", "entropy_error"}
    assert "metric 'crps' is of no row" in result.data["notes"]
    assert len(list((home.cache / "streams").iterdir())) == 1

    (study,) = (home.out / "suite" / "studies").iterdir()
    chosen = gn.open_study(study).chosen()
    assert chosen is not None
    frame = result.frame()
    rows = frame[(frame.subject == "chosen student") & (frame.metric == "nll")]
    assert list(rows.predictor) == [f"trial {chosen.trial}"]
    assert rows.value.item() == pytest.approx(
        gn.open_study(study).find(chosen.trial).value("test_nll")
    )


def test_a_metric_is_left_to_the_task_that_measures_it(home: Home) -> None:
    wanted = ["nll", "ndcg20_expected", "classwise_ece", "misclassification_auroc_total"]

    def asked_of(*tasks: str) -> dict[str, tuple[str, ...]]:
        grid = api_suite.read_grid(
            {"name": "g", "teachers": ["digits_mlp"], "tasks": tasks, "metrics": wanted}
        )
        spaces = Spaces(grid, gn.new_session("cpu"))
        return {asked.text: spaces.metrics(asked) for asked in parse_tasks(tasks)}

    assert asked_of("prediction", "misclassification") == {
        "prediction": ("nll", "ndcg20_expected", "classwise_ece"),
        "misclassification": (),
    }
    assert asked_of("prediction", "ranking")["prediction"] == (
        *("nll", "classwise_ece"),
        "misclassification_auroc_total",
    )


def test_a_map_network_follows_from_the_baseline_and_a_teacher_does_not(home: Home) -> None:
    def digest(subjects: list[str], **overrides: Any) -> str:
        grid = {"name": "g", "teachers": [str(home.space)], "subjects": subjects}
        read = api_suite.read_grid(grid, overrides)
        (cell,) = cells_of(read)
        return Spaces(read, gn.new_session("cpu")).digest(cell)

    both, more_steps = ["teacher", "map"], {"baseline.steps": 500}
    assert digest(both) != digest(both, **more_steps)
    assert digest(["teacher"]) == digest(["teacher"], **more_steps)
    for_search_alone = {"latency.runtime": "torch", "search.n_trials": 9}
    assert digest(both) == digest(both, **for_search_alone)


def test_a_cell_that_cannot_be_measured_is_told_and_the_others_are_there(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = suite_cells.evaluate_tasks

    def fail(what: Any, task: str, **options: Any) -> Any:
        if task == "misclassification":
            raise DivergenceError("it left the finite numbers")
        return evaluate(what, task, **options)

    grid = _write(home, methods=["own"], seeds=1)
    suite = ("suite", grid, "--out", home.out)
    monkeypatch.setattr(suite_cells, "evaluate_tasks", fail)
    says = ("1 of 2 cells could not be measured", "own / none / misclassification", "finite")
    refused(3, *suite, says=says)
    data = json.loads((home.out / "small-suite" / "suite.json").read_text())
    assert [problem["task"] for problem in data["problems"]] == ["misclassification"]
    assert {mean["task"] for mean in data["means"]} == {"prediction"}
    assert "finite numbers" in (home.out / "small-suite" / "suite.html").read_text()

    monkeypatch.setattr(suite_cells, "evaluate_tasks", evaluate)
    accepted(*suite)
    data = json.loads((home.out / "small-suite" / "suite.json").read_text())
    assert data["problems"] == []


def test_what_cannot_be_is_refused_before_any_work(home: Home) -> None:
    refused(2, "suite", "ursabnch", says=("did you mean 'ursabench'",))
    refused(2, "suite", "no.yaml", says=("no such file; expected a YAML grid",))
    misspelled = _write(home, set={"teacher.prior.precison": 2.0})
    refused(2, "suite", misspelled, says=("grid.yaml: teacher 'digits'", "'precision'"))
    refused(2, "suite", _write(home, tasks=["predicton"]), says=("tasks[0]", "'prediction'"))
    refused(2, "suite", _write(home, tasks=["prediction:x"]), says=("takes no argument",))
    grid = _write(home, methods=[{"hot": {"name": "sgld", "temprature": 2.0}}])
    refused(2, "suite", grid, "--out", home.out, says=("method 'hot'", "'temperature'"))
    refused(2, "suite", _write(home, tasks=["shift:nosuch"]), says=("tasks", "'nosuch'"))
    shifted = _write(home, tasks=["shift:blur-3"], teachers=["diabetes_mlp"])
    refused(2, "suite", shifted, says=("teacher 'diabetes_mlp'", "blur"))
    refused(2, "suite", _write(home, subjects=["teachr"]), says=("subjects", "'teacher'"))
    refused(2, "suite", _write(home, metrics=["nlll"]), says=("metrics", "did you mean 'nll'?"))
    grid = _write(home, tasks=["conformal"], metrics=["split_coverag", "splt_coverage"])
    refused(2, "suite", grid, says=("unknown metric 'splt_coverage'",))
    grid = _write(home, teachers=["diabetes_mlp"])
    refused(2, "suite", grid, "--out", home.out, says=("misclassification", "classification, but"))
    assert not home.out.exists() and not home.cache.exists()


def test_the_shipped_grids_are_listed_and_can_be_planned(home: Home) -> None:
    listed = json.loads(accepted("suite", "--format", "json").out)
    assert {row["grid"] for row in listed} >= {"gped_paper", "ursabench"}
    for row in listed:
        assert api_suite.read_grid(row["grid"]).num_cells > 1


def test_a_metric_of_a_task_that_is_not_registered_may_be_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ["split_set_size", "nll_change", "latency_p95_ms", "nll_of_4", "ndcg5_total", "nll"]
    tasks = ["conformal", "temperature", "latency", "scaling", "ranking:5"]
    grid = {"name": "g", "teachers": ["digits_mlp"], "tasks": tasks, "metrics": names}
    assert api_suite.read_grid(grid).metrics == tuple(names)

    # nobody knows what a plug-in's task measures
    guessing = Task("guessing", "how well one guesses", lambda bench, argument: [])
    monkeypatch.setitem(TASKS._items, "guessing", guessing)
    read = api_suite.read_grid({**grid, "tasks": ["guessing"], "metrics": ["top2"]})
    assert read.metrics == ("top2",)
