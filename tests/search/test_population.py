"""A population is asked for, written and told at once, and is what it was one by one."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import get_storage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event
from sqlalchemy.engine import Engine

from gped_nas.search.answers import Answer
from gped_nas.search.creation import create_trials
from gped_nas.search.database import open_storage, sqlite_url
from gped_nas.search.drawing import make_sampler, sampler_seed
from gped_nas.search.ledger import Ledger
from tests.search.fakes import make_record, make_space, open_store, run
from tests.search.test_reconnect import LOSSES, Server, server  # noqa: F401

WIDE = {"depth": {"int": [1, 3]}, "width": {"int": [1, 50]}, "group_penalty": {"float": [0.0, 1.0]}}


@pytest.fixture
def seen() -> Iterator[Counter[str]]:
    """Statements and commits of every database."""
    counts: Counter[str] = Counter()

    def statement(*arguments: Any) -> None:
        counts["statements"] += 1

    def commit(*arguments: Any) -> None:
        counts["commits"] += 1

    event.listen(Engine, "before_cursor_execute", statement)
    event.listen(Engine, "commit", commit)
    yield counts
    event.remove(Engine, "before_cursor_execute", statement)
    event.remove(Engine, "commit", commit)


def test_a_population_is_read_and_written_once(tmp_path: Path, seen: Counter[str]) -> None:
    """As many statements for 96 trials as for 12, and one commit that writes."""
    space = make_space(WIDE)
    spent = []
    for num in (12, 96):
        ledger = open_store(space, tmp_path / f"{num}.db")
        run(space, ledger, n_trials=8)
        before = Counter(seen)
        claims = ledger.claim(space, num, space.seed)
        assert len(claims) == num
        spent.append(seen - before)
    assert spent[0] == spent[1]
    assert spent[0]["statements"] < 30


def test_a_population_is_told_in_one_commit(tmp_path: Path, seen: Counter[str]) -> None:
    space = make_space(WIDE)
    ledger = open_store(space, tmp_path / "study.db")
    first, *claims = ledger.claim(space, 20, space.seed)
    stored = [ledger.finish(Answer(make_record(first)))]  # reads the objectives' names, once
    before = seen["commits"]
    records = stored + ledger.finish_all([Answer(make_record(claim)) for claim in claims])
    assert seen["commits"] == before + 1
    assert ledger.records() == records
    assert {record.state for record in ledger.records()} == {"complete"}


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_drawn_together_they_are_drawn_as_one_by_one(tmp_path: Path, sampler: str) -> None:
    """Beside a study in memory of Optuna's own, which asks for one after the other."""
    space = make_space(WIDE, sampler=sampler)
    ledger = open_store(space, tmp_path / "study.db")
    run(space, ledger, n_trials=24)

    trials = ledger._study.get_trials()
    seed = sampler_seed(space.seed, ledger.owner.asker, len(trials))
    study = optuna.create_study(
        directions=["minimize", "minimize"], sampler=make_sampler(space, seed)
    )
    study.add_trials(trials)
    expected = [space.draw(study.ask()) for _ in range(16)]
    assert [claim.genotype for claim in ledger.claim(space, 16, space.seed)] == expected


@pytest.mark.parametrize("sampler", ["grid", "brute_force"])
def test_listed_together_they_are_listed_as_one_by_one(tmp_path: Path, sampler: str) -> None:
    space = make_space({"depth": 1, "width": {"int": [1, 9]}}, sampler=sampler)
    together = open_store(space, tmp_path / "together.db").claim(space, 9, space.seed)
    ledger = open_store(space, tmp_path / "alone.db")
    alone = [claim for _ in range(9) for claim in ledger.claim(space, 1, space.seed)]
    assert [claim.genotype for claim in together] == [claim.genotype for claim in alone]
    assert [claim.number for claim in together] == list(range(9))


def drafts(num: int) -> list[FrozenTrial]:
    """Trials that run, as they are drawn."""
    ranges = {
        "rate": optuna.distributions.FloatDistribution(1e-5, 1.0, log=True),
        "kind": optuna.distributions.CategoricalDistribution(["a", "b"]),
    }
    templates = []
    for i in range(num):
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params={"rate": 0.1 / (i + 1), "kind": "ab"[i % 2]},
            distributions=ranges,
            user_attrs={"row": {"i": i}},
            system_attrs={"note": [i]},
        )
        template.datetime_start = datetime(2026, 1, 1) + timedelta(microseconds=i)
        templates.append(template)
    return templates


def test_what_is_written_is_what_optuna_writes(tmp_path: Path) -> None:
    stored = []
    for name in ("ours", "theirs"):
        storage = open_storage(sqlite_url(tmp_path / f"{name}.db"))
        study = optuna.create_study(storage=storage, study_name="a")
        study.ask()
        if name == "ours":
            places = create_trials(storage, study._study_id, drafts(3))
            assert [number for _, number in places] == [1, 2, 3]
        else:
            for template in drafts(3):
                storage.create_new_trial(study._study_id, template)
        stored.append(optuna.load_study(study_name="a", storage=storage).trials[1:])
    assert stored[0] == stored[1] and len(stored[0]) == 3


def test_a_range_of_another_kind_is_refused(tmp_path: Path) -> None:
    storage = open_storage(sqlite_url(tmp_path / "study.db"))
    study = optuna.create_study(storage=storage)
    create_trials(storage, study._study_id, drafts(1))
    (other,) = drafts(1)
    other.distributions["kind"] = optuna.distributions.CategoricalDistribution(["a", "c"])
    with pytest.raises(ValueError, match="dynamic"):
        create_trials(storage, study._study_id, [other])
    assert len(study.get_trials()) == 1


@pytest.mark.parametrize("losses", LOSSES)
def test_a_population_is_written_once_where_the_answer_was_lost(
    server: Server,  # noqa: F811
    losses: list[str],
) -> None:
    server.losses = list(losses)
    places = create_trials(get_storage(server), 1, drafts(3))
    assert not server.losses
    trials = server.get_all_trials(1)
    assert [(trial._trial_id, trial.number) for trial in trials] == places
    assert len(places) == 3


def test_what_others_add_meanwhile_keeps_its_number(tmp_path: Path) -> None:
    """Two workers on one database: each reads the other's, and no number is given twice."""
    space = make_space(WIDE)
    first = open_store(space, tmp_path / "study.db")
    url = sqlite_url(tmp_path / "study.db")
    second = Ledger(open_storage(url), first.name)
    numbers = [claim.number for claim in first.claim(space, 3, space.seed)]
    numbers += [claim.number for claim in second.claim(space, 3, space.seed)]
    again = first.claim(space, 2, space.seed)
    numbers += [claim.number for claim in again]
    assert numbers == list(range(8))

    second.finish_all([])
    (record, _) = first.finish_all([Answer(make_record(claim)) for claim in again])
    assert second.record(again[0].number) == record
