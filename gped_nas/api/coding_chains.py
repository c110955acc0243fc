"""The chains of a teacher: those that codecs read, and the one that is held out as yardstick."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gped_nas import device as devices
from gped_nas import rng
from gped_nas.api.asking import check_networks, check_stored
from gped_nas.api.coding_choices import OPTION, Choice
from gped_nas.api.sampling import posterior
from gped_nas.api.teacher import Teacher
from gped_nas.errors import ConfigError
from gped_nas.models.costs import largest_product
from gped_nas.posterior.base import (
    METHODS,
    ChainConfig,
    MethodConfig,
    PosteriorSample,
    parse_method,
)
from gped_nas.posterior.codecs.base import Code, CodecConfig, code_of_state, codec_of
from gped_nas.search.space import SearchSpace

MIN_CHAIN = 2
"""Samples of a chain below which it has no spread."""


@dataclass(frozen=True, eq=False)
class Weighted:
    """Some networks of one shape.

    Attributes:
        theta_SW: flat parameters.
        weight_S: weights on any scale.
        is_drawn: see ``evaluate.codecs.networks.Networks``.
    """

    theta_SW: Tensor
    weight_S: Tensor
    is_drawn: bool


@dataclass(frozen=True, eq=False)
class Chains:
    """A teacher's samples, split.

    Attributes:
        teacher: whose.
        read: samples of the chains that codecs read; sample s is of chain s % K.
        held_out: samples of the last chain.
        method: what would have sampled ``read`` alone.
    """

    teacher: Teacher
    read: Weighted
    held_out: Weighted
    method: MethodConfig

    @property
    def num_chains(self) -> int:
        """K, of those that are read."""
        assert isinstance(self.method, ChainConfig)
        return self.method.chains


def check_chains(space: SearchSpace) -> None:
    """Refuse a space whose samples cannot be coded, with a chain held out to compare with.

    Raises:
        ConfigError: its samples are no networks of classes, or are of fewer than two chains.
    """
    check_stored(space, "codecs, which read its samples")
    check_networks(space, "whose parameters codecs store")
    if isinstance(space.method, CodecConfig):
        raise ConfigError(
            f"{space.source}: teacher.method.name: found '{space.method.title()}', a codec, "
            f"expected the method whose samples are coded; ask a space of "
            f"{space.method.of.title()}, and name the codec with {OPTION} {space.method.name}"
        )
    if space.likelihood.task != "classification":
        raise ConfigError(
            f"{space.source}: teacher.likelihood.name: found '{space.likelihood.name}', expected "
            "classes: codecs are compared by log-probabilities"
        )
    _check_number(space)


def _check_number(space: SearchSpace) -> None:
    method = space.method
    num_chains = method.chains if isinstance(method, ChainConfig) else 1
    if num_chains < 2 or not isinstance(method, ChainConfig):
        raise ConfigError(
            f"{space.source}: teacher.method.chains: found {num_chains}, expected at least 2: one "
            "chain is held out, and is the yardstick; add `--set teacher.method.chains=2` to the "
            "space"
        )
    per_chain = method.num_samples // num_chains
    if per_chain < MIN_CHAIN:
        raise ConfigError(
            f"{space.source}: teacher.method.num_samples: found {per_chain} a chain, expected at "
            f"least {MIN_CHAIN}; raise it to {MIN_CHAIN * num_chains} or more"
        )


def split_chains(teacher: Teacher) -> Chains:
    """The samples of a teacher whose space ``check_chains`` took, its last chain held out."""
    method = teacher.space.method
    assert isinstance(method, ChainConfig), "check_chains"
    stream = teacher.raw.stream
    weight_S = stream.weight_S
    chain_S = torch.arange(stream.num_samples) % method.chains

    def samples(is_wanted_S: Tensor) -> Weighted:
        index = is_wanted_S.nonzero()[:, 0]
        theta_SW = torch.stack([stream.theta(s) for s in index.tolist()])
        return Weighted(theta_SW, weight_S[index], is_drawn=True)

    is_held_out = chain_S == method.chains - 1
    num_read = int((~is_held_out).sum())
    changed = {"chains": method.chains - 1, "num_samples": num_read}
    return Chains(
        teacher,
        read=samples(~is_held_out),
        held_out=samples(is_held_out),
        method=method.model_copy(update=changed),
    )


def settings_of(choice: Choice, method: MethodConfig, option: str = OPTION) -> CodecConfig:
    """The settings of a codec that reads a method's samples.

    Args:
        choice: the codec.
        method: whose samples it reads.
        option: with which option it was asked for, for messages.

    Raises:
        ConfigError: one is invalid, or does not go with so many samples.
        RegistryError: an unknown codec.
    """
    plain = {"name": choice.codec, **choice.settings, "of": method.model_dump(mode="json")}
    settings = parse_method(plain, f"{option} {choice}")
    assert isinstance(settings, CodecConfig)
    return settings


def fit_code(chains: Chains, choice: Choice) -> Code:
    """The code of the samples that are read.

    Args:
        chains: the samples.
        choice: the codec.

    Raises:
        ConfigError: see ``settings_of``.
        DivergenceError: what it learns diverged.
        Interrupted: the session said stop.
    """
    teacher = chains.teacher
    cfg = settings_of(choice, chains.method)
    samples = [
        PosteriorSample(theta_W, weight)
        for theta_W, weight in zip(chains.read.theta_SW, chains.read.weight_S.tolist(), strict=True)
    ]
    space, dataset, session = teacher.space, teacher.dataset, teacher.session
    problem = posterior(space, dataset, device=session.device, samples=samples)
    generator = rng.generator(space.seed, "codec", str(choice))
    with devices.threads_for(_largest_product(teacher, len(dataset.train))):
        for step in METHODS[choice.codec](problem, cfg, generator=generator):
            session.raise_if_stopped()
            code = code_of_state(cfg, step.state, problem.shapes)
            if code is not None:
                return code
    raise AssertionError("a codec makes a code")


def _largest_product(teacher: Teacher, num_inputs: int) -> int:
    key = teacher.stream.key
    return largest_product(teacher.space.family, key.shapes, key.input_shape, num_inputs)


def networks_of(code: Code, num: int, *, seed: int) -> Weighted:
    """The networks of a finite code, each once with its weight; of a law so many draws.

    Args:
        code: of a codec.
        num: how many draws.
        seed: root of the draws.
    """
    codec: Any = codec_of(code.codec)
    generator = rng.generator(seed, "codec draws", code.codec)
    if codec.is_law:
        theta_SW = codec.draws(code, num, generator=generator)
        return Weighted(theta_SW, torch.ones(num, dtype=torch.float64), is_drawn=True)

    weight_S = code.tensors["weight"].double()
    theta_SW = torch.stack([codec.theta(code, index) for index in range(len(weight_S))])
    return Weighted(theta_SW, weight_S, is_drawn=False)


def stored_bytes(samples: Weighted) -> int:
    """Bytes of the samples as they are, in one file as a code's."""
    tensors = {"theta": samples.theta_SW, "weight": samples.weight_S}
    return Code("stored", tensors, {}, {}).bytes
