"""What the ledger costs a trial, on a database and in memory, beside Optuna's own ask and tell.

    python tests/bench/bench_ledger.py --out reports/bench

A search whose students cost nothing: milliseconds of processor, statements and commits of a
finished trial, for the first and the last quarter of them, and the memory at the end of each
quarter. Of the milliseconds, ``drawing_ms`` are spent by the sampler and Optuna's ``ask``. The
study is bound to a folder, so that every write asks for the lease. With ``--dtypes 3`` each student
is told in three storage types, which are trials of their own. Prints one JSON line.
"""

import argparse
import functools
import json
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import torch
from sqlalchemy import event
from sqlalchemy.engine import Engine

from gped_nas import device as devices
from gped_nas.api.home import find
from gped_nas.io import write_json
from gped_nas.search.asking import Asker
from gped_nas.search.database import sqlite_url
from gped_nas.search.record import TrialRecord
from gped_nas.search.study import create_or_load
from tests.search.fakes import IDENTITY, Fake, make_space, run

VAST: dict[str, Any] = {"depth": 4, "width": [{"int": [1, 100]}] * 4}
DTYPES = ["float32", "float16", "int8"]


def count(seen: Counter[str]) -> None:
    """Count what every database is told from now on."""

    def statement(_: Any, __: Any, sql: str, *rest: Any) -> None:
        seen["statements"] += 1

    def commit(_: Any) -> None:
        seen["commits"] += 1

    event.listen(Engine, "before_cursor_execute", statement)
    event.listen(Engine, "commit", commit)


def quarters(marks: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Costs a trial of the first and the last quarter, between marks that lie a quarter apart."""
    costs = {}
    for name, first, last in (("first", 0, 1), ("last", 3, 4)):
        num = marks[last]["trials"] - marks[first]["trials"]
        costs[name] = {
            key: round((marks[last][key] - marks[first][key]) / num, 3)
            for key in marks[0]
            if key not in ("trials", "mib")
        }
    return costs


def resident_mib() -> float:
    """Memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 2**20, 1)


def time_drawing(seen: Counter[str]) -> None:
    """Add up the processor's milliseconds in the sampler and in ``ask``, from now on."""

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.process_time()
            result = method(*args, **kwargs)
            seen["drawing_ms"] += (time.process_time() - started) * 1e3  # type: ignore[assignment]
            return result

        return call

    optuna.Study.ask = timed(optuna.Study.ask)  # type: ignore[method-assign]
    Asker.draw = timed(Asker.draw)  # type: ignore[method-assign]


def ours(folder: Path, num: int, sampler: str, dtypes: int, seen: Counter[str]) -> dict[str, Any]:
    """The search loop with its ledger."""
    # marks lie between populations: a population is claimed as a whole
    genotype = {**VAST, "storage_dtype": {"choices": DTYPES[:dtypes]}}
    space = make_space(genotype, sampler=sampler, students_at_once=10, max_failures=0)
    url = sqlite_url(folder / "ours.db")
    home = find(folder, "fake", url)
    ledger = create_or_load(url, "fake", space.objectives, IDENTITY, bind=home.bind)
    marks: list[dict[str, float]] = []

    def mark(trials: int) -> None:
        marks.append({"trials": trials, "mib": resident_mib(), **_spent(seen)})

    def told(record: TrialRecord, num_finished: int) -> None:
        is_new = num_finished > marks[-1]["trials"]  # its other types are told after a student
        if is_new and num_finished % (num // 4) == 0:
            mark(num_finished)

    mark(0)
    with home.bound(ledger):
        run(space, ledger, Fake(), n_trials=num, told=told)
    num_rows = ledger.num_trials()
    return {**quarters(marks), "rows": num_rows, "mib": [each["mib"] for each in marks]}


def optunas(folder: Path, num: int, seen: Counter[str]) -> dict[str, dict[str, float]]:
    """Optuna alone: ask, draw, tell, and one attribute."""
    study = optuna.create_study(
        storage=sqlite_url(folder / "optuna.db"),
        directions=["minimize", "minimize"],
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    marks: list[dict[str, float]] = []
    for i in range(num + 1):
        if i % (num // 4) == 0:
            marks.append({"trials": i, **_spent(seen)})
        trial = study.ask()
        values = [float(trial.suggest_int(f"width{k}", 1, 100)) for k in range(4)]
        trial.set_user_attr("record", "x" * 3000)
        study.tell(trial, values[:2])
    return quarters(marks)


def _spent(seen: Counter[str]) -> dict[str, float]:
    """What was spent by now."""
    counts = {key: seen[key] for key in ("drawing_ms", "statements", "commits")}
    return {"ms": time.process_time() * 1e3, **counts}


def main() -> None:
    """Measure both sides, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--trials", type=int, default=400, help="a multiple of 40")
    parser.add_argument("--sampler", default="random", help="random, tpe or nsga2")
    parser.add_argument("--dtypes", type=int, default=1, help="storage types of each student")
    parser.add_argument("--without-optuna", action="store_true", help="measure the ledger alone")
    arguments = parser.parse_args()

    seen: Counter[str] = Counter()
    count(seen)
    time_drawing(seen)
    with tempfile.TemporaryDirectory() as folder:
        result: dict[str, Any] = {"trials": arguments.trials, "sampler": arguments.sampler}
        result["dtypes"] = arguments.dtypes
        result["ours"] = ours(
            Path(folder), arguments.trials, arguments.sampler, arguments.dtypes, seen
        )
        if not arguments.without_optuna:
            result["optuna"] = optunas(Path(folder), arguments.trials, seen)
    if arguments.out:
        write_json(
            arguments.out / f"ledger-{arguments.sampler}-{arguments.trials}-cpu.json",
            {**result, **devices.fingerprint(torch.device("cpu"))},
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
