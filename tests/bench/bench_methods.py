"""Milliseconds a step of the chain methods, beside what bounds them and `posteriors`.

    python tests/bench/bench_methods.py --out reports/bench

Writes ``methods-cpu.json`` and prints it as one line. The network is 784-400-400-10 at batch 100.
Beside our methods it times, in the same rounds, the gradient alone (minibatch, forward, backward),
the noise alone (W normal numbers), and SGLD of `posteriors` in both of its modes: on the same
posterior written as its documentation does, and on our own potential.

Each entry of ``runs`` is for one number of threads and holds, for wall time and for this process's
own processor time, milliseconds a step and ratios. Rounds go through all contenders in turn and a
ratio is the median of the ratios within rounds, so that a machine whose speed drifts shows in the
quartiles and not in the comparison. Where others use the machine, only processor time at one thread
says something.
"""

import argparse
import json
import subprocess
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gped_nas import device, rng
from gped_nas.io import make_dir, write_json
from gped_nas.models.base import FAMILIES, Genotype, Params, initialize, num_params
from gped_nas.posterior.base import METHODS, FlatParams, Problem, flatten
from gped_nas.posterior.priors import GaussianPrior

with warnings.catch_warnings():  # tensordict warns at each of its state classes
    warnings.simplefilter("ignore", FutureWarning)
    from posteriors import diag_normal_log_prob
    from posteriors.sgmcmc import sgld as theirs

TEACHER = Genotype("mlp", depth=2, width=400)
INPUTS, CLASSES = 784, 10
EXAMPLES, BATCH = 10_000, 100
ETA, PRECISION = 1e-7, 10.0
STEP_SIZE = {"initial": ETA}
OF_MOMENTUM = {"initial": ETA**0.5}
STEPS, WARM_UP = 20, 2
RATIOS = {
    "sgld / posteriors_sgld": ("sgld", ("posteriors_sgld",)),
    "sgld / posteriors_sgld_inplace": ("sgld", ("posteriors_sgld_inplace",)),
    "sgld / posteriors_sgld_our_potential": ("sgld", ("posteriors_sgld_our_potential",)),
    "sgld / posteriors_sgld_our_potential_inplace": (
        "sgld",
        ("posteriors_sgld_our_potential_inplace",),
    ),
    "sgld / (gradient + noise)": ("sgld", ("gradient", "noise")),
}
"""Numerator, and what is summed in the denominator."""
Contender = Callable[[], object]
"""Runs ``STEPS`` steps."""


def problem() -> Problem:
    """The posterior of the classifier on random inputs and labels."""
    family = FAMILIES["mlp"]
    shapes = TEACHER.shapes((INPUTS,), CLASSES)
    generator = rng.generator(0, "bench", "data")
    x = torch.randn(EXAMPLES, INPUTS, generator=generator)
    y = torch.randint(CLASSES, (EXAMPLES,), generator=generator)

    def log_likelihood(params: Params, x: Tensor, y: Tensor) -> Tensor:
        return -F.cross_entropy(family.forward(params, x), y, reduction="none")

    return Problem(
        shapes=shapes,
        log_likelihood=log_likelihood,
        log_prior=GaussianPrior(precision=PRECISION),
        initialize=lambda generator: initialize(shapes, generator=generator),
        x=x,
        y=y,
    )


def chain(target: Problem, name: str, **settings: Any) -> Contender:
    """A method of ours: it yields, and copies its state, once in ``STEPS`` steps."""
    settings = {"name": name, "batch_size": BATCH, "thinning": STEPS, **settings}
    cfg = METHODS[name].config.model_validate(settings)
    steps = METHODS[name](target, cfg, generator=rng.generator(0, "bench", name))
    return lambda: next(steps)


def gradient(target: Problem) -> Contender:
    """Minibatch, forward and backward alone."""
    generator = rng.generator(0, "bench", "gradient")
    flat = FlatParams(target.shapes, flatten(target.initialize(generator)))

    def run() -> None:
        for _ in range(STEPS):
            index = torch.randint(EXAMPLES, (BATCH,), generator=generator)
            target.gradient(flat, index)

    return run


def noise(target: Problem) -> Contender:
    """W normal numbers alone."""
    generator = rng.generator(0, "bench", "noise")
    noise_W = torch.empty(num_params(target.shapes))

    def run() -> None:
        for _ in range(STEPS):
            noise_W.normal_(generator=generator)

    return run


def of_posteriors(log_posterior: Callable[..., Any], params: Params, *, inplace: bool) -> Contender:
    """SGLD of `posteriors` at the same posterior.

    T = 1 / N and lr = eta N / 2 go with the mean log-posterior.
    """
    generator = rng.generator(0, "bench", "posteriors")
    transform = theirs.build(log_posterior, lr=ETA * EXAMPLES / 2, temperature=1 / EXAMPLES)
    state = transform.init(params)

    def run() -> None:
        nonlocal state
        for _ in range(STEPS):
            index = torch.randint(EXAMPLES, (BATCH,), generator=generator)
            state, _ = transform.update(state, index, inplace=inplace)

    return run


def of_our_potential(target: Problem, *, inplace: bool) -> Contender:
    """Theirs on our potential."""

    def log_posterior(params: Any, index_B: Any) -> tuple[Tensor, Tensor]:
        return -target.potential(params, index_B) / EXAMPLES, torch.empty(0)

    start = target.initialize(rng.generator(0, "bench", "start"))
    return of_posteriors(log_posterior, start, inplace=inplace)


def as_documented(target: Problem, *, inplace: bool) -> Contender:
    """Theirs on the same network and prior, written as its documentation does.

    That is a module, and its own normal prior.
    """
    with torch.device("meta"):
        module = nn.Sequential(
            nn.Linear(INPUTS, 400),
            nn.ReLU(),
            nn.Linear(400, 400),
            nn.ReLU(),
            nn.Linear(400, CLASSES),
        )
    start = target.initialize(rng.generator(0, "bench", "start"))
    params = dict(zip(dict(module.named_parameters()), start.values(), strict=True))

    def log_posterior(params: Any, index_B: Any) -> tuple[Tensor, Tensor]:
        outputs = torch.func.functional_call(module, params, (target.x[index_B],))
        log_prior = diag_normal_log_prob(params, sd_diag=PRECISION**-0.5)
        return log_prior / EXAMPLES - F.cross_entropy(outputs, target.y[index_B]), outputs

    return of_posteriors(log_posterior, params, inplace=inplace)


def contenders() -> dict[str, Contender]:
    """All of them, by name, in the order of a round."""
    target = problem()
    return {
        "gradient": gradient(target),
        "noise": noise(target),
        "sgld": chain(target, "sgld", step_size=STEP_SIZE, burn_in=0),
        "posteriors_sgld": as_documented(target, inplace=False),
        "posteriors_sgld_inplace": as_documented(target, inplace=True),
        "posteriors_sgld_our_potential": of_our_potential(target, inplace=False),
        "posteriors_sgld_our_potential_inplace": of_our_potential(target, inplace=True),
        "psgld": chain(target, "psgld", step_size=STEP_SIZE, burn_in=STEPS),
        "sghmc": chain(target, "sghmc", step_size=OF_MOMENTUM, burn_in=0),
        "csgld": chain(target, "csgld", step_size=STEP_SIZE),
        "csghmc": chain(target, "csghmc", step_size=OF_MOMENTUM),
    }


def quartiles(values: Any) -> dict[str, float]:
    low, median, high = (round(float(q), 4) for q in np.quantile(values, (0.25, 0.5, 0.75)))
    return {"median": median, "quartile_1": low, "quartile_3": high}


def measure(threads: int, rounds: int) -> dict[str, Any]:
    """Milliseconds a step and ratios at one number of threads."""
    torch.set_num_threads(threads)
    running = contenders()
    for _ in range(WARM_UP):
        for run in running.values():
            run()

    clocks = {"wall": time.perf_counter, "processor": time.process_time}
    times = {clock: {name: np.empty(rounds) for name in running} for clock in clocks}
    for i in range(rounds):
        for name, run in running.items():
            started = {clock: read() for clock, read in clocks.items()}
            run()
            for clock, read in clocks.items():
                times[clock][name][i] = (read() - started[clock]) / STEPS * 1e3

    summaries = {clock: summary(by_name) for clock, by_name in times.items()}
    return {"threads": threads, **summaries}


def summary(times: dict[str, Any]) -> dict[str, Any]:
    """Quartiles of milliseconds a step, and of the ratios within rounds."""
    ratios = {}
    for name, (numerator, denominators) in RATIOS.items():
        ratios[name] = times[numerator] / sum(times[other] for other in denominators)
    return {
        "ms_per_step": {name: quartiles(values) for name, values in times.items()},
        "ratios": {name: quartiles(values) for name, values in ratios.items()},
    }


def commit() -> str:
    """The commit that was measured, with ``-dirty`` where files differ from it."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty"]
    return subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    ).stdout.strip()


def main() -> None:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("reports/bench"),
        help="folder to write methods-cpu.json to",
    )
    parser.add_argument(
        "--rounds", type=int, default=30, help=f"repeats of {STEPS} steps of each contender"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()

    device.set_precision()
    shapes = TEACHER.shapes((INPUTS,), CLASSES)
    result = {
        "bench": "methods",
        "commit": commit(),
        **device.fingerprint(torch.device("cpu")),
        "posteriors": version("posteriors"),
        "network": str(TEACHER),
        "shapes": {name: list(shape) for name, shape in shapes.items()},
        "dtype": "float32",
        "batch_size": BATCH,
        "examples": EXAMPLES,
        "rounds": args.rounds,
        "steps_per_round": STEPS,
        "runs": [measure(threads, args.rounds) for threads in args.threads],
    }
    write_json(make_dir(args.out) / "methods-cpu.json", result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
