"""The chains of a teacher: those that codecs read, and the one that is held out as yardstick."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gped_nas import device as devices
from gped_nas import rng
from gped_nas.api.asking import check_networks, check_stored
from gped_nas.api.coding_choices import OPTION, Choice, settings_of
from gped_nas.api.sampling import posterior
from gped_nas.api.teacher import Teacher
from gped_nas.errors import ConfigError
from gped_nas.models.costs import largest_product
from gped_nas.posterior.base import (
    METHODS,
    ChainConfig,
    PosteriorSample,
)
from gped_nas.posterior.codecs.base import (
    Code,
    CodecConfig,
    FiniteCodec,
    LawCodec,
    code_of_state,
    codec_of,
    known_count,
)
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
        method: see ``read_method``.
    """

    teacher: Teacher
    read: Weighted
    held_out: Weighted
    method: ChainConfig


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


def read_method(space: SearchSpace) -> ChainConfig:
    """What would sample the chains alone that are read, of a space that ``check_chains`` took."""
    method = space.method
    assert isinstance(method, ChainConfig), "check_chains"
    chains = method.chains - 1
    num_samples = method.num_samples // method.chains * chains
    return method.model_copy(update={"chains": chains, "num_samples": num_samples})


def split_chains(teacher: Teacher) -> Chains:
    """The samples of a teacher whose space ``check_chains`` took, its last chain held out."""
    method = read_method(teacher.space)
    stream = teacher.raw.stream
    weight_S = stream.weight_S
    chain_S = torch.arange(stream.num_samples) % (method.chains + 1)

    def samples(is_wanted_S: Tensor) -> Weighted:
        index = is_wanted_S.nonzero()[:, 0]
        theta_SW = torch.stack([stream.theta(s) for s in index.tolist()])
        return Weighted(theta_SW, weight_S[index], is_drawn=True)

    is_held_out = chain_S == method.chains
    return Chains(
        teacher,
        read=samples(~is_held_out),
        held_out=samples(is_held_out),
        method=method,
    )


def fit_code(chains: Chains, choice: Choice) -> Code:
    """The code of the samples that are read, or of those of another code of these.

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
    read = chains.read
    if choice.of is not None:
        num = known_count(cfg.of) or 1
        read = networks_of(fit_code(chains, choice.of), num, seed=teacher.space.seed)
    samples = [
        PosteriorSample(theta_W, weight)
        for theta_W, weight in zip(read.theta_SW, read.weight_S.tolist(), strict=True)
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
    codec = codec_of(code.codec)
    generator = rng.generator(seed, "codec draws", code.codec)
    if isinstance(codec, LawCodec):
        theta_SW = codec.draws(code, num, generator=generator)
        return Weighted(theta_SW, torch.ones(num, dtype=torch.float64), is_drawn=True)

    assert isinstance(codec, FiniteCodec), "codes are of codecs"
    weight_S = code.tensors["weight"].double()
    theta_SW = torch.stack([codec.theta(code, index) for index in range(len(weight_S))])
    return Weighted(theta_SW, weight_S, is_drawn=False)


def stored_bytes(samples: Weighted) -> int:
    """Bytes of the samples as they are, in one file as a code's."""
    tensors = {"theta": samples.theta_SW, "weight": samples.weight_S}
    return Code("stored", tensors, {}, {}).bytes
