"""Make the archives with an earlier version: ``PYTHONPATH=<its tree> python tests/old/make.py``.

Run it from this checkout with the earlier one first on the path. The archives here are of 425adcb,
the commit before studies, predictions and measures got the formats of today. Never make them anew
with a later version: they are what it must read.

Before a format changes, the homes in ``NEXT`` are made with the version that writes it, by
``python tests/old/make.py NAME``, and moved to ``OLD`` with its commit: ``sealed`` is of 9c2089c.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

sys.path.insert(1, str(Path(__file__).parents[2]))

from tests.old.homes import HERE, NEXT, OLD, STUDY, everything_said  # noqa: E402

NUM_TRAIN, NUM_TEST, NUM_POOL = 60, 30, 20


def call(home: Path, *args: object) -> str:
    """Run the earlier version's program in a home; its stdout."""
    program = Path(sys.executable).with_name("gped-search")
    done = subprocess.run(
        [program, *map(str, args)],
        cwd=home,
        env={**os.environ, "GPED_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0, args
    return done.stdout


def write_data(home: Path) -> None:
    """A dataset of a few digits, an ensemble's predictions at them, inputs to ask students at."""
    digits = load_digits()
    x, y = digits.images.astype(np.uint8), digits.target
    test = slice(NUM_TRAIN, NUM_TRAIN + NUM_TEST)
    pool = slice(test.stop, test.stop + NUM_POOL)

    np.savez_compressed(
        home / "data.npz",
        x_train=x[:NUM_TRAIN],
        y_train=y[:NUM_TRAIN],
        x_test=x[test],
        y_test=y[test],
        x_pool=x[pool],
        class_names=np.array([f"digit {i}" for i in range(10)]),
    )
    prob = np.random.default_rng(0).dirichlet(np.ones(10), size=(3, pool.stop))
    np.savez_compressed(
        home / "ensemble.npz",
        inputs=x[: pool.stop][:, None],
        prob=prob.astype(np.float32),
        weight=np.array([3.0, 1.0, 1.0]),
    )


def leave_a_trial_running(home: Path) -> None:
    """What a run that was killed leaves in its study."""
    from gped_nas import api
    from gped_nas.search.study import load

    space = api.load_space(str(home / "space.yaml"))
    load(f"sqlite:///{home / STUDY / 'study.db'}", "old").ask(space, 1, 0)


def make(name: str, home: Path) -> None:
    """Fill a home and pack it."""
    old = {**OLD, **NEXT}[name]
    (home / "space.yaml").write_text(old.space)
    write_data(home)
    np.save(home / "inputs.npy", load_digits().images[-5:].astype(np.uint8))
    if name == "regression":
        np.save(home / "inputs.npy", np.random.default_rng(0).normal(size=(5, 2)).astype("f4"))

    call(home, "run", "space.yaml")
    if name == "digits":
        # One trial that failed, and another that a kill has just left behind.
        leave_a_trial_running(home)
        call(home, "run", "space.yaml")
        leave_a_trial_running(home)
    chosen = json.loads(call(home, "front", STUDY, "--format", "json"))[0]["trial"]
    for target in old.formats:
        call(home, "export", STUDY, chosen, "--to", target, "--into", f"exports/{target}")

    texts = {"before": everything_said(lambda *args: call(home, *args))}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "home"
        shutil.copytree(home, copy)
        call(copy, "run", "space.yaml", "--n-trials", old.more)
        texts["after"] = everything_said(lambda *args: call(copy, *args))
    (home / "said.json").write_text(json.dumps(texts, sort_keys=True))

    with tarfile.open(HERE / f"{name}.tar.xz", "w:xz", preset=9) as archive:
        for path in sorted(home.rglob("*")):
            if path.is_file() and path.name not in ("report.html", "lock"):
                archive.add(path, path.relative_to(home))


if __name__ == "__main__":
    for name in sys.argv[1:] or OLD:
        with tempfile.TemporaryDirectory() as folder:
            make(name, Path(folder))
            print(name, (HERE / f"{name}.tar.xz").stat().st_size)
