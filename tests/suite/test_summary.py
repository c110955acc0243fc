"""Means over seeds and rankings of rows, against hand calculations."""

import math
from typing import Any

import pytest
from scipy import stats

from gped_nas.suite.cells import Cell, Outcome, Planned
from gped_nas.suite.grid import MethodEntry, StudentEntry, TeacherEntry
from gped_nas.suite.summary import direction_of, rank_all, rows_of, summarize


def _row(value: float | None, half: float | None = 0.1, **names: Any) -> dict[str, Any]:
    interval = (None, None) if half is None or value is None else (value - half, value + half)
    return {
        **{"task": "prediction", "teacher": "t", "method": "m", "student": "none", "seed": 0},
        **{"subject": "teacher", "metric": "nll", "condition": "clean", "part": "test", "n": 401},
        "detail": "",
        **{"value": value, "low": interval[0], "high": interval[1]},
        **names,
    }


def test_a_mean_over_seeds_has_both_variances() -> None:
    """Values 1.1, 1.2, 1.6: mean 1.3, variance .07, of their mean .07 / 3.

    The half-width .0196 over examples is a standard error of .01, which three seeds do not lower.
    """
    rows = [_row(value, half=0.0196, seed=seed) for seed, value in enumerate((1.1, 1.2, 1.6))]
    (mean,) = summarize(rows)
    assert (mean["value"], mean["n"], mean["seeds"]) == (pytest.approx(1.3), 401, 3)

    of_seeds, of_examples = 0.07 / 3, 0.01**2
    total = of_seeds + of_examples
    degrees = int(total**2 / (of_seeds**2 / 2 + of_examples**2 / 400))
    assert degrees == 2
    half = stats.t.ppf(0.975, degrees) * math.sqrt(total)
    assert mean["high"] - mean["value"] == pytest.approx(half, rel=1e-4)
    assert mean["value"] - mean["low"] == pytest.approx(half, rel=1e-4)


def test_where_examples_are_all_that_varies_the_interval_is_theirs() -> None:
    rows = [_row(0.5, half=0.1, seed=seed) for seed in range(3)]
    (mean,) = summarize(rows)
    assert mean["high"] - 0.5 == pytest.approx(0.1 * stats.t.ppf(0.975, 400) / 1.959964, rel=1e-3)


def test_an_interval_holds_no_value_that_the_metric_cannot_have() -> None:
    rows = [_row(value, metric="accuracy", seed=seed) for seed, value in enumerate((0.7, 0.99))]
    (mean,) = summarize(rows)
    assert (mean["low"], mean["high"]) == (0, 1)
    (mean,) = summarize([_row(value, seed=seed) for seed, value in enumerate((0.1, 0.9))])
    assert mean["low"] == 0 and mean["high"] > 5


def test_what_is_not_known_is_said() -> None:
    (over_seeds,) = summarize([_row(0.1, half=None), _row(0.3, seed=1)])
    assert over_seeds["low"] is not None and "seeds alone" in over_seeds["why"]
    (alone,) = summarize([_row(0.1, half=None, why="no interval was made")])
    assert (alone["low"], alone["seeds"], alone["why"]) == (None, 1, "no interval was made")
    (infinite,) = summarize([_row(0.1), _row(None, seed=1, why="it is infinite")])
    assert (infinite["value"], infinite["why"]) == (None, "it is infinite")
    (same,) = summarize([_row(0.1, half=None), _row(0.1, half=None, seed=1)])
    assert same["low"] is None and "the same" in same["why"]


def test_one_predictor_that_two_cells_measured_counts_once() -> None:
    rows = [_row(0.1, student="none"), _row(0.1, student="own"), _row(0.3, seed=1)]
    (mean,) = summarize(rows)
    assert (mean["value"], mean["seeds"]) == (pytest.approx(0.2), 2)


def _outcome(student: str, *rows: dict[str, Any]) -> Outcome:
    teacher = TeacherEntry("t", "t.yaml")
    cell = Cell(teacher, 0, MethodEntry("m"), StudentEntry(student), "prediction")
    measured = {"metric": "nll", "condition": "clean", "part": "test", "value": 0.1, "n": 9}
    kept = [{**measured, "low": None, "high": None, **row} for row in rows]
    return Outcome(Planned(cell, "0"), {"rows": kept})


def test_rows_of_one_metric_are_told_apart_by_what_they_say_beside_it() -> None:
    student = {"predictor": "trial 3", "role": "chosen"}
    outcome = _outcome(
        "chosen",
        {"predictor": "teacher", "samples": 1, "value": 0.3, "note": "few"},
        {"predictor": "teacher", "samples": 4, "value": 0.2},
        {"predictor": "teacher", "metric": "ece", "samples": 4},
        {**student, "inputs_of": "teacher"},
        {**student, "inputs_of": "trial 3"},
    )
    rows = rows_of([outcome])
    assert [row["detail"] for row in rows] == [
        "samples 1",
        "samples 4",
        "",
        "inputs_of teacher",
        "inputs_of chosen student",
    ]
    means = [mean for mean in summarize(rows) if mean["subject"] == "teacher"]
    assert [mean["value"] for mean in means] == [0.3, 0.2, 0.1]


def test_students_are_called_as_in_the_grid_and_single_trials_are_no_mean() -> None:
    rows = rows_of(
        [
            _outcome("none", {"predictor": "teacher"}),
            _outcome("own", {"predictor": "student"}),
            _outcome("front", {"predictor": "trial 3", "role": "chosen"}, {"predictor": "trial 4"}),
        ]
    )
    subjects = [row["subject"] for row in rows]
    assert subjects == ["teacher", "own student", "chosen student", "front trial 4"]
    named = [_row(0.5, subject="my trial 3 student"), _row(0.4, subject="front trial 3")]
    assert [mean["subject"] for mean in summarize(named)] == ["my trial 3 student"]
    assert [row["subject"] for row in summarize(rows)] == subjects[:3]


def test_methods_are_ranked_within_a_subject_over_teachers_and_seeds() -> None:
    rows = []
    for teacher in ("t", "u"):
        for seed in (0, 1):
            for place, method in enumerate(("swag", "sgld", "map")):
                names = {"teacher": teacher, "seed": seed, "method": method}
                rows.append(_row(0.1 * place, **names))
                rows.append(_row(0.9 - 0.1 * place, metric="accuracy", **names))
    rows.append(_row(0.0, metric="nobody_knows_me"))
    by_metric = {ranking["metric"]: ranking for ranking in rank_all(rows)}
    assert set(by_metric) == {"nll", "accuracy"}
    for ranking in by_metric.values():
        assert ranking["names"] == ["swag", "sgld", "map"]
        assert ranking["mean_ranks"] == [1, 2, 3]
        assert (ranking["compared"], ranking["fixed"]) == ("method", "teacher")
        assert (ranking["blocks"], ranking["left_out"]) == (4, 0)
        # all four in one order: 6 of 6^4
        assert ranking["p_value"] == pytest.approx(1 / 216)
        assert ranking["critical_distance"] == pytest.approx(2.343 * 0.5**0.5, abs=1e-3)
        assert ranking["groups"] == [["swag", "sgld"], ["sgld", "map"]]


def test_a_block_without_one_of_the_values_is_left_out_and_counted() -> None:
    rows = [_row(0.1 + seed, seed=seed, subject=s) for seed in (0, 1, 2) for s in ("a", "b")]
    rows[0]["value"] = None
    (ranking,) = rank_all(rows)
    assert (ranking["compared"], ranking["fixed"]) == ("subject", "m")
    assert (ranking["blocks"], ranking["left_out"]) == (2, 1)
    assert rank_all([_row(0.1)]) == []


def test_a_metric_that_only_a_task_makes_has_the_direction_of_its_relative() -> None:
    assert direction_of("accuracy") == direction_of("ndcg5_expected") == "maximize"
    assert direction_of("true_cost") == direction_of("true_cost_sum") == "minimize"
    assert direction_of("nobody_knows_me") == direction_of("nll5") == ""
