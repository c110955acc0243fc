"""Codecs on one front: bytes against what is lost, three seeds, on three cases.

Each seed has a teacher of two chains; codecs read one and are compared with the other. Written are
the means over seeds with their intervals, the values of each seed, and on what machine.

    python tests/bench/bench_codec.py small digits fashion --work work --out reports/reference

What is measured is kept in ``--work``, a file a code and seed: the same call goes on from there.
"""

import argparse
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gped_nas as gn
from gped_nas import device
from gped_nas.io import make_dir, write_json

FINITE = ("subset", "quantized:bits=8", "quantized:bits=4", "quantized:bits=4:around=mean")
NESTED = "quantized:bits=8 of subset:num_samples=20"
LAWS = ("low_rank", "flow", "gan")
APD = ("apd:iterations=2500", "apd:online={buffer: 25, updates: 500}")
"""Offline, and in two rounds of half of a chain; .03 s an update on one core that others share."""
SIZES, SEEDS = (4, 12, 40), 3


@dataclass(frozen=True)
class Case:
    """A space and its codecs.

    Attributes:
        space: shipped.
        codecs: see ``gped-search codec``.
        settings: of the space.
        sizes: networks whose bytes codecs may take.
        limit: examples of validation, and as many inputs from outside.
    """

    space: str
    codecs: tuple[str, ...] = (*FINITE, NESTED, *LAWS)
    settings: dict[str, Any] = field(default_factory=dict)
    sizes: tuple[int, ...] = SIZES
    limit: int = 1000


SHORT = {
    "teacher.method.num_samples": 60,
    "teacher.method.burn_in": 3000,
    "teacher.method.thinning": 50,
}
"""A third of the steps of the shipped ``fashion_sgld``."""
CASES = {
    "small": Case(
        "digits_sgld",
        codecs=(*FINITE, NESTED, *LAWS, *APD),
        settings={"name": "digits_small", "teacher.genotype": {"depth": 1, "width": 16}},
    ),
    "digits": Case("digits_sgld"),
    "fashion": Case("fashion_sgld", settings=SHORT, sizes=(4, 12, 24), limit=500),
}


def measure(name: str, work: Path) -> dict[str, Any]:
    """A case's report."""
    case = CASES[name]
    session = gn.new_session("cpu", processes=1)
    front = gn.codec(
        case.space,
        case.codecs,
        sizes=case.sizes,
        seeds=SEEDS,
        limit=case.limit,
        overrides=case.settings,
        out=work,
        session=session,
        told=lambda code, done, total: print(f"{name}: {done} of {total}: {code}", flush=True),
    )
    machine = device.fingerprint(session.device)
    return {**front.data, "case": name, "values": values_of(front.rows), "machine": machine}


def values_of(rows: list[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """The value of each seed, by code and measure; of those that each seed has."""
    values: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row["value"] is not None:
            of_code = values.setdefault(row["predictor"], {})
            of_code.setdefault(row["metric"], []).append(round(row["value"], 6))
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="+", choices=list(CASES))
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    parser.add_argument("--work", type=Path, default=Path("reports"))
    arguments = parser.parse_args()

    for name in arguments.cases:
        report = measure(name, arguments.work)
        write_json(make_dir(arguments.out) / f"codec_{name}.json", report)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
