"""Laws of two parameters that learned codecs are tried on, and samples of them as chains."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from gped_nas import rng
from gped_nas.config import parse
from gped_nas.posterior.base import METHODS, PosteriorSample, Problem, parse_method
from gped_nas.posterior.codecs.base import Code, CodecConfig, code_of_state
from tests.scenarios import gaussian

SGLD = {"name": "sgld", "step_size": {"initial": 1e-4}, "burn_in": 0, "thinning": 1}
Law = Callable[[int, Generator], Tensor]


def banana(num: int, generator: Generator) -> Tensor:
    """A normal number and its square, with noise: (N, 2)."""
    x_N = torch.randn(num, generator=generator)
    y_N = x_N.square() / 2 + 0.3 * torch.randn(num, generator=generator)
    return torch.stack([x_N, y_N], 1)


def two_modes(num: int, generator: Generator) -> Tensor:
    """Half at (1.5, 1), half at (-1.5, -1), each with a standard deviation of .4: (N, 2)."""
    sign_N1 = 2.0 * torch.randint(2, (num, 1), generator=generator) - 1
    return sign_N1 * torch.tensor([[1.5, 1.0]]) + 0.4 * torch.randn(num, 2, generator=generator)


def energy_distance(x_ND: Tensor, y_MD: Tensor) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'|: 0 for the same law."""

    def within(points: Tensor) -> float:
        num = len(points)
        return float(torch.cdist(points, points).sum()) / (num * (num - 1))

    return 2 * float(torch.cdist(x_ND, y_MD).mean()) - within(x_ND) - within(y_MD)


def problem_of(theta_SW: Tensor, weight_S: Tensor | None = None) -> Problem:
    """A problem whose samples these are."""
    weights = [1.0] * len(theta_SW) if weight_S is None else weight_S.tolist()
    problem = gaussian(theta_SW.shape[1], precision=1.0)
    problem.__dict__["samples"] = [
        PosteriorSample(theta_W, weight) for theta_W, weight in zip(theta_SW, weights, strict=True)
    ]
    return problem


def config_of(name: str, read: int, chains: int = 1, **settings: object) -> CodecConfig:
    """A codec's settings, which read so many samples."""
    of = parse_method({**SGLD, "chains": chains, "num_samples": read}, "of")
    cfg = parse(METHODS[name].config, {"name": name, "of": of, **settings}, "teacher.method")
    assert isinstance(cfg, CodecConfig)
    return cfg


def code_of(problem: Problem, cfg: CodecConfig) -> Code:
    """What a codec makes of a problem's samples."""
    for step in METHODS[cfg.name](problem, cfg, generator=rng.generator(1, "chain")):
        code = code_of_state(cfg, step.state, problem.shapes)
        if code is not None:
            return code
    raise AssertionError("it never ends its fit")
