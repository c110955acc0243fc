"""The tables of the papers' claims are those of the report; a verdict is that of an interval."""

import pytest

from tests.bench.bench_claims import claims_of, values_of, verdict
from tests.bench.claims_figures import PAGES, TABLES, claims
from tests.figures import with_figures


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_page_has_the_figures_of_the_report(page):
    """``python -m tests.bench.claims_figures`` writes them anew."""
    text = page.read_text()
    assert all(f"<!-- figures: {name} -->" in text for name in TABLES)
    assert with_figures(text, TABLES) == text


def row(seed, student, predictor, value, *, metric="nll", method="own", condition="clean"):
    return {
        "teacher": "fashion",
        "method": method,
        "student": student,
        "predictor": predictor,
        "metric": metric,
        "condition": condition,
        "seed": seed,
        "value": value,
    }


def test_students_are_called_by_their_axis_and_paired_by_seed():
    rows = []
    for seed in range(3):
        rows.append(row(seed, "own", "student", 0.5 + seed))
        rows.append(row(seed, "best", "trial 4", 0.4 + seed + seed / 1000))
        rows.append(row(seed, "best", "teacher", 9.0))

    (claim,) = claims_of(values_of(rows))
    assert claim["values"] == pytest.approx([0.1, 0.099, 0.098])
    assert claim["says"] == "agreed"
    assert "| NLL of the teacher's architecture" in claims({"claims": [claim]})


def test_a_network_of_method_map_stands_for_a_point():
    asked = {"metric": "accuracy", "condition": "pgd-0.02"}
    rows = []
    for seed in range(3):
        rows.append(row(seed, "none", "teacher", 0.3 + seed / 100, **asked))
        rows.append(row(seed, "none", "teacher", 0.5 + seed / 50, method="map", **asked))

    values = values_of(rows)
    (claim,) = claims_of(values)
    assert claim["mean"] == pytest.approx(-0.21)
    assert (claim["where"], claim["says"]) == ("pgd-0.02", "the opposite")

    # A MAP network is its own single sample, and no sample of the chain.
    alone = row(0, "none", "single_sample", 0.7, **asked)
    rows = [alone, row(0, "none", "single_sample", 0.5, method="map", **asked)]
    assert values_of(rows) == {("fashion", "single_sample", "accuracy", "pgd-0.02"): {0: 0.7}}


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [(0.1, 0.2, "agreed"), (-0.1, 0.2, "not told apart"), (-0.2, -0.1, "the opposite")],
)
def test_an_interval_that_holds_zero_tells_nothing(low, high, says):
    assert verdict({"low": low, "high": high}) == says
