"""A few of the samples, chosen so that together they predict what all of them do.

Each sample is represented by what it predicts at probe inputs, phi_s (see ``probes``). Of every
chain as many are chosen, one after the other, by herding: the next one brings the average of those
that are chosen closest to the chain's own average m,

    s* = argmin_s | m - (phi_1 + ... + phi_t + phi_s) / (t + 1) |

and no sample twice. Then the weights of all of them are fitted anew: those of

    min_a | sum_s w_s phi_s - sum_j a_j phi_j |   with a >= 0, sum_j a_j = 1

are the weights of the stream. A sample whose weight is 0 there says nothing that the others do not.

Choose it where students, or whoever serves the average, can take few networks, or as what every
other codec must beat at equal bytes. It costs a forward pass of every sample at the probe inputs,
and takes 4 W bytes a sample.
Its bias: what no probe input shows; the average is kept, how far samples disagree only as far as
few of them can show it.

Source: Chen, Welling & Smola 2010, arXiv:1203.3472, equation 6 (with the norm of phi_s, which is
not constant here, and without repetition); weights: Lawson & Hanson 1974, chapter 23.
"""

from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Generator, Tensor

from gped_nas.io import Array
from gped_nas.posterior.base import Problem
from gped_nas.posterior.codecs.base import (
    Code,
    FiniteCodec,
    FiniteConfig,
    chains_read,
    register,
)
from gped_nas.posterior.codecs.probes import prediction_features, probe_inputs

_SUM = 1e3
"""How much a sum of weights other than 1 counts, beside the length of what is fitted."""


class SubsetConfig(FiniteConfig):
    """Settings of ``subset``."""

    num_samples: int = Field(default=20, ge=1, le=100_000, description="samples that are kept")
    probes: int = Field(
        default=256,
        ge=1,
        description="training inputs at which predictions are compared; as many of noise beside",
    )

    @property
    def num_known(self) -> int:
        """See ``CodecConfig.num_known``."""
        return self.num_samples

    def count(self, shapes: Any) -> int:
        """See ``MethodConfig.count``."""
        return self.num_samples

    def objection(self, num_samples: int, num_chains: int) -> str:
        """See ``CodecConfig.objection``."""
        if self.num_samples < num_chains:
            return (
                f"num_samples: found {self.num_samples}, expected at least {num_chains}, one of "
                "each chain that is read; raise it"
            )
        if self.num_samples > num_samples:
            return (
                f"num_samples: found {self.num_samples}, expected at most {num_samples}, the "
                f"samples of {self.of.title()} that are read; lower it, or raise of.num_samples"
            )
        return ""


def herd(features_SF: Array, target_F: Array, num: int) -> list[int]:
    """The samples that herding chooses, in its order.

    Args:
        features_SF: what each sample predicts.
        target_F: the average to come close to.
        num: how many to choose, at most S.
    """
    # all that is needed are products: |m (t + 1) - sum - phi_s|^2, without what all s share
    gram_SS = features_SF @ features_SF.T
    wanted_S = features_SF @ target_F

    chosen: list[int] = []
    sum_S = np.zeros(len(features_SF))
    for _ in range(num):
        missing_S = (len(chosen) + 1) * wanted_S - sum_S
        score_S = 2 * missing_S - gram_SS.diagonal()
        score_S[chosen] = -np.inf
        best = int(score_S.argmax())
        chosen.append(best)
        sum_S += gram_SS[best]
    return chosen


def fit_weights(features_SF: Array, target_F: Array) -> Array:
    """Weights (S,) of samples, not negative and with sum 1, whose average is closest to a target.

    Args:
        features_SF: what each sample predicts.
        target_F: the average to come close to.
    """
    from scipy.optimize import nnls  # slow to import

    heavy = _SUM * max(1.0, float(np.linalg.norm(target_F)))
    design = np.vstack([features_SF.T, np.full(len(features_SF), heavy)])
    weight_S, _ = nnls(design, np.append(target_F, heavy))
    scaled: Array = weight_S / weight_S.sum()
    return scaled


class Subset(FiniteCodec):
    """See the module docstring."""

    name = "subset"

    def fit(
        self, problem: Problem, cfg: SubsetConfig, *, generator: Generator
    ) -> dict[str, Tensor]:
        """See ``Codec.fit``."""
        chains = chains_read(problem, cfg)
        x_M = probe_inputs(problem, cfg.probes, generator=generator)
        features = [prediction_features(problem, x_M, chain.theta_SW).numpy() for chain in chains]

        rounds, rest = divmod(cfg.num_samples, len(chains))
        target_F = np.zeros(features[0].shape[1])
        chosen = []
        for number, (chain, features_SF) in enumerate(zip(chains, features, strict=True)):
            weight_S = chain.weight_S.numpy()
            average_F = weight_S @ features_SF
            target_F += average_F
            num = rounds + (number < rest)
            # of a chain that weighs nothing any sample is as good
            chosen.append(herd(features_SF, average_F / (chain.share or 1), num))

        # sample s of the stream is of chain s % K, as where it was read
        order = [(s % len(chains), s // len(chains)) for s in range(cfg.num_samples)]
        picks = [(chain, chosen[chain][draw]) for chain, draw in order]
        chosen_SF = np.stack([features[chain][s] for chain, s in picks])
        return {
            "theta": torch.stack([chains[chain].theta_SW[s] for chain, s in picks]),
            "weight": torch.from_numpy(fit_weights(chosen_SF, target_F)),
        }

    def theta(self, code: Code, index: int) -> Tensor:
        """See ``FiniteCodec.theta``."""
        return code.tensors["theta"][index].clone()


register(Subset(), SubsetConfig, example={"num_samples": 2, "probes": 8})
