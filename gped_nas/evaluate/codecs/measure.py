"""Every measure of a code beside a chain that its codec has not seen.

| name                       | what                                                | nothing lost |
|----------------------------|-----------------------------------------------------|--------------|
| ``energy``, ``mmd``        | distance of the laws at probe inputs                | 0            |
| ``energy_p``, ``mmd_p``    | p-value of the permutation test of both             | above .05    |
| ``energy_to_read``         | energy distance from the samples that were read      | 0            |
| ``average_kl``             | KL(held out || code) of the averages, nats          | 0            |
| ``average_kl_to_read``     | KL(samples that were read || code) of the averages  | 0            |
| ``average_tv``             | total variation of the averages                     | 0            |
| ``average_nll``            | NLL of the average, nats                            |              |
| ``average_nll_difference`` | the same less that of the held-out chain, paired    | 0            |
| ``entropy_ratio``          | mean E[H] over that of the held-out chain           | 1            |
| ``information_ratio``      | mean mutual information over that of the chain      | 1            |
| ``information_spearman``   | rank correlation of both mutual informations        | 1            |
| ``ood_auroc_model``        | inputs from outside told by mutual information      | the chain's  |
| ``draw_nll``               | mean NLL of single draws, nats                      |              |
| ``draw_nll_difference``    | the same less that of the chain's networks, paired  | 0            |
| ``nearest_ratio``          | median distance to the nearest sample that was seen | 1            |
| ``copied_share``           | draws nearer to one than any held-out network       | 0            |
| ``runs_p``                 | p-value of the test that draws are independent      | above .05    |

``runs_p`` is of the order of drawing: whether a draw answers an example rightly changes from one to
the next as often as in a random order, see ``certify.laws``. Stored networks are no draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Generator

from gped_nas.evaluate.certify.laws import runs_p_value
from gped_nas.evaluate.codecs.answers import (
    average_measures,
    average_of,
    detection_measure,
    draw_measures,
    spread_measures,
)
from gped_nas.evaluate.codecs.nearest import nearness
from gped_nas.evaluate.codecs.networks import Networks
from gped_nas.evaluate.codecs.two_sample import law_distance, two_sample_tests
from gped_nas.evaluate.measured import Measured
from gped_nas.evaluate.predictions import Labels, Predictions
from gped_nas.evaluate.resamples import Resamples

MEASURES: Sequence[str] = (
    *("energy", "energy_p", "mmd", "mmd_p", "energy_to_read"),
    *("average_kl", "average_kl_to_read", "average_tv"),
    *("average_nll", "average_nll_difference"),
    *("entropy_ratio", "information_ratio", "information_spearman", "ood_auroc_model"),
    *("draw_nll", "draw_nll_difference", "nearest_ratio", "copied_share", "runs_p"),
)
"""Names of all measures, in their order."""
_OF_NETWORKS = "it is of networks, which depend on each other: other seeds tell its spread"
_NO_DRAWS = "stored networks are no draws, whose order could say anything"


@dataclass(frozen=True, eq=False)
class Asked:
    """One set of networks at three sets of inputs.

    Attributes:
        probe: at probe inputs, where distances are taken.
        inside: at examples with labels.
        outside: at inputs from outside.
        answers: what it says together inside and outside, where that is not the average of the
            networks: a student is one network, and says of E[H] what it has learned.
    """

    probe: Networks
    inside: Networks
    outside: Networks
    answers: tuple[Predictions, Predictions] | None = None

    @cached_property
    def averages(self) -> tuple[Predictions, Predictions]:
        """What it says together inside and outside."""
        return self.answers or (average_of(self.inside), average_of(self.outside))


def measure_code(
    code: Asked,
    held_out: Asked,
    seen: Asked,
    labels_N: Labels,
    *,
    resamples: Resamples,
    bandwidth: float,
    generator: Generator,
) -> dict[str, Measured]:
    """Every measure of a code.

    Args:
        code: draws of it, or all of it where it is finitely many networks.
        held_out: the chain that its codec has not seen.
        seen: samples that it was fitted to.
        labels_N: of the examples inside.
        resamples: of these.
        bandwidth: of MMD, nats, see ``two_sample``.
        generator: source of permutations, and of draws of a finite code.

    Raises:
        DataError: they were asked at other inputs, or there are too few networks.
    """
    measures = _distances(code.probe, held_out.probe, bandwidth, generator)

    inside, outside = code.averages
    reference = held_out.averages[0]
    measures |= average_measures(inside, reference, labels_N, resamples=resamples)
    measures |= spread_measures(inside, reference, resamples=resamples)
    measures["ood_auroc_model"] = detection_measure(inside, outside)
    measures |= draw_measures(code.inside, held_out.inside, labels_N, resamples=resamples)

    measures |= _beside_read(code, seen, held_out, bandwidth)
    beside_read = average_measures(inside, seen.averages[0], labels_N, resamples=resamples)
    measures["average_kl_to_read"] = beside_read["average_kl"]
    measures["runs_p"] = _runs(code.inside, labels_N, generator)
    return {name: measures[name] for name in MEASURES}


def _distances(
    code: Networks, held_out: Networks, bandwidth: float, generator: Generator
) -> dict[str, Measured]:
    distance = law_distance(code, held_out, bandwidth)
    draws = code if code.is_drawn else drawn_from(code, len(held_out), generator=generator)
    tests = two_sample_tests(draws, held_out, bandwidth, generator=generator)
    return {
        "energy": _of_networks(distance.energy, code),
        "energy_p": _of_networks(tests.energy.p_value, draws),
        "mmd": _of_networks(distance.mmd, code),
        "mmd_p": _of_networks(tests.mmd.p_value, draws),
    }


def _beside_read(
    code: Asked, seen: Asked, held_out: Asked, bandwidth: float
) -> dict[str, Measured]:
    """How far a code is from the samples that were read, as a law and one by one."""
    # these samples are what is coded, not draws of it
    coded = replace(seen.probe, is_drawn=False)
    law = coded if code is seen else code.probe
    near = nearness(code.probe, seen.probe, held_out.probe)
    values = {
        "energy_to_read": law_distance(law, coded, bandwidth).energy,
        "nearest_ratio": near.ratio,
        "copied_share": near.copied_share,
    }
    return {name: _of_networks(value, code.probe) for name, value in values.items()}


def _runs(code: Networks, labels_N: Labels, generator: Generator) -> Measured:
    """The test of runs of draws, by which examples each of them answers rightly."""
    if not code.is_drawn:
        return Measured(None, n=len(code), why=_NO_DRAWS)
    label_N = torch.as_tensor(labels_N)
    is_right_SN = code.log_prob_SMC.argmax(-1) == label_N
    return _of_networks(runs_p_value(is_right_SN, generator=generator), code)


def drawn_from(networks: Networks, num: int, *, generator: Generator) -> Networks:
    """Independent draws of a weighted set, with replacement.

    Args:
        networks: the set.
        num: how many.
        generator: source of the draws.
    """
    index = torch.multinomial(networks.weight_S, num, replacement=True, generator=generator)
    return Networks(networks.log_prob_SMC[index], torch.ones(num), is_drawn=True)


def _of_networks(value: float, networks: Networks) -> Measured:
    return Measured(value, n=len(networks), why=_OF_NETWORKS)
