"""What a teacher gives a student: student, label twin and MAP twin, over several seeds.

    python -m tests.bench.bench_twins digits --out reports/reference/twins.json
    GPED_DATA=... python -m tests.bench.bench_twins fashion --out reports/reference/twins.json

Three sizes of unpruned student learn from two teachers, the shipped chain and a deep ensemble, by
three recipes: the shipped one; a longer one at clean and mixed inputs; and that one with labels for
half of the loss. Of each size and kind the file has means over the seeds of metrics on test, and
paired differences over examples and seeds. Results are merged into the file data by data.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import gped_nas as gn
from gped_nas import device as devices
from gped_nas.api.lessons import distillation_set
from gped_nas.api.preparing import prepare_trainer
from gped_nas.api.teacher import sample_teacher
from gped_nas.api.twin_measures import compare_twins
from gped_nas.io import make_dir, read_json, write_json
from gped_nas.search.document import Twins
from gped_nas.search.run import TimeLimit
from gped_nas.search.space import SearchSpace

Settings = dict[str, Any]
METRICS = ("nll", "accuracy", "ece", "brier", "entropy_error", "kl_to_teacher")
MIXED_TOO = [{"policy": "clean"}, {"policy": "mixup"}]
SPACES: dict[str, Settings] = {
    "digits": {
        "space": "digits_sgld",
        "widths": [16, 32, 64],
        "steps": 2000,
        "ensemble": {"name": "deep_ensemble", "num_samples": 10, "steps": 800, "batch_size": 100},
        "prior": {"precision": 0.01},
    },
    "fashion": {
        "space": "fashion_sgld",
        "widths": [32, 64, 128],
        "steps": 12000,
        "ensemble": {"name": "deep_ensemble", "num_samples": 4, "steps": 6000, "batch_size": 100},
        "prior": {"precision": 30.0},
    },
}


def teachers_of(name: str) -> dict[str, Settings]:
    """The settings of each teacher, beside those of the space."""
    of_space = SPACES[name]
    ensemble = {"teacher.method": of_space["ensemble"], "teacher.prior": of_space["prior"]}
    return {"shipped": {}, "deep ensemble": ensemble}


def recipes_of(name: str) -> dict[str, Settings]:
    """The settings of each recipe, beside those of the space."""
    longer = {"recipe.steps": SPACES[name]["steps"], "views": MIXED_TOO}
    with_labels = longer | {"recipe.label_weight": 0.5}
    return {"shipped": {}, "longer": longer, "longer, half labels": with_labels}


def space_of(name: str, settings: Settings, seeds: int) -> SearchSpace:
    """Three sizes of student, all of them drawn."""
    widths = {"choices": SPACES[name]["widths"]}
    return gn.load_space(
        SPACES[name]["space"],
        {
            "students": [{"family": "mlp", "genotype": {"depth": 1, "width": widths}}],
            "objectives": ["nll", "params"],
            "search": {"sampler": "brute_force", "n_trials": 3, "students_at_once": 15},
            "twins": {"seeds": seeds, "students": 3},
            **settings,
        },
    )


def measure(name: str, settings: Settings, seeds: int, folder: Path) -> Settings:
    """One teacher and one recipe: every size with its twins."""
    started = time.process_time()
    study = gn.run(space_of(name, settings, 0), out=folder, progress=False)
    space = space_of(name, settings, seeds)
    teacher = sample_teacher(space, gn.new_session("cpu"))
    trainer = prepare_trainer(
        study, teacher, distillation_set(teacher), teacher.averaged("validation")
    )

    # all sizes, whether or not they are on the front
    records = [record for record in study.records() if record.state == "complete"]
    records.sort(key=lambda record: record.costs["params"])
    limit = TimeLimit(None)
    compare_twins(study.ledger, study.path, trainer, records, records[0], limit=limit)

    rows = {}
    for record in records:
        (stored,) = [row for row in study.ledger.document.twins if row.trial == record.trial]
        rows[f"1 x {record.genotype['width'][0]}"] = row_of(stored)
    references = {
        who: {metric: study.reference(who).metrics.get(f"test_{metric}") for metric in METRICS}
        for who in ("teacher", "map")
    }
    return {
        "sizes": rows,
        "references": references,
        "processor_s": round(time.process_time() - started, 1),
    }


def row_of(stored: Twins) -> Settings:
    """One size: figures by kind, and differences with their intervals."""
    figures = {}
    for reference in stored.twins.references:
        figures[reference.name] = {m: reference.metrics.get(f"test_{m}") for m in METRICS}
        figures[reference.name]["note"] = reference.note
    differences = []
    for row in stored.comparisons:
        if row.metric in METRICS:
            pair = f"{row.first} - {row.second}"
            differences.append([pair, row.metric, row.difference, row.interval])
    return {"figures": figures, "differences": differences, "n": stored.comparisons[0].n}


def main() -> None:
    """Measure one dataset, merge it into the file, print how the student does."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", choices=SPACES)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("reports/bench/twins.json"))
    args = parser.parse_args()
    make_dir(args.out.parent)
    torch.set_num_threads(1)

    rows: Settings = {}
    with tempfile.TemporaryDirectory() as folder:
        for teacher, of_teacher in teachers_of(args.data).items():
            for recipe, of_recipe in recipes_of(args.data).items():
                settings = of_teacher | of_recipe
                out = Path(folder) / teacher / recipe
                row = measure(args.data, settings, args.seeds, out)
                rows.setdefault(teacher, {})[recipe] = row
                print(teacher, "|", recipe, "|", row["processor_s"], "s", flush=True)
                for size, measured in row["sizes"].items():
                    for pair, metric, value, interval in measured["differences"]:
                        if metric == "nll":
                            print("   ", size, pair, round(value, 4), interval, flush=True)

    result = {
        "seeds": args.seeds,
        "hardware": devices.fingerprint(torch.device("cpu")),
        "teachers": rows,
    }
    merged = read_json(args.out) if args.out.exists() else {}
    write_json(args.out, {**merged, args.data: result})


if __name__ == "__main__":
    main()
