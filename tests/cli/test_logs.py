"""``--log-format json``: every line of stderr is one object of a documented form."""

import json
import signal
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from gped_nas.cli import logs
from tests.cli.harness import Home, accepted, call, finish, start, wait_for

JSON = ("--log-format", "json")
SCHEMA = {
    "started": {"version", "command"},
    "phase": {"study", "phase", "number", "total"},
    "progress": {"what", "done", "total"},
    "stage": {"what", "total", "seconds"},
    "trial": {
        *("trial", "state", "reason", "genotype", "metrics", "costs", "outside"),
        *("finished", "wanted"),
    },
    "message": set[str](),
    "warning": {"category"},
    "signal": {"signal"},
    "error": {"hint", "exit_code"},
    "ended": {"exit_code", "seconds"},
}


def _events(err: str) -> list[dict[str, Any]]:
    """The lines of stderr, each of which has the form that is documented for its event."""
    assert "\x1b" not in err
    events = [json.loads(line) for line in err.splitlines()]
    for event in events:
        assert event["schema_version"] == 1
        assert datetime.fromisoformat(event["time"]).tzinfo is not None
        expected = {"schema_version", "time", "event", "text", *SCHEMA[event["event"]]}
        assert set(event) - {"traceback"} == expected, event
    assert [events[0]["event"], events[-1]["event"]] == ["started", "ended"]
    return events


def _of_kind(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == kind]


def test_every_event_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()
    for event in SCHEMA:
        assert f"``{event}``" in (logs.__doc__ or "")
        assert f"| `{event}` |" in text


def test_a_run_tells_of_itself_in_json(home: Home) -> None:
    result = call("run", home.space, "--out", home.out, "-v", *JSON, terminal=True)
    assert result.code == 0, result.err
    events = _events(result.err)

    phases = [event["phase"] for event in _of_kind(events, "phase")]
    assert phases == ["data", "teacher", "predictions", "students", "references"]
    trials = _of_kind(events, "trial")
    assert [trial["trial"] for trial in trials if "variant" not in trial["reason"]]
    assert trials[-1]["wanted"] == 4
    assert _of_kind(events, "stage") and _of_kind(events, "message")
    assert events[-1]["exit_code"] == 0 and "report:" in result.out


def test_an_error_is_one_object_also_where_the_command_line_is_wrong(home: Home) -> None:
    for words, code, says in (
        (("run", "nowhere.yaml"), 2, "no such file"),
        (("front", home.root / "nothing"), 4, "no such study"),
        (("run", home.space, "--unknown"), 2, "no such option"),
    ):
        result = call(*words, *JSON)
        events = _events(result.err)
        (error,) = _of_kind(events, "error")
        assert says in error["text"].lower() and error["exit_code"] == code == result.code
        assert events[-1]["exit_code"] == code and result.out == ""

    (error,) = _of_kind(_events(call("front", "nothing", "-v", *JSON).err), "error")
    assert "StudyError" in error["traceback"]
    assert call("front", "nothing", "--log-format", "xml").code == 2


def test_a_storages_password_is_in_no_line(home: Home) -> None:
    url = "postgresql://me:secret-word@localhost:1/x"
    result = call("run", home.space, "--storage", url, *JSON)
    assert "secret-word" not in result.err
    (error,) = _of_kind(_events(result.err), "error")
    assert "me:***@localhost" in error["text"]


def test_quiet_json_is_errors_alone(finished: Home) -> None:
    assert len(_events(call("front", finished.study, "-q", *JSON).err)) == 2


def test_a_signal_and_what_goes_on_are_told_in_json(home: Home) -> None:
    words = ("run", "tiny.yaml", *JSON, "--set", "teacher.method.burn_in=10000000")
    process = start(*words, cwd=home.root)
    wait_for(lambda: (home.root / "reports" / "tiny" / "lock").exists(), process)
    process.send_signal(signal.SIGTERM)
    result = finish(process)
    assert result.code == 143
    events = _events(result.err)
    (told,) = _of_kind(events, "signal")
    assert told["signal"] == "SIGTERM"
    (error,) = _of_kind(events, "error")
    assert "nothing finished is lost" in error["text"] and error["exit_code"] == 143


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "--log-format", "json"], "json"),
        (["--log-format=json", "run"], "json"),
        (["run", "--log-format", "text"], "text"),
        (["run", "--log-format"], "text"),
        (["json"], "text"),
    ],
)
def test_the_form_is_known_before_anything_is_parsed(words: list[str], expected: str) -> None:
    assert logs.asked_format(words) == expected


def test_text_stays_what_it_is(finished: Home) -> None:
    assert not accepted("front", finished.study).err.startswith("{")
