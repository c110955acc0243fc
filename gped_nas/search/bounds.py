"""What a student may cost, as people write it: ``100kB,2MFLOPs`` or ``params=5k,accuracy=.9``."""

import math
import re
from collections.abc import Mapping, Sequence

from gped_nas.errors import ConfigError

_PREFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_UNITS = {
    "b": "storage_bytes",
    "bytes": "storage_bytes",
    "flops": "flops",
    "flop": "flops",
    "macs": "macs",
    "mac": "macs",
    "params": "params",
    "parameters": "params",
    "ms": "latency_ms",
}
"""A unit in small letters, and the cost that it is of."""
_QUANTITY = re.compile(
    r"(?P<number>[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*"
    r"(?P<prefix>[kmgt]?i?)\s*"
    rf"(?P<unit>{'|'.join(sorted(_UNITS, key=len, reverse=True))})?",
    re.IGNORECASE,
)
_EXPECTED = "expected for example 100kB, 2MFLOPs, 1MMACs, params=5000 or accuracy=0.9"


def parse_bounds(within: str | Sequence[str], where: str) -> dict[str, float]:
    """Metric or cost name to its bound, from bounds apart by commas.

    A quantity with a unit says of which cost it is: bytes (``B``), ``FLOPs``, ``MACs``, ``params``,
    each with ``k``, ``M``, ``G`` or ``T`` before it, and bytes with ``Ki``, ``Mi``, ``Gi`` or
    ``Ti`` too; or ``ms``, of the latency. A name and a number are ``NAME=BOUND``, where the unit
    may be left out. Whether names exist is not asked here.

    Args:
        within: one text, or several.
        where: who says so, for messages.

    Raises:
        ConfigError: a bound cannot be read, or a name has two.
    """
    texts = [within] if isinstance(within, str) else within
    bounds: dict[str, float] = {}
    for item in ",".join(texts).split(","):
        name, bound = _parse(item.strip(), where)
        if name in bounds:
            raise ConfigError(f"{where}: found two bounds of '{name}', expected one of each")
        bounds[name] = bound
    return bounds


def as_bounds(within: str | Sequence[str] | Mapping[str, float], where: str) -> dict[str, float]:
    """Bounds as ``parse_bounds`` gives them, from text or from a mapping that has them already.

    Raises as ``parse_bounds``.
    """
    if isinstance(within, Mapping):
        return {name: float(bound) for name, bound in within.items()}
    return parse_bounds(within, where)


def _parse(item: str, where: str) -> tuple[str, float]:
    """The name and the bound of one item."""
    left, equals, right = item.partition("=")
    name, text = (left.strip().rstrip("<>"), right.strip()) if equals else ("", item)

    match = _QUANTITY.fullmatch(text)
    if match is None or (equals and not name):
        raise ConfigError(f"{where}: found '{item}', {_EXPECTED}")
    unit = (match["unit"] or "").lower()
    if not name and not unit:
        raise ConfigError(f"{where}: found '{item}' without a unit or a name, {_EXPECTED}")

    cost = _UNITS.get(unit, name)
    if name and cost != name:
        raise ConfigError(f"{where}: found '{item}': {match['unit']} is a unit of {cost}")

    prefix = match["prefix"].lower()
    if prefix in _BINARY and cost == "storage_bytes":
        factor = _BINARY[prefix]
    elif prefix in _PREFIXES and (not prefix or unit != "ms"):
        factor = _PREFIXES[prefix]
    else:
        kind = "bytes only" if prefix in _BINARY else f"no {unit}"
        raise ConfigError(f"{where}: found '{item}': '{match['prefix']}' is a prefix of {kind}")

    bound = float(match["number"].replace("_", "")) * factor
    if not math.isfinite(bound):
        raise ConfigError(f"{where}: found '{item}', expected a finite number")
    return cost, bound
