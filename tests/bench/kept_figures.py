"""The tables of what students keep, of ``reports/reference/kept.json``.

    python -m tests.bench.kept_figures     write them into the documentation

A line is a task's metric; its rows are chosen here by hand, in the order of the page.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.figures import ROOT, Tables, number, table, write

PAGES = (ROOT / "docs/kept.md",)
PREDICTORS = {
    "teacher": "teacher",
    "single_sample": "one sample",
    "map": "MAP network",
    "label_twin": "label twin",
    "unpruned": "student of the teacher's size",
    "student": "chosen student",
}
METRICS = {
    "prediction": ("accuracy", "nll", "brier", "ece_debiased"),
    "misclassification": (
        "misclassification_auroc_confidence",
        "misclassification_auroc_total",
        "misclassification_auroc_expected",
        "misclassification_auroc_model",
    ),
    "selective": ("aurc_total", "accuracy_rejecting20_total"),
    "ranking": ("ndcg20_expected",),
    "conformal": ("split_coverage", "split_set_size", "aps_coverage", "aps_set_size"),
    "shift": ("accuracy", "nll"),
    "ood": ("ood_auroc_confidence", "ood_auroc_total", "ood_auroc_expected", "ood_auroc_model"),
    "attack": ("accuracy",),
}
"""What of each task is shown; all of it is in the report."""


def lines_of(case: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The lines that are shown, in their order."""
    chosen = []
    for kind, metrics in METRICS.items():
        of_kind = [line for line in case["lines"] if line["task"].partition(":")[0] == kind]
        for task in dict.fromkeys(line["task"] for line in of_kind):
            for metric in metrics:
                chosen += [
                    line
                    for line in of_kind
                    if (line["task"], line["metric"]) == (task, metric) and is_shown(line)
                ]
    return chosen


def is_shown(line: Mapping[str, Any]) -> bool:
    """Whether it is no single severity of a shift: the mean over all five is shown."""
    kind, _, argument = line["task"].partition(":")
    return kind != "shift" or line["condition"] == argument


def kept(case: Mapping[str, Any]) -> str:
    """Everybody's figures, the mean over seeds and half the width of its interval."""
    rows = []
    for line in lines_of(case):
        cells = [cell(line["figures"].get(predictor)) for predictor in PREDICTORS]
        rows.append([f"`{line['task']}`", f"`{line['metric']}`", *cells])
    return table(["task", "metric", *PREDICTORS.values()], rows)


def gained(case: Mapping[str, Any]) -> str:
    """Where the chosen student differs from its label twin, and by how much."""
    rows = []
    lines = lines_of(case)
    for line in lines:
        difference = line["student minus"].get("label_twin")
        if difference and "low" in difference and difference["low"] * difference["high"] > 0:
            interval = f"[{digits_of(difference['low'])}, {digits_of(difference['high'])}]"
            shown = f"{digits_of(difference['mean'])} {interval}"
            rows.append([f"`{line['task']}`", f"`{line['metric']}`", shown])
    if not rows:
        return f"Nowhere: all {len(lines)} intervals hold 0.\n"
    chance = f"Of {len(lines)} rows, about {len(lines) / 20:.0f} would stand here by chance.\n"
    return table(["task", "metric", "student minus label twin"], rows) + "\n" + chance


def cell(figure: Mapping[str, Any] | None) -> str:
    """``.934 ± .012``; empty where there is none."""
    if not figure:
        return ""
    if "low" not in figure:
        return digits_of(figure["mean"])
    half = (figure["high"] - figure["low"]) / 2
    return f"{digits_of(figure['mean'])} ± {digits_of(half)}"


def digits_of(value: float) -> str:
    """Three digits, and four of what is small, such as areas under risks."""
    return number(value) if not 0 < abs(value) < 0.01 else f"{value:.4f}".replace("0.", ".", 1)


def of_case(name: str, make: Any) -> Any:
    """A table of one case; a sentence where it was not measured."""

    def made(report: Mapping[str, Any]) -> str:
        case = report["cases"].get(name)
        return make(case) if case else "Not measured yet.\n"

    return made


NAMES: Sequence[str] = ("digits", "fashion")
TABLES: Tables = {
    **{f"kept {name}": ("kept.json", of_case(name, kept)) for name in NAMES},
    **{f"gained {name}": ("kept.json", of_case(name, gained)) for name in NAMES},
}


if __name__ == "__main__":
    write(PAGES, TABLES)
