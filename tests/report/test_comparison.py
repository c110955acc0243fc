"""The page of several studies: what differs is said, with its uncertainty, and texts stay texts."""

from gped_nas.evaluate.measured import Key, Measured
from gped_nas.report import write_comparison
from gped_nas.report.comparison import comparison_data, comparison_page
from tests.report.example import make_snapshot
from tests.report.test_page import EVIL, Page


def test_a_larger_front_is_named_and_alike_ones_are_not() -> None:
    alike = comparison_data([make_snapshot(), make_snapshot(name="again")])
    assert alike["headline"] == "These studies' fronts cannot be told apart by their hypervolume."
    (difference,) = alike["differences"]
    assert difference["difference"] == 0 and "holds 0" in difference["reading"]

    snapshot = make_snapshot()
    worse = []
    for record in snapshot.records:
        if "nll" in record.metrics:
            worse_nll = {Key("nll"): Measured(record.metrics["nll"] + 1.0)}
            record = record.replace(measures={**record.measures, **worse_nll})
        worse.append(record)
    clear = comparison_data([make_snapshot(name="worse", records=tuple(worse)), snapshot])
    assert clear["headline"].startswith("The front of digits_mlp covers ")
    assert clear["headline"].endswith("than that of worse.")
    (difference,) = clear["differences"]
    low, high = difference["interval"]
    assert difference["reading"] == "larger: digits_mlp"
    assert low <= difference["difference"] <= high < 0


def test_settings_that_differ_are_listed_and_no_others() -> None:
    config = {
        "seed": 0,
        "search": {"sampler": "tpe", "n_trials": 48},
        "views": [{"policy": "clean"}],
        "same": [1, 2],
    }
    other = {
        **config,
        "search": {"sampler": "random", "n_trials": 48},
        "views": [{"policy": "noise", "std": 0.1}],
    }
    data = comparison_data([make_snapshot(config=config), make_snapshot(config=other, name="b")])
    assert {row["name"]: row["values"] for row in data["settings"]} == {
        "search.sampler": ["tpe", "random"],
        "views[0].policy": ["clean", "noise"],
        "views[0].std": ["–", "0.1"],
    }


def test_unlike_data_teachers_and_lengths_are_noted() -> None:
    teacher = {**make_snapshot().teacher, "digest": "0"}
    config = {"dataset": {"name": "mnist"}}
    other = make_snapshot(20, name="b", config=config, teacher=teacher)
    notes = " ".join(comparison_data([make_snapshot(), other])["notes"])
    assert "different data" in notes and "different numbers of trials" in notes
    assert "different teachers" not in notes, "of different data they differ in any case"

    taught = comparison_data([make_snapshot(), make_snapshot(name="b", teacher=teacher)])
    assert taught["notes"] == ["The studies have different teachers."]
    assert comparison_data([make_snapshot(), make_snapshot(name="b")])["notes"] == []


def test_the_page_is_offline_the_same_each_time_and_safe(tmp_path) -> None:
    studies = [make_snapshot(), make_snapshot(30, name=EVIL)]
    text = comparison_page(comparison_data(studies))
    write_comparison(studies, tmp_path / "both.html")
    assert (tmp_path / "both.html").read_text() == text

    page = Page(text)
    assert len(page.scripts) == 4 and page.attributes("src") == []
    assert all(link.startswith("#") for link in page.attributes("href"))
    assert page.text.count(EVIL) >= 4 and page.tags.count(("img", {})) == 0
    assert "ones over trials, 1.96 bootstrap standard errors" in page.text
