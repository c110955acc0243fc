"""Adversarial posterior distillation: a generator of whole networks, learned against a critic.

Generator and critic have three hidden layers of 100 ReLU units. The generator turns 32 standard
normal numbers into all parameters of a network, the critic reads all of them; both are trained as
``wgan.py`` says, on raw parameters. Two ways:

* offline: on all samples, for ``iterations`` updates of the generator;
* ``online``: round after round on the next ``buffer`` samples, in the order in which they were
  drawn, for ``updates`` updates; then these are given up, and the networks go on with the next
  ones. The last round takes the last ``buffer`` samples.

Choose it for parity with the paper alone: a generator has 100 numbers for each parameter that it
gives, as much as some 101 networks. Where samples can be kept at all, 101 of them are kept in the
same bytes, and ``flow`` learns a law in a fifth of them. It costs some 30 passes of critic and
generator an update, each of 100 W multiply-adds a row; the paper has 100,000 to 200,000 updates,
the default here is a tenth to a twentieth. So ``max_weights`` stops it where a network is large.
Its bias: that of the samples, and of a critic that sees parameters: networks that are the same but
for the order of their units are different ones to it, so that several chains are learned as far
apart as they lie. Online, what was learned of early rounds may be lost.

Source: Wang et al. 2018, arXiv:1806.10317, sections 3.2 (offline) and 3.3 (online), with the
settings of the published code; the loss: Gulrajani et al. 2017, arXiv:1704.00028. The published
online code shows the critic the same samples in all five steps: here each step draws its own. Its
active learning multiplies the data by 1,000 in the noise of SGLD, a temperature of .001: here the
temperature is a setting of ``of``. A stream is stored before it is read, online too: what is given
up is what is learned from.
"""

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor

from gped_nas.config import Config
from gped_nas.errors import ConfigError, DivergenceError
from gped_nas.models.base import Params, Shapes, num_params
from gped_nas.posterior.base import PosteriorSample, Problem, State, unflatten
from gped_nas.posterior.codecs.base import (
    Code,
    Fitting,
    LawCodec,
    LawConfig,
    check_samples,
    register,
)
from gped_nas.posterior.codecs.nets import dense_relu, he_start, three_layers
from gped_nas.posterior.codecs.wgan import Game, Updates, WganConfig, fresh_players, play


class OnlineSettings(Config):
    """How samples come and go."""

    buffer: int = Field(default=100, ge=2, description="samples of a round")
    updates: Updates = Field(default=1000, ge=1, description="updates of the generator in a round")


class ApdConfig(WganConfig, LawConfig):
    """Settings of ``apd``."""

    iterations: Updates | None = Field(
        default=None, ge=1, description="updates of the generator; 10,000 if absent"
    )
    online: OnlineSettings | None = Field(
        default=None, description="learn from some samples at a time, in place of all of them"
    )
    latent: int = Field(default=32, ge=1, description="normal numbers that the generator reads")
    width: int = Field(default=100, ge=1, description="units of each of three hidden layers")
    max_weights: int = Field(
        default=4000, ge=1, description="parameters of a network at most; more is refused"
    )

    @model_validator(mode="after")
    def _length_is_said_once(self) -> "ApdConfig":
        if self.online is not None and self.iterations is not None:
            raise ValueError(
                f"iterations: found {self.iterations} beside online, whose rounds have "
                f"{self.online.updates} updates each; give one of them"
            )
        return self

    def objection(self, num_samples: int, num_chains: int) -> str:
        """See ``CodecConfig.objection``: a round has its samples."""
        if num_samples < 2:
            return f"of.num_samples: found {num_samples}, expected at least 2; raise it"
        if self.online is not None and self.online.buffer > num_samples:
            return (
                f"online.buffer: found {self.online.buffer}, expected at most the {num_samples} "
                "samples that are read; lower it, or raise of.num_samples"
            )
        return ""

    def count(self, shapes: Shapes) -> int:
        """See ``MethodConfig.count``.

        Raises:
            ConfigError: a network is too large; said here, before its samples are drawn.
        """
        self.check_size(shapes)
        return super().count(shapes)

    def check_size(self, shapes: Shapes) -> None:
        """Refuse large networks.

        Raises:
            ConfigError: a network has more than ``max_weights`` parameters.
        """
        size = num_params(shapes)
        if size > self.max_weights:
            raise ConfigError(
                f"teacher.method.max_weights: found a network of {size:,} parameters, expected at "
                f"most {self.max_weights:,}: a generator has {self.width} numbers for each, and "
                "takes hours; take flow, which learns in principal coordinates, or raise "
                "teacher.method.max_weights"
            )

    def rounds(self, num_samples: int) -> list[slice]:
        """The samples of each round, in the order in which they were drawn."""
        if self.online is None:
            return [slice(0, num_samples)]
        size = self.online.buffer
        starts = [*range(0, num_samples - size, size), num_samples - size]
        return [slice(start, start + size) for start in starts]

    @property
    def updates(self) -> int:
        """Updates of the generator in a round."""
        return self.online.updates if self.online is not None else self.iterations or 10_000


class Apd(LawCodec):
    """See the module docstring."""

    name = "apd"

    def fit_in_steps(
        self, problem: Problem, cfg: ApdConfig, *, generator: Generator, state: State | None
    ) -> Fitting:
        """See ``Codec.fit_in_steps``.

        Raises:
            ConfigError: too few samples, a round of such that weigh nothing, or a network that is
                too large.
            DivergenceError: a network left the finite numbers.
        """
        cfg.check_size(problem.shapes)
        samples = check_samples(problem, cfg)
        game = _game(cfg, num_params(problem.shapes))
        if state is None:
            state = fresh_players(
                he_start(game.generator, generator=generator),
                he_start(game.critic, generator=generator),
            )

        for number, part in enumerate(cfg.rounds(len(samples)), start=1):
            until = number * cfg.updates
            if int(state["iterations"]) >= until:
                continue
            theta_SW, weight_S = _buffer(samples[part])
            states = play(
                game,
                cfg,
                theta_SW,
                weight_S,
                until=until,
                start=state,
                device=problem.x.device,
                generator=generator,
            )
            for state in states:
                yield state

        if "rng" in state:  # resumed after the last update
            generator.set_state(state["rng"])
        return {"generator": state["generator"]}

    def settings(self, cfg: ApdConfig) -> dict[str, Any]:
        """See ``Codec.settings``."""
        return {"latent": cfg.latent, "width": cfg.width}

    def draws(self, code: Code, num: int, *, generator: Generator) -> Tensor:
        """See ``LawCodec.draws``.

        Raises:
            DivergenceError: a draw is not finite.
        """
        latent, width = code.settings["latent"], code.settings["width"]
        shapes = three_layers(latent, width, num_params(code.shapes))
        z_MZ = torch.randn(num, latent, generator=generator)
        theta_MW = dense_relu(unflatten(code.tensors["generator"], shapes), z_MZ)
        if not bool(theta_MW.isfinite().all()):
            raise DivergenceError("apd: a draw is not finite; lower teacher.method.lr")
        return theta_MW


def _buffer(samples: Sequence[PosteriorSample]) -> tuple[Tensor, Tensor]:
    """Flat parameters (S, W) and weights (S,) of a round's samples."""
    weight_S = torch.tensor([sample.weight for sample in samples], dtype=torch.float64)
    if not bool(weight_S.any()):
        raise ConfigError(
            f"teacher.method.online.buffer: found {len(samples)} samples in a row that weigh "
            "nothing, expected one that does; raise it"
        )
    return torch.stack([sample.theta_W for sample in samples]), weight_S


def _game(cfg: ApdConfig, num_weights: int) -> Game:
    def generate(params: Params, z_BZ: Tensor) -> Tensor:
        return dense_relu(params, z_BZ)

    return Game(
        generator=three_layers(cfg.latent, cfg.width, num_weights),
        critic=three_layers(num_weights, cfg.width, 1),
        generate=generate,
        latent=cfg.latent,
    )


register(
    Apd(),
    ApdConfig,
    example={
        "iterations": 100,
        "batch_size": 4,
        "critic_steps": 1,
        "width": 4,
        "latent": 3,
        "max_weights": 100_000,
    },
)
