"""The dashboard: loopback only, guarded by an allowlist, and able to see Optuna 5's constraints."""

import io
import itertools
import json
import socket
import sys
import threading
import urllib.request

import optuna
import pytest
from optuna_dashboard import get_note

from gped_nas.errors import ConfigError, EnvironmentProblem, StudyError
from gped_nas.report import dashboard
from gped_nas.report.dashboard import annotate, application, as_markdown_text, serve

PORT = 8080
OWN = f"127.0.0.1:{PORT}"
optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    url = f"sqlite:///{tmp_path_factory.mktemp('study')}/study.db"
    study = optuna.create_study(storage=url, study_name="digits", directions=["minimize", "minimize"])
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


def ask(app, path="/api/studies", method="GET", body=b"", **headers):
    environ = {
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
    answer = {}

    def start(status, headers, exc_info=None):
        answer.update(status=int(status.split()[0]), headers=headers)

    answered = app(environ, start)
    try:
        return answer["status"], answer["headers"], b"".join(answered)
    finally:
        getattr(answered, "close", lambda: None)()


VERBS = ("GET", "HEAD", "POST", "PUT", "DELETE")
BAD = (
    {"host": "evil.example"},
    {"host": f"evil.example:{PORT}"},
    {"host": "127.0.0.1:9999"},
    {"host": f"127.0.0.1.evil.example:{PORT}"},
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
    shown = [t["number"] for t in detail["trials"] if any(v > 0 for v in t["constraints"])]
    assert shown == expected == [2, 5, 8, 11]


def test_what_is_stored_keeps_each_constraint_once(app, study):
    ask(app, "/api/studies/1", host=OWN)
    trial = optuna.load_study(study_name="digits", storage=study).trials[0]
    assert trial.constraints == {"bytes": -1.0, "macs": -1.0}
    storage = dashboard.LegacyConstraintStorage(study)
    assert storage.get_trial(trial._trial_id).system_attrs["constraints"] == [-1.0, -1.0]


def test_a_trial_without_constraints_is_left_alone(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=url)
    study.tell(study.ask(), 1.0)
    assert dashboard.LegacyConstraintStorage(url).get_all_trials(1)[0].system_attrs == {}


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


def test_a_missing_extra_is_told(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'gped-nas\[dashboard\]'"):
        application(study, port=PORT)


def test_it_answers_over_a_socket_even_beside_an_idle_connection(study, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = application(study, port=port, artifacts=tmp_path)
    with dashboard._listen("127.0.0.1", port, app) as server:
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


def test_annotate_writes_a_harmless_note_and_names_the_objectives(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=url, study_name="s", directions=["minimize", "minimize"])
    annotate(url, "s", f"# {as_markdown_text('a*b [x](http://y)')}\n<img src=x>", metric_names=["nll", "flops"])
    note = get_note(study)
    assert note == "# a\\*b \\[x\\]\\(http\\://y\\)\n&lt;img src=x>"
    annotate(url, "s", "again", metric_names=["other", "names"])
    assert get_note(study) == "again"
    assert study._storage.get_study_system_attrs(1)["study:metric_names"] == ["nll", "flops"]


def test_annotate_names_a_study_that_is_not_there(study):
    with pytest.raises(StudyError, match="nobody"):
        annotate(study, "nobody", "note")
