"""Posterior methods: functions that yield posterior samples of a problem, by name.

A method targets the density proportional to ``exp(-U / T)``, with U as in ``problem.py`` and the
temperature T explicit where the method has one.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator
from torch import Generator, Tensor

from gped_nas import rng
from gped_nas.config import Config, parse
from gped_nas.errors import ConfigError
from gped_nas.models.base import Shapes
from gped_nas.posterior.budget import Suited, nothing_special
from gped_nas.posterior.problem import (
    FlatParams,
    Network,
    PosteriorSample,
    Problem,
    flatten,
    posterior_of,
    supervised_network,
    unflatten,
)
from gped_nas.posterior.tunable import Tuned
from gped_nas.registry import Registry

__all__ = [
    "METHODS",
    "ChainConfig",
    "Chains",
    "FlatParams",
    "GivenPredictions",
    "Method",
    "MethodConfig",
    "Network",
    "NetworkNormalization",
    "Origin",
    "PosteriorSample",
    "Problem",
    "ReadingConfig",
    "State",
    "Step",
    "ThinnedConfig",
    "flatten",
    "parse_method",
    "posterior_of",
    "supervised_network",
    "unflatten",
]

NetworkNormalization = tuple[float | tuple[float, ...], float | tuple[float, ...]]
"""Mean and standard deviation of raw inputs: a number each, or one a channel or column in both."""

State = dict[str, Tensor]
"""Everything a method needs to go on from where it was, as named tensors."""


@dataclass(frozen=True, eq=False)
class Step:
    """A posterior sample, or None during burn-in, and the state to resume after it."""

    sample: PosteriorSample | None
    state: State


@dataclass(frozen=True, eq=False)
class GivenPredictions:
    """Posterior samples known by what they predict alone.

    Attributes:
        inputs: raw inputs (M, ...).
        log_prob_SMC: log-probabilities there, nats.
        weight_S: weights on any scale.
        source: where they are from, for messages.
        origin_M: of which row each input is a flipped or shifted copy, its own where it is none, -1
            where it is of several; None where that is not said.
    """

    inputs: Tensor
    log_prob_SMC: Tensor
    weight_S: Tensor
    source: str
    origin_M: Tensor | None = None


class MethodConfig(Config):
    """Settings every method has, and what else is asked of it; override what is different."""

    name: str

    def identity(self) -> dict[str, Any]:
        """What a stream's key says of the method: plain data that fixes its posterior samples."""
        return self.model_dump(mode="json")

    def count(self, shapes: Shapes) -> int:
        """Posterior samples that it gives, all chains together.

        Args:
            shapes: the teacher's parameters.
        """
        return 1

    def predictions(self) -> Callable[[int], GivenPredictions] | None:
        """What reads predictions for a number of classes; None where its samples are weights."""
        return None

    def normalization(self) -> NetworkNormalization | None:
        """Mean and standard deviation by which its networks normalize raw inputs; None for ours."""
        return None

    def title(self) -> str:
        """The method for people: ``sghmc``."""
        return self.name

    def steps_of(
        self, run: "Run", problem: Problem, *, generator: Generator, state: State | None
    ) -> Iterator[Step]:
        """The steps of a chain of the method, and of what comes before the method begins.

        Args:
            run: the method's function.
            problem, generator, state: see ``Method``.
        """
        return run(problem, self, generator=generator, state=state)


class ChainConfig(MethodConfig):
    """Settings of a method that can yield as many posterior samples as asked for."""

    chains: int = Field(default=1, ge=1, le=64, description="independent chains")
    num_samples: int = Field(
        default=100, ge=1, le=100_000, description="posterior samples kept, all chains together"
    )

    def identity(self) -> dict[str, Any]:
        """See ``MethodConfig.identity``: more samples later are the same stream."""
        identity = super().identity()
        del identity["num_samples"]
        return identity

    def count(self, shapes: Shapes) -> int:
        """See ``MethodConfig.count``."""
        return self.num_samples


class ThinnedConfig(ChainConfig):
    """Settings of a chain that discards a burn-in and then keeps one state in ``thinning``."""

    burn_in: int = Field(
        default=1000, ge=0, description="steps before the first sample of each chain"
    )
    thinning: int = Field(default=100, ge=1, description="steps between samples of one chain")

    @model_validator(mode="after")
    def _burn_in_is_whole(self) -> "ThinnedConfig":
        if self.burn_in % self.thinning:
            raise ValueError(
                f"burn_in: found {self.burn_in}, expected a multiple of thinning "
                f"({self.thinning}), so that a chain can stop and resume on the same grid"
            )
        return self

    def is_sample(self, step: int) -> bool:
        """Whether the state after ``step`` steps is a sample; asked on the grid of ``thinning``."""
        return step > self.burn_in


class ReadingConfig(MethodConfig):
    """Settings of a method that reads the posterior samples of another one.

    It finds them in ``Problem.samples``.
    """

    of: SerializeAsAny[MethodConfig] = Field(
        description="settings of the method whose posterior samples are read"
    )

    @field_validator("of", mode="before")
    @classmethod
    def _of_any_method(cls, value: object) -> object:
        return value if isinstance(value, MethodConfig) else parse_method(value, "of")

    def identity(self) -> dict[str, Any]:
        """See ``MethodConfig.identity``: it nests that of the method that is read.

        How many samples are read is part of it: with more of them the outer ones are others.
        """
        num_samples = self.of.num_samples if isinstance(self.of, ChainConfig) else None
        inner = {"method": self.of.identity(), "num_samples": num_samples}
        return {**super().identity(), "of": inner}

    def normalization(self) -> NetworkNormalization | None:
        """See ``MethodConfig.normalization``: its networks see inputs as those that it reads do."""
        return self.of.normalization()

    def title(self) -> str:
        """The method for people: ``thinned of sghmc``."""
        return f"{self.name} of {self.of.title()}"


Run = Callable[..., Iterator[Step]]
Origin = Literal["chain", "fitted", "optimized", "given", "copied"]


@dataclass(frozen=True)
class Method:
    """A registered posterior method.

    Attributes:
        config: its configuration class.
        run: the function that yields steps.
        origin: what its samples are, which says what diagnostics can mean: successive states of a
            Markov ``chain`` that targets the posterior, independent draws of a law ``fitted`` to
            it, points that were ``optimized``, whatever the user has ``given``, or samples of
            another method that were ``copied``, fewer of them or in fewer bits.
        suited: what settings suit a budget, beyond those that all methods share (chains, number of
            samples, batch size, steps, and of minibatch chains burn-in and thinning); None if it
            can only be run with settings that a user gives.
        looks_inside: whether it acts on layers or hidden units, of which nothing is known in a
            user's module; other methods need the gradient alone.
        takes_all_data: each of its steps takes all data; comparisons leave it out where networks
            are large.
        needs_concave: whether it needs a log-likelihood that is concave in the network's outputs,
            which that of a learned noise is not.
        tuned: what ``teacher tune`` draws of its settings; None where it tunes none.
        example: settings with which eight steps on a small classifier take no time, for the
            contract suite; without ``name``.
    """

    config: type[MethodConfig]
    run: Run
    origin: Origin = "chain"
    suited: Suited | None = nothing_special
    looks_inside: bool = False
    takes_all_data: bool = False
    needs_concave: bool = False
    tuned: Tuned | None = None
    example: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_law(self) -> bool:
        """Whether its samples are independent draws of a law, of which more can be drawn.

        A law's state is the law and the generator's ``rng``: drawing changes ``rng`` alone, and
        from another ``rng`` come other draws of the same law. See ``posterior.draws``.
        """
        return self.origin == "fitted"

    @property
    def reads_samples(self) -> bool:
        """Whether it reads the posterior samples of another method, named by the setting ``of``."""
        return issubclass(self.config, ReadingConfig)

    def __call__(
        self, problem: Problem, cfg: Any, *, generator: Generator, state: State | None = None
    ) -> Iterator[Step]:
        """Yield steps for ever (or until the method has no more), from ``state`` if one is given.

        Args:
            problem: the posterior.
            cfg: an instance of ``config``.
            generator: source of every draw; used by this chain alone.
            state: where an earlier run of the same chain stopped.
        """
        settings: MethodConfig = cfg
        return settings.steps_of(self.run, problem, generator=generator, state=state)


METHODS: Registry[Method] = Registry("method", "gped_nas.posterior", Method)


def parse_method(settings: object, where: str) -> MethodConfig:
    """The settings of a method, and of those whose posterior samples it reads.

    Args:
        settings: plain data with ``name``.
        where: file and key of this place, for messages.

    Raises:
        ConfigError: a setting is invalid; or ``of`` is missing, or given where nothing is read.
        RegistryError: an unknown method.
    """
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{where}: found {settings!r}, expected a mapping with the key 'name'")

    method = METHODS.find(settings.get("name"), f"{where}.name")
    if method.reads_samples:
        if "of" not in settings:
            raise ConfigError(
                f"{where}.of: missing; '{settings['name']}' reads the posterior samples of another "
                "method: give its settings, such as {name: sghmc, ...}"
            )
        settings = {**settings, "of": parse_method(settings["of"], f"{where}.of")}
    elif "of" in settings and "of" not in method.config.model_fields:
        raise ConfigError(
            f"{where}.of: found settings of another method, but '{settings['name']}' reads no "
            "posterior samples; remove them"
        )

    if "temperature" in settings and "temperature" not in method.config.model_fields:
        tempered = [
            name for name, other in METHODS.items() if "temperature" in other.config.model_fields
        ]
        raise ConfigError(
            f"{where}.temperature: found {settings['temperature']}, but '{settings['name']}' has "
            f"no temperature; remove it, or choose one of {', '.join(tempered)}"
        )
    cfg: MethodConfig = parse(method.config, settings, where)
    if isinstance(cfg, ChainConfig) and cfg.num_samples % cfg.chains:
        raise ConfigError(
            f"{where}.num_samples: found {cfg.num_samples}, expected a multiple of chains "
            f"({cfg.chains})"
        )
    return cfg


@dataclass(frozen=True, eq=False)
class Chains:
    """The chains of one teacher, as a function that yields the steps of any of them.

    It can be handed to another process.

    Attributes:
        problem: makes the posterior where it is needed; can be pickled, a ``Problem`` cannot.
        cfg: the method's settings.
        seed: root of every draw.
    """

    problem: Callable[[], Problem]
    cfg: MethodConfig
    seed: int

    def __call__(self, chain: int, state: State | None) -> Iterator[Step]:
        """Yield the steps of a chain from its beginning or from ``state``."""
        generator = rng.generator(self.seed, "posterior", chain)
        return METHODS[self.cfg.name](self.problem(), self.cfg, generator=generator, state=state)
