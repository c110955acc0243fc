"""What a step of a teacher's chains costs on a GPU, all at once and one by one.

    python tests/bench/bench_teacher.py --out reports/bench --device cuda

The network is 784-400-400-10 with minibatches of 100, as the teacher of ``fashion_sgld``; inputs
are noise. *One by one* is a chain that torch launches operation by operation. The others are walks,
by tile and precision; the first is what the package takes. ``seconds`` is a whole teacher: two
chains of 20,000 steps, every hundredth a sample on the host. With ``--dry-run`` the same goes
through tiny sizes on a CPU, where times mean nothing.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gped_nas import device as devices
from gped_nas import rng
from gped_nas.distill.phases.chain_walk import CHAINS
from gped_nas.distill.phases.chains import ChainsTogether
from gped_nas.distill.phases.launch import Launch
from gped_nas.distill.phases.tiles import Sizes
from gped_nas.io import make_dir, write_json
from gped_nas.models.base import Genotype
from gped_nas.posterior.base import METHODS, Problem, Step, posterior_of
from gped_nas.posterior.likelihoods import CategoricalLikelihood
from gped_nas.posterior.priors import GaussianPrior
from gped_nas.posterior.schedule import StepSize
from gped_nas.posterior.sgld import SgldConfig

LAUNCHES = {
    "walk": CHAINS,
    "walk, 32 x 32": replace(CHAINS, sizes=Sizes(32, 32)),
    "walk, ieee": replace(CHAINS, precision="ieee"),
    "walk, ieee 32 x 32": Launch(Sizes(32, 32), depth=32, programs_a_processor=4),
}
LIKELIHOOD = CategoricalLikelihood()


@dataclass(frozen=True)
class Scale:
    """Sizes of the bench.

    Attributes:
        num_inputs, width, num_examples, batch_size: of the problem.
        thinning: steps between two samples.
        rounds: samples of each chain that are timed.
        chains: how many run at once.
        steps: of the whole teacher.
    """

    num_inputs: int = 784
    width: int = 400
    num_examples: int = 54_000
    batch_size: int = 100
    thinning: int = 100
    rounds: int = 4
    chains: tuple[int, ...] = (2, 8, 32, 128)
    steps: int = 20_000


TINY = Scale(20, 16, 64, 16, thinning=1, rounds=1, chains=(1, 2), steps=2)


def problem_of(scale: Scale, device: torch.device) -> Problem:
    """The posterior of a network over noise."""
    generator = torch.Generator().manual_seed(0)
    return posterior_of(
        Genotype("mlp", depth=2, width=scale.width),
        torch.randn((scale.num_examples, scale.num_inputs), generator=generator),
        torch.randint(10, (scale.num_examples,), generator=generator),
        num_outputs=10,
        prior=GaussianPrior(precision=10.0),
        likelihood=LIKELIHOOD,
        device=device,
    )


def config_of(scale: Scale) -> SgldConfig:
    """The chain's settings."""
    return SgldConfig(
        name="sgld",
        step_size=StepSize(initial=1e-7),
        batch_size=scale.batch_size,
        burn_in=0,
        thinning=scale.thinning,
    )


def ms_a_step(rounds: Iterator[object], scale: Scale) -> list[float]:
    """Milliseconds a step of each round after the first two, which compile and fill the queue."""
    next(rounds), next(rounds)
    times = []
    for _ in range(scale.rounds):
        started = time.perf_counter()
        next(rounds)
        times.append(1e3 * (time.perf_counter() - started) / scale.thinning)
    return times


def together(problem: Problem, scale: Scale, chains: int, launch: Launch) -> Iterator[list[Step]]:
    """The steps of chains that walk."""
    run = ChainsTogether(problem, config_of(scale), LIKELIHOOD, 0, launch)
    return run(range(chains), [None] * chains)


def one_by_one(problem: Problem, scale: Scale) -> Iterator[Step]:
    """The steps of a chain that torch launches."""
    generator = rng.generator(0, "posterior", 0)
    return METHODS["sgld"](problem, config_of(scale), generator=generator)


def seconds_of_teacher(problem: Problem, scale: Scale) -> float:
    """Two chains from nothing to their last sample; programs are compiled before."""
    started = time.perf_counter()
    rounds = together(problem, scale, 2, CHAINS)
    for _ in range(scale.steps // scale.thinning):
        next(rounds)
    return time.perf_counter() - started


def measure(device: torch.device, path: Path, scale: Scale) -> None:
    """All sides; the file is written anew after each."""
    devices.set_precision()
    problem = problem_of(scale, device)
    told: dict[str, Any] = {"hardware": devices.fingerprint(device), "rows": []}

    def tell(side: str, chains: int, times: Sequence[float]) -> None:
        ms = statistics.median(times)
        row = {"side": side, "chains": chains, "ms a step": ms, "ms a step of a chain": ms / chains}
        told["rows"].append(row)
        print(json.dumps(row), flush=True)
        write_json(path, told)

    tell("walk", 2, ms_a_step(together(problem, scale, 2, CHAINS), scale))
    told["seconds"] = seconds_of_teacher(problem, scale)
    print(json.dumps({"seconds": told["seconds"]}), flush=True)
    tell("one by one", 1, ms_a_step(one_by_one(problem, scale), scale))

    for chains in scale.chains:
        for side, launch in LAUNCHES.items():
            try:
                times = ms_a_step(together(problem, scale, chains, launch), scale)
            except Exception as error:  # of whatever this card lacks
                told.setdefault("left out", {})[f"{side}, {chains}"] = repr(error)[:300]
                continue
            tell(side, chains, times)
    write_json(path, told)


def main() -> None:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cuda"], default="cuda")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    args = parser.parse_args()

    if args.dry_run:  # before Triton is imported
        os.environ.setdefault("TRITON_INTERPRET", "1")
    device = torch.device("cpu" if args.dry_run else "cuda")
    path = make_dir(args.out) / "teacher-cuda.json"
    measure(device, path, TINY if args.dry_run else Scale())


if __name__ == "__main__":
    main()
