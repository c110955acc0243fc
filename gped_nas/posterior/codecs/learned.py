"""Laws that are learned in the principal coordinates of each chain.

With the tensors of ``low_rank.py`` a sample of a chain is

    theta = mean + x factor + std z

where z is independent normal noise. The coordinates x of the chain's samples have mean 0, variance
1 and no correlation. Where their law is normal too, that is ``low_rank`` of variance 1. A codec
here learns a network that moves normal numbers to the law of x, chain by chain. Its parameters are
stored beside those tensors as ``network`` (K, ...), a row of zeros for a chain whose law stays the
normal one; where all do, there is no ``network``.

It is learned in the leading few of the coordinates. Beyond some five of them there are too few
samples to learn from: on digits a network for 20 of them was worse than the normal law at what was
held out after its first hundred steps, and one for 5 better by nine standard errors. The stored
network reads and moves all of them, with zeros where nothing was learned.
"""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from pydantic import Field
from torch import Generator, Tensor

from gped_nas import rng
from gped_nas.errors import ConfigError, DivergenceError
from gped_nas.models.base import Params, Shapes, num_params
from gped_nas.posterior.base import Problem, State, unflatten
from gped_nas.posterior.codecs.base import (
    Code,
    Fitting,
    LawCodec,
    LawConfig,
    chains_read,
)
from gped_nas.posterior.codecs.held_out import Kept, Split, split_chain
from gped_nas.posterior.codecs.low_rank import Directions, principal, rank_objection, tensors_of

_LEAST_SPREAD = 1e-5
"""Of a direction beside the first one; less is rounding."""
_COLUMNS = 2**16
"""Parameters of all samples that are in float64 at a time."""


class LearnedConfig(LawConfig):
    """Settings of a law that is learned in principal coordinates."""

    components: int = Field(
        default=20, ge=1, description="principal directions of a chain that are kept, J"
    )
    bent: int = Field(
        default=5, ge=1, description="leading ones of them whose law is learned; the rest is normal"
    )
    width: int = Field(default=64, ge=1, description="units of each hidden layer")

    @property
    def num_bent(self) -> int:
        """Directions whose law is learned."""
        return min(self.bent, self.components)

    def objection(self, num_samples: int, num_chains: int) -> str:
        """See ``CodecConfig.objection``: no more directions than a chain spans."""
        return rank_objection("components", self.components, num_samples, num_chains)


def principal_coordinates(theta_SW: Tensor, law: Directions) -> Tensor:
    """Coordinates x (S, J) of samples along principal directions, float32.

    Raises:
        ConfigError: the samples span fewer directions.
    """
    num = len(law.factor_JW)
    spread_J = law.factor_JW.double().norm(dim=1)
    num_spanned = int((spread_J > _LEAST_SPREAD * spread_J.max()).sum())
    if num_spanned < num:
        raise ConfigError(
            f"teacher.method.components: found {num}, but the {len(theta_SW)} samples of a chain "
            f"span {num_spanned} directions: some are the same, or weigh nothing; lower it, or "
            "read a chain that moves"
        )

    x_SJ = torch.zeros(len(theta_SW), num, dtype=torch.float64)
    for start in range(0, theta_SW.shape[1], _COLUMNS):
        block = slice(start, start + _COLUMNS)
        deviation = theta_SW[:, block].double() - law.mean_W[block].double()
        x_SJ += deviation @ law.factor_JW[:, block].double().mT
    x_SJ /= spread_J.square()
    return x_SJ.float()


def padded(learned: Params, shapes: Shapes, num_bent: int) -> Tensor:
    """Flat parameters of a larger network that does the same, and nothing to further coordinates.

    Args:
        learned: of a network that reads ``num_bent`` coordinates, then what else it needs, and
            gives as many.
        shapes: of one that reads and gives more coordinates.
        num_bent: coordinates.
    """
    first_weight, *_, last_weight, last_bias = learned
    parts = []
    for name, small in learned.items():
        large = small.new_zeros(shapes[name])
        if name == first_weight:
            num_others = small.shape[1] - num_bent
            large[:, :num_bent] = small[:, :num_bent]
            large[:, large.shape[1] - num_others :] = small[:, num_bent:]
        elif name in (last_weight, last_bias):
            large[:num_bent] = small
        else:
            large[:] = small
        parts.append(large.flatten())
    return torch.cat(parts)


class LearnedLaw(LawCodec):
    """A law a chain that takes a training."""

    @abstractmethod
    def shapes(self, num_dimensions: int, width: int) -> Shapes:
        """Of the network's parameters."""

    @abstractmethod
    def push(self, params: Params, normal_MJ: Tensor) -> Tensor:
        """Coordinates (M, J) that normal numbers become."""

    @abstractmethod
    def learn(
        self,
        problem: Problem,
        cfg: Any,
        chain: Split,
        kept: Kept,
        *,
        probe: Generator,
        generator: Generator,
        state: State | None,
    ) -> Iterator[State]:
        """Train on a chain, and yield states to go on from; ``kept`` has the best network.

        Args:
            problem: says where to work.
            cfg: the codec's settings.
            chain: what is learned from, and what is held out.
            kept: is offered the network at each state.
            probe: source of what is compared at samples that were held out.
            generator: source of every other draw.
            state: where an earlier training of this chain stopped.

        Raises:
            DivergenceError: a network left the finite numbers.
        """

    def fit_in_steps(
        self, problem: Problem, cfg: Any, *, generator: Generator, state: State | None
    ) -> Fitting:
        """See ``Codec.fit_in_steps``: one chain after the other.

        Raises:
            ConfigError: more components than a chain spans.
            DivergenceError: a network left the finite numbers.
        """
        chains = chains_read(problem, cfg)
        laws = [principal(samples, cfg.components) for samples in chains]
        if state is None:
            seed, start = torch.randint(2**62, (), generator=generator), 0
            size = num_params(self.shapes(cfg.num_bent, cfg.width))
            networks_KW = torch.zeros(len(chains), size)
        else:
            seed, start = state["seed"], int(state["chain"])
            networks_KW = state["networks"].clone()

        for number in range(start, len(chains)):
            samples = chains[number]
            x_SJ = principal_coordinates(samples.theta_SW, laws[number])[:, : cfg.num_bent]

            # only the chain that was stopped goes on from the state
            resumed = state if number == start else None
            kept = Kept(networks_KW[number].clone())
            if resumed is not None:
                kept.gain = float(resumed["gain"])

            training = self.learn(
                problem,
                cfg,
                split_chain(x_SJ, samples.weight_S),
                kept,
                probe=rng.generator(int(seed), "held out", number),
                generator=generator,
                state=resumed,
            )
            for reached in training:
                networks_KW[number] = kept.theta
                yield {
                    **reached,
                    "networks": networks_KW.clone(),
                    "gain": torch.tensor(kept.gain, dtype=torch.float64),
                    "chain": torch.tensor(number),
                    "seed": seed,
                }

        tensors = tensors_of(laws, chains)
        if bool(networks_KW.any()):
            learned = self.shapes(cfg.num_bent, cfg.width)
            stored = self.shapes(cfg.components, cfg.width)
            rows = [padded(unflatten(row, learned), stored, cfg.num_bent) for row in networks_KW]
            tensors["network"] = torch.stack(rows)
        return tensors

    def settings(self, cfg: Any) -> dict[str, Any]:
        """See ``Codec.settings``."""
        return {"width": cfg.width}

    def draws(self, code: Code, num: int, *, generator: Generator) -> Tensor:
        """See ``LawCodec.draws``.

        Raises:
            DivergenceError: a draw is not finite.
        """
        share_K, factor_KJW = code.tensors["share"], code.tensors["factor"]
        num_dimensions, num_weights = factor_KJW.shape[1:]
        chain_M = torch.multinomial(share_K, num, replacement=True, generator=generator)
        normal_MJ = torch.randn(num, num_dimensions, generator=generator)
        theta_MW = torch.randn(num, num_weights, generator=generator)

        theta_MW *= code.tensors["std"][chain_M]
        theta_MW += code.tensors["mean"][chain_M]
        for number in range(len(share_K)):
            is_of_chain = chain_M == number
            if not bool(is_of_chain.any()):
                continue
            x_MJ = normal_MJ[is_of_chain]
            if "network" in code.tensors:
                shapes = self.shapes(num_dimensions, code.settings["width"])
                params = unflatten(code.tensors["network"][number], shapes)
                x_MJ = self.push(params, x_MJ)
            theta_MW[is_of_chain] += x_MJ @ factor_KJW[number]

        if not bool(theta_MW.isfinite().all()):
            raise DivergenceError(f"{self.name}: a draw is not finite; lower teacher.method.lr")
        return theta_MW
