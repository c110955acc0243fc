"""What a sampler is told of another study: values carried over, and no trial more or less."""

from pathlib import Path
from typing import Any

import pytest

from gped_nas.errors import ConfigError, StudyError
from gped_nas.search.document import Box, Description, StudyDocument
from gped_nas.search.earlier import (
    EARLIER,
    Earlier,
    EarlierStudent,
    as_trials,
    carry_over,
    check_same_search,
    check_sampler,
)
from gped_nas.search.goals import Objective
from gped_nas.search.ledger import Ledger
from gped_nas.search.objectives import objective
from gped_nas.search.region import Region
from tests.search.fakes import IDENTITY, make_record, make_space, open_store, optuna_study, run

GOALS = (objective("nll", "here"), objective("macs", "here"))
WIDE = {"depth": 1, "width": {"int": [1, 100]}}


def _document(know_nothing: float, teacher: float, macs: tuple[int, int]) -> StudyDocument:
    region = Region(know_nothing={"nll": know_nothing}, teacher={"nll": teacher})
    box = Box(best=(0.0, macs[0]), worst=(3.0, macs[1]))
    return StudyDocument(
        identity=IDENTITY, objectives=GOALS, description=Description(box=box), region=region
    )


def _record(trial: int, nll: float, macs: int) -> Any:
    space = make_space(WIDE)
    params = {"depth": 1, "width": 1 + trial % 100}
    claim = type("Claim", (), {"number": trial, "genotype": space.genotype_of(params)})
    record = make_record(claim, metrics={"nll": nll, "accuracy": 0.5})
    return record.replace(costs={"macs": macs, "flops": 2 * macs})


def test_a_value_keeps_its_share_of_skill_and_a_cost_its_place() -> None:
    source, target = _document(2.0, 0.0, (10, 1000)), _document(1.0, 0.2, (100, 10_000))
    records = [_record(3, nll=0.5, macs=100)]
    (student,) = carry_over(records, {3: {"width": 4}}, source=source, target=target)

    # skill (2 - .5) / (2 - 0) = .75; 1 - .75 * (1 - .2) = .4
    assert student.metrics["nll"] == pytest.approx(0.4)
    assert student.metrics["accuracy"] == 0.5, "nothing is known of it"
    # half-way between 10 and 1,000 as logarithms, so half-way between 100 and 10,000
    assert student.costs["macs"] == pytest.approx(1000)
    assert student.costs["flops"] == pytest.approx(2000), "ten times as much, like macs"
    assert student.params == {"width": 4} and student.record.trial == -4


def test_where_nothing_is_known_values_stay_what_they_are() -> None:
    plain = StudyDocument(identity=IDENTITY, objectives=GOALS)
    records = [_record(0, nll=0.5, macs=100)]
    (student,) = carry_over(records, {0: {}}, source=plain, target=_document(1.0, 0.2, (1, 9)))
    assert (student.metrics["nll"], student.costs["macs"]) == (0.5, 100)


def test_complete_students_alone_are_taken_an_even_share_of_many() -> None:
    document = _document(2.0, 0.0, (10, 1000))
    records = [_record(i, nll=0.5, macs=100) for i in range(1000)]
    records[2] = records[2].replace(state="failed")
    params: dict[int, dict[str, Any]] = {i: {} for i in range(1000)}
    students = carry_over(records, params, source=document, target=document)
    trials = [student.trial for student in students]
    assert len(trials) == 500 and 2 not in trials
    assert trials == sorted(set(trials)) and trials[-1] >= 996


def _earlier(widths: range) -> Earlier:
    """Students of another study, best at a width of 80."""
    students = []
    for i, width in enumerate(widths):
        genotype = make_space(WIDE).genotype_of({"depth": 1, "width": width})
        students.append(
            EarlierStudent(
                trial=i,
                params={"width": width},
                genotype=genotype.to_json(),
                metrics={"nll": 0.1 + abs(width - 80) / 50},
                costs={"params": 100},
            )
        )
    return Earlier(study="other", stream="d", students=tuple(students))


def _widths(ledger: Ledger) -> list[int]:
    return [record.genotype["width"][0] for record in ledger.records()]


@pytest.mark.parametrize("suffix", ["db", "memory"])
def test_a_sampler_that_is_told_begins_where_others_were_good(tmp_path: Path, suffix: str) -> None:
    space = make_space(WIDE, sampler="tpe", students_at_once=4)
    told, untold = (open_store(space, tmp_path / f"{name}.{suffix}") for name in "ab")
    told.begin_with(_earlier(range(2, 100, 7)))
    run(space, told, n_trials=8)
    run(space, untold, n_trials=8)

    distances = [sum(abs(w - 80) for w in _widths(each)) / 8 for each in (told, untold)]
    assert distances[0] < 20 < distances[1]

    # they are no trials, and nothing but the study's own ones was written
    assert [record.trial for record in told.records()] == list(range(8))
    assert all(record.state == "complete" for record in told.records())
    assert len(optuna_study(tmp_path / f"a.{suffix}").get_trials()) == 8


def test_what_is_drawn_follows_from_the_study_alone(tmp_path: Path) -> None:
    space = make_space(WIDE, sampler="tpe", students_at_once=4)
    whole, stopped = (open_store(space, tmp_path / f"{name}.db") for name in ("a", "b"))
    for ledger in (whole, stopped):
        ledger.begin_with(_earlier(range(2, 100, 7)))
    run(space, whole, n_trials=8)
    run(space, stopped, n_trials=4)
    again = open_store(space, tmp_path / "b.db")
    run(space, again, n_trials=8)
    assert _widths(again) == _widths(whole)


def test_the_students_have_numbers_of_no_trial() -> None:
    trials = as_trials(make_space(WIDE), _earlier(range(10, 13)))
    assert [trial.number for trial in trials] == [-3, -2, -1]
    assert len({trial._trial_id for trial in trials}) == 3
    assert [trial.params["width"] for trial in trials] == [10, 11, 12]
    assert as_trials(make_space(WIDE), None) == []


def test_what_was_changed_by_others_is_refused(tmp_path: Path) -> None:
    ledger = open_store(make_space(WIDE), tmp_path / "study.db")
    ledger.begin_with(_earlier(range(10, 13)))
    study = optuna_study(tmp_path / "study.db")
    stored = study.user_attrs[EARLIER]
    stored["students"][0]["metrics"]["nll"] = 0.0
    study.set_user_attr(EARLIER, stored)
    again = open_store(make_space(WIDE), tmp_path / "study.db")
    with pytest.raises(StudyError, match="gped:earlier: its digest does not fit"):
        _ = again.earlier


def test_another_search_is_refused() -> None:
    document = StudyDocument(identity={"students": "1", "objectives": "2"}, objectives=GOALS)
    same = {"students": "1", "objectives": "2", "recipe": "9"}
    check_same_search(same, GOALS, document, "other")
    with pytest.raises(ConfigError, match="'other' has other students than this space"):
        check_same_search({**same, "students": "8"}, GOALS, document, "other")

    goals: tuple[Objective, ...] = (GOALS[0], objective("params", "here"))
    with pytest.raises(ConfigError, match="the objectives nll, macs, expected nll, params"):
        check_same_search(same, goals, document, "other")


def test_a_sampler_that_does_not_learn_is_refused() -> None:
    check_sampler("tpe")
    with pytest.raises(ConfigError, match="'random' does not learn .*one of: tpe"):
        check_sampler("random")
