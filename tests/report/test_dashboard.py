"""The dashboard: loopback only, guarded by an allowlist, and able to see Optuna 5's constraints."""

import io
import itertools
import json
import re
import socket
import sys
import threading
import urllib.request
import warnings

import optuna
import pytest

from gped_nas.errors import ConfigError, EnvironmentProblem, StudyError
from gped_nas.report.dashboard import Wall, application, serve
from gped_nas.report.dashboard.server import listen
from gped_nas.report.dashboard.storage import LegacyConstraintStorage, open_for_dashboard
from gped_nas.search.database import open_database, sqlite_url
from gped_nas.search.study import create_or_load, load
from tests.search.fakes import make_space

PORT = 8080
OWN = f"127.0.0.1:{PORT}"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    url = f"sqlite:///{tmp_path_factory.mktemp('study')}/study.db"
    study = optuna.create_study(
        storage=url, study_name="digits", directions=["minimize", "minimize"]
    )
    for i in range(12):
        trial = study.ask()
        x = trial.suggest_float("x", 0, 1)
        trial.set_constraint("bytes", float(i % 3) - 1.0)
        trial.set_constraint("macs", -1.0)
        study.tell(trial, [x, 1 - x])
    return url


@pytest.fixture(scope="module")
def app(study):
    return application(study, port=PORT)


def ask(app, path="/api/studies", method="GET", body=b"", query="", **headers):
    environ = {
        "QUERY_STRING": query,
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(PORT),
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.url_scheme": "http",
        **{f"HTTP_{name.upper()}": value for name, value in headers.items()},
    }
    started = {}

    def start(status, headers, exc_info=None):
        started.update(status=int(status.split()[0]), headers=headers)

    parts = app(environ, start)
    try:
        return started["status"], started["headers"], b"".join(parts)
    finally:
        getattr(parts, "close", lambda: None)()


VERBS = ("GET", "HEAD", "POST", "PUT", "DELETE")
BAD = (
    {"host": "evil.example"},
    {"host": f"evil.example:{PORT}"},
    {"host": "127.0.0.1:9999"},
    {"host": f"127.0.0.1.evil.example:{PORT}"},
    {"host": f"localhost.evil.example:{PORT}"},
    {"host": f"2130706433:{PORT}"},
    {"host": f"{OWN}@evil.example"},
    {"host": f"{OWN}, evil.example"},
    {},
    {"host": OWN, "origin": "https://evil.example"},
    {"host": OWN, "origin": "null"},
    {"host": OWN, "origin": ""},
    {"host": OWN, "origin": f"http://localhost:{PORT}"},
    {"host": OWN, "origin": f"https://{OWN}"},
)


@pytest.mark.parametrize(("verb", "headers"), [*itertools.product(VERBS, BAD)])
def test_foreign_hosts_and_origins_are_refused(app, verb, headers):
    status, sent, _ = ask(app, "/api/studies/0", verb, **headers)
    assert status == 403
    assert ("X-Frame-Options", "DENY") in sent
    assert ("Content-Type", "text/plain; charset=utf-8") in sent


@pytest.mark.parametrize("verb", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "MADE-UP"])
@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"referer": "https://evil.example/"},
        {"referer": f"http://{OWN}.evil.example/"},
        {"referer": ""},
    ],
)
def test_foreign_pages_cannot_change_anything(app, verb, headers):
    assert ask(app, "/api/studies", verb, host=OWN, **headers)[0] == 403


@pytest.mark.parametrize("host", [OWN, f"localhost:{PORT}", f"[::1]:{PORT}"])
def test_its_own_pages_are_answered(app, host):
    status, headers, body = ask(app, host=host, origin=f"http://{host}")
    assert status == 200
    assert headers.count(("X-Frame-Options", "DENY")) == 1
    assert json.loads(body)["study_summaries"][0]["study_name"] == "digits"
    link = {"sec_fetch_site": "cross-site", "referer": "https://elsewhere.example/"}
    assert ask(app, "/dashboard", host=host, **link)[0] == 200


def test_its_own_pages_can_write(app):
    same = {
        "host": OWN,
        "origin": f"http://{OWN}",
        "referer": f"http://{OWN}/x",
        "sec_fetch_site": "same-origin",
    }
    note = json.dumps({"body": "hello", "version": 1}).encode()
    assert ask(app, "/api/studies/1/note", "PUT", note, **same)[0] == 204
    assert ask(app, "/api/studies/999", "DELETE", **same)[0] == 404


def test_the_dashboard_sees_as_many_infeasible_trials_as_optuna(app, study):
    loaded = optuna.load_study(study_name="digits", storage=study)
    expected = [t.number for t in loaded.trials if any(v > 0 for v in t.constraints.values())]
    detail = json.loads(ask(app, "/api/studies/1", host=OWN)[2])
    infeasible = [t["number"] for t in detail["trials"] if any(v > 0 for v in t["constraints"])]
    assert infeasible == expected == [2, 5, 8, 11]


def test_what_is_stored_keeps_each_constraint_once(app, study):
    ask(app, "/api/studies/1", host=OWN)
    trial = optuna.load_study(study_name="digits", storage=study).trials[0]
    assert trial.constraints == {"bytes": -1.0, "macs": -1.0}
    storage = LegacyConstraintStorage(study)
    assert storage.get_trial(trial._trial_id).system_attrs["constraints"] == [-1.0, -1.0]


def test_a_trial_without_constraints_is_left_alone(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=url)
    study.tell(study.ask(), 1.0)
    assert LegacyConstraintStorage(url).get_all_trials(1)[0].system_attrs == {}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_only_loopback_addresses_can_be_bound(study, host):
    with pytest.raises(ConfigError, match="expected one of 127.0.0.1"):
        serve(study, port=PORT, host=host)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_an_impossible_port_is_refused(study, port):
    with pytest.raises(ConfigError, match="1 to 65535"):
        application(study, port=port)


def test_a_busy_port_is_told(study):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        with pytest.raises(EnvironmentProblem, match="cannot listen"):
            serve(study, port=busy.getsockname()[1])


def test_a_missing_database_is_told_and_not_made(tmp_path):
    with pytest.raises(StudyError, match="no study database"):
        application(f"sqlite:///{tmp_path}/none.db", port=PORT)
    assert list(tmp_path.iterdir()) == []


NAMES = [
    "José",
    "Δ 中 🎉",
    "a%20b",
    "a#b",
    "a;b&c",
    "a?b",
    "a\\b",
    "a'b",
    "{SCHEMA_VERSION}",
    "a:b@c",
]


@pytest.mark.parametrize("name", NAMES)
def test_the_database_is_found_in_a_folder_of_any_name(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    url = sqlite_url(folder / "study.db")
    with pytest.raises(StudyError, match=re.escape(f"{folder}/study.db: no study database")):
        open_for_dashboard(url)

    open_database(url)
    assert (folder / "study.db").is_file()
    assert open_for_dashboard(url).get_all_studies() == []


def test_a_missing_extra_is_told(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'gped-nas\[dashboard\]'"):
        application(study, port=PORT)


def test_it_answers_over_a_socket_even_beside_an_idle_connection(study, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = application(study, port=port, artifacts=tmp_path)
    with listen("127.0.0.1", port, app) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with (
                socket.create_connection(("127.0.0.1", port)),
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/meta", timeout=10) as answer,
            ):
                assert answer.headers["X-Frame-Options"] == "DENY"
                assert json.load(answer)["artifact_is_available"] is True
        finally:
            server.shutdown()
            thread.join()


# --- answers about a study, put right ---------------------------------------------------------


def detail(app, query=""):
    status, headers, body = ask(app, "/api/studies/1", host=OWN, query=query)
    assert status == 200 and dict(headers)["Content-Length"] == str(len(body))
    return json.loads(body)


@pytest.mark.parametrize("after", [0, 5, 12])
def test_best_trials_are_optunas_and_all_of_them_feasible(app, study, after):
    """Every trial lies on x + y = 1, so Optuna's best are the eight feasible ones.

    optuna-dashboard says twelve.
    """
    best = {t.number for t in optuna.load_study(study_name="digits", storage=study).best_trials}
    answer = detail(app, f"after={after}")
    assert {t["number"] for t in answer["best_trials"]} == best == {0, 1, 3, 4, 6, 7, 9, 10}
    assert [t["number"] for t in answer["trials"]] == list(range(after, 12))


def test_best_trials_are_those_of_one_objective_and_vanish_with_the_study(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=url, study_name="s")
    app = application(url, port=PORT)
    for value in (3.0, 1.0, 2.0):
        study.tell(study.ask(), value)
    assert [t["number"] for t in detail(app)["best_trials"]] == [1]
    optuna.delete_study(study_name="s", storage=url)
    assert ask(app, "/api/studies/1", host=OWN)[0] == 404


@pytest.mark.parametrize("after", ["", "after=2"])
def test_a_feasible_trial_that_an_infeasible_one_beats_is_best(tmp_path, after):
    """optuna-dashboard lists trial 0 alone.

    Asked for news only, its answer does not hold trial 1 at all.
    """
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=url, study_name="s", directions=["minimize", "minimize"])
    for value in (0.0, 1.0):
        trial = study.ask()
        trial.set_constraint("bytes", 0.5 - value)
        study.tell(trial, [value, value])

    answer = detail(application(url, port=PORT), after)
    assert [t["number"] for t in answer["best_trials"]] == [1]


def test_a_single_objective_study_without_a_feasible_trial_has_no_best(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=url, study_name="s")
    trial = study.ask()
    trial.set_constraint("bytes", 1.0)
    study.tell(trial, 0.5)
    answer = detail(application(url, port=PORT))
    assert answer["best_trials"] == [] and len(answer["trials"]) == 1


def test_records_are_not_shown_and_numbers_are(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=url)
    study.set_user_attr("gped:box", {"best": [0]})
    study.set_user_attr("mine", 1)
    trial = study.ask()
    trial.set_user_attr("gped:record", "x" * 9000)
    trial.set_user_attr("accuracy", 0.5)
    study.tell(trial, 1.0)

    answer = detail(application(url, port=PORT))
    assert [a["key"] for a in answer["user_attrs"]] == ["mine"]
    assert [a["key"] for a in answer["union_user_attrs"]] == ["accuracy"]
    for row in (*answer["trials"], *answer["best_trials"]):
        assert row["user_attrs"] == [{"key": "accuracy", "value": "0.5"}]


# --- told from outside ------------------------------------------------------------------------

BAD_RESULTS = [
    b'{"state": "complete", "values": [NaN, 1.0]}',
    b'{"state": "complete", "values": ["nan", "inf"]}',
    b'{"state": "complete", "values": [1.0]}',
    b'{"state": "complete", "values": [1.0, 2.0, 3.0]}',
    b'{"state": "complete", "values": [1e999, 1.0]}',
    b'{"state": "complete", "values": []}',
]


@pytest.mark.parametrize("body", BAD_RESULTS)
def test_nothing_told_through_the_dashboard_makes_a_study_unreadable(tmp_path, body):
    url = f"sqlite:///{tmp_path}/study.db"
    space = make_space(sampler="tpe")
    create_or_load(url, "s", space.objectives, {"seed": "0"})
    study = optuna.load_study(storage=url, study_name="s")
    for values in ([1.0, 2.0], [2.0, 1.0]):
        study.tell(study.ask(), values)
    study.ask()

    app = application(url, port=PORT)
    bad_attributes = {"gped:record": "garbage", "nll": float("nan")}
    attributes = json.dumps({"user_attrs": bad_attributes}).encode()
    assert ask(app, "/api/trials/3/user-attrs", "POST", attributes, host=OWN)[0] == 204
    assert ask(app, "/api/trials/3/tell", "POST", body, host=OWN)[0] == 204

    answer = detail(app)
    assert [t["state"] for t in answer["trials"]] == ["Complete", "Complete", "Fail"]
    assert [t["number"] for t in answer["best_trials"]] == [0, 1]
    again = load(url, "s")
    assert [r.state for r in again.records()] == ["failed"] * 3
    again.claim(space, 1, 0)


def test_an_attached_file_is_handed_out_as_a_file_and_not_as_a_page(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=url, study_name="s")
    wall = Wall(url, "s", tmp_path / "artifacts")
    address = wall.put_files({"evil.html": b"<script>alert(1)</script>"})["evil.html"]

    app = application(url, port=PORT, artifacts=tmp_path / "artifacts")
    status, sent, body = ask(app, address, host=OWN)
    headers = dict(sent)
    assert (status, body) == (200, b"<script>alert(1)</script>")
    assert headers["Content-Security-Policy"].startswith("sandbox")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in headers
    assert len(study._storage.get_study_system_attrs(1)) == 1


def test_rungs_are_intermediate_values_in_the_dashboard_and_nowhere_else(tmp_path):
    url = sqlite_url(tmp_path / "study.db")
    stored = optuna.create_study(storage=url, study_name="rungs", directions=["minimize"] * 2)
    for rungs in ([[100, 0.5], [200, 0.25]], []):
        trial = stored.ask()
        record = json.dumps({"trial": trial.number, "extra": {"rungs": rungs}})
        trial.set_user_attr("gped:row", {"state": "finished", "record": record})
        stored.tell(trial, [1.0, 2.0])

    app = application(url, port=PORT)
    _, _, body = ask(app, "/api/studies/1", host=OWN)
    detail = json.loads(body)
    assert detail["has_intermediate_values"]
    shown = [trial["intermediate_values"] for trial in detail["trials"]]
    assert shown == [[{"step": 100, "value": 0.5}, {"step": 200, "value": 0.25}], []]
    trials = optuna.load_study(study_name="rungs", storage=url).trials
    assert [trial.intermediate_values for trial in trials] == [{}, {}]


def test_the_cost_lies_across_as_in_the_report(tmp_path):
    """Names, directions and values change places together, and nothing of it is stored."""
    url = sqlite_url(tmp_path / "study.db")
    directions = ["maximize", "minimize", "minimize"]
    stored = optuna.create_study(storage=url, study_name="places", directions=directions)
    with warnings.catch_warnings(action="ignore"):
        stored.set_metric_names(["accuracy", "kl_to_teacher", "macs"])
    for values in ([0.9, 0.1, 50.0], [0.8, 0.2, 60.0]):
        stored.tell(stored.ask(), values)

    detail = json.loads(ask(application(url, port=PORT), "/api/studies/1", host=OWN)[2])
    assert detail["objective_names"] == ["macs", "accuracy", "kl_to_teacher"]
    assert detail["directions"] == ["minimize", "maximize", "minimize"]
    assert [trial["values"] for trial in detail["trials"]] == [[50.0, 0.9, 0.1], [60.0, 0.8, 0.2]]
    assert [trial["number"] for trial in detail["best_trials"]] == [0]

    storage = open_for_dashboard(url)
    (trial, _) = storage.get_all_trials(1)
    assert storage.get_trial(trial._trial_id).values == [50.0, 0.9, 0.1]
    assert optuna.load_study(study_name="places", storage=url).trials[0].values == [0.9, 0.1, 50.0]
