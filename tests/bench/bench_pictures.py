"""The road of an ensemble on pictures, against thirty lines of plain PyTorch, at equal bounds.

    python tests/bench/bench_pictures.py --seeds 0 --out reports/reference/pictures.json

An ensemble of five networks learns the shapes of ``tests/shapes.py``. Students of it are then found
in two ways, within 100 kB and 1 M multiply-adds:

* by the loop of ``plain_pictures.py``, once as it stands and once with as many settings as the
  search has trials, of which validation chooses;
* by the road that the documentation describes: predictions recorded, a search, the chosen student.
  It is measured with labels among the targets (``label_weight`` .5) and without (0).

Everything is measured on the test part. Differences are paired, example by example, with 95 %
normal intervals; they do not hold the noise of seeds. Training of a student is in processor
seconds of this process, of the search's chosen one trained again alone.
"""

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gped_nas as gn
from gped_nas import device as devices
from gped_nas.api.lessons import distillation_set
from gped_nas.data.base import load
from gped_nas.distill.kernel import distill as train_students
from gped_nas.io import make_dir, read_json, write_json
from gped_nas.models.base import Genotype
from gped_nas.models.module_costs import module_bytes, module_macs
from tests.bench import plain_pictures as plain
from tests.shapes import CLASSES, make_shapes

BOUNDS = {"storage_bytes": 100_000, "flops": 2_000_000}
MEMBERS, EPOCHS, STEPS = 5, 24, 1050
NUM_TRAIN, NUM_VALIDATION, NUM_TEST = 5400, 600, 1200
WIDTHS = [(8, 16, 32), (6, 16, 40), (9, 15, 30)]
"""Of the loop's convolutions; all within the bounds."""
RATES = [0.008, 0.004, 0.016, 0.002]

SPACE = """\
name: {name}
dataset: {{name: npz, path: {folder}/shapes.npz, normalize: channels, layout: channels_last}}
teacher:
  predictions: {folder}/recorded.npz
  name: {ensemble}
  macs: {macs}
  storage_bytes: {num_bytes}
views: [{{policy: [flip, {{name: shift, pixels: 2}}], answers: clean}}]
targets: [predictive]
students:
  - family: cnn
    genotype:
      depth: {{int: [4, 5]}}
      width:
        - {{choices: [8, 10, 12]}}
        - {{choices: [12, 14, 16, 20]}}
        - {{choices: [20, 24, 32]}}
        - {{choices: [24, 32, 48]}}
        - {{choices: [32, 48]}}
      kernel: 3
      stride: [2, 1, 1, 1, 1]
      stages: 3
      padding: same
      head: global_average
      norm: batch
objectives: [nll, flops, storage_bytes]
constraints: {{storage_bytes: {storage_bytes}, flops: {flops}}}
search: {{sampler: tpe, n_trials: {trials}, students_at_once: 6}}
recipe:
  steps: {steps}
  warmup: {warmup}
  weight_decay: 0.01
  lr: 0.032
  draw_views: fresh
  label_weight: {label_weight}
seed: {seed}
"""


class Parts:
    """The shapes of one seed: pictures with channels first, uint8, and labels."""

    def __init__(self, seed: int) -> None:
        pictures, labels = make_shapes(NUM_TRAIN + NUM_VALIDATION + NUM_TEST, seed)
        ends = [NUM_TRAIN, NUM_TRAIN + NUM_VALIDATION]
        self.pictures = dict(zip(("train", "val", "test"), np.split(pictures, ends), strict=True))
        self.labels = dict(zip(("train", "val", "test"), np.split(labels, ends), strict=True))

    def x(self, part: str) -> Tensor:
        return torch.from_numpy(self.pictures[part]).permute(0, 3, 1, 2).contiguous()

    def y(self, part: str) -> Tensor:
        return torch.from_numpy(self.labels[part])

    def write(self, path: Path) -> None:
        arrays = {f"x_{part}": pictures for part, pictures in self.pictures.items()}
        arrays |= {f"y_{part}": labels for part, labels in self.labels.items()}
        np.savez(path, **arrays)


@dataclass(frozen=True)
class Ensemble:
    """What students replace.

    Attributes:
        name: what report and card call it.
        networks: pictures (B, 3, 32, 32) of bytes to logits, in evaluation mode.
        processor_s: seconds of processor that their training took.
        policy: moved copies of the training pictures at which they are asked too.
    """

    name: str
    networks: Sequence[nn.Module]
    processor_s: float
    policy: Mapping[str, Any] = field(default_factory=dict)

    def predict(self, x: Tensor) -> Tensor:
        """Probabilities (N, C): the members' mean."""
        return torch.stack([plain.predict(net, x) for net in self.networks]).exp().mean(0)

    def costs(self, x: Tensor) -> dict[str, int]:
        """Multiply-adds of one picture through all of them, as fvcore counts them, and bytes."""
        macs, num_bytes = module_macs(self.networks, x[:1]), module_bytes(self.networks)
        assert macs is not None and num_bytes is not None, "they are modules of convolutions"
        return {"macs": macs, "storage_bytes": num_bytes}


def measure(seed: int, num_trials: int, label_weights: Sequence[float]) -> dict[str, Any]:
    """Ensemble, loop and road on the shapes of one seed."""
    parts = Parts(seed)
    started = time.process_time()
    networks = plain.train_ensemble(
        parts.x("train"),
        parts.y("train"),
        members=MEMBERS,
        epochs=EPOCHS,
        num_classes=len(CLASSES),
        seed=seed,
    )
    ensemble = Ensemble("5 x cnn", networks, time.process_time() - started)
    return hold(parts, ensemble, num_trials, seed, label_weights)


def hold(
    parts: Parts,
    ensemble: Ensemble,
    num_trials: int,
    seed: int,
    label_weights: Sequence[float],
) -> dict[str, Any]:
    """Loop and road beside an ensemble."""
    test = parts.y("test")
    teacher = ensemble.predict(parts.x("test")).log()
    results: dict[str, Any] = {
        "ensemble": {
            **score(teacher, test),
            **ensemble.costs(parts.x("test")),
            "processor_s": ensemble.processor_s,
        }
    }

    loops = run_loops(parts, ensemble, num_trials, seed)
    predicted = {"loop": loops[0]["test"], "loop, tried": best(loops)["test"]}
    results["loop"] = {**score(loops[0]["test"], test), "processor_s": loops[0]["processor_s"]}
    results["loop, tried"] = {
        **score(best(loops)["test"], test),
        "processor_s": best(loops)["processor_s"],
        "processor_s_all": sum(loop["processor_s"] for loop in loops),
        "setting": best(loops)["setting"],
    }

    for weight in label_weights:
        name = f"road, w {weight:g}"
        predicted[name], results[name] = run_road(parts, ensemble, num_trials, seed, weight)

    differences = {}
    for name, log_prob in predicted.items():
        differences[f"{name} - ensemble"] = compare(log_prob, teacher, test)
    for name in predicted:
        if name.startswith("road"):
            differences[f"{name} - loop"] = compare(predicted[name], predicted["loop"], test)
            tried = predicted["loop, tried"]
            differences[f"{name} - loop, tried"] = compare(predicted[name], tried, test)
    return {"results": results, "differences": differences}


def run_loops(
    parts: Parts, ensemble: Ensemble, num_settings: int, seed: int
) -> list[dict[str, Any]]:
    """The plain loop at several settings, the one that it stands with first."""
    x = parts.x("train")
    soft = ensemble.predict(x)

    loops = []
    for rate, widths in list(itertools.product(RATES, WIDTHS))[:num_settings]:
        torch.manual_seed(seed)
        student = plain.network(x, widths, 32, len(CLASSES))
        started = time.process_time()
        plain.distill(student, x, soft, steps=STEPS, lr=rate, seed=seed)
        seconds = time.process_time() - started

        validation = plain.predict(student, parts.x("val"))
        loops.append(
            {
                "setting": {"lr": rate, "widths": list(widths)},
                "validation_nll": float(F.nll_loss(validation, parts.y("val"))),
                "test": plain.predict(student, parts.x("test")),
                "processor_s": seconds,
            }
        )
    return loops


def best(loops: list[dict[str, Any]]) -> dict[str, Any]:
    """The loop that validation chooses."""
    return min(loops, key=lambda loop: loop["validation_nll"])


def run_road(
    parts: Parts, ensemble: Ensemble, num_trials: int, seed: int, label_weight: float
) -> tuple[Tensor, dict[str, Any]]:
    """The chosen student of a search: what it predicts on test, and its figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["GPED_CACHE"] = str(folder / "cache")
        parts.write(folder / "shapes.npz")
        costs = ensemble.costs(parts.x("test"))
        space = write_space(folder, ensemble, costs, num_trials, seed, label_weight)

        started = time.process_time()
        study = gn.run(space, out=folder / "reports")
        search_s = time.process_time() - started

        chosen = study.chosen()
        assert chosen is not None, "a search of these shapes has a front"
        student = gn.load_student(study.path / "students" / str(chosen.trial))
        predicted = student.predict(parts.pictures["test"].transpose(0, 3, 1, 2))
        log_prob = predicted["predictive"].double().log().float()
        figures = {
            **score(log_prob, parts.y("test")),
            "genotype": dict(chosen.genotype),
            "macs": chosen.costs["macs"],
            "storage_bytes": chosen.costs["storage_bytes"],
            "lr": chosen.extra["recipe"]["lr"],
            "processor_s": train_alone(study, chosen),
            "processor_s_all": search_s,
            "trials": len(study.records()),
            "verdict": study.verdict().text,
            "teacher_costs": dict(study.reference("teacher").costs),
        }
    return log_prob, figures


def write_space(
    folder: Path,
    ensemble: Ensemble,
    costs: Mapping[str, int],
    num_trials: int,
    seed: int,
    label_weight: float,
) -> Path:
    """The space of the road, with the ensemble's predictions beside it."""
    path = folder / "shapes.yaml"
    text = SPACE.format(
        name="shapes",
        folder=folder,
        ensemble=ensemble.name,
        macs=costs["macs"],
        num_bytes=costs["storage_bytes"],
        trials=num_trials,
        steps=STEPS,
        warmup=STEPS // 10,
        label_weight=label_weight,
        seed=seed,
        **BOUNDS,
    )
    path.write_text(text)

    settings = {"name": "npz", "path": f"{folder}/shapes.npz", "layout": "channels_last"}
    dataset = load({**settings, "normalize": "channels"})
    models = [nn.Sequential(net, nn.LogSoftmax(-1)).eval() for net in ensemble.networks]
    policy = ensemble.policy or ()
    gn.record_predictions(models, dataset, out=folder / "recorded.npz", policy=policy)
    return path


def train_alone(study: gn.Study, chosen: Any) -> float:
    """Processor seconds of training the chosen student by itself."""
    space = gn.load_space(study.path / "config.yaml")
    recipe = space.recipe.model_copy(
        update={"lr": chosen.extra["recipe"]["lr"], "lr_probe": (), "precision": "float32"}
    )
    session = gn.new_session("cpu")
    data = distillation_set(gn.build_teacher(space, session))

    started = time.process_time()
    genotype = Genotype.from_json(chosen.genotype)
    train_students([genotype], data, recipe, seed=space.seed, device=session.device)
    return time.process_time() - started


def score(log_prob: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy and NLL."""
    return {
        "accuracy": float((log_prob.argmax(1) == labels).float().mean()),
        "nll": float(F.nll_loss(log_prob, labels)),
    }


def compare(log_prob: Tensor, other: Tensor, labels: Tensor) -> dict[str, list[float]]:
    """Differences in accuracy and NLL with their 95 % intervals: (value, low, high)."""
    is_right = [(p.argmax(1) == labels).double() for p in (log_prob, other)]
    nll = [F.nll_loss(p.double(), labels, reduction="none") for p in (log_prob, other)]
    return {"accuracy": _paired(*is_right), "nll": _paired(*nll)}


def _paired(first: Tensor, second: Tensor) -> list[float]:
    difference = first - second
    mean = float(difference.mean())
    half = 1.96 * float(difference.std()) / len(difference) ** 0.5
    return [round(value, 4) for value in (mean, mean - half, mean + half)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--label-weights", type=float, nargs="+", default=[0.5, 0.0])
    parser.add_argument("--out", type=Path, default=Path("reports/reference/pictures.json"))
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    session = gn.new_session("cpu")
    result: dict[str, Any] = {"seeds": {}}
    if arguments.out.exists():
        result = read_json(arguments.out)
    make_dir(arguments.out.parent)
    for seed in arguments.seeds:
        measured = measure(seed, arguments.trials, arguments.label_weights)
        result["seeds"][str(seed)] = {**measured, "trials": arguments.trials}
        result |= {
            "n": NUM_TEST,
            "steps": STEPS,
            "bounds": BOUNDS,
            "date": time.strftime("%Y-%m-%d"),
            "hardware": devices.fingerprint(session.device),
        }
        write_json(arguments.out, result)
        print(seed, measured)


if __name__ == "__main__":
    main()
