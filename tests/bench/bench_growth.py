"""What a trial costs as a study grows: 16, 64, 256 and 1,000 trials of one study, its memory, and
the teacher's share.

    python tests/bench/bench_growth.py --space digits_mlp --out reports/bench

Student seconds are distilling and measuring; the rest is drawing and recording. Processor seconds
hold when others work too. Prints one JSON line.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import gped_nas as gn
from gped_nas import device as devices
from gped_nas.io import write_json
from gped_nas.search.record import TrialRecord

MARKS = (16, 64, 256, 1000)


def main() -> None:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--space", default="digits_mlp")
    parser.add_argument("--trials", type=int, default=MARKS[-1])
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    marks = [mark for mark in MARKS if mark <= args.trials]
    session = gn.new_session("cpu")
    space = gn.load_space(args.space)
    started = time.perf_counter()
    gn.build_teacher(space, session)
    teacher_s = time.perf_counter() - started
    rows: list[dict[str, Any]] = []
    began, began_processor, student_s, last = (
        time.perf_counter(),
        time.process_time(),
        0.0,
        (0, 0.0, 0.0, 0.0),
    )

    def told(record: TrialRecord, finished: int) -> None:
        nonlocal student_s, last
        student_s += record.seconds or 0.0
        if finished in marks:
            now, processor = time.perf_counter() - began, time.process_time() - began_processor
            count = finished - last[0]
            rows.append(
                {
                    "trials": finished,
                    "s_a_trial": (now - last[1]) / count,
                    "processor_s_a_trial": (processor - last[3]) / count,
                    "student_s_a_trial": (student_s - last[2]) / count,
                    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                }
            )
            last = (finished, now, student_s, processor)
            print(rows[-1], flush=True)

    with tempfile.TemporaryDirectory() as out:
        gn.run(space, out=out, n_trials=args.trials, session=session, told=told)
    total = time.perf_counter() - began
    found = {
        "space": args.space,
        "teacher_s": teacher_s,
        "rows": rows,
        "teacher_share": teacher_s / (teacher_s + total),
        "hardware": devices.fingerprint(session.device),
    }
    print(json.dumps(found))
    write_json(args.out / f"growth-{session.device.type}.json", found)


if __name__ == "__main__":
    main()
