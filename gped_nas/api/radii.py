"""Radii of attacks and certificates, shares of the data's range: one, or a curve ``0.01..0.3``."""

import math

from gped_nas.errors import ConfigError

_STEPS = (1, 2, 5)


def radii(low: float, high: float) -> list[float]:
    """The radii of a curve: its ends, and 1, 2 and 5 times the powers of ten between them."""
    between = []
    for power in range(-6, 3):
        between += [float(f"{step}e{power}") for step in _STEPS]
    return sorted({low, high, *(radius for radius in between if low < radius < high)})


def parse_radii(text: str, where: str) -> list[float]:
    """The radii of ``0.03`` or of a curve, ``0.01..0.1``.

    Args:
        text: of a user.
        where: the option that it is of, for messages.

    Raises:
        ConfigError: it is no number of at least 0, or the ends are the wrong way round.
    """
    low, dots, high = text.partition("..")
    if not dots:
        return [_radius(low, text, where)]

    ends = _radius(low, text, where), _radius(high, text, where)
    if ends[0] >= ends[1]:
        raise ConfigError(
            f"{where}: found '{text}', expected the smaller radius first, for example 0.01..0.1"
        )
    return radii(*ends)


def _radius(text: str, whole: str, where: str) -> float:
    try:
        radius = float(text)
    except ValueError:
        radius = math.nan
    if not 0 <= radius < math.inf:
        raise ConfigError(
            f"{where}: found '{whole}', expected a radius of at least 0, a share of the data's "
            "range; write 0.03, for example"
        )
    return radius


def text_of(radius: float) -> str:
    """A radius as it was written: ``0.03``, ``1``; no digit is lost."""
    return repr(float(radius)).removesuffix(".0")
