"""The road of ``bench_pictures.py`` for three torchvision ResNet-18.

    python tests/bench/bench_resnet18.py --out reports/reference/resnet18.json

The networks of ``resnets.py`` learn the shapes of ``tests/shapes.py`` and are asked at mirrored
training pictures too. Loop, road, bounds and intervals are those of ``bench_pictures.py``. Trained
members are kept in a folder, since they take most of the time.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch

import gped_nas as gn
from gped_nas import device as devices
from gped_nas.io import make_dir, write_json
from tests.bench import resnets
from tests.bench.bench_pictures import BOUNDS, NUM_TEST, STEPS, Ensemble, Parts, hold
from tests.shapes import CLASSES

MEMBERS = 3


def train(parts: Parts, folder: Path, *, epochs: int) -> Ensemble:
    """The ensemble, trained on labels; members that are in the folder are taken from there."""
    networks = []
    seconds = 0.0
    for seed in range(MEMBERS):
        net, member_s = resnets.load_or_train(
            folder / f"{seed}-{epochs}.pt",
            parts.x("train"),
            parts.y("train"),
            num_classes=len(CLASSES),
            epochs=epochs,
            seed=seed,
        )
        networks.append(net)
        seconds += member_s
    return Ensemble("3 x resnet18", networks, seconds, policy={"policy": "flip"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--label-weights", type=float, nargs="+", default=[0.5, 0.0])
    parser.add_argument("--members", type=Path, default=Path("reports/bench/resnet18"))
    parser.add_argument("--out", type=Path, default=Path("reports/reference/resnet18.json"))
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    session = gn.new_session("cpu")
    parts = Parts(seed=0)
    ensemble = train(parts, arguments.members, epochs=arguments.epochs)
    measured = hold(parts, ensemble, arguments.trials, 0, arguments.label_weights)

    result: dict[str, Any] = {
        **measured,
        "trials": arguments.trials,
        "epochs": arguments.epochs,
        "n": NUM_TEST,
        "steps": STEPS,
        "bounds": BOUNDS,
        "date": time.strftime("%Y-%m-%d"),
        "hardware": devices.fingerprint(session.device),
    }
    make_dir(arguments.out.parent)
    write_json(arguments.out, result)
    print(result)


if __name__ == "__main__":
    main()
