"""A normal law a chain: a few directions, and a variance of its own for every weight beside them.

Of the samples of a chain, with mean m and covariance C, the J leading principal directions are
kept, v_j of variance l_j, and beside them of every weight the variance r that they leave:

    theta = m + sum_j sqrt(l_j) v_j z_j + sqrt(r) z,   r = diag(C) - sum_j l_j v_j^2,   z normal

so that means, variances of single weights and the leading directions are those of the samples, in
closed form. All variances are then taken times ``variance``: a normal law lacks what the samples of
a chain share beyond C, and its draws predict the worse the further they are from m. Several chains
are a mixture: a draw is of a chain as often as the chain weighs. Draws are independent, also where
the samples are not.

Choose it where more, or independent, networks are wanted than there are samples. It costs products
of all pairs of samples, S^2 W multiply-adds a chain, and takes 4 W (J + 2) bytes a chain.
Its bias: a normal law. What S samples of a chain know of C is S - 1 directions; in all others
weights vary independently here, which their network may answer worse than to the samples.

Source: the law is that of Maddox et al. 2019, arXiv:1902.02476, equation 1, whose factor 1/2 is the
default of ``variance``, with r less what the directions have already; principal directions by the
method of snapshots, Sirovich 1987, Quarterly of Applied Mathematics 45(3).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Generator, Tensor

from gped_nas.posterior.base import Problem
from gped_nas.posterior.codecs.base import (
    ChainSamples,
    Code,
    LawCodec,
    LawConfig,
    chains_read,
    register,
)

_BLOCK = 2**15
"""Weights of all samples that are in float64 at a time."""


class LowRankConfig(LawConfig):
    """Settings of ``low_rank``."""

    rank: int = Field(default=10, ge=0, description="directions of a chain that are kept, J")
    variance: float = Field(
        default=0.5, gt=0, description="that of draws over that of samples; 1 is the samples' own"
    )

    def objection(self, num_samples: int, num_chains: int) -> str:
        """See ``CodecConfig.objection``."""
        return rank_objection("rank", self.rank, num_samples, num_chains)


def rank_objection(setting: str, rank: int, num_samples: int, num_chains: int) -> str:
    """Why so many directions cannot be had of a chain's samples; empty where they can.

    Args:
        setting: what asks for them.
        rank: how many it asks for.
        num_samples: that are read, all chains together.
        num_chains: chains that they are of.
    """
    a_chain = num_samples // num_chains
    if a_chain < 2:
        return (
            f"of.num_samples: found {a_chain} samples a chain, expected at least 2, which have a "
            "spread; raise it"
        )
    if rank >= a_chain:
        return (
            f"{setting}: found {rank}, expected at most {a_chain - 1}: {a_chain} samples a chain "
            "vary in no more directions; lower it, or raise of.num_samples"
        )
    return ""


@dataclass(frozen=True, eq=False)
class Directions:
    """How a chain's samples vary.

    Attributes:
        mean_W: their weighted mean.
        variance_W: their variance, unbiased.
        factor_JW: the leading principal directions, each as long as the standard deviation along
            it.
    """

    mean_W: Tensor
    variance_W: Tensor
    factor_JW: Tensor


def principal(chain: ChainSamples, rank: int) -> Directions:
    """Mean, variances and leading principal directions of a chain's samples, all float32.

    Args:
        chain: S samples.
        rank: J, less than S.
    """
    share_S = chain.share_S
    num_weights = chain.theta_SW.shape[1]
    mean_W = torch.empty(num_weights)
    variance_W = torch.empty(num_weights)
    factor_JW = torch.empty(rank, num_weights)
    blocks = [slice(start, start + _BLOCK) for start in range(0, num_weights, _BLOCK)]

    gram_SS = torch.zeros(len(share_S), len(share_S), dtype=torch.float64)
    for block in blocks:
        mean, scaled = _scaled_deviations(chain.theta_SW[:, block], share_S)
        mean_W[block] = mean
        variance_W[block] = scaled.square().sum(0)
        gram_SS += scaled @ scaled.mT

    # S is small and W is not: eigenvectors of D D^T, times D, are those of C = D^T D
    leading_SJ = torch.linalg.eigh(gram_SS).eigenvectors.flip(1)[:, :rank]
    for block in blocks:
        _, scaled = _scaled_deviations(chain.theta_SW[:, block], share_S)
        factor_JW[:, block] = leading_SJ.mT @ scaled
    return Directions(mean_W, variance_W, factor_JW)


def _scaled_deviations(theta_SW: Tensor, share_S: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (W,) of some weights, and D (S, W) for which D^T D is their covariance."""
    theta_SW = theta_SW.double()
    mean_W = share_S @ theta_SW
    unbiased = 1 - share_S.square().sum()
    return mean_W, (share_S / unbiased).sqrt()[:, None] * (theta_SW - mean_W)


def tensors_of(laws: Sequence[Directions], chains: Sequence[ChainSamples]) -> dict[str, Tensor]:
    """What is stored: ``mean`` and ``std`` (K, W), ``factor`` (K, J, W) and ``share`` (K,)."""
    rests = [law.variance_W - law.factor_JW.square().sum(0) for law in laws]
    return {
        "mean": torch.stack([law.mean_W for law in laws]),
        "std": torch.stack(rests).clamp(min=0).sqrt(),
        "factor": torch.stack([law.factor_JW for law in laws]),
        "share": torch.tensor([chain.share for chain in chains], dtype=torch.float64),
    }


class LowRank(LawCodec):
    """See the module docstring."""

    name = "low_rank"

    def fit(
        self, problem: Problem, cfg: LowRankConfig, *, generator: Generator
    ) -> dict[str, Tensor]:
        """See ``Codec.fit``."""
        chains = chains_read(problem, cfg)
        laws = [principal(chain, cfg.rank) for chain in chains]
        tensors = tensors_of(laws, chains)
        for name in ("std", "factor"):
            tensors[name] *= cfg.variance**0.5
        return tensors

    def draws(self, code: Code, num: int, *, generator: Generator) -> Tensor:
        """See ``LawCodec.draws``."""
        mean_KW, std_KW = code.tensors["mean"], code.tensors["std"]
        factor_KJW = code.tensors["factor"]
        thetas = []
        for _ in range(num):
            chain = int(torch.multinomial(code.tensors["share"], 1, generator=generator))
            z_J = torch.randn(factor_KJW.shape[1], generator=generator)
            z_W = torch.randn(mean_KW.shape[1], generator=generator)
            thetas.append(mean_KW[chain] + std_KW[chain] * z_W + z_J @ factor_KJW[chain])
        return torch.stack(thetas)


register(LowRank(), LowRankConfig, example={"num_samples": 4, "rank": 2})
