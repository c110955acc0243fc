"""Every posterior method against HMC on digits: the table of
``reports/reference/methods_digits.json``.

    python tests/bench/methods_digits.py --out reports/reference

One mlp of 3,610 weights, one prior, the test part (reported, never used to choose). The reference
is one long HMC run with a seed of its own; the row ``hmc`` is shorter runs of it, and so what
agreement a perfect method of that length would reach. Step sizes, learning rates and the like are
chosen by validation NLL on another seed, from ``GRIDS``. Streams are cached, so a run that was
stopped goes on. Means over the seeds with 95 % t-intervals.
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
from gped_nas.api.teacher import build_teacher, load_dataset
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


def teacher_of(space: SearchSpace, settings: dict[str, Any], seed: int, session: Session) -> Any:
    dataset = load_dataset(space)
    cfg = method_settings(space, dataset, settings)
    return build_teacher(replace(space, method=cfg, views=(), seed=seed), session, dataset=dataset)


def tuned(
    space: SearchSpace, session: Session
) -> tuple[dict[str, dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """The settings with the lowest validation NLL of each method, and all that were tried."""
    chosen, tried = {}, {}
    for name, grid in GRIDS.items():
        nll = []
        for settings in grid if len(grid) > 1 else ():
            teacher = teacher_of(space, settings, TUNING_SEED, session)
            mean = teacher.averaged("validation")
            nll.append(METRICS["nll"].value(mean, teacher.dataset.labels("validation")))
            print(f"{settings}: validation NLL {nll[-1]:.4f}", flush=True)
        chosen[name] = grid[nll.index(min(nll))] if nll else grid[0]
        tried[name] = [{**s, "validation nll": v} for s, v in zip(grid, nll, strict=False)]
    return chosen, tried


def interval(values: list[float]) -> dict[str, float]:
    """Mean and half a 95 % t-interval."""
    half = t_quantile(len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return {"mean": statistics.fmean(values), "half": half}


def summary(name: str, rows: list[MethodRow]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "method": name,
        "bytes": rows[0].weights_bytes,
        "num_samples": rows[0].num_samples,
    }
    for column in COLUMNS:
        found[column] = interval([getattr(row, column) for row in rows])
    found["verdicts"] = [row.verdict for row in rows]
    return found


def markdown(rows: list[dict[str, Any]]) -> str:
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
        cells = [f"{row[c]['mean']:.3f} ± {row[c]['half']:.3f}" for c in COLUMNS[:-1]]
        seconds = f"{row['seconds']['mean']:.0f}"
        lines.append(
            f"| {row['method']} | {' | '.join(cells)} | {seconds} | {row['bytes'] / 1000:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    out = parser.parse_args().out
    assert set(GRIDS) == set(METHODS) - {"import"}, "a method without a grid"
    make_dir(out)
    space, session = load_space("digits_mlp", SPACE), new_session("cpu")
    chosen, tried = tuned(space, session)
    reference = teacher_of(space, REFERENCE, REFERENCE_SEED, session)
    about = diagnose(reference)
    print("reference:", judge(about).sentence, flush=True)
    truth = reference.averaged("test")
    of_reference = measure(reference, part="test", truth=None)
    found: dict[str, list[MethodRow]] = {}
    rows: list[dict[str, Any]] = []
    for name, settings in chosen.items():
        for seed in SEEDS:
            teacher = teacher_of(space, settings, seed, session)
            found.setdefault(name, []).append(measure(teacher, part="test", truth=truth))
            print(found[name][-1], flush=True)
        rows = sorted(
            (summary(n, r) for n, r in found.items()),
            key=lambda row: row["total_variation"]["mean"],
        )
        write_json(
            out / "methods_digits.json",
            {
                "dataset": "digits, test part, n = 359",
                "network": str(space.genotype),
                "params": 3610,
                "seeds": list(SEEDS),
                "measured on": fingerprint(torch.device("cpu")),
                "reference": {
                    **asdict(of_reference),
                    "settings": REFERENCE,
                    "diagnosis": about.to_json(),
                    "verdict": judge(about).sentence,
                },
                "settings": chosen,
                "tried": tried,
                "rows": rows,
                "by seed": {
                    name: [asdict(row) for row in of_seeds] for name, of_seeds in found.items()
                },
            },
        )
        write_text(out / "methods_digits.md", markdown(rows))
    print(markdown(rows))


if __name__ == "__main__":
    main()
