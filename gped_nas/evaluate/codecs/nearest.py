"""Did a codec learn its samples by heart? How near its draws are to them.

Of each draw it is the distance to the nearest sample that the codec has seen, beside the same of a
held-out chain. Draws that are much nearer than any honest network are copies.
"""

from dataclasses import dataclass

from gped_nas.evaluate.codecs.networks import Networks, distances


@dataclass(frozen=True)
class Nearness:
    """How near draws are to the samples that were seen.

    Attributes:
        ratio: median distance of the draws to their nearest sample, over that of the held-out
            networks; 0 of copies.
        copied_share: share of the draws that are nearer than every held-out network.
    """

    ratio: float
    copied_share: float


def nearness(draws: Networks, seen: Networks, held_out: Networks) -> Nearness:
    """How near draws are to samples that a codec has seen, beside networks that it has not.

    Args:
        draws: of the codec.
        seen: samples that it was fitted to.
        held_out: of a chain that it has not seen.

    Raises:
        DataError: they were asked at other inputs.
    """
    of_draws = distances(draws, seen).min(1).values
    of_held_out = distances(held_out, seen).min(1).values
    is_copy = of_draws < of_held_out.min()
    return Nearness(
        ratio=float(of_draws.median() / of_held_out.median()),
        copied_share=float((draws.weight_S * is_copy).sum()),
    )
