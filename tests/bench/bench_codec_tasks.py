"""Detection, active learning and attacks through codecs, beside the samples as they are.

    python -m tests.bench.bench_codec_tasks --work work --out reports/reference

Grids of ``gped-search suite`` on digits, three seeds, each with a teacher of its own that all
methods read: so a method's difference from the samples as they are is paired by seed. What is
measured is kept in ``--work``: the same call goes on from there.

* ``digits`` and ``small``: noticing inputs from outside, of the networks 64-128-128-10 of
  ``digits_sgld`` and of such with 64-16-10.
* ``... transfer``: inputs that an attack found for a network of ordinary training, and for the
  average itself; of an average of more than 20 networks 20 are attacked and asked.
* ``small active``: chains of a sixth of the length, since each round samples and codes anew.
"""

import argparse
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import gped_nas as gn
from gped_nas import device
from gped_nas.io import make_dir, write_json
from tests.bench.bench_kept import over_seeds, paired

Row = Mapping[str, Any]
Line = tuple[str, str, str]
"""Task, metric and what is asked: whose inputs, or after how many labels."""

Values = dict[Line, dict[str, dict[int, float]]]
"""By method and seed."""

OWN = "own"
ALL_ROUNDS = "mean of rounds"
SEEDS = 3
SMALL = {"teacher.genotype": {"depth": 1, "width": 16}}
SHORT = {
    "teacher.method.num_samples": 40,
    "teacher.method.burn_in": 400,
    "teacher.method.thinning": 20,
    "teacher.method.step_size": {"initial": 5.0e-3},
}
"""Chains of 800 steps, which suit few labels: at .0002 they have not left their start, and BALD
buys worse labels than chance."""
QUICK = {
    "conditions": {"quick": {"name": "apgd", "epsilon": 0.05, "steps": 20, "targets": 3}},
    "baseline": {"precisions": [1.0], "steps": 800},
}
"""An attack of 80 gradients, and an ordinary network of one prior."""
FINITE: dict[str, Any] = {
    "8 bits": {"name": "quantized", "bits": 8},
    "4 bits around mean": {"name": "quantized", "bits": 4, "around": "mean"},
    "subset of 20": {"name": "subset", "num_samples": 20},
}
LAWS = {
    "low_rank 20": {"name": "low_rank", "rank": 20},
    "flow 20": {"name": "flow", "components": 20},
}
SHORT_CODECS = {
    "4 bits around mean": FINITE["4 bits around mean"],
    "low_rank 10": {"name": "low_rank", "rank": 10},
}
"""Each round fits a codec anew, so that those that train a network take too long."""
APD = {"apd": {"name": "apd", "iterations": 2500}}
OUTSIDE = ("ood:permuted", "ood:noise", "ood:rotated")
DETECTION = tuple(f"ood_auroc_{score}" for score in ("confidence", "total", "model"))


def _grid(name: str, settings: Mapping[str, Any], methods: Mapping[str, Any], **more: Any) -> Row:
    """A grid of one teacher."""
    return {
        "name": f"codecs {name}",
        "teachers": [{name: {"space": "digits_sgld", "set": dict(settings)}}],
        "methods": [OWN, *({method: dict(how)} for method, how in methods.items())],
        "seeds": SEEDS,
        "subjects": ["teacher"],
        **more,
    }


OOD: dict[str, Any] = {
    "tasks": [*OUTSIDE, "prediction"],
    "metrics": ["accuracy", "nll", *DETECTION],
}
TRANSFER: dict[str, Any] = {
    "tasks": ["transfer:quick"],
    "metrics": ["accuracy"],
    "subjects": ["teacher", "map"],
    "limit": 200,
}
ACTIVE: dict[str, Any] = {"tasks": ["active:bald"], "metrics": ["accuracy"]}
GRIDS = {
    "digits": _grid("digits", {}, {**FINITE, **LAWS}, **OOD),
    "digits transfer": _grid("digits transfer", QUICK, {**FINITE, **LAWS}, **TRANSFER),
    "small active": _grid("small active", {**SMALL, **SHORT}, SHORT_CODECS, **ACTIVE),
    "small active random": _grid(
        "small active random", {**SMALL, **SHORT}, {}, **{**ACTIVE, "tasks": ["active:random"]}
    ),
    "small": _grid("small", SMALL, {**FINITE, **LAWS, **APD}, **OOD),
    "small transfer": _grid(
        "small transfer", {**SMALL, **QUICK}, {**FINITE, **LAWS, **APD}, **TRANSFER
    ),
}


def summarize(rows: Sequence[Row], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """A line a task, metric and what is asked: each method's mean, and how far it is from own."""
    values: Values = defaultdict(lambda: defaultdict(dict))
    rounds: dict[tuple[Line, str, int], list[float]] = defaultdict(list)
    for row in rows:
        if row["subject"] != "teacher" or row["metric"] not in metrics or row["value"] is None:
            continue
        asked = row.get("inputs_of") or row["condition"]
        line = row["task"], row["metric"], asked
        values[line][row["method"]][row["seed"]] = row["value"]
        if row["task"].startswith("active"):
            line = row["task"], row["metric"], ALL_ROUNDS
            rounds[line, row["method"], row["seed"]].append(row["value"])
    for (line, method, seed), of_rounds in rounds.items():
        values[line][method][seed] = fmean(of_rounds)

    lines = []
    for (task, metric, asked), by_method in values.items():
        own = by_method[OWN]
        figures = {}
        for method, by_seed in by_method.items():
            figures[method] = over_seeds(list(by_seed.values()))
            if method != OWN:
                figures[method]["minus own"] = over_seeds(paired(by_seed, own))
        lines.append({"task": task, "metric": metric, "asked": asked, "methods": figures})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("grids", nargs="*", help="all by default")
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    parser.add_argument("--work", type=Path, default=Path("reports"))
    arguments = parser.parse_args()

    session = gn.new_session("cpu", processes=1)
    report = {}
    for name in arguments.grids or GRIDS:
        result = gn.run_suite(
            GRIDS[name],
            out=arguments.work,
            session=session,
            told=lambda cell, done, total, problem: print(
                f"{done} of {total}: {cell} {problem}", flush=True
            ),
        )
        report[name] = {
            "lines": summarize(result.rows, GRIDS[name]["metrics"]),
            "notes": result.data["notes"],
        }
    machine = device.fingerprint(session.device)
    whole = {"grids": GRIDS, "reports": report, "machine": machine}
    write_json(make_dir(arguments.out) / "codec_tasks.json", whole)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
