"""The claims of two papers about students of MCMC teachers, measured on `fashion_sgld`.

    python -m tests.bench.bench_claims --work FOLDER --out reports/reference/claims.json

Three grids of `gped-search suite`: the uncertainty dials, and attacks on teachers, students and MAP
networks. Their chains have 40 samples after 3,000 steps and their searches 8 trials, where the
space itself has 140, 6,000 and 16: hours on two cores are what a check of claims may take. A figure
is the mean over seeds with Student's interval; a claim is a difference, paired by seed.

Sources: Vadera, Jalaian & Marlin 2020, arXiv:2005.08110; Vadera et al. 2020, arXiv:2002.02842.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gped_nas as gn
from gped_nas.io import make_dir, write_json
from tests.bench.bench_kept import over_seeds, paired

AS_IT_IS = "fashion"
MASKS, SUBSETS = (14, 20), (5000, 1000)
"""Sides of the patch in pixels, numbers of labels: each from the mildest setting to the hardest."""
SETTINGS = {
    "teacher.method.num_samples": 40,
    "teacher.method.burn_in": 3000,
    "search.n_trials": 8,
    "recipe.steps": 400,
}
ATTACKS = ("pgd-0.02", "worst-0.02")
DIALS = {
    "name": "claims_dials",
    "teachers": [
        {
            "fashion": {
                "space": "fashion_sgld",
                "dials": {"mask": list(MASKS), "subsample": sorted(SUBSETS)},
            }
        }
    ],
    "students": ["none", "own", "best"],
    "tasks": ["prediction", "ranking"],
    "metrics": [
        "nll",
        "nll_above_teacher",
        "kl_to_teacher",
        "entropy_error",
        "accuracy",
        "ndcg20_expected",
    ],
    "seeds": 3,
    "part": "test",
    "set": SETTINGS,
}
ATTACKED = {
    "name": "claims_attacked",
    "teachers": [{"fashion": {"space": "fashion_sgld"}}],
    "students": ["none", "own", "best"],
    "tasks": [f"attack:{attack}" for attack in ATTACKS],
    "metrics": ["accuracy"],
    "seeds": 3,
    "part": "test",
    "limit": 300,
    "set": SETTINGS,
}
POINTS = {**ATTACKED, "name": "claims_points", "students": ["none"], "methods": ["map"]}
"""One MAP network in place of the chain."""
Seeds = Mapping[int, float]
Values = Mapping[tuple[str, str, str, str], Seeds]
"""By setting, who it is of, metric and condition: the value of each seed."""


def values_of(rows: Sequence[Mapping[str, Any]]) -> Values:
    """The values of all rows; a student is called by the axis that it is of."""
    values: dict[tuple[str, str, str, str], dict[int, float]] = defaultdict(dict)
    for row in rows:
        who = row["student"] if row["student"] != "none" else row["predictor"]
        if row["predictor"] == "teacher":
            who = "map" if row["method"] == "map" else "teacher"
        elif row["method"] == "map":
            continue  # the only sample of a MAP network is itself
        if row["value"] is not None:
            values[row["teacher"], who, row["metric"], row["condition"]][row["seed"]] = row["value"]
    return values


def difference(values: Values, first: tuple[str, ...], second: tuple[str, ...]) -> dict[str, Any]:
    """The first minus the second, by seed."""
    (a, b) = (values.get(key, {}) for key in (first, second))  # type: ignore[call-overload]
    return over_seeds(paired(a, b))


def verdict(figure: Mapping[str, Any]) -> str:
    """What the interval of a difference that is claimed to be positive says."""
    if figure["low"] > 0:
        return "agreed"
    return "the opposite" if figure["high"] < 0 else "not told apart"


def claims_of(values: Values) -> list[dict[str, Any]]:
    """Each claim with what was measured, in the order of the papers."""
    claims: list[dict[str, Any]] = []

    def add(claim: str, where: str, first: tuple[str, ...], second: tuple[str, ...]) -> None:
        figure = difference(values, first, second)
        if figure:
            claims.append({"claim": claim, "where": where, **figure, "says": verdict(figure)})

    settings = [AS_IT_IS]
    settings += [f"fashion mask-{side}" for side in MASKS]
    settings += [f"fashion subsample-{num}" for num in SUBSETS]
    for setting in settings:
        nll = [(setting, who, "nll", "clean") for who in ("own", "best")]
        add("NLL of the teacher's architecture above the best student's", setting, *nll)

    for who in ("own", "best"):
        claim = f"gap to the teacher in NLL above that on the data as they are, {who}"
        for setting in settings[1:]:
            gap = [(each, who, "nll_above_teacher", "clean") for each in (setting, AS_IT_IS)]
            add(claim, setting, *gap)

    for who in ("own", "best"):
        claim = f"nDCG@20 of expected entropy above a single sample's, {who}"
        pair = (who, "single_sample")
        for setting in settings:
            add(claim, setting, *((setting, each, "ndcg20_expected", "clean") for each in pair))

    for attack in ATTACKS:
        pair = [(AS_IT_IS, each, "accuracy", attack) for each in ("teacher", "single_sample")]
        add("accuracy above a single sample's, teacher", attack, *pair)
        for who in ("teacher", "own", "best"):
            pair = [(AS_IT_IS, each, "accuracy", attack) for each in (who, "map")]
            add(f"accuracy above a MAP network's, {who}", attack, *pair)
    return claims


def figures_of(values: Values) -> list[dict[str, Any]]:
    """Everybody's values, the mean over seeds and its interval."""
    names = ("setting", "who", "metric", "condition")
    return [
        {**dict(zip(names, key, strict=True)), **over_seeds(list(by_seed.values()))}
        for key, by_seed in sorted(values.items())
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of studies and cells")
    parser.add_argument("--out", type=Path, default=Path("reports/reference/claims.json"))
    args = parser.parse_args()

    rows = []
    for grid in (DIALS, ATTACKED, POINTS):
        result = gn.run_suite(grid, out=make_dir(args.work))
        rows += result.rows

    values = values_of(rows)
    write_json(
        args.out,
        {
            "bench": "claims",
            "settings": SETTINGS,
            "grids": [DIALS, ATTACKED, POINTS],
            "claims": claims_of(values),
            "figures": figures_of(values),
        },
    )


if __name__ == "__main__":
    main()
