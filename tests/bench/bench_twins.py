"""What a teacher gives a student: student, label twin and MAP twin, over several seeds.

    python -m tests.bench.bench_twins all --device cuda --parts parts --time-limit 400 \\
        --out reports/reference/twins.json
    python -m tests.bench.bench_twins digits --teacher "ensemble of 10" --parts parts
    python -m tests.bench.bench_twins merge --parts parts --out reports/reference/twins.json

Three sizes of unpruned student learn from several teachers by several recipes, without and with
labels among the targets. Twins learn the same way from labels alone and from one MAP network. For
each dataset the teacher and the recipe are chosen with which students are furthest below their
label twins in NLL on validation, the mean over the sizes; test figures of that choice are reported.
Differences are of means over seeds, with intervals over examples and seeds. AUROC is of
telling test inputs from others by each uncertainty that a network has.

``all`` runs a process for each dataset and teacher, side by side; each writes what it has after
every recipe. ``merge`` makes the table.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

import gped_nas as gn
from gped_nas import device as devices
from gped_nas import rng
from gped_nas.api.lessons import distillation_set, label_set, one_network_set
from gped_nas.api.map_network import tuned_map_network
from gped_nas.api.teacher import Teacher, sample_teacher
from gped_nas.data.base import Dataset
from gped_nas.distill.feed import DistillationSet
from gped_nas.distill.kernel import distill
from gped_nas.evaluate.base import METRICS as ALL_METRICS
from gped_nas.evaluate.predictions import Predictions
from gped_nas.evaluate.resamples import draw_resamples
from gped_nas.evaluate.seeds import differences, means, sample_metrics
from gped_nas.evaluate.teacher import averaged, with_derived
from gped_nas.io import make_dir, read_json, write_json
from gped_nas.models.base import FAMILIES, Genotype, Params
from gped_nas.search.space import SearchSpace
from gped_nas.targets.formulas import log_softmax
from gped_nas.targets.layout import HeadLayout
from tests.bench.side_by_side import run_side_by_side
from tests.bench.twin_cases import CASES, Case
from tests.bench.unfamiliar import unfamiliar_inputs

Settings = dict[str, Any]
PARTS = ("validation", "test")
METRICS = ("nll", "accuracy", "ece", "brier", "entropy_error")
KINDS = ("student", "label twin", "MAP twin")
PAIRS = (("student", "label twin"), ("student", "MAP twin"), ("MAP twin", "label twin"))


def space_of(case: Case, changes: Settings, *, is_dry: bool) -> SearchSpace:
    """The space of a teacher and a recipe."""
    baseline = {"baseline.precisions": list(case.precisions)}
    settings = {**baseline, **case.settings, **changes}
    if is_dry:
        settings |= {"recipe.steps": 30, "recipe.warmup": 5, "baseline.steps": 100}
        settings["baseline.precisions"] = list(case.precisions[:2])
    space = gn.load_space(case.space, settings)
    if not is_dry:
        return space
    short = {"steps": 100, "burn_in": 100, "thinning": 10, "num_samples": 4}
    short = {key: value for key, value in short.items() if hasattr(space.method, key)}
    return replace(space, method=space.method.model_copy(update=short))


def measure(args: argparse.Namespace) -> None:
    """One dataset and teacher: every recipe."""
    started = time.monotonic()
    torch.set_num_threads(1)
    case = CASES[args.data]
    make_dir(args.parts)
    device = args.device if case.on_gpu else "cpu"
    session = gn.new_session(device)
    session = replace(session, streams=args.parts / "streams", processes=1)
    of_teacher = case.teachers[args.teacher]
    first = space_of(case, of_teacher, is_dry=args.dry_run)
    dataset = gn.load_dataset(first)

    teacher = sample_teacher(first, session, dataset=dataset)
    best_map = tuned_map_network(teacher)
    part: Settings = {
        "data": args.data,
        "teacher": args.teacher,
        "teacher_s": round(time.monotonic() - started, 1),
        "teacher_figures": figures_of([teacher.averaged(p) for p in PARTS], dataset),
        "map_figures": figures_of(
            [_of_one(best_map.predict(dataset.inputs(p)), teacher) for p in PARTS], dataset
        ),
        "map_precision": best_map.precision,
        "recipes": {},
    }
    name = f"{args.data}-{args.teacher}".replace(" ", "_").replace(",", "")

    for recipe, of_recipe in case.recipes.items():
        if time.monotonic() - started > args.time_limit:
            print(f"{args.data} {args.teacher}: no time for {recipe}", flush=True)
            break
        begun = time.monotonic()
        space = space_of(case, {**of_teacher, **of_recipe}, is_dry=args.dry_run)
        taught = sample_teacher(space, session, dataset=dataset)
        twins = Twins(taught, case, best_map.predict, num_seeds=args.seeds or case.seeds)
        part["recipes"][recipe] = {**twins.to_json(), "seconds": round(time.monotonic() - begun, 1)}
        write_json(args.parts / f"{name}.json", part)
        gain = mean_gain(part["recipes"][recipe])
        print(f"{args.data} | {args.teacher} | {recipe} | {gain:+.4f} on validation", flush=True)


class Twins:
    """The networks of one teacher and recipe: trained with every seed, and measured."""

    def __init__(self, teacher: Teacher, case: Case, map_network: Any, *, num_seeds: int) -> None:
        self._teacher, self._case = teacher, case
        data = distillation_set(teacher)
        self._sets: dict[str, DistillationSet] = {
            "student": data,
            "label twin": label_set(teacher, data),
            "MAP twin": one_network_set(teacher, data, map_network),
        }
        self._unfamiliar = unfamiliar_inputs(teacher.dataset)
        self._networks: dict[tuple[str, Genotype, float], list[Params]] = {}
        for seed in range(1, num_seeds + 1):
            for kind in KINDS:
                self._train(kind, seed)

    def _precisions(self, kind: str) -> tuple[float, ...]:
        return self._teacher.space.baseline.precisions if kind == "label twin" else (0.0,)

    def _train(self, kind: str, seed: int) -> None:
        """All networks of a kind and seed as one population."""
        space, dataset = self._teacher.space, self._teacher.dataset
        asked = [(size, p) for size in self._case.sizes for p in self._precisions(kind)]
        population = distill(
            [size for size, _ in asked],
            self._sets[kind],
            space.recipe.model_copy(update={"precision": "float32"}),
            seed=rng.seed(space.seed, "twins", seed),
            device=self._teacher.session.device,
            ridges=[precision / len(dataset.train) for _, precision in asked],
        )
        for (size, precision), student in zip(asked, population.students, strict=True):
            assert not student.failure, student.failure
            self._networks.setdefault((kind, size, precision), []).append(student.params)

    def predictions(self, kind: str, params: Params, size: Genotype, x: Tensor) -> Predictions:
        """What a network says at normalized inputs."""
        teacher, layout = self._teacher, self._sets[kind].layout
        with torch.no_grad():
            outputs = [FAMILIES[size.family].forward(params, part) for part in torch.split(x, 4096)]
        raw = torch.cat(outputs).double()
        if kind == "label twin":  # certain of itself: its expected entropy is its entropy
            return _of_one(log_softmax(layout.split(raw)["predictive"]), teacher)
        whole = HeadLayout(with_derived(layout.targets), layout.num_classes)
        heads = whole.split(raw)
        values = {name: value.numpy() for name, value in whole.predict_heads(heads).items()}
        return Predictions(log_softmax(heads["predictive"]).numpy(), values, whole.targets)

    def _chosen_precision(self, kind: str, size: Genotype) -> float:
        """By the mean NLL over the seeds on validation."""
        dataset = self._teacher.dataset
        x, labels = dataset.inputs("validation"), dataset.labels("validation")

        def nll(precision: float) -> float:
            scores = []
            for params in self._networks[kind, size, precision]:
                scores.append(self.predictions(kind, params, size, x).log_score(labels).mean())
            return -float(np.mean(scores))

        return min(self._precisions(kind), key=nll)

    def to_json(self) -> Settings:
        """By size: figures of each kind, differences with intervals, AUROC of uncertainties."""
        return {"sizes": {name_of(size): self._size(size) for size in self._case.sizes}}

    def _size(self, size: Genotype) -> Settings:
        chosen = {kind: self._chosen_precision(kind, size) for kind in KINDS}
        networks = {kind: self._networks[kind, size, chosen[kind]] for kind in KINDS}
        row: Settings = {"precision_of_label_twin": chosen["label twin"]}
        for part in PARTS:
            row[part] = self._part(part, size, networks)
        row["auroc"] = {kind: self._auroc(kind, size, networks[kind]) for kind in KINDS}
        return row

    def _part(self, part: Any, size: Genotype, networks: dict[str, list[Params]]) -> Settings:
        dataset, teacher = self._teacher.dataset, self._teacher.averaged(part)
        x, labels = dataset.inputs(part), dataset.labels(part)
        resamples = draw_resamples(len(labels), root=0, part=part)
        sampled = {}
        for kind, of_kind in networks.items():
            predictions = [self.predictions(kind, params, size, x) for params in of_kind]
            teachers = [teacher] * len(predictions)
            rows = sample_metrics(predictions, labels, teachers, resamples=resamples)
            sampled[kind] = {name: row for name, row in rows.items() if name in METRICS}

        pairs = []
        for first, second in PAIRS:
            both = differences(sampled[first], sampled[second], root=0)
            for metric, value in both.items():
                interval = None if value.low is None else [value.low, value.high]
                pairs.append([f"{first} - {second}", metric, value.value, interval])
        figures = {}
        for kind, rows in sampled.items():
            figures[kind] = {name: value.value for name, value in means(rows, root=0).items()}
        return {"figures": figures, "differences": pairs, "n": len(labels)}

    def _auroc(self, kind: str, size: Genotype, networks: Sequence[Params]) -> Settings:
        """By set of other inputs and uncertainty: mean over the seeds, and their deviation."""
        dataset = self._teacher.dataset
        table: Settings = {}
        for name, raw in self._unfamiliar.items():
            away_x = dataset.normalization(raw)
            values: dict[str, list[float]] = {}
            for params in networks:
                known = uncertainties(kind, self._ask(kind, params, size, dataset.inputs("test")))
                away = uncertainties(kind, self._ask(kind, params, size, away_x))
                for head, scores in known.items():
                    values.setdefault(head, []).append(auroc(scores, away[head]))
            table[name] = {
                head: [round(float(np.mean(v)), 4), round(float(np.std(v, ddof=1)), 4)]
                for head, v in values.items()
                if len(v) > 1
            }
        return table

    def _ask(self, kind: str, params: Params, size: Genotype, x: Tensor) -> Predictions:
        return self.predictions(kind, params, size, x)


def uncertainties(kind: str, predictions: Predictions) -> dict[str, Any]:
    """What a network can be unsure by: a label twin has one kind, the others three."""
    total = predictions.entropy_N
    if kind == "label twin":
        return {"entropy": total}
    expected = predictions.expected_entropy_N
    return {"entropy": total, "expected entropy": expected, "their difference": total - expected}


def auroc(known_N: Any, away_M: Any) -> float:
    """How well higher values tell other inputs from known ones."""
    labels = np.r_[np.zeros(len(known_N)), np.ones(len(away_M))]
    return float(roc_auc_score(labels, np.r_[known_N, away_M]))


def _of_one(log_prob_NC: Tensor, teacher: Teacher) -> Predictions:
    """The predictions of one network as those of a posterior that is certain."""
    predicted = log_prob_NC.double()[None]
    one: Predictions = averaged(predicted, torch.ones(1), None, teacher.space.targets)  # type: ignore[assignment]
    return one


def figures_of(by_part: Sequence[Any], dataset: Dataset) -> Settings:
    """Metrics of predictions on validation and test."""
    figures = {}
    for part, predictions in zip(PARTS, by_part, strict=True):
        labels = dataset.labels(part)  # type: ignore[arg-type]
        for name in ("nll", "accuracy", "ece"):
            value = ALL_METRICS[name].value(predictions, labels, None)
            figures[f"{part}_{name}"] = round(float(value), 5)
    return figures


def name_of(size: Genotype) -> str:
    """``2 x 32``, or the filters of each block."""
    width = size["width"]
    if size.family == "mlp":
        return f"{size['depth']} x {width[0]}"
    return f"filters {'-'.join(map(str, width))}"


def mean_gain(recipe: Settings) -> float:
    """Validation NLL of students less that of label twins, the mean over the sizes."""
    gains = []
    for size in recipe["sizes"].values():
        figures = size["validation"]["figures"]
        gains.append(figures["student"]["nll"] - figures["label twin"]["nll"])
    return float(np.mean(gains))


def merge(parts: Path, out: Path) -> None:
    """Of each dataset all that validation says, and test figures of what it chooses."""
    table: Settings = {}
    for path in sorted(parts.glob("*.json")):
        part = read_json(path)
        if "recipes" not in part:
            continue
        of_data = table.setdefault(part["data"], {"tried": {}, "chosen": None})
        for recipe, row in part["recipes"].items():
            gain = mean_gain(row)
            of_data["tried"][f"{part['teacher']} | {recipe}"] = round(gain, 5)
            if of_data["chosen"] is None or gain < of_data["chosen"]["gain_on_validation"]:
                about = {key: part[key] for key in part if key not in ("data", "recipes")}
                of_data["chosen"] = {"recipe": recipe, "gain_on_validation": gain, **about, **row}

    for name, of_data in table.items():
        chosen = of_data["chosen"]
        print(name, json.dumps(of_data["tried"], indent=1), chosen["teacher"], chosen["recipe"])
        for size, row in chosen["sizes"].items():
            for pair, metric, value, interval in row["test"]["differences"]:
                if metric in ("nll", "accuracy"):
                    print("  test", size, pair, metric, round(value, 4), interval, flush=True)
    machine = parts / "machine.json"
    hardware = read_json(machine) if machine.exists() else {}
    make_dir(out.parent)
    write_json(out, {"hardware": hardware, "data": table})


def everything(args: argparse.Namespace) -> None:
    """A process for each dataset and teacher, side by side; then the table."""
    make_dir(args.parts)
    write_json(args.parts / "machine.json", devices.fingerprint(torch.device(args.device)))

    parts = []
    for name in args.data_sets:
        for teacher in CASES[name].teachers:
            part = [name, "--teacher", teacher, "--device", args.device]
            part += ["--parts", str(args.parts), "--time-limit", str(args.time_limit)]
            part += ["--seeds", str(args.seeds)] + ["--dry-run"] * args.dry_run
            parts.append(part)

    run_side_by_side("tests.bench.bench_twins", parts, args.time_limit)
    merge(args.parts, args.out)


def main() -> None:
    """One part, all of them, or the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", choices=["all", "merge", *CASES])
    parser.add_argument("--data-sets", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--teacher", default="ensemble of 10")
    parser.add_argument("--seeds", type=int, default=0, help="of students; 0 is those of the data")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--parts", type=Path, default=Path("reports/bench/twins"))
    parser.add_argument("--out", type=Path, default=Path("reports/bench/twins.json"))
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
