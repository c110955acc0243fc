"""What certificates of a large teacher say, and what they cost.

    GPED_DATA=... python -m tests.bench.bench_certify_teacher --out reports/bench

A teacher of more than 10^6 weights on Fashion-MNIST: the share of its stored samples that is
certified and that is not broken, and the verdict on their average. Prints one JSON line a radius.
"""

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import torch

from gped_nas import device as devices
from gped_nas import rng
from gped_nas.api.certifying_teachers import Boxed, judge_average, judge_stream
from gped_nas.api.session import Session
from gped_nas.api.teacher import Teacher, sample_teacher
from gped_nas.evaluate.certify.bounds import Bounds
from gped_nas.evaluate.certify.box import linf_box
from gped_nas.evaluate.certify.verdict import VERDICTS
from gped_nas.io import make_dir, write_json
from gped_nas.models.base import num_params
from gped_nas.search.space_file import load_space

SPACE = """\
name: fashion_big
dataset: {{name: fashion_mnist}}
teacher:
  family: mlp
  genotype: {{depth: 2, width: 800}}
  prior: {{precision: 10.0}}
  method:
    name: sgld
    chains: 1
    num_samples: {samples}
    step_size: {{initial: 2.0e-6, halve_at: [10000]}}
    burn_in: 2000
    thinning: 20
    batch_size: 100
views: [{{policy: clean}}]
targets: [predictive, expected_entropy]
students: [{{family: mlp, genotype: {{depth: 1, width: 16}}}}]
objectives: [nll, params]
"""


def measure(teacher: Teacher, radius: float, num: int, bounds: Bounds) -> dict[str, Any]:
    """Shares and verdicts of some validation inputs within a radius, and seconds."""
    raw = teacher.dataset.raw("validation")[:num].float()
    label_N = torch.as_tensor(teacher.dataset.labels("validation")[:num])
    boxed = Boxed(raw, label_N, linf_box(raw, teacher.dataset.scale, radius))
    generator = rng.generator(0, "bench")

    started = time.monotonic()
    verdicts = judge_stream(teacher, boxed, generator=generator, bounds=bounds)
    of_samples = time.monotonic() - started
    judged = judge_average(teacher, boxed, verdicts, generator=generator, attack="margin")
    of_average = time.monotonic() - started - of_samples

    return {
        "epsilon": radius,
        "bounds": bounds,
        "inputs": num,
        "samples": len(verdicts.weight_S),
        "share_low": float(verdicts.certified_share_N.mean()),
        "share_high": float(verdicts.unbroken_share_N.mean()),
        "average": {verdict: judged.share(verdict) for verdict in VERDICTS},
        "seconds_samples": round(of_samples, 1),
        "seconds_average": round(of_average, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main() -> None:
    """Measure some radii, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    parser.add_argument("--work", type=Path, required=True, help="where the stream is built")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--radii", type=float, nargs="+", default=[0.001, 0.003, 0.01])
    parser.add_argument("--bounds", default="crown_ibp")
    args = parser.parse_args()

    space_file = make_dir(args.work) / "large.yaml"
    space_file.write_text(SPACE.format(samples=args.samples))
    started = time.monotonic()
    teacher = sample_teacher(load_space(space_file), Session(streams=args.work / "streams"))
    built = round(time.monotonic() - started, 1)

    rows = []
    for radius in args.radii:
        rows.append(measure(teacher, radius, args.inputs, args.bounds))
        print(json.dumps(rows[-1]), flush=True)
    result = {
        "weights": num_params(teacher.stream.key.shapes),
        "seconds_sampling": built,
        "rows": rows,
        "hardware": devices.fingerprint(torch.device("cpu")),
    }
    write_json(make_dir(args.out) / "certify_teacher-cpu.json", result)


if __name__ == "__main__":
    main()
