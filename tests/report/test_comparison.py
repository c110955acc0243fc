"""The page of several studies: what differs is said, with its uncertainty, and texts stay texts."""

from gped_nas.evaluate.measured import Key, Measured
from gped_nas.report import write_comparison
from gped_nas.report.comparison import comparison_data, comparison_page
from tests.report.example import make_snapshot
from tests.report.test_page import EVIL, Page


def test_a_larger_front_is_named_and_alike_ones_are_not() -> None:
    alike = comparison_data([make_snapshot(), make_snapshot(name="again")])
    assert alike["headline"] == "These studies' fronts cannot be told apart by their hypervolume."
    assert (
        alike["differences"][0]["difference"] == 0
        and "holds 0" in alike["differences"][0]["reading"]
    )
    snapshot = make_snapshot()
    worse = tuple(
        r.replace(measures={**r.measures, Key("nll"): Measured(r.metrics["nll"] + 1.0)})
        if "nll" in r.metrics
        else r
        for r in snapshot.records
    )
    clear = comparison_data([make_snapshot(name="worse", records=worse), snapshot])
    assert clear["headline"].startswith("The front of digits_mlp covers ")
    assert clear["headline"].endswith("than that of worse.")
    assert clear["differences"][0]["reading"] == "larger: digits_mlp"
    low, high = clear["differences"][0]["interval"]
    assert low <= clear["differences"][0]["difference"] <= high < 0


def test_settings_that_differ_are_listed_and_no_others() -> None:
    one = {
        "seed": 0,
        "search": {"sampler": "tpe", "n_trials": 48},
        "views": [{"policy": "clean"}],
        "same": [1, 2],
    }
    two = {
        **one,
        "search": {"sampler": "random", "n_trials": 48},
        "views": [{"policy": "noise", "std": 0.1}],
    }
    rows = comparison_data([make_snapshot(config=one), make_snapshot(config=two, name="b")])[
        "settings"
    ]
    assert {row["name"]: row["values"] for row in rows} == {
        "search.sampler": ["tpe", "random"],
        "views[0].policy": ["clean", "noise"],
        "views[0].std": ["–", "0.1"],
    }


def test_unlike_data_teachers_and_lengths_are_noted() -> None:
    other = make_snapshot(20, name="b", config={"dataset": {"name": "mnist"}})
    notes = " ".join(comparison_data([make_snapshot(), other])["notes"])
    assert "different data" in notes and "different numbers of trials" in notes
    teacher = {**make_snapshot().teacher, "digest": "0"}
    assert comparison_data([make_snapshot(), make_snapshot(name="b", teacher=teacher)])[
        "notes"
    ] == ["The studies have different teachers."]
    assert comparison_data([make_snapshot(), make_snapshot(name="b")])["notes"] == []


def test_the_page_is_offline_the_same_each_time_and_safe(tmp_path) -> None:
    studies = [make_snapshot(), make_snapshot(30, name=EVIL)]
    page = comparison_page(comparison_data(studies))
    write_comparison(studies, tmp_path / "both.html")
    assert (tmp_path / "both.html").read_text() == page
    found = Page(page)
    assert len(found.scripts) == 4 and found.attributes("src") == []
    assert all(link.startswith("#") for link in found.attributes("href"))
    assert found.text.count(EVIL) >= 4 and found.tags.count(("img", {})) == 0
    assert "bootstrap ones over trials" in found.text
