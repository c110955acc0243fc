"""A generator and a critic that learn from each other: WGAN with a gradient penalty.

With rows x of what is imitated, generated rows y = G(z) of standard normal z, and points w between
an x and a y, the critic D goes down on

    mean D(y) - mean D(x) + penalty mean (||grad D(w)|| - 1)^2

``critic_steps`` times, each with rows of its own, then the generator once down on -mean D(G(z)).
Both by Adam with beta_1 = 0.5, beta_2 = 0.9.

Source: Gulrajani et al. 2017, arXiv:1704.00028, algorithm 1.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Generator, Tensor

from gped_nas.errors import DivergenceError
from gped_nas.models.base import Params, Shapes
from gped_nas.posterior import adam
from gped_nas.posterior.base import FlatParams, MethodConfig, State, unflatten
from gped_nas.posterior.codecs.nets import dense_relu

BETAS = (0.5, 0.9)
CHECK_EVERY = 50
"""Updates of the generator between two states."""
_TINY = 1e-12
"""Below the root of a squared slope: where all units of the critic are off, it has none."""


class WganConfig(MethodConfig):
    """Settings of a method that trains with ``play``."""

    batch_size: int = Field(
        default=100, ge=1, description="rows a step, drawn by weight with replacement"
    )
    critic_steps: int = Field(
        default=5, ge=1, description="updates of the critic for each of the generator"
    )
    penalty: float = Field(default=10.0, gt=0, description="of the critic's slope beside 1")
    lr: float = Field(default=1e-4, gt=0, description="Adam step size of both networks")


def _whole_checks(updates: int) -> int:
    if updates % CHECK_EVERY:
        raise ValueError(f"found {updates}, expected a multiple of {CHECK_EVERY}")
    return updates


Updates = Annotated[int, AfterValidator(_whole_checks)]
"""Of a generator; a state is yielded after the last one."""


@dataclass(frozen=True, eq=False)
class Game:
    """What is played.

    Attributes:
        generator: shapes of the generator's parameters.
        critic: shapes of the critic's.
        generate: the generator's parameters and z (B, Z) to rows (B, D).
        latent: Z.
        averaging: how much of the generator's running average is kept at an update; 0 for none.
    """

    generator: Shapes
    critic: Shapes
    generate: Callable[[Params, Tensor], Tensor]
    latent: int
    averaging: float = 0.0


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], x_BD: Tensor, y_BD: Tensor, share_B1: Tensor
) -> Tensor:
    """The mean of (||grad D|| - 1)^2 at points between rows: a scalar that has a gradient.

    Args:
        critic: D, rows (B, D) to numbers (B, 1).
        x_BD, y_BD: rows.
        share_B1: how much of x is in each point.
    """
    between_BD = (share_B1 * x_BD + (1 - share_B1) * y_BD).detach().requires_grad_()
    total = critic(between_BD).sum()
    slope_BD = torch.autograd.grad(total, between_BD, create_graph=True)[0]
    length_B = (slope_BD.square().sum(1) + _TINY).sqrt()
    return (length_B - 1).square().mean()


class Player:
    """A network in training, and what Adam knows of it.

    Args:
        shapes: of its parameters.
        theta_W, first_W, second_W: parameters and moments; copied.
    """

    def __init__(self, shapes: Shapes, theta_W: Tensor, first_W: Tensor, second_W: Tensor) -> None:
        self.shapes = shapes
        self.flat = FlatParams(shapes, theta_W.clone())
        self.first_W, self.second_W = first_W.clone(), second_W.clone()

    @property
    def frozen(self) -> Params:
        """Its parameters, which take no gradient."""
        return unflatten(self.flat.theta_W, self.shapes)

    def update(self, loss: Callable[[Params], Tensor], *, lr: float, number: int) -> None:
        """Its update with this number, from 1."""
        grad_W = self.flat.gradient(loss)
        theta_W = self.flat.theta_W
        adam.step(theta_W, self.first_W, self.second_W, grad_W, lr=lr, number=number, betas=BETAS)


def fresh_players(generator_W: Tensor, critic_W: Tensor) -> State:
    """The state in which a game begins, without the generator of random numbers."""
    none = {"generator": torch.zeros_like(generator_W), "critic": torch.zeros_like(critic_W)}
    return {
        "generator": generator_W,
        "generator_first": none["generator"],
        "generator_second": none["generator"],
        "average": generator_W,
        "critic": critic_W,
        "critic_first": none["critic"],
        "critic_second": none["critic"],
        "iterations": torch.tensor(0),
    }


class _Table:
    """A game in progress."""

    def __init__(self, game: Game, cfg: WganConfig, state: State, device: torch.device) -> None:
        self.game, self.cfg, self.device = game, cfg, device
        on_device = {name: value.to(device) for name, value in state.items() if name != "rng"}
        self.generator = Player(
            game.generator, *(on_device[f"generator{part}"] for part in ("", "_first", "_second"))
        )
        self.critic = Player(
            game.critic, *(on_device[f"critic{part}"] for part in ("", "_first", "_second"))
        )
        self.average_W = on_device["average"].clone()
        self.iterations = int(state["iterations"])

    def iterate(self, x_SD: Tensor, weight_S: Tensor, generator: Generator) -> None:
        """The critic's updates and the generator's one."""
        cfg, before = self.cfg, self.iterations * self.cfg.critic_steps
        for turn in range(1, cfg.critic_steps + 1):
            # rows of its own: the published online code showed it the same ones five times
            index_B = torch.multinomial(
                weight_S, cfg.batch_size, replacement=True, generator=generator
            )
            x_BD = x_SD[index_B.to(self.device)]
            with torch.no_grad():
                y_BD = self.game.generate(self.generator.frozen, self._latent(generator))
            share_B1 = torch.rand(len(x_BD), 1, generator=generator).to(self.device)
            loss = _criticism(x_BD, y_BD, share_B1, cfg.penalty)
            self.critic.update(loss, lr=cfg.lr, number=before + turn)

        self.iterations += 1
        z_BZ, critic = self._latent(generator), self.critic.frozen
        self.generator.update(
            lambda params: -dense_relu(critic, self.game.generate(params, z_BZ)).mean(),
            lr=cfg.lr,
            number=self.iterations,
        )
        self.average_W.lerp_(self.generator.flat.theta_W, 1 - self.game.averaging)

    def _latent(self, generator: Generator) -> Tensor:
        shape = (self.cfg.batch_size, self.game.latent)
        return torch.randn(shape, generator=generator).to(self.device)

    def state(self, generator: Generator) -> State:
        """Everything to go on from, on the CPU."""
        tensors = {
            "generator": self.generator.flat.theta_W,
            "generator_first": self.generator.first_W,
            "generator_second": self.generator.second_W,
            "average": self.average_W,
            "critic": self.critic.flat.theta_W,
            "critic_first": self.critic.first_W,
            "critic_second": self.critic.second_W,
        }
        copies = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        return {
            **copies,
            "iterations": torch.tensor(self.iterations),
            "rng": generator.get_state(),
        }


def _criticism(
    x_BD: Tensor, y_BD: Tensor, share_B1: Tensor, penalty: float
) -> Callable[[Params], Tensor]:
    """The critic's loss as a function of its parameters."""

    def loss(params: Params) -> Tensor:
        def critic(rows_BD: Tensor) -> Tensor:
            return dense_relu(params, rows_BD)

        of_slope = gradient_penalty(critic, x_BD, y_BD, share_B1)
        return critic(y_BD).mean() - critic(x_BD).mean() + penalty * of_slope

    return loss


def play(
    game: Game,
    cfg: WganConfig,
    x_SD: Tensor,
    weight_S: Tensor,
    *,
    until: int,
    start: State,
    device: torch.device,
    generator: Generator,
) -> Iterator[State]:
    """Yield the state every ``CHECK_EVERY`` updates of the generator.

    Args:
        game: the networks.
        cfg: how they are trained.
        x_SD, weight_S: rows to imitate, and their weights.
        until: the generator's updates when it ends, those before ``start`` too.
        start: ``fresh_players``, or a state that was yielded.
        device: where to work.
        generator: source of every draw.

    Raises:
        DivergenceError: a network left the finite numbers.
    """
    if "rng" in start:
        generator.set_state(start["rng"])
    table, x_SD = _Table(game, cfg, start, device), x_SD.to(device)
    while table.iterations < until:
        for _ in range(CHECK_EVERY):
            table.iterate(x_SD, weight_S, generator)

        state = table.state(generator)
        if not bool((state["generator"].sum() + state["critic"].sum()).isfinite()):
            raise DivergenceError(
                f"{cfg.name}: generator and critic are not finite after {table.iterations} "
                "updates; lower teacher.method.lr"
            )
        yield state
