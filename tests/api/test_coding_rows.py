"""Means of codecs' rows over seeds, and which codes are on a front."""

from typing import Any

import pytest

from gped_nas.api.coding_rows import front_of, means_over_seeds


def row(name: str, value: float | None, *, seed: int = 0, **changes: Any) -> dict[str, Any]:
    whole = {
        **{"predictor": name, "codec": name, "metric": "energy", "seed": seed},
        **{"value": value, "low": None, "high": None, "bytes": 10, "seconds": 1.0},
        **changes,
    }
    return whole if value is not None else {**whole, "why": "no number"}


@pytest.mark.parametrize("values", [(1.0, None), (None, 1.0)])
def test_no_mean_is_made_of_the_seeds_that_have_a_value(values: tuple[float | None, ...]) -> None:
    (mean,) = means_over_seeds([row("a", value, seed=seed) for seed, value in enumerate(values)])
    assert (mean["value"], mean["low"], mean["high"]) == (None, None, None)
    assert mean["why"] == f"seed {values.index(None)} has none: no number"
    assert mean["seeds"] == 2


def test_a_front_has_the_codes_that_no_smaller_one_beats() -> None:
    table = [
        row("student", 0.1, bytes=1),  # has seen the chain that codes are compared with
        row("small", 0.5, bytes=2),
        row("worse", 0.6, bytes=3),
        row("nothing", None, bytes=4),
        row("stream", 0.2, bytes=5),
    ]
    assert front_of(means_over_seeds(table), "energy") == ["small", "stream"]

    ratios = [row("twice", 2.0, bytes=1), row("near", 1.1, bytes=2), row("far", 0.8, bytes=3)]
    ratios = [{**each, "metric": "information_ratio"} for each in ratios]
    assert front_of(ratios, "information_ratio") == ["twice", "near"]
