"""Every posterior method against HMC on digits.

    python tests/bench/methods_digits.py --out reports/reference

It writes the table of ``reports/reference/methods_digits.json``. One mlp of 3,610 weights, one
prior, the test part (reported, never used to choose). The reference is one long HMC run with a seed
of its own; the row ``hmc`` is shorter runs of it, and so what agreement a perfect method of that
length would reach. Step sizes, learning rates and the like are chosen by validation NLL on another
seed, from ``GRIDS``. Streams are cached, so a run that was stopped goes on. Means over the seeds
with 95 % t-intervals.
"""

import argparse
import statistics
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from gped_nas.api.comparison import MethodRow, measure
from gped_nas.api.diagnosis import diagnose
from gped_nas.api.session import Session, new_session
from gped_nas.api.settings import method_settings
from gped_nas.api.teacher import Teacher, build_teacher, load_dataset
from gped_nas.api.verdict import judge
from gped_nas.device import fingerprint
from gped_nas.evaluate.base import METRICS
from gped_nas.io import make_dir, write_json, write_text
from gped_nas.posterior.base import METHODS
from gped_nas.posterior.diagnostics import t_quantile
from gped_nas.search.space import SearchSpace
from gped_nas.search.space_file import load_space

SEEDS, TUNING_SEED, REFERENCE_SEED = (0, 1, 2), 100, 1000
SPACE = {
    "teacher.genotype": {"depth": 1, "width": 48},
    "teacher.prior": {"precision": 10.0},
    "teacher.method": {
        "name": "sgld",
        "chains": 2,
        "num_samples": 100,
        "step_size": {"initial": 2e-4},
        "burn_in": 2000,
        "thinning": 100,
        "batch_size": 100,
    },
}
HMC: dict[str, Any] = {"name": "hmc", "leapfrog_steps": 100, "burn_in": 100}
REFERENCE = {**HMC, "chains": 4, "num_samples": 600}


def _steps(name: str, values: tuple[float, ...], **others: Any) -> list[dict[str, Any]]:
    return [{"name": name, "step_size": {"initial": value}, **others} for value in values]


CYCLE = {"samples_per_cycle": 5}
GRIDS: dict[str, list[dict[str, Any]]] = {
    "csghmc": [
        {"name": "csghmc", "step_size": {"initial": h, "length": 1000}, "friction": 5.0, **CYCLE}
        for h in (0.01, 0.02, 0.04)
    ],
    "csgld": [
        {"name": "csgld", "step_size": {"initial": eta, "length": 1000}, **CYCLE}
        for eta in (2e-4, 6e-4, 2e-3)
    ],
    "deep_ensemble": [
        {"name": "deep_ensemble", "regularizer": kind} for kind in ("prior", "anchor")
    ],
    "hmc": [HMC],
    "laplace": [{"name": "laplace"}],
    "map": [{"name": "map", "lr": lr} for lr in (1e-3, 3e-3)],
    "mc_dropout": [{"name": "mc_dropout", "rate": rate} for rate in (0.05, 0.1, 0.3)],
    "psgld": _steps("psgld", (3e-6, 1e-5, 3e-5), damping=0.02),
    "sghmc": _steps("sghmc", (0.005, 0.01, 0.02), friction=5.0),
    "sgld": _steps("sgld", (1e-4, 3e-4, 1e-3)),
    "swag": [{"name": "swag", "swag_lr": lr} for lr in (0.1, 0.5)],
    "vi": [{"name": "vi", "steps": 7000, "lr": lr} for lr in (1e-3, 3e-3)],
}
COLUMNS = (
    "agreement",
    "total_variation",
    "nll",
    "accuracy",
    "ece",
    "ood_entropy",
    "ood_information",
    "seconds",
)


def teacher_of(
    space: SearchSpace, settings: dict[str, Any], seed: int, session: Session
) -> Teacher:
    """The teacher of a method's settings and a seed."""
    dataset = load_dataset(space)
    cfg = method_settings(space, dataset, settings)
    return build_teacher(replace(space, method=cfg, views=(), seed=seed), session, dataset=dataset)


def validation_nll(space: SearchSpace, settings: dict[str, Any], session: Session) -> float:
    """What settings are chosen by."""
    teacher = teacher_of(space, settings, TUNING_SEED, session)
    labels = teacher.dataset.labels("validation")
    return METRICS["nll"].value(teacher.averaged("validation"), labels)


def tune(
    space: SearchSpace, session: Session
) -> tuple[dict[str, dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """The settings with the lowest validation NLL of each method, and all that were tried."""
    chosen: dict[str, dict[str, Any]] = {}
    tried: dict[str, list[dict[str, Any]]] = {}
    for name, grid in GRIDS.items():
        chosen[name], tried[name] = grid[0], []
        # where there is nothing to choose, nothing is sampled
        if len(grid) == 1:
            continue

        for settings in grid:
            nll = validation_nll(space, settings, session)
            tried[name].append({**settings, "validation nll": nll})
            print(f"{settings}: validation NLL {nll:.4f}", flush=True)
        values = [entry["validation nll"] for entry in tried[name]]
        chosen[name] = grid[values.index(min(values))]
    return chosen, tried


def interval(values: list[float]) -> dict[str, float]:
    """Mean and half a 95 % t-interval."""
    half = t_quantile(len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return {"mean": statistics.fmean(values), "half": half}


def summary(name: str, rows: list[MethodRow]) -> dict[str, Any]:
    """One row of the table: intervals over the seeds."""
    row: dict[str, Any] = {
        "method": name,
        "bytes": rows[0].weights_bytes,
        "num_samples": rows[0].num_samples,
    }
    for column in COLUMNS:
        row[column] = interval([getattr(of_seed, column) for of_seed in rows])
    row["verdicts"] = [of_seed.verdict for of_seed in rows]
    return row


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table."""
    heads = [
        "method",
        "agreement",
        "total variation",
        "NLL",
        "accuracy",
        "ECE",
        "AUROC H",
        "AUROC MI",
        "s",
        "kB",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]

    for row in rows:
        cells = [row["method"]]
        cells += [f"{row[c]['mean']:.3f} ± {row[c]['half']:.3f}" for c in COLUMNS[:-1]]
        cells += [f"{row['seconds']['mean']:.0f}", f"{row['bytes'] / 1000:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, write the file and the table after each method, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    out = make_dir(parser.parse_args().out)
    drawing = {name for name, method in METHODS.items() if not method.reads_samples}
    assert set(GRIDS) == drawing - {"import"}, "a method without a grid"

    space, session = load_space("digits_sgld", SPACE), new_session("cpu")
    chosen, tried = tune(space, session)
    reference = teacher_of(space, REFERENCE, REFERENCE_SEED, session)
    diagnosis = diagnose(reference)
    verdict = judge(diagnosis).sentence
    print("reference:", verdict, flush=True)
    truth = reference.averaged("test")
    result: dict[str, Any] = {
        "dataset": "digits, test part, n = 359",
        "network": str(space.genotype),
        "params": 3610,
        "seeds": list(SEEDS),
        "measured on": fingerprint(torch.device("cpu")),
        "reference": {
            **asdict(measure(reference, part="test", truth=None)),
            "settings": REFERENCE,
            "diagnosis": diagnosis.to_json(),
            "verdict": verdict,
        },
        "settings": chosen,
        "tried": tried,
    }

    by_seed: dict[str, list[MethodRow]] = {}
    rows: list[dict[str, Any]] = []
    for name, settings in chosen.items():
        by_seed[name] = []
        for seed in SEEDS:
            teacher = teacher_of(space, settings, seed, session)
            by_seed[name].append(measure(teacher, part="test", truth=truth))
            print(by_seed[name][-1], flush=True)

        rows.append(summary(name, by_seed[name]))
        rows.sort(key=lambda row: row["total_variation"]["mean"])
        result["rows"] = rows
        result["by seed"] = {
            n: [asdict(row) for row in of_seeds] for n, of_seeds in by_seed.items()
        }
        write_json(out / "methods_digits.json", result)
        write_text(out / "methods_digits.md", markdown(rows))
    print(markdown(rows))


if __name__ == "__main__":
    main()
