"""Deep ensemble: independent MAP networks, one a posterior sample.

Each member starts from fresh parameters and is trained by Adam on U / N to the end; then the next
one starts. With ``regularizer: anchor`` a member is drawn to a point of its own, theta_0 drawn from
the prior, instead of to the prior's mean: -log p(theta) becomes -log p(theta - theta_0), which
keeps the members apart where data say nothing.

Choose it when accuracy matters most: in practice the strongest teacher for a given number of
networks, and its members are few (5 to 20). It costs one training run a sample; chains only decide
which members share a generator. Its bias: members are modes, not draws; with the prior alone as
regularizer the spread inside a mode is missing.

Source: Lakshminarayanan et al. 2017, arXiv:1612.01474 (without adversarial examples); anchors:
Pearce et al. 2020, arXiv:1810.05546.
"""

from collections.abc import Callable, Iterator
from typing import Literal

from pydantic import Field
from torch import Generator, Tensor

from gped_nas.errors import ConfigError
from gped_nas.models.base import Params
from gped_nas.posterior.adam import TrainingConfig, descend
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


class DeepEnsembleConfig(TrainingConfig, ChainConfig):
    """Settings of ``deep_ensemble``."""

    num_samples: int = Field(
        default=10, ge=1, le=100_000, description="members, all chains together"
    )
    regularizer: Literal["prior", "anchor"] = Field(
        default="prior",
        description="what members are drawn to: the prior's mean, or a draw from the prior each",
    )


def draw_anchor(problem: Problem, cfg: DeepEnsembleConfig, generator: Generator) -> State:
    """What a member is drawn to, as a state has it: nothing where that is the prior's mean.

    Raises:
        ConfigError: the problem's prior cannot be drawn from.
    """
    if cfg.regularizer == "prior":
        return {}

    if problem.prior is None:
        raise ConfigError(
            "teacher.method.regularizer: found anchor, but this prior cannot be drawn from; "
            "use prior"
        )
    return {"anchor": flatten(problem.prior.sample(problem.shapes, generator=generator))}


def _objective(problem: Problem, anchor: Tensor | None) -> Callable[[Params, Tensor], Tensor]:
    if anchor is None:
        return problem.potential

    center = unflatten(anchor.to(problem.x.device), problem.shapes)

    def objective(params: Params, index_B: Tensor) -> Tensor:
        away = {name: p - center[name] for name, p in params.items()}
        return (
            problem.potential(params, index_B) + problem.log_prior(params) - problem.log_prior(away)
        )

    return objective


def deep_ensemble(
    problem: Problem, cfg: DeepEnsembleConfig, *, generator: Generator, state: State | None = None
) -> Iterator[Step]:
    """Yield a step every 100 updates, with a sample when a member is done, for ever.

    See the module docstring.

    Raises:
        ConfigError: anchors are asked for and the problem's prior cannot be drawn from.
        DivergenceError: the parameters left the finite numbers.
    """
    while True:
        # The next member, from fresh parameters, or the one that was stopped half way.
        if state is None or int(state["step"]) >= cfg.steps:
            if state is not None:
                generator.set_state(state["rng"])
            state, anchor = None, draw_anchor(problem, cfg, generator)
        else:
            anchor = {"anchor": state["anchor"]} if "anchor" in state else {}

        for reached in descend(
            problem.shapes,
            _objective(problem, anchor.get("anchor")),
            cfg,
            start=lambda: flatten(problem.initialize(generator)),
            problem=problem,
            generator=generator,
            state=state,
        ):
            is_done = int(reached["step"]) == cfg.steps
            state = {**reached, **anchor}
            yield Step(PosteriorSample(reached["theta"]) if is_done else None, state)


METHODS.register("deep_ensemble")(
    Method(
        DeepEnsembleConfig,
        deep_ensemble,
        origin="optimized",
        # members are few, and each is trained to the end
        suited=lambda budget: {
            "num_samples": DeepEnsembleConfig.model_fields["num_samples"].default,
            "steps": 2000,
        },
        tuned=Tuned(
            lambda draw, effort: {
                "num_samples": draw.whole("members", 5, 20, usual=10),
                **training_settings(draw, effort),
                "regularizer": draw.choice("regularizer", ("prior", "anchor"), usual="prior"),
            }
        ),
        example={"steps": 200, "batch_size": 4, "regularizer": "anchor"},
    )
)
