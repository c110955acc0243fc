"""What a trial costs as a study grows, its memory, and the teacher's share.

    python tests/bench/bench_growth.py --space digits_mlp --out reports/bench

The marks are 16, 64, 256 and 1,000 trials of one study. Student seconds are distilling and
measuring; the rest is drawing and recording. Processor seconds hold when others work too. Prints
one JSON line.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gped_nas as gn
from gped_nas import device as devices
from gped_nas.io import make_dir, write_json
from gped_nas.search.record import TrialRecord

MARKS = (16, 64, 256, 1000)


@dataclass
class Growth:
    """Costs of a study's trials between one mark and the next."""

    marks: Sequence[int]
    rows: list[dict[str, Any]] = field(default_factory=list)
    student_s: float = 0.0

    def __post_init__(self) -> None:
        self.started = time.perf_counter()
        self.started_processor = time.process_time()
        self.last = {"trials": 0.0, "s": 0.0, "student_s": 0.0, "processor_s": 0.0}

    def take(self, record: TrialRecord, num_finished: int) -> None:
        """Take in a trial, and add a row at a mark."""
        self.student_s += record.seconds or 0.0
        if num_finished not in self.marks:
            return

        now = {
            "trials": num_finished,
            "s": time.perf_counter() - self.started,
            "student_s": self.student_s,
            "processor_s": time.process_time() - self.started_processor,
        }
        num_trials = now["trials"] - self.last["trials"]
        row: dict[str, Any] = {"trials": num_finished}
        for name in ("s", "processor_s", "student_s"):
            row[f"{name}_a_trial"] = (now[name] - self.last[name]) / num_trials
        row["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self.last = now
        self.rows.append(row)
        print(row, flush=True)


def main() -> None:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--space", default="digits_mlp")
    parser.add_argument("--trials", type=int, default=MARKS[-1])
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    args = parser.parse_args()

    session = gn.new_session("cpu")
    space = gn.load_space(args.space)
    started = time.perf_counter()
    gn.build_teacher(space, session)
    teacher_s = time.perf_counter() - started

    growth = Growth([mark for mark in MARKS if mark <= args.trials])
    with tempfile.TemporaryDirectory() as out:
        gn.run(space, out=out, n_trials=args.trials, session=session, told=growth.take)
    total_s = time.perf_counter() - growth.started

    result = {
        "space": args.space,
        "teacher_s": teacher_s,
        "rows": growth.rows,
        "teacher_share": teacher_s / (teacher_s + total_s),
        "hardware": devices.fingerprint(session.device),
    }
    print(json.dumps(result))
    write_json(make_dir(args.out) / f"growth-{session.device.type}.json", result)


if __name__ == "__main__":
    main()
