"""Checks of genotype values that families share."""

from collections.abc import Iterable, Mapping

from gped_nas.errors import ConfigError, nearest
from gped_nas.models.base import COMMON_VALUES

MAX_WIDTH = 65_536


def check_names(values: Mapping[str, object], known: Iterable[str]) -> None:
    """Refuse a value that the family does not have.

    Raises:
        ConfigError: the message names the nearest one.
    """
    known = tuple(known)
    for name in values:
        if name not in known:
            raise ConfigError(f"{name}: unknown key{nearest(name, (*known, *COMMON_VALUES))}")


def whole(name: str, value: object, low: int, high: int) -> int:
    """A whole number between two bounds.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{name}: found {value!r}, expected a whole number from {low} to {high}")
    return value


def entries(
    name: str, value: object, num: int, low: int, high: int, *, of: str = "layers"
) -> tuple[int, ...]:
    """One whole number for each of ``num`` layers, from one for all of them or at least that many.

    Entries of layers that are not there are dropped.

    Raises:
        ConfigError: there are too few, or one is no whole number between the bounds.
    """
    if not isinstance(value, list | tuple):
        return (whole(name, value, low, high),) * num
    if len(value) < num:
        raise ConfigError(
            f"{name}: found {len(value)} entries, expected one for each of {num} {of}"
        )
    return tuple(whole(name, entry, low, high) for entry in value[:num])
