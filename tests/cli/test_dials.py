"""``gped-search dials``: one command from a space to the page of both dials."""

import json
from pathlib import Path

import pytest

import gped_nas as gn
from gped_nas.api import dials as api_dials
from gped_nas.errors import ConfigError
from tests.cli.harness import Home, accepted, refused
from tests.report.test_page import Page


def test_one_command_makes_the_figure_and_resumes(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("dials", home.space, "--mask", "0,3", "--subsample", "200", "--out", home.out)
    result = accepted(*arguments)
    page = home.out / "tiny-dials" / "dials.html"
    assert result.out.rstrip().endswith(f"report: {page}")
    data = json.loads(page.with_suffix(".json").read_text())
    assert [(p["dial"], p["value"], p["num_labels"]) for p in data["points"]] == [
        (None, 0, 1150),
        ("mask", 3, 1150),
        ("subsample", 200, 200),
    ]
    assert data["part"] == "validation"
    for point in data["points"]:
        assert [s["name"] for s in point["students"]] == ["unpruned", "smallest"]
        assert point["n"] == 288
        for student in point["students"]:
            gap = student["metrics"]["nll"] - point["teacher"]["metrics"]["nll"]
            low, high = student["intervals"]["nll_above_teacher"]
            assert student["metrics"]["nll_above_teacher"] == pytest.approx(gap, abs=1e-9)
            assert low <= gap <= high

    # a student's number follows from its file and the masked validation inputs alone
    masked = gn.load_dataset(gn.load_space(home.space, {"data.mask": 3}))
    student = gn.load_student(home.out / "tiny-dials" / "students" / "mask-3" / "unpruned")
    prob = student.predict(masked.raw("validation"))["predictive"].double()
    nll = -prob.log()[range(288), masked.labels("validation")].mean()
    assert data["points"][1]["students"][0]["metrics"]["nll"] == pytest.approx(float(nll), abs=1e-5)

    read = Page(page.read_text())
    expected = {f"chart-{kind}-mask" for kind in ("gap", "kl", "nll")}
    expected |= {f"chart-{kind}-subsample" for kind in ("gap", "kl", "nll")}
    assert {name for name in read.attributes("id") if name.startswith("chart-")} == expected
    assert set(read.embedded("charts")["charts"]) == expected
    assert read.embedded("numbers-json") == data
    assert not read.attributes("src")
    assert all(href.startswith("#") for href in read.attributes("href"))

    def measured(*arguments: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(api_dials, "_measure", measured)
    before = page.read_text()
    accepted(*arguments)
    assert page.read_text() == before
    with pytest.raises(AssertionError, match="measured again"):
        api_dials.turn_dials(home.space, masks=[3], overrides={"seed": 1}, out=home.out)


def test_what_cannot_be_turned_is_refused_before_any_work(home: Home) -> None:
    refused(2, "dials", home.space, "--out", home.out, says=("nothing to turn", "--mask 2,4"))
    mask = ("dials", home.space, "--out", home.out, "--mask")
    refused(2, *mask, "two", says=("--mask: found 'two'",))
    refused(2, *mask, "2,9", says=("data.mask: found 9", "at most 8"))
    assert not Path(home.cache).exists() or not list(Path(home.cache).rglob("segments"))
    with pytest.raises(ConfigError, match="data.msk: unknown key; did you mean 'mask'"):
        gn.load_space(home.space, {"data.msk": 3})
