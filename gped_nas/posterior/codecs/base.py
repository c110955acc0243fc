"""Codecs: methods that keep another method's posterior samples in few bytes.

A codec reads samples, makes a ``Code`` of them, and its own samples are drawn from that code alone.
There are two kinds. A *finite* code holds some sets of parameters with their weights: they are the
stream, each once, and sample s is of chain s % K as it is where they were read. A *law* gives as
many independent draws as asked for.

The code lies in each state of its chain, under names that begin with ``code_``, so that a stream
holds it and nothing is fitted twice. A new codec is a file here: settings, a subclass of
``FiniteCodec`` or ``LawCodec``, and ``register``.
"""

from abc import ABC, abstractmethod
from collections import abc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor

from gped_nas.errors import ConfigError
from gped_nas.models.base import Shapes
from gped_nas.posterior.base import (
    METHODS,
    ChainConfig,
    Method,
    MethodConfig,
    Origin,
    PosteriorSample,
    Problem,
    ReadingConfig,
    State,
    Step,
)
from gped_nas.posterior.codecs.code import Code

__all__ = [
    "ChainSamples",
    "Code",
    "Codec",
    "CodecConfig",
    "FiniteCodec",
    "FiniteConfig",
    "LawCodec",
    "LawConfig",
    "chains_read",
    "codec_of",
    "code_of_state",
    "codecs",
    "known_count",
    "num_chains",
    "register",
]

PREFIX = "code_"
"""Of what a state holds of the code."""
_NOTHING = 1e-12
"""Share of all weight below which a sample weighs nothing beside the others."""
Fitting = abc.Generator[State, None, dict[str, Tensor]]
"""Yields states from which fitting can go on; returns the tensors to store."""


class CodecConfig(ReadingConfig):
    """Settings of a codec."""

    @property
    def num_known(self) -> int | None:
        """Samples that it gives, where settings alone say it."""
        return None

    def objection(self, num_samples: int, num_chains: int) -> str:
        """Why so many samples cannot be coded, as the end of a message; empty where they can.

        It begins with the setting: ``rank: found 20, expected at most 9, ...``.

        Args:
            num_samples: that are read, all chains together.
            num_chains: chains that they are of.
        """
        return ""

    @model_validator(mode="after")
    def _are_enough(self) -> "CodecConfig":
        num_samples = known_count(self.of)
        if num_samples is not None:
            objection = self.objection(num_samples, num_chains(self.of))
            if objection:
                raise ValueError(objection)
        return self


class FiniteConfig(CodecConfig):
    """Settings of a codec whose code is some sets of parameters."""


class LawConfig(CodecConfig, ChainConfig):
    """Settings of a codec that draws from a law."""

    chains: int = Field(default=1, ge=1, le=1, description="always 1: draws are independent")


def known_count(method: MethodConfig) -> int | None:
    """Samples that a method gives, where its settings alone say it."""
    if isinstance(method, ChainConfig):
        return method.num_samples
    return method.num_known if isinstance(method, CodecConfig) else None


def num_chains(method: MethodConfig) -> int:
    """K of a method's stream: sample s is of chain s % K."""
    if isinstance(method, FiniteConfig):
        return num_chains(method.of)
    return method.chains if isinstance(method, ChainConfig) else 1


@dataclass(frozen=True, eq=False)
class ChainSamples:
    """The samples of one chain.

    Attributes:
        theta_SW: flat parameters, float32.
        weight_S: their weights, float64; those of all chains together sum to 1.
    """

    theta_SW: Tensor
    weight_S: Tensor

    @property
    def share(self) -> float:
        """Weight of the chain among all."""
        return float(self.weight_S.sum())

    @property
    def share_S(self) -> Tensor:
        """Weights within the chain, of sum 1; all the same where the chain weighs nothing."""
        if self.share == 0:
            return torch.full_like(self.weight_S, 1 / len(self.weight_S))
        return self.weight_S / self.share


def check_samples(problem: Problem, cfg: CodecConfig) -> Sequence[PosteriorSample]:
    """The samples that a codec reads, each of which is read when it is asked for.

    Raises:
        ConfigError: they are too few for its settings.
    """
    assert problem.samples is not None
    objection = cfg.objection(len(problem.samples), num_chains(cfg.of))
    if objection:
        raise ConfigError(f"teacher.method.{objection}")
    return problem.samples


def chains_read(problem: Problem, cfg: CodecConfig) -> list[ChainSamples]:
    """The samples that a codec reads, chain by chain; for a law those that weigh anything.

    Raises:
        ConfigError: they are too few for its settings.
    """
    samples = check_samples(problem, cfg)
    num = num_chains(cfg.of)
    total = sum(sample.weight for sample in samples)
    chains = []
    for chain in range(num):
        read = [samples[s] for s in range(chain, len(samples), num)]
        if isinstance(cfg, LawConfig):  # a finite code keeps all, each in its place
            read = _weighing(read, cfg, total)
        weight_S = torch.tensor([sample.weight for sample in read], dtype=torch.float64)
        theta_SW = torch.stack([sample.theta_W for sample in read])
        chains.append(ChainSamples(theta_SW, weight_S / total))
    return chains


def _weighing(chain: list[PosteriorSample], cfg: LawConfig, total: float) -> list[PosteriorSample]:
    weighing = [sample for sample in chain if sample.weight > _NOTHING * total]
    objection = cfg.objection(len(weighing), 1)
    if objection:
        raise ConfigError(
            f"teacher.method.of: found {len(chain) - len(weighing)} of {len(chain)} samples of a "
            f"chain that weigh nothing, which leaves too few: {objection}"
        )
    return weighing


class Codec(ABC):
    """What makes codes and draws from them; called, it is a posterior method's function."""

    name: ClassVar[str]
    is_law: ClassVar[bool]

    def fit(self, problem: Problem, cfg: Any, *, generator: Generator) -> dict[str, Tensor]:
        """The tensors of a code, from ``chains_read(problem, cfg)``.

        Args:
            problem: has the samples, and training inputs.
            cfg: the codec's settings.
            generator: source of every draw.
        """
        raise NotImplementedError(f"{self.name} has neither fit nor fit_in_steps")

    def fit_in_steps(
        self, problem: Problem, cfg: Any, *, generator: Generator, state: State | None
    ) -> Fitting:
        """In place of ``fit`` for a codec that takes long: yields states, and goes on from one.

        Args:
            problem, cfg, generator: see ``fit``.
            state: the last one that was yielded; None at the beginning.
        """
        yield from ()
        return self.fit(problem, cfg, generator=generator)

    def settings(self, cfg: Any) -> dict[str, Any]:
        """What decoding needs beside the tensors, plain data."""
        return {}

    @abstractmethod
    def steps(self, code: Code, state: State) -> Iterator[Step]:
        """The steps of the method from a state that has the code."""

    def __call__(
        self, problem: Problem, cfg: Any, *, generator: Generator, state: State | None = None
    ) -> Iterator[Step]:
        """Yield steps without a sample while fitting, then one a sample.

        Raises:
            ConfigError: the samples that are read are too few.
        """
        if state is None or not _has_code(state):
            fitting = self.fit_in_steps(problem, cfg, generator=generator, state=state)
            tensors = yield from _without_samples(fitting)
            stored = {PREFIX + name: tensor.contiguous() for name, tensor in tensors.items()}
            state = {**stored, "rng": generator.get_state()}

        yield from self.steps(_code(self, cfg, state, problem.shapes), state)


def _has_code(state: Mapping[str, Tensor]) -> bool:
    return any(name.startswith(PREFIX) for name in state)


def _without_samples(fitting: Fitting) -> abc.Generator[Step, None, dict[str, Tensor]]:
    """Yield a step a state of the fit; return what the fit returns."""
    while True:
        try:
            yield Step(None, next(fitting))
        except StopIteration as done:
            tensors: dict[str, Tensor] = done.value
            return tensors


class FiniteCodec(Codec):
    """A codec whose code is some sets of parameters.

    Its tensor ``weight`` (S,) is float64: their weights, on any scale.
    """

    is_law = False

    @abstractmethod
    def theta(self, code: Code, index: int) -> Tensor:
        """One of the sets, decoded: flat parameters (W,), float32."""

    def steps(self, code: Code, state: State) -> Iterator[Step]:
        """See ``Codec.steps``: each set once, as the sample of its weight."""
        stored = {name: value for name, value in state.items() if name.startswith(PREFIX)}
        start = int(state["next"]) if "next" in state else 0
        weights = code.tensors["weight"].tolist()
        for index in range(start, len(weights)):
            sample = PosteriorSample(self.theta(code, index), weights[index])
            yield Step(sample, {**stored, "next": torch.tensor(index + 1)})


class LawCodec(Codec):
    """A codec whose draws are independent."""

    is_law = True

    @abstractmethod
    def draws(self, code: Code, num: int, *, generator: Generator) -> Tensor:
        """Independent draws (num, W) of flat parameters, float32."""

    def steps(self, code: Code, state: State) -> Iterator[Step]:
        """See ``Codec.steps``: draws for ever."""
        stored = {name: value for name, value in state.items() if name.startswith(PREFIX)}
        generator = Generator()
        generator.set_state(state["rng"])
        while True:
            (theta_W,) = self.draws(code, 1, generator=generator)
            yield Step(PosteriorSample(theta_W), {**stored, "rng": generator.get_state()})


def register(codec: Codec, config: type[CodecConfig], example: Mapping[str, Any]) -> None:
    """File a codec among posterior methods.

    Args:
        codec: what is run.
        config: the class of its settings.
        example: see ``Method``.
    """
    origin: Origin = "fitted" if codec.is_law else "copied"
    METHODS.register(codec.name)(Method(config, codec, origin, suited=None, example=example))


def codec_of(method: str) -> Codec | None:
    """The codec that a method is; None of any other method."""
    run = METHODS[method].run
    return run if isinstance(run, Codec) else None


def codecs() -> list[str]:
    """Names of all methods that are codecs."""
    return [name for name in METHODS if codec_of(name) is not None]


def code_of_state(cfg: CodecConfig, state: Mapping[str, Tensor], shapes: Shapes) -> Code | None:
    """The code in a state of a codec's chain; None where it is still being fitted.

    Args:
        cfg: the codec's settings.
        state: of its only chain, such as ``state_of(stream.segments[-1], 0)``.
        shapes: of the parameters.
    """
    codec = codec_of(cfg.name)
    assert codec is not None
    return _code(codec, cfg, state, shapes) if _has_code(state) else None


def _code(codec: Codec, cfg: CodecConfig, state: Mapping[str, Tensor], shapes: Shapes) -> Code:
    tensors = {}
    for name, value in state.items():
        if name.startswith(PREFIX):
            tensors[name.removeprefix(PREFIX)] = value
    return Code(codec.name, tensors, shapes, codec.settings(cfg))
