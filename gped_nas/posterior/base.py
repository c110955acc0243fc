"""Posterior methods: functions that yield posterior samples.

Conventions, everywhere: ``U(theta) = -log p(D | theta) - log p(theta)`` over the full data; a
method targets the density proportional to ``exp(-U / T)`` with temperature ``T`` explicit where the
method has one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

import torch
from pydantic import Field, SerializeAsAny, field_validator, model_validator
from torch import Generator, Tensor

from gped_nas import rng
from gped_nas.config import Config, parse
from gped_nas.errors import ConfigError
from gped_nas.models.base import FAMILIES, Family, Genotype, Group, Params, Shapes
from gped_nas.models.dense import dense_chain
from gped_nas.posterior.budget import Suited, nothing_special
from gped_nas.posterior.likelihoods import Likelihood
from gped_nas.posterior.priors import Prior
from gped_nas.registry import Registry

State = dict[str, Tensor]
"""Everything a method needs to go on from where it was, as named tensors."""


@dataclass(frozen=True, eq=False)
class PosteriorSample:
    """One set of teacher parameters, flat in the order of the problem's ``shapes``, and its weight."""

    theta_W: Tensor
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class Step:
    """What a method yields: a posterior sample, or None during burn-in, and the state to resume
    after it.
    """

    sample: PosteriorSample | None
    state: State


@dataclass(frozen=True, eq=False)
class Network:
    """The log-likelihood of a problem, for methods that act on outputs or hidden units.

    Called with ``(params, x_B, y_B)`` it gives log-likelihoods (B,), nats.

    Attributes:
        forward: ``(params, x_B)`` to raw outputs (B, C), for any widths of the layers.
        log_likelihood: ``(outputs_BC, y_B)`` to log-likelihoods (B,), nats.
        last_layer: weight (C, H) and bias (C,) of the dense layer that gives the outputs; None if
            there is none.
        hidden: the hidden units that one layer alone reads; not a residual stream, which goes on
            beside its readers.
        dense: weight and bias of every layer, from input to output, where the network is a chain of
            dense layers with ReLU between them; empty where it is anything else.
    """

    forward: Callable[[Params, Tensor], Tensor]
    log_likelihood: Callable[[Tensor, Tensor], Tensor]
    last_layer: tuple[str, str] | None
    hidden: tuple[Group, ...] = ()
    dense: tuple[tuple[str, str], ...] = ()

    def __call__(self, params: Params, x_B: Tensor, y_B: Tensor) -> Tensor:
        return self.log_likelihood(self.forward(params, x_B), y_B)


@dataclass(frozen=True, eq=False)
class Problem:
    """A posterior: data, likelihood and prior over named parameters.

    Attributes:
        shapes: parameter shapes by name.
        log_likelihood: ``(params, x_B, y_B)`` to log-likelihoods (B,), nats; a ``Network`` where
            methods may look inside.
        log_prior: ``params`` to a scalar, nats, up to a constant; a ``Prior`` where methods may
            average over it or draw from it.
        initialize: fresh parameters from a generator.
        x, y: all N training inputs and labels (as the likelihood reads them), on the device to work
            on.
        samples: those of another method, for a method that reads them; each is read when it is
            asked for.
    """

    shapes: Shapes
    log_likelihood: Callable[[Params, Tensor, Tensor], Tensor]
    log_prior: Callable[[Params], Tensor]
    initialize: Callable[[Generator], Params]
    x: Tensor
    y: Tensor
    samples: Sequence[PosteriorSample] | None = None

    @property
    def num_examples(self) -> int:
        return len(self.x)

    @property
    def network(self) -> Network | None:
        """The log-likelihood, where it can be looked into."""
        return self.log_likelihood if isinstance(self.log_likelihood, Network) else None

    @property
    def prior(self) -> Prior | None:
        """The log-prior, where it can be averaged and drawn from."""
        return self.log_prior if isinstance(self.log_prior, Prior) else None

    def potential(self, params: Params, index_B: Tensor) -> Tensor:
        """Unbiased estimate of U from the examples at ``index_B``: a scalar, nats."""
        return self._minus_log_likelihood(params, index_B) - self.log_prior(params)

    def gradient(self, flat: "FlatParams", index_B: Tensor) -> Tensor:
        """The flat gradient of ``potential`` at ``flat``, to the bit; overwritten by the next call.

        A known prior adds its score itself: a graph of squares would cost a third of a small
            network's gradient.
        """
        if self.prior is None:
            return flat.gradient(lambda params: self.potential(params, index_B))
        grad_W = flat.gradient(lambda params: self._minus_log_likelihood(params, index_B))
        score = self.prior.score(flat.params)
        for name, part in unflatten(grad_W, self.shapes).items():
            part.sub_(score[name])
        return grad_W

    def _minus_log_likelihood(self, params: Params, index_B: Tensor) -> Tensor:
        scale = self.num_examples / len(index_B)
        return -scale * self.log_likelihood(params, self.x[index_B], self.y[index_B]).sum()


@dataclass(frozen=True, eq=False)
class GivenPredictions:
    """Posterior samples known by what they predict alone.

    Attributes:
        inputs: raw inputs (M, ...).
        log_prob_SMC: log-probabilities there, nats.
        weight_S: weights on any scale.
        source: where they are from, for messages.
    """

    inputs: Tensor
    log_prob_SMC: Tensor
    weight_S: Tensor
    source: str


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
        """What reads its samples for a number of classes, where they are no weights; None if they
        are.
        """
        return None

    def normalization(self) -> tuple[float, float] | None:
        """Mean and standard deviation by which its networks normalize raw inputs; None for ours."""
        return None

    def title(self) -> str:
        """The method for people: ``sghmc``."""
        return self.name


class ChainConfig(MethodConfig):
    """Settings of a method that can yield as many posterior samples as asked for."""

    chains: int = Field(default=1, ge=1, le=64, description="independent chains")
    num_samples: int = Field(
        default=100, ge=1, le=100_000, description="posterior samples kept, all chains together"
    )

    def identity(self) -> dict[str, Any]:
        """See ``MethodConfig.identity``: more samples later are the same stream."""
        return {k: v for k, v in super().identity().items() if k != "num_samples"}

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
        """Whether the state after ``step`` steps, on the grid of ``thinning``, is a posterior
        sample.
        """
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

    def title(self) -> str:
        """The method for people: ``thinned of sghmc``."""
        return f"{self.name} of {self.of.title()}"


Run = Callable[..., Iterator[Step]]
Origin = Literal["chain", "fitted", "optimized", "given"]


@dataclass(frozen=True)
class Method:
    """A registered posterior method.

    Attributes:
        config: its configuration class.
        run: the function that yields steps.
        origin: what its samples are, which says what diagnostics can mean: successive states of a
            Markov ``chain`` that targets the posterior, independent draws of a law ``fitted`` to
            it, points that were ``optimized``, or whatever the user has ``given``.
        suited: what settings suit a budget, beyond those that all methods share (chains, number of
            samples, batch size, steps, and of minibatch chains burn-in and thinning); None if it
            can only be run with settings that a user gives.
        takes_all_data: each of its steps takes all data; comparisons leave it out where networks
            are large.
        example: settings with which eight steps on a small classifier take no time, for the
            contract suite; without ``name``.
    """

    config: type[MethodConfig]
    run: Run
    origin: Origin = "chain"
    suited: Suited | None = nothing_special
    takes_all_data: bool = False
    example: Mapping[str, Any] = field(default_factory=dict)

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
        return self.run(problem, cfg, generator=generator, state=state)


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

    cfg: MethodConfig = parse(method.config, settings, where)
    if isinstance(cfg, ChainConfig) and cfg.num_samples % cfg.chains:
        raise ConfigError(
            f"{where}.num_samples: found {cfg.num_samples}, expected a multiple of chains "
            f"({cfg.chains})"
        )
    return cfg


@dataclass(frozen=True, eq=False)
class Chains:
    """The chains of one teacher, as a function that yields the steps of any of them, in any
    process.

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


def posterior_of(
    genotype: Genotype,
    x: Tensor,
    y: Tensor,
    *,
    num_outputs: int,
    prior: Prior,
    likelihood: Likelihood,
    device: torch.device,
    samples: Sequence[PosteriorSample] | None = None,
) -> Problem:
    """The posterior of a network.

    Args:
        genotype: the network.
        x: normalized inputs (N, ...).
        y: labels (N,), as the likelihood reads them.
        num_outputs: raw outputs of the network.
        prior: of its parameters.
        likelihood: of a label given its outputs.
        device: where to work.
        samples: see ``Problem``.
    """
    family = FAMILIES[genotype.family]
    shapes = genotype.shapes(tuple(x.shape[1:]), num_outputs)
    return Problem(
        shapes=shapes,
        log_likelihood=supervised_network(family, shapes, likelihood),
        log_prior=prior,
        initialize=lambda generator: family.initialize(shapes, generator=generator),
        x=x.to(device),
        y=y.to(device),
        samples=samples,
    )


def supervised_network(family: Family, shapes: Shapes, likelihood: Likelihood) -> Network:
    """The network of these parameter shapes, with the likelihood of its raw outputs."""
    return Network(
        forward=family.forward,
        log_likelihood=likelihood.log_density,
        last_layer=family.head(shapes),
        hidden=tuple(group for group in family.groups(shapes) if len(group.readers) == 1),
        dense=dense_chain(family, shapes),
    )


class FlatParams:
    """Parameters and gradients as one flat buffer each, with named leaves that are views into them.

    Autograd accumulates into the flat gradient; an update of the flat buffer is an update of every
    leaf.
    """

    def __init__(self, shapes: Shapes, theta_W: Tensor) -> None:
        self.theta_W = theta_W
        self.grad_W = torch.zeros_like(theta_W)
        self.params: Params = {}
        for name, view in unflatten(theta_W, shapes).items():
            self.params[name] = view.detach().requires_grad_()
        for name, view in unflatten(self.grad_W, shapes).items():
            self.params[name].grad = view

    def gradient(self, potential: Callable[[Params], Tensor]) -> Tensor:
        """The flat gradient of ``potential`` at the present parameters; overwritten by the next
        call.
        """
        return self.value_and_gradient(potential)[1]

    def value_and_gradient(self, potential: Callable[[Params], Tensor]) -> tuple[Tensor, Tensor]:
        """``potential`` at the present parameters and its flat gradient; overwritten by the next
        call.
        """
        self.grad_W.zero_()
        value = potential(self.params)
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach(), self.grad_W


def unflatten(flat: Tensor, shapes: Shapes) -> Params:
    """Named views into the last axis of a flat tensor (..., W), each of shape (..., *shape)."""
    sizes = [prod(shape) for shape in shapes.values()]
    parts = torch.split(flat, sizes, dim=-1)
    lead = flat.shape[:-1]
    return {
        name: part.view(*lead, *shape)
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }


def flatten(params: Params) -> Tensor:
    """One flat copy (W,) of named parameters in their order."""
    return torch.cat([p.detach().reshape(-1) for p in params.values()])
