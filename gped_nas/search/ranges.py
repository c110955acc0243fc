"""Ranges of genotype values as a search space file writes them."""

import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gped_nas.config import is_number_text
from gped_nas.errors import ConfigError, nearest
from gped_nas.models.base import FAMILIES
from gped_nas.models.pruning import PRUNE_TO, STORAGE_DTYPES, budget_value, join_layers
from gped_nas.search.dimensions import Choice, Dimension, StudentSpace

_KINDS = ("int", "float", "choices")
_RANGE_KEYS = ("log", "step")


def parse_dimensions(
    family: str, ranges: Mapping[str, Any], where: str, prefix: str
) -> StudentSpace:
    """The ranges of one student family, checked by building the genotypes at their ends.

    Args:
        family: a registered family.
        ranges: genotype value name to a constant, ``{int: [low, high]}``, ``{float: [low, high]}``,
            ``{choices: [...]}``, or a list of those, one a layer.
        where: file and key, for messages.
        prefix: see ``StudentSpace``.

    Raises:
        ConfigError: a range is malformed or leads to an impossible genotype.
    """
    dimensions: list[Dimension] = []
    for written_key, written in ranges.items():
        key, value, place = _rewrite(written_key, written, ranges, where)
        if not isinstance(value, list):
            dimension = _parse_dimension(key, value, place, None)
            _check_times(family, dimension, place)
            dimensions.append(dimension)
            continue

        if key in FAMILIES[family].counts.values():
            raise ConfigError(f"{place}: found {value!r}, expected one range, not one a layer")
        for index, entry in enumerate(value):
            dimensions.append(_parse_dimension(key, entry, f"{place}[{index}]", index))

    # Scalars come first: depth is drawn before the layers' widths.
    dimensions.sort(key=lambda dimension: dimension.index is not None)
    space = StudentSpace(family, tuple(dimensions), prefix)
    try:
        _check_buildable(space)
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}") from None
    return space


def _rewrite(key: str, value: Any, ranges: Mapping[str, Any], where: str) -> tuple[str, Any, str]:
    """A genotype value's name, its range, and where that is written.

    A space says ``prune_to: {macs: ...}`` and lists the layers of ``prune_exempt``. Bytes are those
    of the smallest storage type of the space, so that a training is the same for all of them.
    """
    place = f"{where}.{key}"
    if key == "prune_exempt" and isinstance(value, list):
        if not value or not all(isinstance(layer, str) for layer in value):
            raise ConfigError(f"{place}: found {value!r}, expected names of layers")
        return key, join_layers(value), place
    if key != PRUNE_TO:
        return key, value, place

    if not isinstance(value, dict) or len(value) != 1:
        raise ConfigError(f"{place}: found {value!r}, expected one cost, such as {{macs: 20000}}")
    ((cost, written),) = value.items()
    dtypes = ranges.get("storage_dtype", "float32")
    if isinstance(dtypes, dict):
        dtypes = dtypes.get("choices", [])
    named = [dtype for dtype in STORAGE_DTYPES if dtype in dtypes] or ["float32"]
    return budget_value(cost, named[-1], place), written, f"{place}.{cost}"


def _check_times(family: str, dimension: Dimension, where: str) -> None:
    """Refuse a multiplier of what has no entry a layer, and one that is not above zero."""
    if not dimension.times:
        return
    listed = FAMILIES[family].counts
    if dimension.key not in listed:
        raise ConfigError(
            f"{where}.times: found beside a value that is no list, expected one of "
            f"{', '.join(listed) or 'none'}; leave times out"
        )
    for factor in dimension.extremes():
        if isinstance(factor, str) or not 0 < factor < math.inf:
            raise ConfigError(f"{where}: found the factor {factor!r}, expected one above 0")


def _check_buildable(space: StudentSpace) -> None:
    """Build the genotypes at the corners, and one of each choice.

    There every other dimension is at its high end, so that no layer is left out.
    """
    for _ in space.corners():
        pass

    highest = {dimension.name: dimension.extremes()[-1] for dimension in space.dimensions}
    for dimension in space.dimensions:
        if dimension.kind == "choices":
            for choice in dimension.choices:
                space.genotype(highest | {dimension.name: choice})


def _parse_dimension(key: str, value: Any, where: str, index: int | None) -> Dimension:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        constant = _refuse_number_as_text(value, where)
        return Dimension(key, "fixed", choices=(constant,), index=index)
    if not isinstance(value, dict):
        raise ConfigError(
            f"{where}: found {value!r}, expected a constant or one of {{int}}, {{float}}, "
            "{choices}"
        )

    times = _parse_times(value["times"], where) if "times" in value else ()
    value = {setting: entry for setting, entry in value.items() if setting != "times"}
    if times and index is not None:
        raise ConfigError(f"{where}.times: found in a list, expected in place of it")

    known_keys = (*_KINDS, *_RANGE_KEYS)
    for setting in value:
        if setting not in known_keys:
            hint = nearest(setting, known_keys)
            raise ConfigError(f"{where}: {setting}: unknown key{hint}")

    kinds = [setting for setting in value if setting in _KINDS]
    if len(kinds) != 1:
        raise ConfigError(
            f"{where}: found {kinds or list(value)}, expected exactly one of int, float, choices"
        )
    if kinds == ["choices"]:
        dimension = _parse_choices(key, value, where, index)
    else:
        dimension = _parse_range(key, kinds[0], value, where, index)
    return replace(dimension, times=times)


def _parse_times(times: Any, where: str) -> tuple[int, ...]:
    is_list = isinstance(times, list) and len(times) > 0
    if not is_list or not all(type(base) is int and base >= 1 for base in times):
        raise ConfigError(
            f"{where}.times: found {times!r}, expected whole numbers of at least 1, one a layer"
        )
    return tuple(times)


def _parse_range(
    key: str, kind: str, value: Mapping[str, Any], where: str, index: int | None
) -> Dimension:
    log = value.get("log", False)
    if not isinstance(log, bool):
        raise ConfigError(f"{where}.log: found {log!r}, expected true or false")

    step = value.get("step", 1)
    is_whole = isinstance(step, int) and not isinstance(step, bool)
    is_allowed = kind == "int" or "step" not in value
    if not is_whole or step < 1 or not is_allowed:
        raise ConfigError(
            f"{where}.step: found {step!r}, expected a whole number of at least 1, for an int "
            "range only"
        )
    if log and step != 1:
        raise ConfigError(f"{where}: found log and step together, expected one of them")

    low, high = _parse_ends(value[kind], kind, where)
    if log and low <= 0:
        raise ConfigError(f"{where}: found a log range from {low}, expected it to start above 0")
    if kind == "int":
        # The last value that the steps reach.
        high = int(high) - int(high - low) % step
    return Dimension(key, kind, low=low, high=high, step=step, log=log, index=index)


def _parse_choices(key: str, value: Mapping[str, Any], where: str, index: int | None) -> Dimension:
    for setting in _RANGE_KEYS:
        if setting in value:
            raise ConfigError(
                f"{where}.{setting}: found beside choices, expected beside a range only"
            )

    choices = value["choices"]
    if not isinstance(choices, list) or not choices:
        raise ConfigError(
            f"{where}.choices: found {choices!r}, expected a list with at least one entry"
        )

    for choice in choices:
        if isinstance(choice, bool) or not isinstance(choice, str | int | float):
            raise ConfigError(f"{where}.choices: found {choice!r}, expected numbers or words")
        _refuse_number_as_text(choice, f"{where}.choices")
    if len(set(choices)) != len(choices):
        raise ConfigError(f"{where}.choices: found {choices}, expected no entry twice")
    return Dimension(key, "choices", choices=tuple(choices), index=index)


def _parse_ends(ends: Any, kind: str, where: str) -> tuple[float, float]:
    types: tuple[type, ...] = (int,) if kind == "int" else (int, float)
    if not isinstance(ends, list) or len(ends) != 2:
        raise ConfigError(f"{where}.{kind}: found {ends!r}, expected [low, high]")

    for end in ends:
        if isinstance(end, str):
            _refuse_number_as_text(end, f"{where}.{kind}")
        is_number = isinstance(end, types) and not isinstance(end, bool)
        if not is_number or not abs(end) <= sys.float_info.max:
            raise ConfigError(f"{where}.{kind}: found {end!r}, expected a finite {kind}")

    low, high = ends
    if low > high:
        raise ConfigError(f"{where}.{kind}: found {ends}, expected the low end first")
    if kind == "int":
        return low, high
    return float(low), float(high)


def _refuse_number_as_text(value: Choice, where: str) -> Choice:
    """The value, unless it is a number that YAML took for text."""
    if isinstance(value, str) and is_number_text(value):
        raise ConfigError(
            f"{where}: found the text '{value}', expected a number; YAML takes 1e-3 for text, "
            "write 1.0e-3"
        )
    return value
