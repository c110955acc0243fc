"""Which search finds the useful front sooner, on two datasets.

    GPED_DATA=... python -m tests.bench.bench_search --parts work/search [--small]

Hypervolume inside the region, against student steps, steps weighted by multiply-adds, and wall
time. Digits is searched live, each policy with ten sampler seeds and one teacher. Fashion-MNIST is
replayed on a pool of 300 genotypes, trained with two seeds by one teacher. In truth a front is as
good as the means of seeds that the search did not see: each student is trained again for that.

The target is the median front of 64 random trainings, each in the storage type that was drawn.
Factors are geometric means of ratios of what random spends over what a policy does, with 95 %
intervals over sampler seeds (digits) or repetitions (Fashion-MNIST, of this pool alone). A run that
never reaches the target counts as 1.

Every cell, a policy with a seed, is a file in ``--parts``: the same command goes on. Writes
``search.json`` and ``search.svg`` into ``--out``.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gped_nas as gn
from gped_nas import device as devices
from gped_nas.api.replaying import Course
from gped_nas.io import make_dir, write_json
from gped_nas.search.pareto import hypervolume_history
from gped_nas.search.replaying.file import PoolFile, read_pool, write_pool
from gped_nas.search.replaying.race import UNITS, Run, factors, random_target
from tests.bench.pools import with_seeds
from tests.bench.search_figure import figure

RANDOM = "random"
POLICIES: Mapping[str, Mapping[str, Any]] = {
    RANDOM: {"sampler": "random", "every_dtype": False},
    "tpe": {"sampler": "tpe", "every_dtype": False},
    "nsga2": {"sampler": "nsga2", "every_dtype": False},
    "auto": {"sampler": "auto"},
    "auto, one type a training": {"sampler": "auto", "every_dtype": False},
    "auto, no region": {"sampler": "auto", "keep": {}},
    "auto, random draws": {"sampler": "random"},
    "auto, costs not known": {"sampler": "gp"},
    "auto, start-up of 12": {"sampler": "auto", "start_up": 12},
    "auto, 12 at once": {"sampler": "auto", "students_at_once": 12},
}
"""What ``auto`` is beside, and without each of its parts."""
AT_ONCE = 6
KEEP = 0.9
"""The region of the measure."""
OTHER_SEEDS = (1001, 1002)


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        digits: settings of the space that is searched live.
        pool: name and settings of the space of the pool.
        num_target: random trainings whose median front is the target.
        sampler_seeds: live searches of each policy.
        num_pool: genotypes of the pool.
        repeats: replays of each policy; of these, so many are run to the end for the figure.
        drawn_to_end: see ``repeats``.
    """

    digits: Mapping[str, Any]
    pool: tuple[str, Mapping[str, Any]]
    num_target: int
    sampler_seeds: int
    num_pool: int
    repeats: int
    drawn_to_end: int


FULL = Sizes({}, ("fashion_mlp", {}), 64, 10, 300, 100, 10)
_QUICK = {
    "teacher.method.num_samples": 2,
    "teacher.method.steps": 100,
    "recipe.steps": 20,
    "recipe.warmup": 5,
    "baseline.steps": 100,
    "baseline.precisions": [1.0],
}
SMALL = Sizes(_QUICK, ("digits_mlp", _QUICK), 8, 2, 16, 3, 2)
_NOT_ASKED = {"twins.seeds": 0}
"""What a search makes for its report alone."""


def settings_of(policy: str) -> dict[str, Any]:
    """The settings of a policy, as overrides of a space."""
    settings = {"students_at_once": AT_ONCE, **POLICIES[policy]}
    return {f"search.{name}": value for name, value in settings.items()}


# -- digits, live


def search_live(policy: str, seed: int, sizes: Sizes, folder: Path) -> dict[str, Any]:
    """One live search: what was spent after each training, and the true hypervolume then."""
    shutil.rmtree(folder, ignore_errors=True)
    overrides = {
        **sizes.digits,
        **_NOT_ASKED,
        **settings_of(policy),
        "search.seed": seed,
        "search.n_trials": sizes.num_target,
    }
    space = gn.load_space("digits_mlp", overrides)
    began = time.monotonic()
    told: dict[int, float] = {}

    def tell(record: gn.TrialRecord, finished: int) -> None:
        told[record.trial] = time.monotonic() - began

    # the teacher is there already, so that time is the search's alone
    gn.build_teacher(space, gn.new_session("cpu"))
    began = time.monotonic()
    study = gn.run(space, out=folder, told=tell)
    file = with_seeds(study, OTHER_SEEDS)
    if file.region is not None:  # measured alike, whatever a policy looks at
        region = file.region.asking(KEEP, space.objectives)
        file = file.model_copy(update={"region": region})
    course = Course.of(file, AT_ONCE)
    return {
        "policy": policy,
        "seed": seed,
        "every_dtype": space.search.every_dtype,
        **_curve(course, space.search.every_dtype, told, file),
    }


def _curve(
    course: Course, every_dtype: bool, told: Mapping[int, float], file: PoolFile
) -> dict[str, Any]:
    """Spent and hypervolume after each training of a study, in the order of its trials."""
    track = course.track
    prices = track.prices([0] * len(track.pool.members))
    drawn_macs = np.array([member.drawn_macs for member in track.pool.members])
    left = np.array([m.students[0][m.dtype].costs["macs"] for m in track.pool.members], float)
    macs = track.prune_at * drawn_macs + (1 - track.prune_at) * left

    rows, ends, seconds = [], [], []
    for index, member in enumerate(track.pool.members):
        losses = track.losses(index, 0, every_dtype=every_dtype)
        rows.append(losses)
        ends.append(len(losses) + (ends[-1] if ends else 0))
        seconds.append(told[member.students[0][member.dtype].trial])
    history = hypervolume_history(np.concatenate(rows), np.ones(len(track.objectives)))
    spent = np.stack([np.cumsum(prices[:, 0]), np.cumsum(macs), np.array(seconds)], axis=1)
    return {"spent": spent.tolist(), "volumes": history[np.array(ends) - 1].tolist()}


def live_results(cells: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Factors and curves of live searches, by policy."""
    runs = {}
    for policy, of_policy in cells.items():
        at_once = int(POLICIES[policy].get("students_at_once", AT_ONCE))
        runs[policy] = [
            Run(np.array(cell["spent"]), np.array(cell["volumes"]), at_once) for cell in of_policy
        ]
    target = float(np.median([run.volumes[-1] for run in runs[RANDOM]]))
    return _results(runs, runs, target)


# -- the pool


def make_pool(sizes: Sizes, folder: Path, path: Path) -> None:
    """Train the pool's genotypes, drawn at random, with two seeds."""
    name, settings = sizes.pool
    overrides = {
        **settings,
        **_NOT_ASKED,
        "search.sampler": "random",
        "search.n_trials": sizes.num_pool,
        "search.students_at_once": 12,
    }
    study = gn.run(gn.load_space(name, overrides), out=folder)
    write_pool(path, with_seeds(study, OTHER_SEEDS[:1]))


def replay_policy(policy: str, sizes: Sizes, pool: Path, target: float) -> dict[str, Any]:
    """All repetitions of a policy on the pool."""
    course = Course.of(read_pool(pool), AT_ONCE)
    settings = {"students_at_once": AT_ONCE, **POLICIES[policy]}
    words = [f"{name}={value}" for name, value in settings.items() if name != "sampler"]
    space = course.space_of(" ".join([str(settings["sampler"]), *words]))
    limit = min(2 * sizes.num_target, len(course.track.pool.members))

    raced = [course.run(space, target, limit=limit, seed=i) for i in range(sizes.repeats)]
    to_end = []
    for i in range(sizes.drawn_to_end):
        to_end.append(course.run(space, 2.0, limit=sizes.num_target, seed=i))
    return {
        "policy": policy,
        "raced": [_plain(run) for run in raced],
        "to_end": [_plain(run) for run in to_end],
    }


def replayed_results(cells: Mapping[str, Mapping[str, Any]], target: float) -> dict[str, Any]:
    """Factors and curves of replays, by policy."""
    raced = {policy: [_run(one) for one in cell["raced"]] for policy, cell in cells.items()}
    to_end = {policy: [_run(one) for one in cell["to_end"]] for policy, cell in cells.items()}
    return _results(raced, to_end, target)


def _plain(run: Run) -> dict[str, Any]:
    spent, volumes = run.spent.tolist(), run.volumes.tolist()
    return {"spent": spent, "volumes": volumes, "at_once": run.at_once}


def _run(cell: Mapping[str, Any]) -> Run:
    return Run(np.array(cell["spent"]), np.array(cell["volumes"]), int(cell["at_once"]))


# -- what is said of both


def _results(
    raced: Mapping[str, Sequence[Run]], to_end: Mapping[str, Sequence[Run]], target: float
) -> dict[str, Any]:
    policies = {}
    for policy, runs in raced.items():
        by_count = {}
        for name, whole in (("student by student", False), ("whole populations", True)):
            of_policy = factors(runs, raced[RANDOM], target, whole=whole, seed=0)
            by_count[name] = {unit: asdict(factor) for unit, factor in of_policy.items()}
        policies[policy] = {
            "n": len(runs),
            "reached": sum(run.reached(target, whole=False) is not None for run in runs),
            "factors": by_count,
            "curves": curves(to_end[policy]),
        }
    return {"target": target, "policies": policies}


def curves(runs: Sequence[Run], num_points: int = 40) -> dict[str, Any]:
    """The mean hypervolume by what was spent, with 95 % intervals of the mean over runs."""
    drawn = {}
    for i, unit in enumerate(UNITS):
        last = min(float(run.spent[-1, i]) for run in runs)
        across = np.linspace(0.0, last, num_points)
        rows = []
        for run in runs:
            index = np.searchsorted(run.spent[:, i], across, side="right") - 1
            rows.append(np.where(index >= 0, run.volumes[np.maximum(index, 0)], 0.0))
        stacked = np.array(rows)
        half = 1.96 * stacked.std(axis=0, ddof=1) / len(runs) ** 0.5
        drawn[unit] = {
            "across": across.tolist(),
            "mean": stacked.mean(axis=0).tolist(),
            "low": (stacked.mean(axis=0) - half).tolist(),
            "high": (stacked.mean(axis=0) + half).tolist(),
        }
    return drawn


def cell(path: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A cell from its file, or measured and written there."""
    if not path.is_file():
        started = time.monotonic()
        result = measure()
        result["cell_seconds"] = round(time.monotonic() - started, 1)
        write_json(path, result)
        print(f"{path.name}: {result['cell_seconds']} s", flush=True)
    known: dict[str, Any] = json.loads(path.read_text())
    return known


def main() -> None:
    """Measure what is missing and write table and figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", type=Path, required=True, help="folder of finished cells")
    parser.add_argument("--out", type=Path, default=Path("reports/reference"))
    parser.add_argument("--small", action="store_true", help="tiny, on digits alone")
    parser.add_argument("--policies", help="some of them, apart by ';'; random is always among")
    args = parser.parse_args()

    sizes = SMALL if args.small else FULL
    asked = list(POLICIES) if args.policies is None else args.policies.split(";")
    policies = [RANDOM, *(policy for policy in asked if policy != RANDOM)]
    parts, out = make_dir(args.parts), make_dir(args.out)

    live: dict[str, list[dict[str, Any]]] = {}
    for seed in range(sizes.sampler_seeds):
        for policy in policies:
            name = f"digits-{_file_name(policy)}-{seed}"
            search = partial(search_live, policy, seed, sizes, parts / "studies" / name)
            live.setdefault(policy, []).append(cell(parts / f"{name}.json", search))

    pool = parts / "pool.json"
    if not pool.is_file():
        make_pool(sizes, parts / "studies" / "pool", pool)
    track = Course.of(read_pool(pool), AT_ONCE).track
    target = random_target(track, sizes.num_target, seed=0)
    replayed = {}
    for policy in policies:
        replay = partial(replay_policy, policy, sizes, pool, target)
        replayed[policy] = cell(parts / f"pool-{_file_name(policy)}.json", replay)

    result = {
        "digits, live": live_results(live),
        f"{sizes.pool[0]}, replayed": {
            "pool": len(track.pool.members),
            "seeds": track.pool.num_seeds,
            **replayed_results(replayed, target),
        },
        "num_target": sizes.num_target,
        "at_once": AT_ONCE,
        "hardware": devices.fingerprint(torch.device("cpu")),
    }
    write_json(out / "search.json", result)
    (out / "search.svg").write_text(figure(result))
    print_table(result)


def _file_name(policy: str) -> str:
    return policy.replace(", ", "-").replace(" ", "_")


def print_table(result: Mapping[str, Any]) -> None:
    """A line a policy of each dataset."""
    for name, of_dataset in result.items():
        if not isinstance(of_dataset, dict) or "policies" not in of_dataset:
            continue
        print(f"{name}: target {of_dataset['target']:.4f}")
        for policy, row in of_dataset["policies"].items():
            words = []
            for unit in UNITS:
                factor = row["factors"]["student by student"][unit]
                words.append(
                    f"{unit} {factor['value']:.2f} [{factor['low']:.2f}, {factor['high']:.2f}]"
                )
            print(f"  {policy}: {row['reached']} of {row['n']}; {'; '.join(words)}")


if __name__ == "__main__":
    main()
