"""What views do to students, by kind of data: error on labels, and distance to the teacher.

    python -m tests.bench.bench_views shapes --out reports/reference/views.json
    GPED_DATA=... python -m tests.bench.bench_views fashion_mnist --out ...
    python -m tests.bench.bench_views digits table --seeds 5 --out ...

Of each dataset, three networks are trained on the labels, at flipped pictures where flips keep the
class; their average is the teacher. One student is trained on it under each policy, with the same
steps and batches, and measured at examples that nobody was trained on. Differences to the student
of plain inputs are paired by seed; intervals are Student's t over the seeds, so that they hold the
noise of students, and not that of teachers. Results are merged into the file dataset by dataset.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from torch import Tensor

from gped_nas import device as devices
from gped_nas.data.base import load
from gped_nas.data.normalization import fit_axis
from gped_nas.data.views import View, parse_views
from gped_nas.distill.feed import DistillationSet
from gped_nas.distill.fresh import FreshViews
from gped_nas.distill.kernel import distill
from gped_nas.distill.recipe import Recipe
from gped_nas.io import read_json, write_json
from gped_nas.models.base import FAMILIES, Genotype, Params
from gped_nas.targets.layout import HeadLayout
from tests.bench.bench_policies import interval
from tests.shapes import CLASSES, make_shapes

CPU = torch.device("cpu")
MEMBERS = 3
PICTURES: dict[str, tuple[dict[str, Any], ...]] = {
    "plain": ({"policy": "clean"},),
    "flip, own answers": ({"policy": "clean"}, {"policy": "flip", "probability": 1.0}),
    "flip": ({"policy": "flip", "answers": "clean"},),
    "flip + shift": ({"policy": ["flip", "shift"], "answers": "clean"},),
    "flip + crop": ({"policy": ["flip", "crop"], "answers": "clean"},),
    "flip + erase": ({"policy": ["flip", {"name": "erase", "pixels": 8}], "answers": "clean"},),
    "noise": ({"policy": "noise", "std": 0.1, "answers": "clean"},),
    "plain + mixup": ({"policy": "clean"}, {"policy": "mixup"}),
    "plain + cutmix": ({"policy": "clean"}, {"policy": "cutmix"}),
}
SMALL_PICTURES = {
    "plain": PICTURES["plain"],
    "flip": PICTURES["flip"],
    "shift": ({"policy": "shift", "pixels": 1, "answers": "clean"},),
    "noise": ({"policy": "noise", "std": 0.1, "answers": "clean"},),
    "plain + mixup": PICTURES["plain + mixup"],
}
TABLES = {
    "plain": PICTURES["plain"],
    "noise": ({"policy": "noise", "std": 0.1, "answers": "clean"},),
    "plain + noise, own answers": ({"policy": "clean"}, {"policy": "noise", "std": 0.1}),
    "plain + mixup": PICTURES["plain + mixup"],
    "plain + noise + mixup, own answers": (
        {"policy": "clean"},
        {"policy": "noise", "std": 0.1},
        {"policy": "mixup"},
    ),
}


@dataclass(frozen=True, eq=False)
class Case:
    """Data to learn from and to measure at, and how students are trained.

    Attributes:
        x, y: normalized inputs and labels to train on.
        x_held, y_held: those to measure at.
        genotype: of members and students.
        recipe: theirs.
        policies: views by name; the first are those of plain inputs.
        of_members: views at which the members are trained.
    """

    x: Tensor
    y: Tensor
    x_held: Tensor
    y_held: Tensor
    genotype: Genotype
    recipe: Recipe
    policies: dict[str, tuple[dict[str, Any], ...]]
    of_members: dict[str, Any] = field(default_factory=lambda: {"policy": "clean"})

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return int(self.y.max()) + 1


def cnn(width: Sequence[int], stride: Sequence[int], pool: Sequence[int]) -> Genotype:
    """Convolutions before a global average, with batch norm."""
    return Genotype(
        "cnn",
        depth=len(width),
        width=list(width),
        kernel=3,
        stride=list(stride),
        pool=list(pool),
        padding="same",
        head="global_average",
        norm="batch",
    )


def recipe(steps: int, lr: float) -> Recipe:
    """AdamW with a cosine; no student has a penalty, so that pruning removes nothing."""
    return Recipe(steps=steps, lr=lr, warmup=steps // 10, weight_decay=0.01, precision="float32")


def _case(x: Tensor, y: Tensor, num_train: int, *rest: Any) -> Case:
    """The first examples are trained on, and each channel or column normalized by these."""
    normalize = fit_axis(x[:num_train])
    parts = normalize(x[:num_train]), y[:num_train], normalize(x[num_train:]), y[num_train:]
    return Case(*parts, *rest)


def shapes() -> Case:
    """Pictures 32x32x3, shapes anywhere on them."""
    pictures, labels = make_shapes(5400 + 4000, 7)
    x = torch.from_numpy(pictures).movedim(-1, 1).contiguous()
    network = cnn((12, 14, 32, 48), (2, 1, 1, 1), (1, 2, 2, 1))
    assert len(CLASSES) == 7
    y = torch.from_numpy(labels)
    return _case(x, y, 5400, network, recipe(500, 0.03), PICTURES, {"policy": "flip"})


def fashion_mnist() -> Case:
    """Pictures 28x28, clothes in the middle of them; a subset."""
    dataset = load({"name": "fashion_mnist"})
    x, y = dataset.train.x[:10_000], dataset.train.y[:10_000]
    network = cnn((12, 14, 32, 48), (2, 1, 1, 1), (1, 2, 2, 1))
    return _case(x, y, 6000, network, recipe(500, 0.03), PICTURES, {"policy": "flip"})


def digits() -> Case:
    """Pictures 8x8 of written digits, whose mirror is none."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = torch.from_numpy(x[order]).float().view(-1, 1, 8, 8), torch.from_numpy(y[order]).long()
    network = cnn((12, 24, 32), (1, 1, 1), (1, 2, 1))
    return _case(x, y, 900, network, recipe(500, 0.02), SMALL_PICTURES)


def table() -> Case:
    """Thirty columns of measurements, two classes."""
    x, y = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = torch.from_numpy(x[order]), torch.from_numpy(y[order]).long()
    network = Genotype("mlp", depth=2, width=32)
    return _case(x, y, 300, network, recipe(500, 0.003), TABLES)


CASES = {"shapes": shapes, "fashion_mnist": fashion_mnist, "digits": digits, "table": table}


def views_of(settings: Sequence[dict[str, Any]]) -> list[View]:
    """The views that are written so."""
    views: list[View] = []
    for one in settings:
        views += parse_views(one, "bench", 0)
    return views


def data_of(case: Case, target: Tensor, views: Sequence[View], members: Sequence[Params]) -> Any:
    """What students learn from, drawn in each step; members answer where views ask them."""
    layout = HeadLayout(("predictive",), case.num_classes)

    def ask(x: Tensor) -> dict[str, Tensor]:
        return {"predictive": predict(case, members, x)}

    num_views = len(views)
    return DistillationSet(
        case.x.repeat(num_views, *[1] * (case.x.dim() - 1)),
        {"predictive": target.repeat(num_views, 1)},
        layout,
        fresh=FreshViews(views, [len(case.x)] * num_views, ask),
    )


@torch.no_grad()
def predict(case: Case, members: Sequence[Params], x: Tensor) -> Tensor:
    """Probabilities (N, C), the average of networks."""
    forward = FAMILIES[case.genotype.family].forward
    total = torch.zeros(len(x), case.num_classes)
    for params in members:
        total += torch.cat([forward(params, part).softmax(-1) for part in x.split(512)])
    return total / len(members)


def train(case: Case, data: DistillationSet, seed: int) -> Params:
    """One network, after the whole recipe."""
    (student,) = distill([case.genotype], data, case.recipe, seed=seed, device=CPU).students
    assert not student.failure, student.failure
    return student.params


def measure(case: Case, params: Sequence[Params], teacher: Tensor) -> dict[str, float]:
    """NLL, accuracy and KL from the teacher's probabilities (N, C) at examples held out."""
    prob = predict(case, params, case.x_held).double().clamp_min(1e-30)
    label = case.y_held
    gap = teacher.double().clamp_min(1e-30).log() - prob.log()
    return {
        "nll": float(-prob.gather(1, label[:, None]).log().mean()),
        "accuracy": float((prob.argmax(1) == label).double().mean()),
        "kl": float((teacher * gap).sum(1).mean()),
    }


def study(case: Case, num_seeds: int) -> dict[str, Any]:
    """Rows of all policies, with the differences to plain inputs."""
    one_hot = torch.nn.functional.one_hot(case.y, case.num_classes).float()
    labels = data_of(case, one_hot, views_of([{**case.of_members, "answers": "clean"}]), ())
    members = [train(case, labels, 100 + member) for member in range(MEMBERS)]
    teacher_held = predict(case, members, case.x_held)
    teacher = predict(case, members, case.x)
    print("teacher", measure(case, members, teacher_held), flush=True)

    by_policy: dict[str, list[dict[str, float]]] = {}
    seconds: dict[str, float] = {}
    for name, settings in case.policies.items():
        data = data_of(case, teacher, views_of(settings), members)
        start = time.perf_counter()
        students = [train(case, data, seed) for seed in range(num_seeds)]
        seconds[name] = (time.perf_counter() - start) / num_seeds
        by_policy[name] = [measure(case, [params], teacher_held) for params in students]
        print(name, by_policy[name], round(seconds[name], 1), flush=True)

    rows = [_row(name, by_policy, settings) for name, settings in case.policies.items()]
    for row in rows:
        row["seconds"] = round(seconds[row["policy"]], 1)
    return {
        "teacher": measure(case, members, teacher_held),
        "members": MEMBERS,
        "seeds": num_seeds,
        "num_train": len(case.x),
        "num_held_out": len(case.x_held),
        "student": str(case.genotype),
        "steps": case.recipe.steps,
        "rows": rows,
    }


def _row(name: str, by_policy: dict[str, list[dict[str, float]]], settings: Any) -> dict[str, Any]:
    """Means over seeds, and paired differences to plain inputs with their intervals."""
    row: dict[str, Any] = {"policy": name, "views": list(settings)}
    for metric in ("nll", "accuracy", "kl"):
        values = [measured[metric] for measured in by_policy[name]]
        plain = [measured[metric] for measured in by_policy["plain"]]
        minus_plain = [a - b for a, b in zip(values, plain, strict=True)]
        row[metric] = float(np.mean(values))
        row[f"{metric}_by_seed"] = values
        row[f"{metric}_minus_plain"] = float(np.mean(minus_plain))
        row[f"{metric}_minus_plain_interval"] = interval(minus_plain)[1:]
    return row


def main() -> None:
    """Measure some datasets and merge the results into a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="+", choices=list(CASES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("reports/bench/views.json"))
    arguments = parser.parse_args()

    results = read_json(arguments.out) if arguments.out.exists() else {}
    for name in arguments.datasets:
        started = time.perf_counter()
        result = study(CASES[name](), arguments.seeds)
        result["seconds"] = round(time.perf_counter() - started)
        result["hardware"] = devices.fingerprint(CPU)
        results[name] = result
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out, results)


if __name__ == "__main__":
    main()
