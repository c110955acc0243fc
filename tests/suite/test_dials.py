"""The grid of the dials: what it holds, and that a measured setting is not measured again."""

from pathlib import Path
from typing import Any

import pytest

from gped_nas.errors import ConfigError
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
        ([-1], [], "--mask: found -1"),
        ([], [-5], "--subsample"),
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
