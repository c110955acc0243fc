"""A generator in the principal coordinates of each chain, learned against a critic (WGAN-GP).

The generator moves standard normal z (J,) by what a network of three hidden layers says,

    x = z + network(z)

and begins with a network that says nothing: as the normal law. Critic and generator are trained as
``wgan.py`` says; the generator's law is that of the running average of its parameters. A fifth of
the chain is held out (``held_out.py``), and the generator is kept as it was where the energy
distance there,

    2 E|x - y| - E|y - y'|   for a sample x that was held out and draws y, y',

was smallest. Where it is not smaller than that of the normal law by more than its standard error,
no network is stored.

Choose it to compare with ``flow``, which costs less and is steadier. It costs some seconds of
training for 500 iterations, and 4 W (J + 2) bytes a chain and some 45,000 for the network. Its
bias: that of ``flow``, and what a critic does not see; it gives no density.

Source: Gulrajani et al. 2017, arXiv:1704.00028, whose penalty on two-dimensional laws is 0.1; the
average of the generator: Yazici et al. 2019, arXiv:1806.04498. That it is in principal coordinates,
starts as the normal law, and what is held out, is ours.
"""

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Generator, Tensor

from gped_nas.models.base import Params, Shapes
from gped_nas.posterior.base import Problem, State, unflatten
from gped_nas.posterior.codecs.base import register
from gped_nas.posterior.codecs.held_out import Kept, Split
from gped_nas.posterior.codecs.learned import LearnedConfig, LearnedLaw
from gped_nas.posterior.codecs.nets import dense_relu, he_start, silent_start, three_layers
from gped_nas.posterior.codecs.wgan import Game, Updates, WganConfig, fresh_players, play

_AVERAGING = 0.98
"""Of the generator's running average: some fifty updates."""
_DRAWS = 500
"""That are compared with what was held out."""


class GanConfig(WganConfig, LearnedConfig):
    """Settings of ``gan``."""

    iterations: Updates = Field(default=1000, ge=1, description="updates of the generator, a chain")
    penalty: float = Field(default=0.1, gt=0, description="of the critic's slope beside 1")
    lr: float = Field(default=1e-3, gt=0, description="Adam step size of both networks")


def moved(params: Params, normal_MJ: Tensor) -> Tensor:
    """Coordinates (M, J) that normal numbers become."""
    return normal_MJ + dense_relu(params, normal_MJ)


def energy_gain(normal_MJ: Tensor, drawn_MJ: Tensor, held_NJ: Tensor) -> Tensor:
    """How much smaller the energy distance of draws is than that of normal numbers: (N,).

    Args:
        normal_MJ, drawn_MJ: of the normal law, and of a learned one.
        held_NJ: samples that were held out, each of which has its share of the distance.
    """

    def distance(points_MJ: Tensor) -> Tensor:
        across_N = torch.cdist(points_MJ, held_NJ).mean(0)
        return 2 * across_N - torch.cdist(points_MJ, points_MJ).mean()

    return (distance(normal_MJ) - distance(drawn_MJ)).double()


class GanCodec(LearnedLaw):
    """See the module docstring."""

    name = "gan"

    def shapes(self, num_dimensions: int, width: int) -> Shapes:
        """See ``LearnedLaw.shapes``."""
        return three_layers(num_dimensions, width, num_dimensions)

    def push(self, params: Params, normal_MJ: Tensor) -> Tensor:
        """See ``LearnedLaw.push``."""
        return moved(params, normal_MJ)

    def learn(
        self,
        problem: Problem,
        cfg: GanConfig,
        chain: Split,
        kept: Kept,
        *,
        probe: Generator,
        generator: Generator,
        state: State | None,
    ) -> Iterator[State]:
        """See ``LearnedLaw.learn``: against a critic."""
        game = Game(
            generator=self.shapes(cfg.num_bent, cfg.width),
            critic=three_layers(cfg.num_bent, cfg.width, 1),
            generate=moved,
            latent=cfg.num_bent,
            averaging=_AVERAGING,
        )
        if state is None:
            state = fresh_players(
                silent_start(game.generator, generator=generator),
                he_start(game.critic, generator=generator),
            )

        normal_MJ = torch.randn(_DRAWS, cfg.num_bent, generator=probe)
        states = play(
            game,
            cfg,
            chain.x_SJ,
            chain.weight_S,
            until=cfg.iterations,
            start=state,
            device=problem.x.device,
            generator=generator,
        )
        for reached in states:
            drawn_MJ = moved(unflatten(reached["average"], game.generator), normal_MJ)
            gain_M = energy_gain(normal_MJ, drawn_MJ, chain.held_MJ)
            kept.offer(reached["average"], gain_M, chain.held_weight_M)
            yield reached


register(
    GanCodec(),
    GanConfig,
    example={"components": 2, "width": 4, "iterations": 100, "batch_size": 4, "critic_steps": 1},
)
