"""``gc``: what lies in the cache, what would go, and that nothing goes unasked."""

import csv
import io
import json

import pytest

from gped_nas.io import lock
from tests.cli.harness import Home, accepted, call, contents, refused


def test_it_lists_and_touches_nothing(own: Home) -> None:
    before = contents(own.cache)
    (row,) = json.loads(accepted("gc", "--format", "json").out)
    assert row["stream"] == own.stream.name and row["samples"] == 4 and row["in use"] is False
    assert row["bytes"] == sum(map(len, contents(own.cache / "streams").values()))
    assert row["views"] > 0 and row["derived"] > 0 and row["building"] == 0
    assert row["teacher"] == "mlp(depth=1, width=8) by sgld on digits, seed 0"
    (again,) = csv.DictReader(io.StringIO(accepted("gc", "--format", "csv").out))
    assert int(again["bytes"]) == row["bytes"]
    table = accepted("gc")
    assert "KiB" in table.out and "by sgld on digits" in table.out and "1 streams" in table.err
    assert contents(own.cache) == before


def test_a_choice_is_only_shown_until_it_is_confirmed(own: Home) -> None:
    before = contents(own.stream)
    preview = accepted("gc", "--views", "--derived", "--format", "json")
    assert {row["what"] for row in json.loads(preview.out)} == {"views", "derived"}
    assert "would go" in preview.err and contents(own.stream) == before

    removed = accepted("gc", "--views", "--derived", "--delete")
    assert "removed" in removed.err
    remaining = {name for name in before if not name.startswith(("views", "derived"))}
    assert contents(own.stream) == {name: before[name] for name in remaining}
    assert own.run("--n-trials", "4").code == 0  # and is made again


def test_a_stream_goes_by_the_start_of_its_digest(own: Home) -> None:
    name = own.stream.name
    refused(2, "gc", "--delete", says=("nothing was chosen",))
    refused(2, "gc", "xyz", "--delete", says=("'xyz'", "expected one", name[:12]))
    refused(2, "gc", "", says=("expected one",))
    (row,) = json.loads(accepted("gc", name[:6], "--delete", "--format", "json").out)
    assert row["what"] == "stream" and not list((own.cache / "streams").iterdir())
    assert json.loads(accepted("gc", "--format", "json").out) == []


def test_a_stream_in_use_stays_and_says_so(own: Home) -> None:
    before = contents(own.stream)
    with lock(own.stream / "lock", wait=False):
        (row,) = json.loads(accepted("gc", "--format", "json").out)
        assert row["in use"] is True
        result = call("gc", "--views", "--delete", "--format", "json")
        assert result.code == 5 and "another process is working here" in result.err
    assert contents(own.stream) == before


@pytest.mark.parametrize(
    "words", ["Nothing tells which studies use a stream", "--delete", "--building"]
)
def test_the_help_says_what_it_cannot_know(words: str) -> None:
    assert words in " ".join(accepted("gc", "--help").out.split())


def test_half_the_bytes_make_a_whole_study(own: Home) -> None:
    setting = "stream.prediction_dtype=float16"
    accepted("run", own.space, "--out", own.root / "half", "--set", setting)
    sizes = {
        path.parent.parent.name: path.stat().st_size - 128
        for path in own.stream.glob("views/*/*/log_prob-*")
    }
    assert len(sizes) == 6  # distillation, validation and test, each stored both ways
    for part in ("distillation", "validation", "test"):
        small, large = sorted(size for name, size in sizes.items() if name.startswith(part))
        assert large == 2 * small
