"""A cache that nobody may write: what it holds can be used, and one message says what it lacks."""

import shutil
from collections.abc import Iterator

import pytest

from gped_nas.stream.reader import Stream
from gped_nas.targets.expectations import stream_expectations
from tests.cli.fixtures import finished, own
from tests.cli.harness import Home, accepted, call, contents, refused
from tests.faults.readonly import read_only

__all__ = ["finished", "own"]


@pytest.fixture
def sealed_off(own: Home) -> Iterator[Home]:
    """A cache with a finished study's stream, its averages removed, that cannot be written."""
    shutil.rmtree(own.stream / "derived")
    with read_only(own.cache):
        with pytest.raises(PermissionError):
            (own.stream / "a file").write_text("")
        yield own


def test_it_is_opened_read_averaged_and_verified(sealed_off: Home) -> None:
    before = contents(sealed_off.cache)
    stream = Stream(sealed_off.stream)
    for name in stream.views:
        assert bool(stream.predictions(name).isfinite().all())
        averages = stream_expectations(stream, ["predictive"], name)
        assert bool(averages["predictive"].isfinite().all())
    assert stream.theta(3).shape
    assert stream.verify() == []
    assert contents(sealed_off.cache) == before


def test_every_verb_that_needs_nothing_new_works(sealed_off: Home) -> None:
    before = contents(sealed_off.cache)
    for verb in ("build", "info", "verify"):
        accepted("teacher", verb, sealed_off.space)
    accepted("gc")
    accepted("run", sealed_off.space, "--out", sealed_off.root / "again")
    assert contents(sealed_off.cache) == before


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ("teacher.method.num_samples=8", "lacks posterior samples (8 are wanted)"),
        ("teacher.method.thinning=20", "lacks posterior samples (4 are wanted)"),
        ("views=[{policy: noise}]", "lacks predictions at view 'distillation-noise-"),
        ("stream.prediction_dtype=float16", "lacks predictions at view 'distillation-clean-"),
    ],
)
def test_what_is_missing_is_said_once(sealed_off: Home, change: str, missing: str) -> None:
    refused(5, "teacher", "build", sealed_off.space, "--set", change, says=(missing, "GPED_CACHE"))


def test_nothing_is_removed_from_it(sealed_off: Home) -> None:
    before = contents(sealed_off.cache)
    result = call("gc", sealed_off.stream.name, "--delete")
    assert result.code == 5
    assert "Permission denied" in result.err
    assert contents(sealed_off.cache) == before
