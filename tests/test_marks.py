"""What the marks of tests promise."""

import os

import pytest


@pytest.mark.soak
def test_what_is_marked_soak_runs_in_make_soak_alone() -> None:
    assert os.environ.get("GPED_SOAK")


def test_what_is_marked_soak_is_left_out_elsewhere(request: pytest.FixtureRequest) -> None:
    marked = [item for item in request.session.items if item.get_closest_marker("soak")]
    assert bool(marked) == bool(os.environ.get("GPED_SOAK"))
