"""Dimensions of a search space: ranges of genotype values, to draw from and to list."""

import itertools
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gped_nas.errors import ConfigError, nearest
from gped_nas.models.base import FAMILIES, Genotype

Choice = str | int | float
_KINDS = ("int", "float", "choices")
_RANGE_KEYS = ("log", "step")
_MAX_CORNERS = 10_000


class Suggests(Protocol):
    """What a dimension needs of an Optuna trial."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int: ...
    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float: ...
    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


@dataclass(frozen=True)
class Dimension:
    """The range of one genotype value.

    Attributes:
        key: the value's name; in a per-layer list, ``index`` is the layer.
        kind: ``int``, ``float``, ``choices`` or ``fixed``.
        low, high, step, log: of an int or float range.
        choices: of a choice, or the one fixed value.
        index: layer of a per-layer range, else None.
    """

    key: str
    kind: str
    low: float = 0
    high: float = 0
    step: int = 1
    log: bool = False
    choices: tuple[Choice, ...] = ()
    index: int | None = None

    @property
    def name(self) -> str:
        """The parameter's name in Optuna."""
        return self.key if self.index is None else f"{self.key}_{self.index}"

    def suggest(self, trial: Suggests, prefix: str) -> Choice:
        """Draw a value."""
        if self.kind == "fixed":
            return self.choices[0]

        name = prefix + self.name
        if self.kind == "int":
            low, high = int(self.low), int(self.high)
            return trial.suggest_int(name, low, high, step=self.step, log=self.log)
        if self.kind == "float":
            return trial.suggest_float(name, self.low, self.high, log=self.log)

        choice: Choice = trial.suggest_categorical(name, self.choices)
        return choice

    def finite(self) -> tuple[Choice, ...] | None:
        """Every value, or None for a float range."""
        if self.kind == "int":
            return tuple(range(int(self.low), int(self.high) + 1, self.step))
        if self.kind == "float":
            return None
        return self.choices

    def extremes(self) -> tuple[Choice, ...]:
        """The values between which every cost lies: two ends, or every choice if one is a word."""
        if self.kind == "int":
            return int(self.low), int(self.high)
        if self.kind == "float":
            return self.low, self.high
        if all(isinstance(choice, int | float) for choice in self.choices):
            return tuple(sorted({min(self.choices), max(self.choices)}))
        return self.choices


@dataclass(frozen=True)
class StudentSpace:
    """The ranges of one student family.

    Attributes:
        family: its name.
        dimensions: scalar ones first, then per-layer ones: ``depth`` is drawn before the layers'
            widths.
        prefix: put before parameter names when a space has several families.
    """

    family: str
    dimensions: tuple[Dimension, ...]
    prefix: str = ""

    def draw(self, trial: Suggests) -> Genotype:
        """Draw a genotype; widths of layers that are not there are not drawn."""
        values: dict[str, Any] = {}
        for dimension in self.dimensions:
            if dimension.index is None:
                values[dimension.key] = dimension.suggest(trial, self.prefix)
            elif dimension.index < self._count(dimension.key, values):
                values.setdefault(dimension.key, []).append(dimension.suggest(trial, self.prefix))
        return Genotype(self.family, **values)

    def _count(self, key: str, values: Mapping[str, Any]) -> int:
        """How many entries of a per-layer list are drawn: all of them where no value says."""
        count = values.get(FAMILIES[self.family].counts.get(key, ""))
        if isinstance(count, int):
            return count
        # The family refuses a count that is not a number.
        return len(self.dimensions)

    def enumerate(self, seen: set[Genotype]) -> Iterator[dict[str, Choice]]:
        """Every combination of parameter values that gives a genotype not in ``seen``.

        They are Optuna's parameters; their genotypes are added to ``seen``.
        """
        free = [dimension for dimension in self.dimensions if dimension.kind != "fixed"]
        names = [self.prefix + dimension.name for dimension in free]
        values = [dimension.finite() or () for dimension in free]

        for combination in itertools.product(*values):
            params = dict(zip(names, combination, strict=True))
            genotype = self.draw(Fixed(params))
            if genotype not in seen:
                seen.add(genotype)
                yield params

    def corners(self) -> Iterator[Genotype]:
        """Genotypes whose costs bound those of all others.

        All genotypes can be built if these can. Widths grow every cost, so that their two ends are
        enough, those of all layers together. Of a value that says how many layers there are, or of
        one that can make a network both dearer and cheaper (a larger kernel leaves a smaller
        image), every entry is a corner.
        """
        widths, others = self._split_off_widths()
        ends = {dimension.name: self._find_ends(dimension) for dimension in others}

        num_combinations = math.prod(len(values) for values in ends.values())
        if num_combinations > _MAX_CORNERS:
            varied = [d.key for d in others if len(ends[d.name]) > 1]
            keys = ", ".join(dict.fromkeys(varied))
            raise ConfigError(
                f"{keys}: found more than {_MAX_CORNERS} combinations, whose costs must all be "
                "looked at, expected fewer; give all layers one range or take choices away"
            )

        # All widths are at their low end, or all at their high end.
        ends_of_widths = [{d.name: d.extremes()[0] for d in widths}]
        if widths:
            ends_of_widths.append({d.name: d.extremes()[-1] for d in widths})

        seen = set()
        for combination in itertools.product(*ends.values()):
            values = dict(zip(ends, combination, strict=True))
            for all_widths in ends_of_widths:
                genotype = self.genotype(values | all_widths)
                if genotype not in seen:
                    seen.add(genotype)
                    yield genotype

    def _split_off_widths(self) -> tuple[list[Dimension], list[Dimension]]:
        """The dimensions of single layers that can only raise costs, and the others."""
        monotone = FAMILIES[self.family].monotone
        widths: list[Dimension] = []
        others: list[Dimension] = []
        for dimension in self.dimensions:
            is_width = dimension.index is not None and dimension.key in monotone
            (widths if is_width else others).append(dimension)
        return widths, others

    def genotype(self, choices: Mapping[str, Choice]) -> Genotype:
        """The genotype of a choice for every dimension, by its name."""
        values: dict[str, Any] = {}
        for dimension in self.dimensions:
            if dimension.index is None:
                values[dimension.key] = choices[dimension.name]
            elif dimension.index < self._count(dimension.key, values):
                values.setdefault(dimension.key, []).append(choices[dimension.name])
            else:
                values.setdefault(dimension.key, [])
        return Genotype(self.family, **values)

    def _find_ends(self, dimension: Dimension) -> tuple[Choice, ...]:
        """The values of a dimension that may give the cheapest or the dearest network.

        A range of more entries than any family takes is left for the family to refuse at its end.
        """
        family = FAMILIES[self.family]
        listed_keys = {*family.counts, *family.counts.values()} - family.monotone
        is_short = dimension.high - dimension.low <= 64
        if dimension.key in listed_keys and is_short:
            return dimension.finite() or dimension.extremes()
        return dimension.extremes()

    @property
    def is_finite(self) -> bool:
        """Whether it holds no float range."""
        return all(dimension.finite() is not None for dimension in self.dimensions)


class Fixed:
    """A trial whose parameters are given."""

    def __init__(self, params: Mapping[str, Choice]) -> None:
        self._params = params

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        return int(self._params[name])

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        return float(self._params[name])

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return self._params[name]


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
    for key, value in ranges.items():
        if not isinstance(value, list):
            dimensions.append(_parse_dimension(key, value, f"{where}.{key}", None))
            continue

        if key in FAMILIES[family].counts.values():
            raise ConfigError(
                f"{where}.{key}: found {value!r}, expected one range, not one a layer"
            )
        for index, entry in enumerate(value):
            dimensions.append(_parse_dimension(key, entry, f"{where}.{key}[{index}]", index))

    # Scalars come first: depth is drawn before the layers' widths.
    dimensions.sort(key=lambda dimension: dimension.index is not None)
    space = StudentSpace(family, tuple(dimensions), prefix)
    try:
        _check_buildable(space)
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}") from None
    return space


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
            f"{{choices}}"
        )

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
        return _parse_choices(key, value, where, index)
    return _parse_range(key, kinds[0], value, where, index)


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
    if isinstance(value, str) and _is_number(value):
        raise ConfigError(
            f"{where}: found the text '{value}', expected a number; YAML takes 1e-3 for text, "
            "write 1.0e-3"
        )
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
