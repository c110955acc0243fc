"""Studies: made, found again and refused; asked and told; what parameters matter."""

import sqlite3

import optuna
import pytest
from optuna.trial import TrialState

from gped_nas.errors import ConfigError, EnvironmentProblem, StudyError
from gped_nas.search.answers import Answer
from gped_nas.search.database import sqlite_url
from gped_nas.search.drawing import draw_at_random
from gped_nas.search.importances import importances
from gped_nas.search.ledger import Ledger
from gped_nas.search.objectives import objective
from gped_nas.search.study import create_or_load, load
from tests.search.fakes import (
    IDENTITY,
    Fake,
    make_record,
    make_space,
    open_store,
    optuna_study,
    run,
)

OBJECTIVES = [objective("nll", ""), objective("params", "")]


# -- opening


def test_a_study_is_made_once_and_found_again(tmp_path):
    space = make_space()
    path = tmp_path / "study.db"
    store = open_store(space, path)
    store.change(notes=("It was changed.",), precision="float32")

    again = open_store(space, path)
    assert again.name == "fake" and again.document == store.document
    assert again.document.notes == ("It was changed.",)
    assert load(sqlite_url(path), "fake").document == store.document
    assert optuna_study(path).metric_names == ["nll", "params"]
    assert [d.name for d in optuna_study(path).directions] == ["MINIMIZE", "MINIMIZE"]


@pytest.mark.parametrize(
    ("identity", "parts"),
    [
        ({"students": "1", "recipe": "3"}, "recipe differ"),
        ({"students": "9", "recipe": "9"}, "recipe, students differ"),
        ({"students": "1", "recipe": "2", "views": "4"}, "views differ"),
        ({"students": "1"}, "recipe differ"),
    ],
)
def test_a_changed_space_is_refused_by_its_parts(tmp_path, identity, parts):
    open_store(make_space(), tmp_path / "study.db")
    message = f"study 'fake' was made with other settings: {parts}; restore them"
    with pytest.raises(StudyError, match=message):
        open_store(make_space(), tmp_path / "study.db", identity=identity)


def test_a_study_of_another_program_is_refused_and_left_alone(tmp_path):
    url = sqlite_url(tmp_path / "study.db")
    foreign = optuna.create_study(
        storage=url, study_name="fake", directions=["minimize", "minimize"]
    )
    foreign.tell(foreign.ask(), [1.0, 2.0])
    message = "study 'fake' was not made by gped-search; choose another study_name"
    with pytest.raises(StudyError, match=message):
        open_store(make_space(), tmp_path / "study.db")
    assert optuna_study(tmp_path / "study.db").user_attrs == {}

    other = optuna.create_study(
        storage=url, study_name="other", directions=["maximize", "minimize"]
    )
    with pytest.raises(StudyError, match="'other' was not made by gped-search"):
        open_store(make_space(), tmp_path / "study.db", name="other")
    assert not other.user_attrs


@pytest.mark.parametrize("step", ["metric names", "document"])
def test_a_study_whose_making_was_cut_short_is_made_whole(tmp_path, monkeypatch, step):
    path = tmp_path / "study.db"

    def die(*args, **more):
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        if step == "metric names":
            patch.setattr(optuna.Study, "set_metric_names", die)
        else:
            patch.setattr(Ledger, "write", die)
        with pytest.raises(SystemExit):
            open_store(make_space(), path)

    store = open_store(make_space(), path)
    assert store.document.identity == IDENTITY
    assert run(make_space(), store, n_trials=3) == "done"


def test_a_missing_study_is_named_with_those_that_exist(tmp_path):
    path = tmp_path / "study.db"
    open_store(make_space(), path, name="one")
    open_store(make_space(), path, name="two")
    with pytest.raises(StudyError, match="no study 'three'; there are: one, two"):
        load(sqlite_url(path), "three")


def test_reading_makes_no_file(tmp_path):
    with pytest.raises(StudyError, match="typo.db: no such file"):
        load(sqlite_url(tmp_path / "typo.db"), "fake")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"hello" * 1000, b"SQLite format 3\0" + b"\xff" * 4096])
@pytest.mark.parametrize("opening", ["create", "load"])
def test_garbage_is_no_study(tmp_path, content, opening):
    (tmp_path / "study.db").write_bytes(content)
    with pytest.raises(StudyError, match="study.db: not a readable study"):
        if opening == "create":
            open_store(make_space(), tmp_path / "study.db")
        else:
            load(sqlite_url(tmp_path / "study.db"), "fake")
    assert (tmp_path / "study.db").read_bytes() == content


def make_database(path, *tables):
    database = sqlite3.connect(path)
    for table in tables:
        database.execute(f"CREATE TABLE {table} (title TEXT)")
    database.commit()
    database.close()


@pytest.mark.parametrize("tables", [["songs"], ["songs", "studies"]])
def test_a_database_of_another_program_is_refused_untouched(tmp_path, tables):
    path = tmp_path / "music.db"
    make_database(path, *tables)
    before = path.read_bytes()
    message = "music.db: a SQLite file of another program; choose another storage"
    with pytest.raises(StudyError, match=message):
        open_store(make_space(), path)
    with pytest.raises(StudyError, match=message):
        load(sqlite_url(path), "fake")
    assert path.read_bytes() == before


def test_a_table_that_only_sounds_like_a_study_is_refused(tmp_path):
    make_database(tmp_path / "music.db", "studies")
    with pytest.raises((StudyError, EnvironmentProblem), match="music.db: "):
        open_store(make_space(), tmp_path / "music.db")


def test_a_folder_is_no_storage(tmp_path):
    message = "cannot be opened: unable to open database file; check path"
    with pytest.raises(EnvironmentProblem, match=message):
        open_store(make_space(), tmp_path)
    with pytest.raises(EnvironmentProblem, match="cannot be opened"):
        open_store(make_space(), tmp_path / "no" / "study.db")


@pytest.mark.parametrize("name", ["what?", "50%41", "a b", "ü#&=", "a+b"])
def test_any_folder_name_is_a_storage(tmp_path, name):
    (tmp_path / name).mkdir()
    open_store(make_space(), tmp_path / name / "study.db")
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.db")] == [
        f"{name}/study.db"
    ]
    assert load(sqlite_url(tmp_path / name / "study.db"), "fake").name == "fake"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "not a storage URL"),
        ("journal.log", "not a storage URL"),
        ("redis://me:hush@host/0", "not a storage URL"),
        ("postgresql://me:hush@host:port/db", "not a storage URL"),
        ("sqlite://me:hush@host", "not a storage URL"),
        ("nosuch://me:hush@host/db", "its database driver is not installed"),
        ("mysql+pymysql://me:hush@host/db", "its database driver is not installed"),
        ("mysql+pymysql://host/db?password=hush", "its database driver is not installed"),
    ],
)
def test_storages_that_cannot_be_are_refused_without_their_password(url, message):
    error = ConfigError if message.startswith("not a") else EnvironmentProblem
    for opening in (
        lambda: create_or_load(url, "fake", OBJECTIVES, IDENTITY),
        lambda: load(url, "fake"),
    ):
        with pytest.raises(error, match=message) as caught:
            opening()
        assert "hush" not in str(caught.value)


def test_no_message_of_a_reachable_storage_shows_its_password(monkeypatch):
    """An in-memory storage stands for a server, so that every later message is reached too."""
    url = "postgresql://me:hush@host/db?sslpassword=hush"
    memory = optuna.storages.InMemoryStorage()
    monkeypatch.setattr("gped_nas.search.database.open_storage", lambda storage: memory)
    optuna.create_study(storage=memory, study_name="foreign")
    create_or_load(url, "fake", OBJECTIVES, IDENTITY)
    for opening in (
        lambda: load(url, "nothing"),
        lambda: create_or_load(url, "fake", OBJECTIVES, {"students": "other"}),
        lambda: create_or_load(url, "foreign", OBJECTIVES, IDENTITY),
    ):
        with pytest.raises(StudyError, match="postgresql") as caught:
            opening()
        assert "hush" not in str(caught.value)


# -- asking


SAMPLERS = ["costs_known", "tpe", "nsga2", "nsga3", "gp", "qmc", "random", "brute_force", "grid"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_draws_depend_on_the_seed_and_the_trials_so_far_only(tmp_path, sampler):
    """Two runs agree, stopped in between or not; another root seed draws otherwise.

    NSGA's children repeat genotypes, which do not count, so that stops would fall elsewhere: with
    so many trials in all, its first generation is not over here.
    """
    genotype = {"depth": {"int": [1, 2]}, "width": {"int": [1, 3000]}}

    def draw(name, seed, targets):
        space = make_space(genotype, seed=seed, sampler=sampler, n_trials=100, start_up=4)
        for n_trials in targets:
            store = open_store(space, tmp_path / f"{name}.memory")
            run(space, store, n_trials=n_trials)
        return [r.genotype for r in store.records()]

    whole = draw("whole", 0, [16])
    assert draw("parts", 0, [4, 12, 16]) == whole
    assert (draw("other", 1, [16]) == whole) == (sampler == "grid")
    assert len({str(g) for g in whole}) > 4


def test_the_sampler_is_seeded_anew_by_the_number_of_trials(tmp_path):
    """With one seed for every population, a random sampler would repeat its first draws."""
    space = make_space({"depth": 1, "width": {"int": [1, 30_000]}}, sampler="random")
    store = open_store(space, tmp_path / "study.memory")
    populations = []
    for _ in range(2):
        populations.append({claim.genotype for claim in store.claim(space, 3, 0)})
    assert not populations[0] & populations[1]


def test_asked_trials_are_running_until_they_are_told(tmp_path):
    space = make_space()
    store = open_store(space, tmp_path / "study.memory")
    asked = store.claim(space, 2, 0)
    assert [claim.number for claim in asked] == [0, 1]
    assert [r.state for r in store.records()] == ["running", "running"]
    store.finish(Answer(make_record(asked[1])))
    assert [r.state for r in store.records()] == ["running", "complete"]


def test_draws_to_look_at_a_space_leave_no_trace(tmp_path):
    space = make_space({"depth": 1, "width": {"int": [1, 30_000]}})
    assert draw_at_random(space, 5) == draw_at_random(space, 5)
    assert len(set(draw_at_random(space, 5))) == 5
    assert not list(tmp_path.iterdir())


# -- telling


def test_a_record_is_read_back_as_it_was_told(tmp_path):
    space = make_space(constraints={"params": 1000})
    store = open_store(space, tmp_path / "study.memory")
    (claim,) = store.claim(space, 1, 0)
    stored = store.finish(Answer(make_record(claim, extra={"loss": [[0, 1.0]]}), {"params": -5.0}))
    assert stored.created > 0
    assert open_store(space, tmp_path / "study.memory").records() == [stored]
    (trial,) = optuna_study(tmp_path / "study.memory").trials
    assert trial.state == TrialState.COMPLETE
    assert trial.values == [stored.metrics["nll"], stored.costs["params"]]
    assert trial.constraints == {"params": -5.0}
    assert trial.user_attrs["accuracy"] == stored.metrics["accuracy"]
    assert trial.user_attrs["macs"] == stored.costs["macs"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_not_finite_makes_a_failed_record(tmp_path, value):
    space = make_space()
    store = open_store(space, tmp_path / "study.memory")
    (claim,) = store.claim(space, 1, 0)
    stored = store.finish(Answer(make_record(claim, metrics={"nll": value}), {"nll": value}))
    assert (stored.state, stored.reason) == ("failed", "a metric is not finite")
    assert stored.genotype == claim.genotype.to_json() and not stored.metrics
    (trial,) = optuna_study(tmp_path / "study.memory").trials
    assert trial.state == TrialState.FAIL and trial.values is None
    assert not optuna_study(tmp_path / "study.memory").best_trials


# -- importances


def test_importances_find_the_parameter_that_matters(tmp_path):
    genotype = {
        "depth": 1,
        "width": {"int": [1, 40]},
        "storage_dtype": {"choices": ["float32", "int8"]},
    }
    space = make_space(genotype, objectives=("accuracy", "params"))
    store = open_store(space, tmp_path / "study.memory")
    assert store.importances(space.objectives) == {}
    fake = Fake(
        lambda claim: {"metrics": {"accuracy": claim.genotype["width"][0] / 50, "nll": 0.5}}
    )
    run(space, store, fake, n_trials=40)
    by_objective = store.importances(space.objectives)
    assert set(by_objective) == {"accuracy", "params"}
    for shares in by_objective.values():
        assert shares["width"] > 0.8 and sum(shares.values()) == pytest.approx(1)


def test_no_importances_where_nothing_varies(tmp_path):
    space = make_space({"depth": 1, "width": 3})
    store = open_store(space, tmp_path / "study.memory")
    run(space, store, n_trials=12)
    assert store.importances(space.objectives) == {}


def test_importances_are_those_of_optunas_trials(tmp_path):
    space = make_space({"depth": {"int": [1, 2]}, "width": {"int": [1, 60]}})
    store = open_store(space, tmp_path / "study.db")
    run(space, store, n_trials=20)

    # What another program told without values, or with values that are no numbers, has failed.
    study = optuna_study(tmp_path / "study.db")
    for values in ([], [1.0], [float("nan"), 2.0]):
        trial = study.ask()
        study._storage._backend.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, values)

    shares = store.importances(space.objectives)
    assert shares == importances(store._study, space.objectives)
    assert set(shares) == {"nll", "params"}
