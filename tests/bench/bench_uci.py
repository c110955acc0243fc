"""Tables in their own units beside the same standardized: UCI wine, breast cancer, diabetes.

Each is brought as scikit-learn has it, unscaled, from ``init`` to a front, over three splits.
Written are test NLL of the teacher and of the best student by validation NLL, and for scale that of
the labels alone.

    python tests/bench/bench_uci.py --out reports/reference
"""

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn import datasets

import gped_nas as gn
from gped_nas.cli import main as gped_search

NUM_TRIALS = 6
SEEDS = (0, 1, 2)
SOURCES = {
    "wine": lambda: datasets.load_wine(),
    "breast cancer": lambda: datasets.load_breast_cancer(),
    "diabetes": lambda: datasets.load_diabetes(scaled=False),
}


def _call(*words: object) -> None:
    sys.argv = ["gped-search", *map(str, words)]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            gped_search()
        except SystemExit as end:
            # 3: no student can be told from the labels alone, which the numbers say too
            assert end.code in (0, None, 3), (words, end.code)


def measure(x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, float | None]:
    """Test NLL of teacher, best student and labels alone, nats; None where nobody was tested."""
    np.savez("set.npz", x_train=x, y_train=y)
    _call("init", "set.yaml", "--data", "set.npz", "--set", f"dataset.seed={seed}")
    _call("run", "set.yaml", "--n-trials", NUM_TRIALS)
    study = gn.open_study("set")
    values: dict[str, float | None] = {}
    for reference in study.references():
        if reference.name in ("teacher", "guess"):
            values[reference.name] = reference.metrics.get("test_nll")
    front = study.front_records()
    values["student"] = front[0].metrics["test_nll"] if front else None
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    out = parser.parse_args().out.resolve()

    rows: list[dict[str, Any]] = []
    for name, load in SOURCES.items():
        source = load()
        x, y = source.data.astype(np.float64), source.target
        forms = {"own units": x, "standardized": (x - x.mean(0)) / x.std(0)}
        for seed in SEEDS:
            for form, inputs in forms.items():
                with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
                    os.environ["GPED_CACHE"] = folder
                    rows.append({"set": name, "inputs": form, "seed": seed})
                    rows[-1] |= measure(inputs, y, seed)
                print(rows[-1], flush=True)
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"unit": "test NLL, nats", "trials": NUM_TRIALS, "rows": rows}, indent=2)
    (out / "uci.json").write_text(text + "\n")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
