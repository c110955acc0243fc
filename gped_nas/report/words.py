"""Numbers and names as people read them; the one place that rounds for the eye."""

import html
import math
import unicodedata
from collections.abc import Mapping
from typing import Any

from gped_nas.evaluate.measured import parse_name

NONE = "–"
"""What stands in a table where there is no number."""

_SHARES = frozenset({"accuracy", "balanced_accuracy", "macro_f1", "worst_recall"})
"""Metrics that are shown in per cent."""
_DIRECTION_MARKS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def spaced(name: str) -> str:
    """A name of ours for a table: ``num samples``."""
    return name.replace("_", " ")


def metric(value: float | None, name: str) -> str:
    """A metric for a table: accuracies in per cent, others to four decimals or three digits."""
    if value is None or not math.isfinite(value):
        return NONE
    if _is_share(name):
        return f"{100 * value:.2f} %"
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4f}"
    return f"{value:.3g}"


def interval(bounds: list[float] | None, name: str) -> str:
    """A 95 % interval for a table; empty text when there is none."""
    if not bounds or None in bounds:
        return ""
    low, high = (metric(bound, name).removesuffix(" %") for bound in bounds)
    return f"[{low}, {high}]"


def difference(value: float | None, name: str) -> str:
    """A signed difference of two metrics; of accuracies in percentage points."""
    if value is None:
        return NONE
    text = f"{100 * value:+.2f} pp" if _is_share(name) else f"{value:+.4f}"
    return text.replace("-", "−")


def count(value: float | None) -> str:
    """A number with its thousands apart; one that is not whole, such as a time, to four digits."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if float(value).is_integer() or value >= 1e4 else f"{value:.4g}"


def things(number: int, noun: str) -> str:
    """How many of something: ``1 trial``, ``12 trials``."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def short(value: float, unit: str = "") -> str:
    """A large number to three digits with a decimal prefix, kept on one line: ``12.3 kB``."""
    for size, prefix in _PREFIXES:
        if abs(value) >= size:
            return f"{value / size:.3g}\u00a0{prefix}{unit}"
    return f"{value:.3g}\u00a0{unit}".strip()


def factor(cost: float, reference: float) -> str:
    """How a cost compares: ``85× less than`` a reference's, ``1.2× more than``, ``as much as``."""
    ratio = reference / cost
    if math.isclose(ratio, 1.0):
        return "as much as"
    return f"{_ratio(ratio)}× less than" if ratio > 1 else f"{_ratio(1 / ratio)}× more than"


def compact(value: Any) -> str:
    """Plain data on one line: ``a=1, b=2`` for a mapping, the values apart by commas for a list."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={compact(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(compact, value))
    return NONE if value is None else str(value)


def cut(text: str, most: int) -> str:
    """A text on one line, of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def drawn(text: str, most: int = 90) -> str:
    """An untrusted text for a drawing: one line, without markup that Plotly would read."""
    line = "".join(character for character in cut(text, most) if character not in _DIRECTION_MARKS)
    # what is written from right to left must not turn what follows it
    if any(unicodedata.bidirectional(character) in ("R", "AL") for character in line):
        line = f"\u2068{line}\u2069"
    return html.escape(line)


def duration(seconds: float) -> str:
    """A span of time as people say it: ``12 s``, ``3.4 min``, ``1.2 h``."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g}\u00a0{unit}"
    return f"{seconds:.3g}\u00a0s"


def _is_share(name: str) -> bool:
    return parse_name(name).metric in _SHARES


def _ratio(value: float) -> str:
    return f"{value:,.0f}" if value >= 20 else f"{value:.3g}"
