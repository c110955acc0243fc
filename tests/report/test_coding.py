"""The page of codecs draws an axis of bytes whose ticks can be read."""

from typing import Any

import pytest

from gped_nas.report.coding import codec_page
from tests.report.test_page import Page


def means(*sizes: int) -> list[dict[str, Any]]:
    rows = []
    for size in sizes:
        row = {"predictor": f"code {size}", "codec": "subset", "metric": "energy", "bytes": size}
        rows.append({**row, "value": 1.0, "low": None, "high": None, "seconds": 1.0, "seeds": 1})
    return rows


@pytest.mark.parametrize(("largest", "step"), [(8_000_000, "D2"), (400_000_000, 1)])
def test_ticks_between_powers_of_ten_are_there_where_powers_are_few(
    largest: int, step: str | int
) -> None:
    facts = {"name": "tiny", "teacher": "sgld", "part": "validation", "outside": "permuted"}
    data = {**facts, "means": means(400_000, largest), "seeds": [0], "fronts": {}, "notes": []}
    charts = Page(codec_page(data)).embedded("charts")["charts"]
    axis = charts["chart-energy"]["layout"]["xaxis"]
    assert (axis["type"], axis["dtick"]) == ("log", step)
