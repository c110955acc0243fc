"""Checks of genotype values that families share."""

from collections.abc import Iterable, Mapping, Sequence

from gped_nas.errors import ConfigError, nearest
from gped_nas.models.activations import ACTIVATIONS, RELU
from gped_nas.models.base import COMMON_VALUES

MAX_WIDTH = 65_536


def check_names(values: Mapping[str, object], names: Iterable[str]) -> None:
    """Refuse a value that the family does not have.

    Raises:
        ConfigError: the message names the nearest one.
    """
    names = tuple(names)
    for name in values:
        if name not in names:
            raise ConfigError(f"{name}: unknown key{nearest(name, (*names, *COMMON_VALUES))}")


def whole(name: str, value: object, low: int, high: int) -> int:
    """A whole number between two bounds.

    Args:
        name: of the value, for messages.
        value: what the genotype holds.
        low, high: the bounds, both allowed.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{name}: found {value!r}, expected a whole number from {low} to {high}")
    return value


def word(name: str, value: object, words: Sequence[str]) -> str:
    """One of a few words.

    Args:
        name: of the value, for messages.
        value: what the genotype holds.
        words: those that are allowed.

    Raises:
        ConfigError: it is none of them.
    """
    if not isinstance(value, str) or value not in words:
        raise ConfigError(f"{name}: found {value!r}, expected one of {', '.join(words)}")
    return value


def activation_word(values: Mapping[str, object]) -> str:
    """The ``activation`` of a genotype's hidden units.

    Raises:
        ConfigError: it is none of ``ACTIVATIONS``.
    """
    return word("activation", values.get("activation", RELU), tuple(ACTIVATIONS))


def entries(
    name: str, value: object, num: int, low: int, high: int, *, of: str = "layers"
) -> tuple[int, ...]:
    """One whole number for each of ``num`` layers, from one for all of them or at least that many.

    Entries of layers that are not there are dropped.

    Args:
        name: of the value, for messages.
        value: what the genotype holds.
        num: how many layers there are.
        low, high: the bounds of an entry, both allowed.
        of: what the layers are called in messages.

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
