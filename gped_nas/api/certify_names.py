"""How certificates are asked for: ``linf-0.03``, ``linf-0.01..0.1-crown``, ``linf-0.03-exact-5s``.

A radius is a share of the data's range, or a curve of them: its ends, and what lies between them of
1, 2 and 5 times a power of ten. Bounds are ``ibp``, ``crown`` or ``exact``; without a word they are
the first two. ``exact`` has a time limit for each input.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from gped_nas.api.radii import parse_radii, text_of
from gped_nas.errors import ConfigError, nearest
from gped_nas.evaluate.certify.exact import exact_settings

Word = Literal["ibp", "crown", "exact"]
BOUNDS: tuple[Word, ...] = get_args(Word)
"""What can bound outputs, the loosest first."""
IBP: Literal["ibp"] = "ibp"
CROWN: Literal["crown"] = "crown"
EXACT: Literal["exact"] = "exact"
USUAL: tuple[Word, ...] = (IBP, CROWN)
"""Bounds where nobody names some: the two procedures of the papers."""
TASK = "certify"
NORM = "linf-"
TIME_LIMIT = 10.0
"""Seconds that ``exact`` may spend on an input where nobody says more."""
_BEHIND = re.compile(r"-(?P<bounds>[a-z]+)(-(?P<seconds>.+)s)?$")
_EXAMPLE = "write linf-0.03, for example"


@dataclass(frozen=True)
class CertifyName:
    """What is asked for.

    Attributes:
        epsilon: the radius, a share of the data's range.
        bounds: which of ``BOUNDS``.
        time_limit: seconds for each input, of ``exact``.
    """

    epsilon: float
    bounds: tuple[Word, ...] = USUAL
    time_limit: float = TIME_LIMIT

    @property
    def text(self) -> str:
        """As a task is asked with: ``linf-0.03``."""
        return self.under("") if self.bounds == USUAL else self.under(*self.bounds)

    def under(self, bounds: str) -> str:
        """Its name under some bounds, which rows have as their condition."""
        name = f"{NORM}{text_of(self.epsilon)}"
        if not bounds:
            return name
        is_usual = bounds != EXACT or self.time_limit == TIME_LIMIT
        return f"{name}-{bounds}" if is_usual else f"{name}-{bounds}-{text_of(self.time_limit)}s"


def parse_names(argument: str, where: str) -> list[CertifyName]:
    """What is asked for, a radius each.

    Args:
        argument: of the task: ``linf-0.01..0.1``.
        where: for messages.

    Raises:
        ConfigError: it is nothing of the kind.
    """
    place = f"{where}: {TASK}:{argument}"
    if not argument.startswith(NORM):
        raise ConfigError(
            f"{place}: found no norm, expected linf, the largest change of an input; {_EXAMPLE}"
        )
    text = argument.removeprefix(NORM)
    behind = _BEHIND.search(text)
    if behind is None:
        return [CertifyName(radius) for radius in parse_radii(text, place)]

    bounds = _word(behind["bounds"], BOUNDS, f"{place}: bounds")
    seconds = behind["seconds"]
    limit = TIME_LIMIT
    if seconds is not None:
        if bounds != EXACT:
            raise ConfigError(f"{place}: found a time limit, which is of {EXACT}; leave it out")
        limit = _time_limit(seconds, place)

    names = []
    for radius in parse_radii(text[: behind.start()], place):
        names.append(CertifyName(radius, (bounds,), limit))
    return names


def _word(text: str, expected: Sequence[Word], where: str) -> Word:
    for word in expected:
        if word == text:
            return word
    raise ConfigError(f"{where}: found '{text}'{nearest(text, expected)}")


def _time_limit(text: str, where: str) -> float:
    """Seconds for each input."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    return exact_settings(seconds, where).time_limit


def task_texts(
    epsilon: str, *, bounds: Sequence[str] = USUAL, exact: bool = False, time_limit: float
) -> list[str]:
    """The tasks of the verb's options.

    Args:
        epsilon: a radius, or a curve.
        bounds: which ones.
        exact: whether ``exact`` comes beside.
        time_limit: of ``exact``.

    Raises:
        ConfigError: an option is impossible.
    """
    words = tuple(dict.fromkeys(_word(each, USUAL, "--bounds") for each in bounds))
    if exact:
        exact_settings(time_limit, "--time-limit")

    texts = []
    for radius in parse_radii(epsilon, "--epsilon"):
        names = [CertifyName(radius, words)]
        if exact:
            names.append(CertifyName(radius, (EXACT,), time_limit))
        texts += [f"{TASK}:{name.text}" for name in names]
    return texts
