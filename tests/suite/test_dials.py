"""The grid of the dials: what it holds, and that a measured setting is not measured again."""

import json
from pathlib import Path
from typing import Any

import pytest

from gped_nas.errors import ConfigError, StreamError, UndigestedWarning
from gped_nas.suite.dials import Setting, measure_all, settings


def test_the_data_as_they_are_come_first_and_once() -> None:
    grid = settings([4, 0, 2, 2], [500, 200])
    assert [(setting.name, setting.data) for setting in grid] == [
        ("as-it-is", {}),
        ("mask-2", {"mask": 2}),
        ("mask-4", {"mask": 4}),
        ("subsample-200", {"subsample": 200}),
        ("subsample-500", {"subsample": 500}),
    ]


@pytest.mark.parametrize(
    ("masks", "subsamples", "message"),
    [
        ([], [], "nothing to turn"),
        ([0], [], "nothing to turn"),
        ([-1], [], "masks: found -1"),
        ([], [-5], "subsamples"),
    ],
)
def test_an_empty_or_impossible_grid_is_refused(
    masks: list[int], subsamples: list[int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(masks, subsamples)


def test_a_stopped_grid_goes_on_where_it_stopped_and_a_changed_one_is_measured_anew(
    tmp_path: Path,
) -> None:
    grid = settings([2, 3], [])
    identities = dict.fromkeys(grid, "a")
    measured = []

    def measure(setting: Setting) -> dict[str, Any]:
        if setting.value == 3 and len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(setting.name)
        return {"result": 10 * setting.value}

    with pytest.raises(KeyboardInterrupt):
        measure_all(grid, measure, identities, tmp_path)
    assert measured == ["as-it-is", "mask-2"]

    measured.append("again")
    records = measure_all(grid, measure, identities, tmp_path)
    assert measured == ["as-it-is", "mask-2", "again", "mask-3"]
    assert [record["result"] for record in records] == [0, 20, 30]
    assert records[1]["dial"] == "mask"

    measure_all(grid, measure, {**identities, Setting("mask", 2): "b"}, tmp_path)
    assert measured[4:] == ["mask-2"]


def _measure_one(setting: Setting) -> dict[str, Any]:
    return {"result": 3.25}


def test_a_record_that_is_not_what_was_written_is_refused(tmp_path: Path) -> None:
    grid = [Setting()]
    identities = {Setting(): "a"}
    measure_all(grid, _measure_one, identities, tmp_path)
    path = tmp_path / "as-it-is.json"
    text = path.read_text()
    for damage in (text.replace("3.25", "3.35"), text[:-9], "[]"):
        path.write_text(damage)
        with pytest.raises(StreamError, match="as-it-is.json: .*delete it"):
            measure_all(grid, _measure_one, identities, tmp_path)


def test_a_record_of_before_digests_is_read_with_a_warning_and_gets_one(tmp_path: Path) -> None:
    grid = [Setting()]
    path = tmp_path / "as-it-is.json"
    path.write_text(json.dumps({"dial": None, "value": 0, "identity": "a", "result": 7}))
    with pytest.warns(UndigestedWarning, match="read unchecked"):
        records = measure_all(grid, _measure_one, {Setting(): "a"}, tmp_path)
    assert records[0]["result"] == 7
    assert measure_all(grid, _measure_one, {Setting(): "a"}, tmp_path) == records
