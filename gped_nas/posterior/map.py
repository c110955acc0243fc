"""Maximum a posteriori: one point, the network most people would have trained.

Adam on ``U / N`` with a cosine step size (see ``adam``). It yields a single sample; use it with one
chain.

Choose it as the baseline of every comparison. It costs one minibatch gradient a step and no draw of
noise. Its bias as a posterior is total: it has no uncertainty over parameters. Source: Kingma & Ba
2015, arXiv:1412.6980; the cosine, without restarts: Loshchilov & Hutter 2017, arXiv:1608.03983,
equation 5.
"""

from collections.abc import Iterator

from torch import Generator

from gped_nas.posterior.adam import TrainingConfig, train
from gped_nas.posterior.base import METHODS, Method, PosteriorSample, Problem, State, Step
from gped_nas.posterior.tunable import Tuned, training_settings


class MapConfig(TrainingConfig):
    """Settings of ``map``."""


def map_estimate(
    problem: Problem, cfg: MapConfig, *, generator: Generator, state: State | None = None
) -> Iterator[Step]:
    """Yield a step every 100 updates, the last one with the sample. See the module docstring.

    Raises:
        DivergenceError: the parameters left the finite numbers.
    """
    for reached in train(problem, cfg, generator=generator, state=state):
        is_done = int(reached["step"]) == cfg.steps
        yield Step(PosteriorSample(reached["theta"]) if is_done else None, reached)


METHODS.register("map")(
    Method(
        MapConfig,
        map_estimate,
        origin="optimized",
        tuned=Tuned(training_settings),
        example={"steps": 300, "batch_size": 4},
    )
)
