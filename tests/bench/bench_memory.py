"""Peak memory of `gped-search teacher build`, and how long opening its stream takes.

    GPED_DATA=... python tests/bench/bench_memory.py --samples 500 --out reports/bench

Writes ``memory-cpu.json`` and prints it as one line. The command runs on a cache of its own, and
``/proc`` is read some twenty times a second while it does, of all its processes together:

* ``peak_pss_mib`` is the largest sum over its processes of the proportional set size, which shares
  a page out among all who map it, strangers too: read it on a quiet machine.
* ``peak_resident_mib`` does not depend on strangers: what each process has of its own, and once
  what one of them maps of files and of shared memory.
* ``peak_rss_sum_mib`` counts a page once for each process that maps it.

Chains step once a sample by default: how long they are does not show in memory, how many samples
they keep could.

The stream is then opened by ``load_stream``, and its weights read, in fresh processes: ``first_ms``
is the first opening, ``again_ms`` the next one, ``modules`` what the first had to import. Importing
``gped_nas.api``, which a process does before its first call, is ``import_ms``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from gped_nas import device
from gped_nas.io import make_dir, write_json

MIB = 2**20
SAMPLING_S = 0.05
MEASURES = ("Pss", "VmRSS", "VmHWM", "RssAnon", "RssFile", "RssShmem")
BUILD = """
import gped_nas.cli.progress as progress
progress.LINE_SECONDS = 0.1
from gped_nas.cli import main
main()
"""
SHORT = ("teacher.method.burn_in=0", "teacher.method.thinning=1")
OPEN = """
import json, sys, time
started = time.perf_counter()
from gped_nas.api import load_stream
result = {"import_ms": (time.perf_counter() - started) * 1e3}
for name in ("first_ms", "again_ms"):
    before = set(sys.modules)
    started = time.perf_counter()
    load_stream(sys.argv[1]).weight
    result[name] = (time.perf_counter() - started) * 1e3
    result.setdefault("modules", len(set(sys.modules) - before))
print(json.dumps(result))
"""


@dataclass
class Peaks:
    """The largest of what was seen, bytes; see the top of this file.

    Attributes:
        of_all: by measure, of all processes together at one moment.
        during: by measure, what the command last said before that moment.
        of_process: by process, in the order they were met: its own largest PSS and RSS.
    """

    of_all: dict[str, int] = field(default_factory=dict)
    during: dict[str, str] = field(default_factory=dict)
    of_process: dict[int, dict[str, int]] = field(default_factory=dict)

    def see(self, processes: dict[int, dict[str, int]], during: str) -> None:
        """Take one look at all processes."""
        seen = processes.values()
        private = sum(sizes["RssAnon"] for sizes in seen)
        # what processes share counts once, as much of it as one of them maps
        files = max((sizes["RssFile"] for sizes in seen), default=0)
        shared = max((sizes["RssShmem"] for sizes in seen), default=0)
        totals = {
            "pss": sum(sizes["Pss"] for sizes in seen),
            "rss_sum": sum(sizes["VmRSS"] for sizes in seen),
            "resident": private + files + shared,
        }
        for name, value in totals.items():
            if value > self.of_all.get(name, 0):
                self.of_all[name] = value
                self.during[name] = during

        for pid, sizes in processes.items():
            before = self.of_process.get(pid, sizes)
            self.of_process[pid] = {name: max(before[name], sizes[name]) for name in sizes}


def memory_of(pid: int) -> dict[str, int]:
    """Sizes of one process by the kernel's names, bytes.

    Raises:
        OSError: it ended.
    """
    sizes = {}
    for file in ("status", "smaps_rollup"):
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.endswith(" kB"):
                name, size = line.split(":", 1)
                sizes[name] = int(size.split()[0]) * 1024
    return {name: sizes[name] for name in MEASURES}


def tree(root: int) -> list[int]:
    """A process and all below it."""
    pids = [root]
    # children are appended to the list that is gone through
    for pid in pids:
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                pids += map(int, path.read_text().split())
            except OSError:  # the thread ended
                continue
    return pids


def watch(command: "subprocess.Popen[str]", doing: list[str]) -> Peaks:
    """Look at a command until it ends."""
    peaks = Peaks()
    while command.poll() is None:
        started = time.monotonic()
        processes = {}
        for pid in tree(command.pid):
            try:
                processes[pid] = memory_of(pid)
            except (OSError, KeyError):  # it ended
                continue
        peaks.see(processes, doing[-1])

        # a look holds up who is looked at
        look_s = time.monotonic() - started
        time.sleep(max(SAMPLING_S, 4 * look_s))
    return peaks


def listen(stderr: IO[str], doing: list[str]) -> None:
    """Keep what the command says it is doing."""
    for line in stderr:
        doing.append(line.strip())


def build(
    space: str, settings: list[str], processes: int, cache: Path
) -> tuple[Path, Peaks, float]:
    """Build a stream: its folder, its peaks, and the seconds it took."""
    words = ["teacher", "build", space, "--processes", str(processes), "--device", "cpu"]
    for setting in settings:
        words += ["--set", setting]

    started = time.monotonic()
    doing = ["starting"]
    with subprocess.Popen(
        [sys.executable, "-c", BUILD, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "GPED_CACHE": str(cache)},
    ) as command:
        assert command.stdout is not None and command.stderr is not None
        listener = threading.Thread(target=listen, args=(command.stderr, doing))
        listener.start()
        peaks = watch(command, doing)
        listener.join()
        if command.returncode:
            raise SystemExit("\n".join(doing))
        return Path(command.stdout.read().strip()), peaks, time.monotonic() - started


def opening(folder: Path, repeats: int) -> dict[str, Any]:
    """Quartiles of opening a stream in fresh processes, milliseconds."""
    command = [sys.executable, "-c", OPEN, str(folder)]
    runs = []
    for _ in range(repeats):
        process = subprocess.run(command, capture_output=True, text=True, check=True)
        runs.append(json.loads(process.stdout))

    result: dict[str, Any] = {}
    for name in ("import_ms", "first_ms", "again_ms"):
        low, median, high = quartiles([run[name] for run in runs])
        result[name] = {"quartile_1": low, "median": median, "quartile_3": high}
    return {**result, "modules": runs[0]["modules"], "repeats": repeats}


def quartiles(values: list[float]) -> list[float]:
    return [round(float(q), 2) for q in np.quantile(values, (0.25, 0.5, 0.75))]


def mib(num_bytes: int) -> float:
    return round(num_bytes / MIB, 1)


def commit() -> str:
    """The commit that was measured, with ``-dirty`` where files differ from it."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty"]
    return subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    ).stdout.strip()


def measure(space: str, settings: list[str], processes: int, repeats: int) -> dict[str, Any]:
    """One build and openings of its stream."""
    with tempfile.TemporaryDirectory() as cache:
        folder, peaks, seconds = build(space, settings, processes, Path(cache))
        by_process = [
            {"peak_pss_mib": mib(sizes["Pss"]), "peak_rss_mib": mib(sizes["VmHWM"])}
            for sizes in peaks.of_process.values()
        ]
        return {
            "processes": processes,
            "seconds": round(seconds, 1),
            **{f"peak_{name}_mib": mib(value) for name, value in peaks.of_all.items()},
            "peak_during": peaks.during,
            "by_process": by_process,
            "opening": opening(folder, repeats),
        }


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--out", type=Path, default=Path("reports/bench"), help="folder to write memory-cpu.json to"
    )
    parser.add_argument("--space", default="fashion_sgld")
    parser.add_argument(
        "--samples", type=int, default=500, help="posterior samples, all chains together"
    )
    parser.add_argument(
        "--set",
        action="append",
        metavar="A.B=C",
        help=f"of the space; by default {' and '.join(SHORT)}",
    )
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--repeats", type=int, default=7, help="fresh processes that open the stream"
    )
    return parser.parse_args()


def main() -> None:
    """Measure and write the file."""
    args = parse_args()
    settings = [*(args.set or SHORT), f"teacher.method.num_samples={args.samples}"]
    runs = [measure(args.space, settings, count, args.repeats) for count in args.processes]
    result = {
        "bench": "memory",
        "commit": commit(),
        **device.fingerprint(torch.device("cpu")),
        "space": args.space,
        "settings": settings,
        "runs": runs,
    }
    write_json(make_dir(args.out) / "memory-cpu.json", result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
