"""A package from outside with a piece of each kind, as a stranger would write it."""

from math import prod
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from gped_nas.config import Config, parse
from gped_nas.data.base import DATASETS, Split, build
from gped_nas.data.views import POLICIES, Policy
from gped_nas.evaluate.base import add_metric
from gped_nas.evaluate.conditions import add_condition
from gped_nas.models.base import FAMILIES, Family
from gped_nas.models.values import check_names, whole
from gped_nas.posterior.base import (
    METHODS,
    Method,
    PosteriorSample,
    Step,
    ThinnedConfig,
    flatten,
    unflatten,
)
from gped_nas.targets.base import TARGETS
from gped_nas.targets.mean import mean_target


class MoonsSettings(Config):
    name: Literal["gears_moons"]
    num_examples: int = Field(400, ge=10, description="examples in all three parts together")


@DATASETS.register("gears_moons")
def load_moons(settings, where):
    cfg = parse(MoonsSettings, settings, where)
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(cfg.num_examples) % 2
    angle = torch.pi * (torch.rand(cfg.num_examples, generator=generator) + y)
    x = torch.stack([angle.cos() + y, angle.sin() + 0.5 * y], 1)
    x = x + 0.1 * torch.randn(x.shape, generator=generator)
    return build(
        cfg.name,
        Split(x, y),
        class_names=("up", "down"),
        test=0.2,
        validation=0.2,
        seed=0,
        where=where,
    )


class ScaleSettings(Config):
    policy: Literal["gears_scale"]
    largest: float = Field(gt=1, description="inputs are scaled by up to this, or its inverse")


def scale(cfg, x, *, generator, answers):
    power = 2 * torch.rand((len(x), *[1] * (x.dim() - 1)), generator=generator) - 1
    return x * cfg.largest**power


POLICIES.register("gears_scale")(Policy(ScaleSettings, scale, example={"largest": 1.5}))


def margin(log_prob):
    first, second = log_prob.exp().topk(2, dim=-1).values.unbind(-1)
    return (first - second).unsqueeze(-1)


TARGETS.add(mean_target("gears_margin", margin, link=torch.sigmoid, label="average margin"))


@add_metric(
    "gears_bill",
    "minimize",
    "bill of wrong and of reviewed answers (euro)",
    unit="euro",
    reads=("predictive", "gears_margin"),
    worst=60.0,
    best=0.0,
)
def bill(predictions, labels, teacher):
    """60 euro for a wrong answer; one with a small margin is reviewed for 20 instead."""
    wrong = predictions.log_prob_NC.argmax(1) != labels
    margin_N = predictions.expectations["gears_margin"][:, 0]
    share = np.clip(4 * margin_N, 0, 1)  # how much of the risk is taken, for a smooth bill
    return (share * 60.0 * wrong + (1 - share) * 20.0)[:, None]


@add_condition("gears_drift", "inputs moved to the right", takes_value=True)
def drift(raw, *, predictor, labels, generator, value):
    return raw + value


class MetropolisConfig(ThinnedConfig):
    std: float = Field(gt=0, description="standard deviation of a proposal, of every parameter")


def metropolis(problem, cfg, *, generator, state=None):
    everything = torch.arange(problem.num_examples)
    if state is None:
        state = {
            "theta": flatten(problem.initialize(generator)),
            "step": torch.tensor(0),
            "rng": generator.get_state(),
        }
    theta, step = state["theta"].clone(), int(state["step"])
    generator.set_state(state["rng"])

    def potential(theta):
        with torch.no_grad():
            return problem.potential(unflatten(theta, problem.shapes), everything)

    energy = potential(theta)
    while True:
        for _ in range(cfg.thinning):
            proposal = theta + cfg.std * torch.randn(theta.shape, generator=generator)
            proposed = potential(proposal)
            if torch.rand((), generator=generator) < (energy - proposed).exp():
                theta, energy = proposal, proposed
            step += 1
        state = {"theta": theta.clone(), "step": torch.tensor(step), "rng": generator.get_state()}
        yield Step(PosteriorSample(theta.clone()) if cfg.is_sample(step) else None, state)


METHODS.register("gears_metropolis")(
    Method(
        MetropolisConfig,
        metropolis,
        suited=lambda budget: {
            "std": budget.step_size**0.5,
            "burn_in": budget.burn_in,
            "thinning": budget.thinning,
        },
        example={"std": 0.05, "burn_in": 4, "thinning": 2},
    )
)


class Tanh(Family):
    """Dense layers with a hyperbolic tangent, as wide everywhere."""

    monotone = frozenset({"width"})
    examples = ({"depth": 1, "width": 1}, {"depth": 2, "width": 5})
    example_inputs = ((4,), (1, 3, 3))

    def canonical(self, values):
        check_names(values, ("depth", "width"))
        return {name: whole(name, values.get(name), 1, 512) for name in ("depth", "width")}

    def shapes(self, values, input_shape, num_outputs):
        sizes = [prod(input_shape), *[values["width"]] * values["depth"], num_outputs]
        shapes = {}
        for i, (inputs, outputs) in enumerate(zip(sizes, sizes[1:], strict=False)):
            shapes |= {f"layers.{i}.weight": (outputs, inputs), f"layers.{i}.bias": (outputs,)}
        return shapes

    def forward(self, params, x):
        x, last = x.flatten(1), (len(params) - 1) // 2
        for i in range(last + 1):
            x = torch.nn.functional.linear(
                x, params[f"layers.{i}.weight"], params[f"layers.{i}.bias"]
            )
            x = x if i == last else x.tanh()
        return x

    def macs(self, shapes, input_shape):
        return {name: prod(shape) for name, shape in shapes.items() if name.endswith("weight")}


FAMILIES.register("gears_tanh")(Tanh())
