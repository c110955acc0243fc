"""The tables and the picture of codecs are those of the reports."""

import pytest

from tests.bench.bench_codec import values_of
from tests.bench.bench_codec_tasks import summarize
from tests.bench.codec_figures import (
    PAGES,
    PICTURE,
    TABLES,
    difference,
    picture,
    read,
    runs,
    winner,
)
from tests.figures import with_figures


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_page_has_the_figures_of_the_report(page):
    """``python -m tests.bench.codec_figures`` writes them anew."""
    text = page.read_text()
    assert all(f"<!-- figures: {name} -->" in text for name in TABLES)
    assert with_figures(text, TABLES) == text


def test_the_picture_is_of_the_reports():
    assert PICTURE.read_text() == picture(read())
    assert f"pictures/{PICTURE.name}" in PAGES[0].read_text()


def some_report(**energies):
    """Codes of 100 bytes and more, with a distance for each of two seeds."""
    rows = []
    for number, (code, values) in enumerate({"stream": [0.0, 0.0], **energies}.items()):
        for seed, value in enumerate(values):
            about = {"predictor": code, "codec": code, "seed": seed, "bytes": 100 * number}
            rows.append({**about, "metric": "energy_to_read", "value": value})
            rows.append({**about, "metric": "energy", "value": value})
            rows.append({**about, "metric": "runs_p", "value": None if seed else value})
    means = [{**row, "value": 1.0} for row in rows if row["seed"] == 0]
    return {"means": means, "values": values_of(rows)}


def test_a_winner_loses_least_within_its_size_and_says_who_cannot_be_told_from_it():
    report = some_report(small=[2.0, 2.1], even=[1.0, 3.0], large=[1.0, 1.1])

    assert winner(report, "energy_to_read", 50) is None
    assert winner(report, "energy_to_read", 200).name == "even"
    assert winner(report, "energy_to_read", 200).others == ["small"]
    best = winner(report, "energy_to_read", 300)
    assert (best.name, best.others) == ("large", ["even"])
    assert best.value == pytest.approx(1.05)


def test_p_values_are_counted_by_codec():
    text = runs({"small": some_report(law=[0.01, 0.5])})
    assert "| law | 1 | .010 | .010 | 1 |" in text


def rows_of(method, *values, task="ood:noise", condition="noise"):
    about = {"task": task, "metric": "auroc", "condition": condition, "method": method}
    return [
        {**about, "subject": "teacher", "seed": seed, "value": value}
        for seed, value in enumerate(values)
    ]


def test_methods_are_paired_with_own_by_seed():
    rows = [*rows_of("own", 0.5, 0.75), *rows_of("few", 0.25, 0.25)]
    (line,) = summarize(rows, ["auroc"])

    assert line["methods"]["few"]["minus own"]["values"] == [-0.25, -0.5]
    assert line["methods"]["own"]["mean"] == 0.625
    assert "minus own" not in line["methods"]["own"]
    assert summarize(rows, ["nll"]) == []


def test_active_learning_has_a_mean_over_its_rounds():
    rounds = [
        rows_of("own", value, task="active:bald", condition=f"{num}-labels")
        for num, value in ((20, 0.25), (100, 0.75))
    ]
    lines = summarize([*rounds[0], *rounds[1]], ["auroc"])
    assert [line["asked"] for line in lines] == ["20-labels", "100-labels", "mean of rounds"]
    assert lines[-1]["methods"]["own"]["mean"] == 0.5


def test_a_difference_that_can_be_told_is_bold():
    own, few = rows_of("own", 0.5, 0.75, 0.6), rows_of("few", 0.25, 0.5, 0.36)
    (line,) = summarize([*own, *few], ["auroc"])
    assert difference(line, "few").startswith("**-.247 ± .0")
    assert difference(line, "none") == ""
