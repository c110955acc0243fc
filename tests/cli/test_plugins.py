"""The installed command beside a plug-in that is broken."""

import json
import os

import pytest

from tests.cli.harness import Home, Result, assert_one_message, installed

BROKEN = {
    "raises": ("raise RuntimeError('boom')", "RuntimeError: boom"),
    "exits": ("import sys; sys.exit(0)", "SystemExit: 0"),
}


def _install(home: Home, code: str) -> str:
    """Put a plug-in where the command finds it; the path to give."""
    site = home.root / "site"
    info = site / "broken-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "broken.py").write_text(code)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gped_nas.plugins]\nmine = broken\n")
    return os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])


@pytest.mark.parametrize("how", [pytest.param("raises", marks=pytest.mark.soak), "exits"])
def test_a_broken_plugin_is_named_and_left_out(home: Home, how: str) -> None:
    code, reason = BROKEN[how]
    path = _install(home, code)
    result = installed("run", "tiny.yaml", "--n-trials", "1", "--processes", "2", PYTHONPATH=path)
    assert result.code == 0 and "<- chosen" in result.out, result.err
    warning = f"gped-search: warning: plug-in 'mine' (broken): cannot be loaded: {reason}; "
    assert result.err.count("cannot be loaded") == result.err.count(warning) == 1, result.err


def test_a_space_that_needs_a_broken_plugin_is_refused_and_doctor_names_it(home: Home) -> None:
    path = _install(home, BROKEN["exits"][0])

    def refused(*words: str) -> Result:
        result = installed(*words, PYTHONPATH=path)
        assert result.code == 5, result.err
        assert_one_message(result.err, ("plug-in 'mine' (broken)",))
        return result

    refused("run", "tiny.yaml", "--set", "teacher.method.name=theirs")
    rows = json.loads(refused("doctor", "--format", "json").out)
    (row,) = [row for row in rows if row["check"] == "plug-in 'mine' (broken)"]
    assert row["verdict"] == "broken" and row["found"] == "cannot be loaded: SystemExit: 0"
