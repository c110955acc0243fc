"""The installed command on a study in PostgreSQL: passwords, refusals, restarts, two machines."""

import json
import random
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gped_nas.search import reconnect
from gped_nas.search.ledger import Ledger
from tests.cli.harness import (
    TINY,
    Home,
    accepted,
    assert_one_message,
    call,
    contents,
    finish,
    installed,
    new_home,
    refused,
    start,
    wait_for,
)
from tests.postgresql.servers import PASSWORD, Server

pytestmark = pytest.mark.filterwarnings("ignore:the database does not answer")
ENDLESS_STUDENTS = "recipe.steps=10000000"
NUM_RUNS, NUM_TRIALS = 9, 60
"""About six restarts land in a run. Of 50 that did no harm, the share that does is below 6 %."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.chdir(tmp_path)
    return new_home(tmp_path)


def _everything_stored(server: Server) -> str:
    """All texts of all attributes of the database."""
    texts = []
    with psycopg.connect(server.url.replace("+psycopg", "")) as connection:
        for owner in ("study", "trial"):
            for kind in ("user", "system"):
                query = f"SELECT value_json FROM {owner}_{kind}_attributes"
                texts += [row[0] for row in connection.execute(query.encode())]
    return "\n".join(texts)


def test_the_password_is_nowhere(server: Server, home: Home) -> None:
    where = ("--storage", server.url, "--out", home.out)
    name = ("--study-name", "secret")
    told = [accepted("run", home.space, *name, *where, "-v")]
    told.append(accepted("run", home.space, *name, *where, "--log-format", "json"))
    for verb in (["status"], ["front", "-f", "json"], ["trials"], ["report"], ["pick"]):
        told.append(accepted(verb[0], "secret", *where, *verb[1:]))

    # what goes wrong tells it neither
    closed = server.url_by(1)
    told.append(refused_loudly(5, "run", home.space, "--storage", closed))
    told.append(refused_loudly(4, "run", home.space, *name, *where, "--seed", 1))
    options = f"{server.url}?application_name={PASSWORD}&connect_timeout=no"
    told.append(refused_loudly(2, "run", home.space, "--storage", options))
    told.append(refused_loudly(4, "front", "secret", "--out", home.out))

    for result in told:
        assert PASSWORD not in result.out + result.err
    for path, data in contents(home.out).items():
        assert PASSWORD.encode() not in data, path
    assert PASSWORD not in _everything_stored(server)
    assert "me:***@" in (home.out / "secret" / "study.json").read_text()


def _num_counted(records: list[dict[str, Any]]) -> int:
    """How many records are finished trials."""
    ended = [record for record in records if record["state"] not in ("failed", "running")]
    return sum("variant_of" not in each and "repeat_of" not in each for each in ended)


def refused_loudly(code: int, *args: object) -> Any:
    """``call`` with tracebacks that must end with this code."""
    result = call(*args, "-v")
    assert result.code == code, result.err
    return result


def test_what_is_wrong_with_a_storage_is_said(server: Server, home: Home) -> None:
    missing_driver = server.url.replace("+psycopg", "+pg8000")
    says = ("not installed", "pip install 'gped-nas[postgresql]'")
    refused(5, "run", home.space, "--storage", missing_driver, says=says)

    wrong = server.url_by(server.port, "wrong-word")
    result = refused(5, "run", home.space, "--storage", wrong, says=("password authentication",))
    assert "hint: check the user's name and password" in result.err
    assert "wrong-word" not in result.err

    nowhere = server.url.replace("/studies", "/nowhere")
    refused(5, "run", home.space, "--storage", nowhere, says=('"nowhere" does not exist',))
    refused(4, "status", "nobody", "--storage", server.url, says=("no study 'nobody'",))
    assert not home.cache.exists()


def test_a_server_that_is_not_there_ends_in_one_message(server: Server, home: Home) -> None:
    server.stop()
    try:
        says = ("cannot be opened", "refused")
        refused(5, "run", home.space, "--storage", server.url, says=says)
    finally:
        server.start()


def test_a_server_that_goes_in_the_middle_loses_nothing(
    server: Server, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconnect, "PATIENCE_S", 0.1)
    monkeypatch.setattr(reconnect, "_PAUSE_S", 0.05)
    finish_all: Callable[..., Any] = Ledger.finish_all
    with monkeypatch.context() as patch:

        def finish_without_server(self: Ledger, answers: Any) -> Any:
            if answers:
                server.stop()
            return finish_all(self, answers)

        patch.setattr(Ledger, "finish_all", finish_without_server)
        words = ("run", home.space, "--out", home.out, "--study-name", "middle")
        words += ("--set", "search.every_dtype=true")
        result = call(*words, "--storage", server.url)
    server.start()
    assert result.code == 5, result.err
    assert_one_message(result.err, ("study 'middle'", "run the same command again"))

    accepted(*words, "--storage", server.url)
    where = ("--storage", server.url, "--out", home.out)
    records = json.loads(accepted("trials", "middle", *where, "-f", "json").out)
    failed = [record for record in records if record["state"] == "failed"]
    assert len(failed) == 3 and all("interrupted" in record["reason"] for record in failed)
    assert _num_counted(records) == 4 and len(records) > 4 + len(failed)


def test_another_machine_sees_a_run_and_may_not_ask_beside_it(server: Server, home: Home) -> None:
    cache = {"GPED_CACHE": str(home.cache), "GPED_STORAGE": server.url}
    words = ("run", "tiny.yaml", "--study-name", "far")
    process = start(*words, "--set", ENDLESS_STUDENTS, cwd=home.root, **cache)

    elsewhere = home.root / "elsewhere"
    elsewhere.mkdir()
    status = ("status", "far", "--storage", server.url, "-f", "json", "--out", elsewhere)
    try:
        _assert_seen_and_refused(server, home, process, status)
    finally:
        process.kill()
        finish(process)
    seen = json.loads(accepted(*status).out)
    assert seen["state"] == "nobody is at work" and seen["interrupted"] == 3


def _assert_seen_and_refused(
    server: Server, home: Home, process: "subprocess.Popen[str]", status: tuple[object, ...]
) -> None:
    """What another machine sees of a run at work, and what it may not do."""
    elsewhere = status[-1]
    is_there = home.out / "far" / "config.yaml"
    wait_for(is_there.exists, process)
    wait_for(lambda: "students" in call(*status).out, process)

    seen = json.loads(accepted(*status).out)
    assert (seen["state"], seen["phase"]) == ("running", "students, 4 of 5")
    assert seen["folder"].startswith(f"{home.out / 'far'} on ")
    assert seen["heard of"].endswith(" s ago") and seen["done"].endswith(" of 4 trials")
    assert seen["running"] == 3 and seen["finished"] == 0

    second = ("run", home.space, "--study-name", "far", "--set", ENDLESS_STUDENTS)
    says = ("study 'far'", "it belongs to the folder", "run --adopt")
    refused(4, *second, "--storage", server.url, "--out", elsewhere, says=says)
    another = ("--seed", 7, "--out", home.root / "another")
    says = ("made with other settings: seed",)
    refused(4, *second, *another, "--storage", server.url, says=says)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(NUM_RUNS))
def test_a_run_outlives_restarts_and_tells_each_trial_once(
    server: Server, tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    root = tmp_path_factory.getbasetemp() / "postgresql"
    root.mkdir(exist_ok=True)
    text = TINY.replace("sampler: tpe", "sampler: random")
    (root / "tiny.yaml").write_text(text.replace("{choices: [2, 4, 8]}", "{int: [2, 30]}"))
    name = f"restarted-{seed}"
    command = ("run", "tiny.yaml", "--storage", server.url, "--study-name", name)
    process = start(*command, "--n-trials", NUM_TRIALS, cwd=root, GPED_CACHE=str(root / "cache"))
    # a server that is not there at the start is not waited for
    told = root / "reports" / name / "config.yaml"
    wait_for(told.exists, process)

    draw = random.Random(seed)
    num_restarts = 0
    while process.poll() is None:
        time.sleep(draw.uniform(0.3, 2))
        server.stop()
        time.sleep(draw.uniform(0.1, 1))
        server.start()
        num_restarts += 1
    result = finish(process)

    assert result.code == 0, result.err
    assert num_restarts > 1
    trials = installed("trials", name, "--storage", server.url, "--format", "json", cwd=root)
    records = json.loads(trials.out)
    assert [record["trial"] for record in records] == list(range(len(records)))
    assert {record["state"] for record in records} <= {"complete", "duplicate"}
    assert _num_counted(records) == NUM_TRIALS


@pytest.mark.soak
def test_a_server_that_never_answers_ends_in_one_message(home: Home) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(5)
        url = f"postgresql://me@127.0.0.1:{mute.getsockname()[1]}/studies"
        started = time.monotonic()
        result = installed("run", home.space, "--storage", url, "--study-name", "mute")
    assert result.code == 5
    assert time.monotonic() - started < 40, "ten seconds, and the command's own"
    assert_one_message(result.err, ("cannot be opened", "timeout"))
