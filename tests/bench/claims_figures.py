"""The tables of the papers' claims, of ``reports/reference/claims.json``.

python -m tests.bench.claims_figures     write them into the documentation
"""

from collections.abc import Mapping
from typing import Any

from tests.bench.kept_figures import cell, digits_of
from tests.figures import ROOT, Tables, table, write

PAGES = (ROOT / "docs/claims.md",)
WHO = {
    "teacher": "teacher",
    "single_sample": "one sample",
    "map": "MAP network",
    "own": "student of the teacher's architecture",
    "best": "best student",
}
SETTINGS = {
    "fashion": "as they are",
    "fashion mask-14": "a mask of 14 x 14",
    "fashion mask-20": "a mask of 20 x 20",
    "fashion subsample-5000": "5,000 labels",
    "fashion subsample-1000": "1,000 labels",
}
COLUMNS = {"nll": "NLL", "nll_above_teacher": "NLL above the teacher's", "accuracy": "accuracy"}
RANKED = {"ndcg20_expected": "nDCG@20 of expected entropy"}


def claims(report: Mapping[str, Any]) -> str:
    """A row a claim and setting: the difference, and whether it is the claimed one."""
    rows = []
    for claim in report["claims"]:
        interval = f"[{digits_of(claim['low'])}, {digits_of(claim['high'])}]"
        where = SETTINGS.get(claim["where"], f"`{claim['where']}`")
        shown = f"{digits_of(claim['mean'])} {interval}"
        rows.append([named(claim["claim"]), where, shown, claim["says"]])
    return table(["difference", "where", "mean over seeds", "what it says"], rows)


def named(claim: str) -> str:
    """A claim with its predictor as people call it."""
    text, comma, who = claim.rpartition(", ")
    return f"{text}, {WHO[who]}" if comma else claim


def measured(report: Mapping[str, Any]) -> str:
    """Everybody's values at each setting of the dials."""
    head = {**COLUMNS, **RANKED}
    rows = []
    for setting, words in SETTINGS.items():
        for who, name in WHO.items():
            by_metric = {
                figure["metric"]: figure
                for figure in report["figures"]
                if (figure["setting"], figure["who"], figure["condition"])
                == (setting, who, "clean")
            }
            if by_metric:
                rows.append([words, name, *(cell(by_metric.get(metric)) for metric in head)])
    return table(["data", "predictor", *head.values()], rows)


def figures_of(report: Mapping[str, Any], setting: str, who: str) -> dict[str, Any]:
    """Somebody's figures on inputs as they are, by metric."""
    place = (setting, who, "clean")
    by_metric = {}
    for figure in report["figures"]:
        if (figure["setting"], figure["who"], figure["condition"]) == place:
            by_metric[figure["metric"]] = figure
    return by_metric


def attacked(report: Mapping[str, Any]) -> str:
    """Everybody's accuracy under attack."""
    attacks = sorted({f["condition"] for f in report["figures"] if f["condition"] != "clean"})
    rows = []
    for who, name in WHO.items():
        cells = []
        for attack in attacks:
            key = (who, "accuracy", attack)
            figures = [
                figure
                for figure in report["figures"]
                if (figure["who"], figure["metric"], figure["condition"]) == key
            ]
            cells.append(cell(figures[0]) if figures else "")
        if any(cells):
            rows.append([name, *cells])
    return table(["predictor", *(f"`{attack}`" for attack in attacks)], rows)


TABLES: Tables = {
    "claims": ("claims.json", claims),
    "claims measured": ("claims.json", measured),
    "claims attacked": ("claims.json", attacked),
}

if __name__ == "__main__":
    write(PAGES, TABLES)
