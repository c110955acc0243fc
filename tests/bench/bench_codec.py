"""Codecs of ``digits_sgld`` on one front: bytes against what is lost, three seeds.

Each seed has a teacher of two chains of 50 networks; codecs read one and are compared with the
other. Written are the means over seeds with their intervals, and on what machine.

    python tests/bench/bench_codec.py --out reports/reference
"""

import argparse
import warnings
from pathlib import Path

import gped_nas as gn
from gped_nas import device
from gped_nas.io import write_json

CODECS = (
    *("subset", "quantized:bits=8", "quantized:bits=4", "quantized:bits=4:around=mean"),
    *("low_rank", "flow"),
)
"""``gan`` and ``apd`` take longer: name them with ``--codecs``."""
SIZES, SEEDS = (4, 12, 40), 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    parser.add_argument("--work", type=Path, default=Path("reports"))
    parser.add_argument("--codecs", default=",".join(CODECS))
    arguments = parser.parse_args()

    front = gn.codec(
        "digits_sgld",
        arguments.codecs.split(","),
        sizes=SIZES,
        seeds=SEEDS,
        out=arguments.work,
        session=gn.new_session("cpu"),
        told=lambda name, done, total: print(f"{done} of {total}: {name}", flush=True),
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    machine = device.fingerprint(gn.new_session("cpu").device)
    write_json(arguments.out / "codec.json", {**front.data, "machine": machine})


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
