"""Monte Carlo dropout: one trained network, its hidden units switched off at random.

With a mask z, each z_j = 1 / (1 - rate) with probability 1 - rate and else 0, unit j is multiplied
by z_j; that is the same network with column j of the layer that reads the unit multiplied by z_j.
Training minimizes

    E_z[U(fold(theta, z))]

by Adam, one mask a step for the whole minibatch: the expectation is that of a mask for each example
(the usual layout), with more noise; the prior is taken at the folded weights as well, which is the
average of the log-prior under dropout's distribution. A posterior sample is fold(theta, z) for a
fresh z: a plain set of weights, so the stream's plain forward is the masked one, at all inputs
alike. The units of a convolution are its filters, dropped whole; of a residual network the channels
inside a block are dropped, never those of the residual stream.

Choose it as the cheapest ensemble: one training run, and a sample costs one mask. It works for
every family with hidden units. Its bias: the spread is set by ``rate``, not by the data, and does
not shrink as data grows.

Source: Gal & Ghahramani 2016, arXiv:1506.02142, equations 9-10, with masks scaled while training
(inputs are not dropped).
"""

from collections.abc import Iterator, Sequence

import torch
from pydantic import Field
from torch import Generator, Tensor

from gped_nas.errors import ConfigError
from gped_nas.models.base import Group, Params
from gped_nas.posterior.adam import TrainingConfig, descend, without_samples
from gped_nas.posterior.base import (
    METHODS,
    ChainConfig,
    Method,
    PosteriorSample,
    Problem,
    State,
    Step,
    flatten,
    unflatten,
)
from gped_nas.posterior.tunable import Tuned, training_settings


class McDropoutConfig(TrainingConfig, ChainConfig):
    """Settings of ``mc_dropout``."""

    steps: int = Field(default=5000, ge=1, description="optimizer steps")
    rate: float = Field(
        default=0.1, gt=0, lt=1, description="probability that a hidden unit is dropped"
    )


def draw_masks(num_units: Sequence[int], rate: float, *, generator: Generator) -> list[Tensor]:
    """For each layer a mask over its units: 1 / (1 - rate) with probability 1 - rate, else 0."""
    return [
        (torch.rand(num, generator=generator) >= rate).float() / (1 - rate) for num in num_units
    ]


def fold(params: Params, groups: Sequence[Group], masks: Sequence[Tensor]) -> Params:
    """Parameters whose plain forward is that of ``params`` with each unit times its mask."""
    folded = dict(params)
    for group, mask in zip(groups, masks, strict=True):
        (name,) = group.readers
        reader = folded[name]

        # a reader behind a flattening has a block of columns a unit
        columns = mask.to(reader).repeat_interleave(reader.shape[1] // len(mask))
        folded[name] = reader * columns.view(1, -1, *[1] * (reader.dim() - 2))
    return folded


def mc_dropout(
    problem: Problem, cfg: McDropoutConfig, *, generator: Generator, state: State | None = None
) -> Iterator[Step]:
    """Yield a step every 100 updates while training, then one with a sample for ever.

    See the module docstring.

    Raises:
        ConfigError: the network has no hidden units.
        DivergenceError: the parameters left the finite numbers.
    """
    groups = problem.network.hidden if problem.network else ()
    if not groups:
        raise ConfigError(
            "teacher.method.name: found mc_dropout, but the teacher has no hidden units to drop; "
            "give teacher.genotype a hidden layer or choose another method"
        )

    def draw(params: Params) -> Params:
        num_units = [len(params[group.weights[0]]) for group in groups]
        return fold(params, groups, draw_masks(num_units, cfg.rate, generator=generator))

    states = descend(
        problem.shapes,
        lambda params, index_B: problem.potential(draw(params), index_B),
        cfg,
        start=lambda: flatten(problem.initialize(generator)),
        problem=problem,
        generator=generator,
        state=state,
    )
    state = yield from without_samples(states, state)

    generator.set_state(state["rng"])
    trained = {"theta": state["theta"], "step": state["step"]}
    while True:
        sample_W = flatten(draw(unflatten(trained["theta"], problem.shapes)))
        yield Step(PosteriorSample(sample_W), {**trained, "rng": generator.get_state()})


METHODS.register("mc_dropout")(
    Method(
        McDropoutConfig,
        mc_dropout,
        origin="fitted",
        looks_inside=True,
        tuned=Tuned(
            lambda draw, effort: {
                "chains": (fits := draw.whole("fits", 1, 8, usual=2)),
                "num_samples": fits * draw.whole("draws", 5, 50, usual=20),
                **training_settings(draw, effort),
                "rate": draw.scale("rate", 0.02, 0.5, usual=0.1),
            },
            is_tried=False,
        ),
        example={"steps": 300, "batch_size": 4, "rate": 0.3},
    )
)
