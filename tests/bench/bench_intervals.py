"""How often the intervals hold the truth, at length.

    python tests/bench/bench_intervals.py --out reports/reference/coverage-of-intervals.json

The populations are in ``tests/statistical/populations.py`` and ``ranked.py`` there. 2,000 data sets
a row know a coverage of 95 % to .005, as a standard error; what takes a millisecond each has 500,
known to .01. It takes a few minutes on one core.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from gped_nas import device as devices
from gped_nas.io import write_json
from tests.statistical.coverage import SIZES, SLOW, cases, summarize

REPEATS = 2000
SLOW_REPEATS = 500


def main() -> None:
    """Measure every case at every size, and write rows and their summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    args = parser.parse_args()

    rows: list[dict[str, Any]] = []
    for case in cases():
        for n in SIZES:
            most = SLOW_REPEATS if case.quantity in SLOW else REPEATS
            repeats = min(args.repeats, most)
            rows.append(case.measure(n, repeats))
            print(rows[-1], flush=True)

    summary = summarize(rows)
    for row in summary:
        print(row)
    hardware = devices.fingerprint(torch.device("cpu"))
    write_json(args.out, {"hardware": hardware, "summary": summary, "rows": rows})


if __name__ == "__main__":
    main()
