"""Is a teacher better than one network of its size? Beside tuned MAP networks and ensembles.

    python -m tests.bench.bench_teachers all --device cuda --parts parts --time-limit 400 \\
        --out reports/reference/teachers.json
    python -m tests.bench.bench_teachers digits --teacher-seed 0 --parts parts
    python -m tests.bench.bench_teachers merge --parts parts --out reports/reference/teachers.json

Of each dataset and teacher seed, networks of one genotype are trained with every setting of a grid,
some with each: the mean of their figures is the *MAP network* over seeds, the average of five of
them the *ensemble*. Other teachers stand beside them. Validation chooses each row's setting, by the
mean over the teacher seeds; test figures of what was chosen are reported. Intervals are over
examples and teacher seeds.

``all`` runs a process for each dataset and seed, side by side; each writes what it has after every
setting, so that a run that is cut off leaves the settings before. ``merge`` makes the table.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gped_nas as gn
from gped_nas import device as devices
from gped_nas.api.teacher import Teacher, sample_teacher
from gped_nas.data.base import Task
from gped_nas.evaluate.base import METRICS
from gped_nas.evaluate.predictions import AnyPredictions, Floats, NormalPredictions
from gped_nas.evaluate.resamples import Resamples, draw_resamples
from gped_nas.evaluate.seeds import Sampled, differences, means
from gped_nas.evaluate.teacher import averaged
from gped_nas.io import make_dir, read_json, write_json
from gped_nas.search.space import SearchSpace
from tests.bench.side_by_side import run_side_by_side
from tests.bench.twin_cases import CHAINS

Settings = dict[str, Any]
PARTS = ("validation", "test")
TEACHER_SEEDS = (0, 1, 2)
MEMBERS = 5
NETWORKS = "ensemble of 5, precision"
"""How the settings of the grid begin."""
ROWS = ("map", "ensemble of 5", "teacher", "single sample")
PAIRS = (
    ("teacher", "map"),
    ("ensemble of 5", "map"),
    ("teacher", "ensemble of 5"),
    ("single sample", "map"),
)


@dataclass(frozen=True)
class Case:
    """One dataset.

    Attributes:
        space: a shipped space, whose dataset, networks and likelihood are taken.
        grid: settings of networks trained to the end: prior precision, steps, step size.
        teachers: other teachers by name: what of the space they change.
        on_gpu: whether a step is long enough for one.
    """

    space: str
    grid: tuple[tuple[float, int, float], ...]
    teachers: dict[str, Settings] = field(default_factory=dict)
    on_gpu: bool = False


def _grid(precisions: tuple[float, ...], *trainings: tuple[int, float]) -> Any:
    return tuple((p, steps, lr) for p in precisions for steps, lr in trainings)


def ensemble_of(size: int, precision: float, steps: int, lr: float) -> Settings:
    method = {"name": "deep_ensemble", "num_samples": size, "steps": steps, "lr": lr}
    return {"teacher.method": method, "teacher.prior": {"precision": precision}}


def _cold_chain(name: str, precision: float, **settings: Any) -> Settings:
    method = {"name": name, "chains": 5, "num_samples": 50, "temperature": 0.01, **settings}
    return {"teacher.method": method, "teacher.prior": {"precision": precision}}


CASES = {
    "digits": Case(
        "digits_sgld",
        _grid((0.01, 0.1, 0.3, 1.0, 3.0), (800, 1e-3), (400, 3e-3), (800, 3e-3)),
        {
            "sgld": {},
            "sghmc at T = 0.01": _cold_chain(
                "sghmc",
                1.0,
                step_size={"initial": 0.01},
                friction=5.0,
                burn_in=800,
                thinning=80,
            ),
            "ensemble of 20": ensemble_of(20, 0.1, 400, 3e-3),
        },
    ),
    "diabetes_mlp": Case(
        "diabetes_mlp",
        _grid((1.0, 10.0, 30.0, 100.0, 300.0), (1000, 1e-3)),
        {"sgld": {}},
    ),
    "own": Case(
        "own",
        _grid((0.01, 0.1, 1.0, 10.0, 30.0), (2000, 1e-3), (2000, 3e-3)),
        {"proposed by init": {}},
    ),
    "fashion_mlp": Case(
        "fashion_sgld",
        _grid((30.0, 10.0, 60.0), (6000, 1e-3)),
        {
            "sgld": {},
            "sgld at T = 0.03": {"teacher.method.temperature": 0.03},
        },
        on_gpu=True,
    ),
    "fashion_cnn": Case(
        "fashion_cnn",
        _grid((20.0, 60.0), (4000, 2e-3), (4000, 1e-3)),
        {"sgld": CHAINS},
        on_gpu=True,
    ),
}


def own_table(folder: Path) -> Path:
    """A space for a table of one's own: 20 columns, six classes, 5 % wrong labels."""
    from sklearn.datasets import make_classification

    x, y = make_classification(
        n_samples=5000,
        n_features=20,
        n_informative=10,
        n_classes=6,
        flip_y=0.05,
        class_sep=1.5,
        random_state=0,
    )
    make_dir(folder)
    np.savez(folder / "own.npz", x_train=x.astype(np.float32), y_train=y)
    path = folder / "own.yaml"
    if not path.exists():
        program = Path(sys.executable).with_name("gped-search")
        command = [program, "init", path, "--data", folder / "own.npz"]
        subprocess.run(command, check=True, capture_output=True)
    return path


class Collected:
    """What one dataset and teacher seed gave so far.

    Attributes:
        terms: by row, setting, part and metric the loss of each example.
        figures: by row and setting what is one number: seconds, ECE.
    """

    def __init__(self, path: Path, labels: dict[str, Any]) -> None:
        self._path, self._labels = path, labels
        self.terms: dict[str, Floats] = {}
        self.figures: dict[str, Settings] = {}

    def add(
        self, row: str, setting: str, by_part: dict[str, list[AnyPredictions]], **figures: Any
    ) -> None:
        """One row: the mean over one or several predictions of the same examples."""
        for part, predictions in by_part.items():
            labels = self._labels[part]
            for metric, terms_N in terms_of(predictions, labels).items():
                self.terms[f"{row}|{setting}|{part}|{metric}"] = terms_N
            if METRICS["ece"].applies(predictions[0], None):
                values = [METRICS["ece"].value(each, labels, None) for each in predictions]
                figures[f"{part}_ece"] = float(np.mean(values))
        self.figures[f"{row}|{setting}"] = figures

    def write(self) -> None:
        """Everything so far, whole or not at all."""
        partial = self._path.with_suffix(".partial.npz")
        np.savez(partial, **self.terms)
        os.replace(partial, self._path.with_suffix(".npz"))
        write_json(self._path.with_suffix(".json"), self.figures)


def terms_of(predictions: Sequence[AnyPredictions], labels_N: Any) -> dict[str, Floats]:
    """Losses of each example, the mean over several networks."""
    terms = {"nll": np.mean([-each.log_score(labels_N) for each in predictions], axis=0)}
    if isinstance(predictions[0], NormalPredictions):
        squares = [(each.mean_N - labels_N) ** 2 for each in predictions]
        terms["squared_error"] = np.mean(squares, axis=0)
    else:
        hits = [each.answer_N == labels_N for each in predictions]
        terms["accuracy"] = np.mean(hits, axis=0)
    return terms


def measure(args: argparse.Namespace) -> None:
    """One dataset and teacher seed: its other teachers, and every setting of its grid."""
    started = time.monotonic()
    torch.set_num_threads(1)
    case = CASES[args.data]
    make_dir(args.parts)
    streams = args.parts / "streams"
    device = args.device if case.on_gpu else "cpu"
    session = replace(gn.new_session(device), streams=streams, processes=1)
    where = own_table(args.parts / "own") if case.space == "own" else case.space
    dataset = gn.load_dataset(teacher_space(where, {}, args))
    labels = {part: dataset.labels(part) for part in PARTS}
    collected = Collected(args.parts / f"{args.data}-{args.teacher_seed}", labels)

    for setting, changes in settings_of(case):
        if time.monotonic() - started > args.time_limit:
            print(f"{args.data} {args.teacher_seed}: no time for {setting}", flush=True)
            break
        begun = time.monotonic()
        teacher = sample_teacher(teacher_space(where, changes, args), session, dataset=dataset)
        predicted = {part: teacher.predicted(part) for part in PARTS}
        seconds = time.monotonic() - begun

        nll = collect(collected, setting, teacher, labels["validation"], round(seconds, 1))
        collected.write()
        shown = f"{setting}: {nll:.4f} on validation, {seconds:.1f} s, {len(predicted['test'])}"
        print(f"{args.data} {args.teacher_seed}: {shown}", flush=True)


def collect(
    collected: Collected, setting: str, teacher: Teacher, labels_N: Any, seconds: float
) -> float:
    """The rows that a teacher belongs to; its NLL on validation."""
    num = len(teacher.predicted("test"))
    together = {part: [average(teacher, part, range(num))] for part in PARTS}
    collected.add("teacher", setting, together, seconds=seconds, samples=num)

    each = {part: [average(teacher, part, [i]) for i in range(num)] for part in PARTS}
    if setting.startswith(NETWORKS):
        collected.add("map", setting, each, seconds=round(seconds / num, 1))
        collected.add("ensemble of 5", setting, together, seconds=seconds)

    scores = [each_one.log_score(labels_N).mean() for each_one in each["validation"]]
    best = {part: [each[part][int(np.argmax(scores))]] for part in PARTS}
    collected.add("single sample", setting, best, seconds=seconds)
    return -float(together["validation"][0].log_score(labels_N).mean())


def average(teacher: Teacher, part: Any, members: Sequence[int]) -> AnyPredictions:
    """What some posterior samples say together."""
    chosen = list(members)
    weight_S = teacher.stream.weight_S[chosen]
    return averaged(teacher.predicted(part)[chosen], weight_S, teacher.dataset.label_normalization)


def settings_of(case: Case) -> Iterator[tuple[str, Settings]]:
    """What is tried, in words, and what of the space it changes."""
    networks = []
    for precision, steps, lr in case.grid:
        setting = f"{NETWORKS} {precision:g}, {steps} steps at {lr:g}"
        networks.append((setting, ensemble_of(MEMBERS, precision, steps, lr)))

    # a run that is cut off has one of each
    yield networks[0]
    yield from case.teachers.items()
    yield from networks[1:]


def teacher_space(where: str | Path, changes: Settings, args: argparse.Namespace) -> SearchSpace:
    """The space of a teacher, without views: only validation and test are predicted."""
    settings = {"seed": args.teacher_seed, **changes}
    if args.dry_run and str(where).startswith("fashion"):
        where = "digits_sgld"
    space = gn.load_space(where, settings)
    method = space.method
    if args.dry_run:
        short = {"steps": 100, "burn_in": 100, "thinning": 10, "num_samples": 10}
        short = {key: value for key, value in short.items() if hasattr(method, key)}
        method = method.model_copy(update=short)
    return replace(space, method=method, views=())


class Table:
    """The parts of one dataset, and what they say together."""

    def __init__(self, name: str, parts: Path) -> None:
        self.name = name
        self.terms, self.figures = [], []
        for path in sorted(parts.glob(f"{name}-*.json")):
            self.figures.append(read_json(path))
            with np.load(path.with_suffix(".npz")) as file:
                self.terms.append(dict(file))

    def settings(self, row: str) -> list[str]:
        """What every teacher seed has of a row."""
        names = []
        for key in self.figures[0]:
            is_everywhere = all(key in figures for figures in self.figures)
            if key.startswith(f"{row}|") and is_everywhere:
                names.append(key.split("|", 1)[1])
        return names

    def validation_nll(self, row: str, setting: str) -> float:
        """The mean over the teacher seeds."""
        key = f"{row}|{setting}|validation|nll"
        return float(np.mean([terms[key].mean() for terms in self.terms]))

    def chosen(self) -> dict[str, str]:
        """The setting of each row with the lowest NLL on validation; the teacher's own samples."""
        chosen = {}
        for row in ROWS[:3]:
            names = self.settings(row)
            chosen[row] = min(names, key=lambda setting, row=row: self.validation_nll(row, setting))
        return {**chosen, "single sample": chosen["teacher"]}

    def sampled(
        self, row: str, setting: str, part: str, resamples: Resamples
    ) -> dict[str, Sampled]:
        """Each metric by teacher seed and on resamples of the examples."""
        sampled = {}
        is_real = f"{row}|{setting}|{part}|squared_error" in self.terms[0]
        task: Task = "regression" if is_real else "classification"
        for stored, metric in (("nll", "nll"), ("accuracy", "accuracy"), ("squared_error", "rmse")):
            key = f"{row}|{setting}|{part}|{stored}"
            if key not in self.terms[0]:
                continue
            terms_NK = np.stack([terms[key] for terms in self.terms], axis=1)
            values_RK = resamples.sums(terms_NK) / resamples.n
            values_K = terms_NK.mean(axis=0)
            if metric == "rmse":
                values_K, values_RK = np.sqrt(values_K), np.sqrt(values_RK)
            sampled[metric] = Sampled(METRICS[metric], task, values_K, values_RK, resamples.n)
        return sampled

    def to_json(self) -> Settings:
        """Rows and paired differences of the chosen settings, on both parts."""
        chosen = self.chosen()
        table: Settings = {"teacher_seeds": len(self.terms), "chosen": chosen, "n": {}}
        rows: dict[str, Settings] = {row: {} for row in ROWS}
        table["rows"], table["differences"] = rows, []

        for row in ROWS:
            of_seeds = [figures[f"{row}|{chosen[row]}"] for figures in self.figures]
            for name in of_seeds[0]:
                rows[row][name] = round(float(np.mean([each[name] for each in of_seeds])), 5)

        for part in PARTS:
            any_key = f"map|{chosen['map']}|{part}|nll"
            resamples = draw_resamples(len(self.terms[0][any_key]), root=0, part=part)
            table["n"][part] = resamples.n
            sampled = {row: self.sampled(row, chosen[row], part, resamples) for row in ROWS}
            for row in ROWS:
                for metric, value in means(sampled[row], root=0).items():
                    rows[row][f"{part}_{metric}"] = value.value
            for first, second in PAIRS:
                both = differences(sampled[first], sampled[second], root=0)
                for metric, value in both.items():
                    pair = f"{first} - {second}"
                    interval = [value.low, value.high]
                    table["differences"].append([pair, f"{part}_{metric}", value.value, interval])

        table["tried"] = {
            row: {name: round(self.validation_nll(row, name), 4) for name in self.settings(row)}
            for row in ROWS[:3]
        }
        return table


def merge(parts: Path, out: Path) -> None:
    """The table of all parts that are there."""
    table: Settings = {}
    for name in CASES:
        case = Table(name, parts)
        if case.figures and case.settings("map"):
            table[name] = case.to_json()
            print(name, json.dumps(table[name]["rows"], indent=1), flush=True)
            for row in table[name]["differences"]:
                print("   ", *row, flush=True)
    machine = parts / "machine.json"
    hardware = read_json(machine) if machine.exists() else {}
    make_dir(out.parent)
    write_json(out, {"hardware": hardware, "data": table})


def everything(args: argparse.Namespace) -> None:
    """A process for each dataset and teacher seed, side by side; then the table."""
    make_dir(args.parts)
    own_table(args.parts / "own")
    write_json(args.parts / "machine.json", devices.fingerprint(torch.device(args.device)))

    parts = []
    for seed in TEACHER_SEEDS[: args.seeds]:
        for name in args.data_sets:
            part = [name, "--teacher-seed", str(seed), "--device", args.device]
            part += ["--parts", str(args.parts), "--time-limit", str(args.time_limit)]
            part += ["--dry-run"] * args.dry_run
            parts.append(part)

    run_side_by_side("tests.bench.bench_teachers", parts, args.time_limit)
    merge(args.parts, args.out)


def main() -> None:
    """One part, all of them, or the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", choices=["all", "merge", *CASES])
    parser.add_argument("--data-sets", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--teacher-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3, help="teacher seeds of all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--parts", type=Path, default=Path("reports/bench/teachers"))
    parser.add_argument("--out", type=Path, default=Path("reports/bench/teachers.json"))
    parser.add_argument("--time-limit", type=float, default=3600.0, help="seconds")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes; figures mean nothing")
    args = parser.parse_args()

    if args.data == "all":
        everything(args)
    elif args.data == "merge":
        merge(args.parts, args.out)
    else:
        measure(args)


if __name__ == "__main__":
    main()
