"""What reading a study of thousands of trials costs: seconds, processor and memory of each command.

    python tests/bench/bench_reading.py --out reports/bench

A study of six trained students is enlarged with records that look like theirs (``studies.py``);
then each command runs in a process of its own, the shortest of three times. ``space`` counts eight
layers of five widths, 390,625 genotypes. Writes ``reading-cpu.json`` and prints it as one line.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from gped_nas import device as devices
from gped_nas.io import write_json
from tests.bench.studies import NAME, SPACE, enlarge, small_study

PROGRAM = Path(sys.executable).with_name("gped-search")
VERBS = ("status", "front", "show", "trials", "report")
MEASURED = """
import json, os, sys, time
start = time.perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, used = os.wait4(pid, 0)
seconds = time.perf_counter() - start
print("\\n" + json.dumps([status, seconds, used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""


def measure(*words: object) -> dict[str, float]:
    """Seconds, processor seconds and peak memory of a command; the shortest of three times."""
    runs = []
    for _ in range(3):
        command = [sys.executable, "-c", MEASURED, PROGRAM, *map(str, words)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        status, seconds, processor, kib = json.loads(done.stdout.splitlines()[-1])
        assert status == 0, done.stderr[-2000:]
        runs.append({"s": seconds, "processor_s": processor, "peak_mib": kib / 1024})
    shortest = min(runs, key=lambda run: run["s"])
    return {name: round(value, 2) for name, value in shortest.items()}


def reading(small: Path, root: Path, num: int) -> dict[str, Any]:
    """What every verb costs on a study of ``num`` trials."""
    shutil.copytree(small.parent, root)
    folder = root / NAME
    started = time.perf_counter()
    enlarge(folder, num)
    result: dict[str, Any] = {"enlarging_s": round(time.perf_counter() - started, 1)}
    for verb in VERBS:
        words = [verb, NAME, *(["17"] if verb == "show" else []), "--out", root]
        result[verb] = measure(*words)

    page = folder / "report.html"
    result["report"]["page_mib"] = round(page.stat().st_size / 2**20, 1)
    result["database_mib"] = round((folder / "study.db").stat().st_size / 2**20, 1)
    return result


def counting(root: Path) -> dict[str, float]:
    """What counting 390,625 genotypes costs."""
    space = yaml.safe_load(SPACE)
    width = [{"choices": [4, 8, 16, 32, 64]} for _ in range(8)]
    space["students"] = [{"family": "mlp", "genotype": {"depth": 8, "width": width}}]
    path = root / "vast.yaml"
    path.write_text(json.dumps(space))
    return measure("space", path)


def main() -> None:
    """Measure, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--trials", type=int, nargs="+", default=[2000, 10_000])
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["GPED_CACHE"] = str(root / "cache")
        small = small_study(root)
        result: dict[str, Any] = {
            str(num): reading(small, root / str(num), num) for num in arguments.trials
        }
        result["space of 390625"] = counting(root)

    if arguments.out:
        about = devices.fingerprint(torch.device("cpu"))
        write_json(arguments.out / "reading-cpu.json", {**result, **about})
    print(json.dumps(result))


if __name__ == "__main__":
    main()
