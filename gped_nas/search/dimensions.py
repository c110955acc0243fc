"""Dimensions of a search space: a range for each genotype value, as Optuna sees it and as a finite
list.
"""

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
            return trial.suggest_int(
                name, int(self.low), int(self.high), step=self.step, log=self.log
            )
        if self.kind == "float":
            return trial.suggest_float(name, self.low, self.high, log=self.log)
        choice: Choice = trial.suggest_categorical(name, self.choices)
        return choice

    def finite(self) -> tuple[Choice, ...] | None:
        """Every value, or None for a float range."""
        if self.kind == "int":
            return tuple(range(int(self.low), int(self.high) + 1, self.step))
        return None if self.kind == "float" else self.choices

    def extremes(self) -> tuple[Choice, ...]:
        """The values between which every cost lies: the ends of a range, every choice that is no
        number.
        """
        if self.kind in ("int", "float"):
            return (int(self.low), int(self.high)) if self.kind == "int" else (self.low, self.high)
        if all(isinstance(c, int | float) for c in self.choices):
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
        """How many entries of a per-layer list these values call for: all of them where none of
        them says.
        """
        count = values.get(FAMILIES[self.family].counts.get(key, ""))
        return (
            count if isinstance(count, int) else len(self.dimensions)
        )  # what is no number the family refuses

    def enumerate(self, seen: set[Genotype]) -> Iterator[dict[str, Choice]]:
        """Every combination of parameter values that gives a genotype not in ``seen``.

        They are Optuna's parameters; their genotypes are added to ``seen``.
        """
        free = [d for d in self.dimensions if d.kind != "fixed"]
        for combination in itertools.product(*(d.finite() or () for d in free)):
            params = dict(zip((self.prefix + d.name for d in free), combination, strict=True))
            genotype = self.draw(Fixed(params))
            if genotype not in seen:
                seen.add(genotype)
                yield params

    def corners(self) -> Iterator[Genotype]:
        """Genotypes whose costs bound those of all others, and that can all be built only if all
        others can.

        Widths grow every cost, so that their two ends are enough, those of all layers together. Of
        a value that says how many layers there are, or of one that can make a network both dearer
        and cheaper (a larger kernel leaves a smaller image), every entry is one.
        """
        monotone = FAMILIES[self.family].monotone
        grown = [d for d in self.dimensions if d.index is not None and d.key in monotone]
        other = [d for d in self.dimensions if d not in grown]
        ends = [self._corners(d) for d in other]
        if math.prod(map(len, ends)) > _MAX_CORNERS:
            keys = ", ".join(
                dict.fromkeys(
                    d.key for d, values in zip(other, ends, strict=True) if len(values) > 1
                )
            )
            raise ConfigError(
                f"{keys}: found more than {_MAX_CORNERS} combinations, whose costs must all be "
                "looked at, expected "
                "fewer; give all layers one range or take choices away"
            )
        seen = set()
        for combination in itertools.product(*ends):
            drawn = dict(zip((d.name for d in other), combination, strict=True))
            for end in (0, -1) if grown else (0,):
                genotype = self.genotype(drawn | {d.name: d.extremes()[end] for d in grown})
                if genotype not in seen:
                    seen.add(genotype)
                    yield genotype

    def genotype(self, drawn: Mapping[str, Choice]) -> Genotype:
        """The genotype of a value for every dimension, by its name."""
        values: dict[str, Any] = {}
        for dimension in self.dimensions:
            if dimension.index is None:
                values[dimension.key] = drawn[dimension.name]
            elif dimension.index < self._count(dimension.key, values):
                values.setdefault(dimension.key, []).append(drawn[dimension.name])
            else:
                values.setdefault(dimension.key, [])
        return Genotype(self.family, **values)

    def _corners(self, dimension: Dimension) -> tuple[Choice, ...]:
        """The values of a dimension that may give the cheapest or the dearest network.

        A range of more entries than any family takes is left for the family to refuse at its end.
        """
        family = FAMILIES[self.family]
        is_listed = dimension.key in {*family.counts, *family.counts.values()} - family.monotone
        is_listed = is_listed and dimension.high - dimension.low <= 64
        return (dimension.finite() if is_listed else None) or dimension.extremes()

    @property
    def is_finite(self) -> bool:
        """Whether it holds no float range."""
        return all(d.finite() is not None for d in self.dimensions)


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
    counted = FAMILIES[family].counts.values()
    dimensions: list[Dimension] = []
    for key, value in ranges.items():
        if isinstance(value, list):
            if key in counted:
                raise ConfigError(
                    f"{where}.{key}: found {value!r}, expected one range, not one a layer"
                )
            for index, entry in enumerate(value):
                dimensions.append(_dimension(key, entry, f"{where}.{key}[{index}]", index))
        else:
            dimensions.append(_dimension(key, value, f"{where}.{key}", None))
    dimensions.sort(key=lambda d: d.index is not None)
    space = StudentSpace(family, tuple(dimensions), prefix)
    try:
        for _ in space.corners():
            pass
        for dimension in dimensions:
            if dimension.kind == "choices":
                for choice in dimension.choices:
                    _check_with(space, dimension, choice)
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}") from None
    return space


def _check_with(space: StudentSpace, dimension: Dimension, choice: Choice) -> None:
    """Build the genotype of a choice, every other dimension at its high end so that no layer is
    left out.
    """
    drawn = {d.name: choice if d is dimension else d.extremes()[-1] for d in space.dimensions}
    space.genotype(drawn)


def _dimension(key: str, value: Any, where: str, index: int | None) -> Dimension:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return Dimension(key, "fixed", choices=(_no_number_as_text(value, where),), index=index)
    if not isinstance(value, dict):
        raise ConfigError(
            f"{where}: found {value!r}, expected a constant or one of {{int}}, {{float}}, "
            f"{{choices}}"
        )
    kinds = [k for k in value if k in _KINDS]
    unknown = [k for k in value if k not in (*_KINDS, "log", "step")]
    if unknown:
        hint = nearest(unknown[0], (*_KINDS, "log", "step"))
        raise ConfigError(f"{where}: {unknown[0]}: unknown key{hint}")
    if len(kinds) != 1:
        raise ConfigError(
            f"{where}: found {kinds or list(value)}, expected exactly one of int, float, choices"
        )
    kind = kinds[0]
    if kind == "choices":
        for extra in ("log", "step"):
            if extra in value:
                raise ConfigError(
                    f"{where}.{extra}: found beside choices, expected beside a range only"
                )
        return Dimension(key, "choices", choices=_choices(value, where), index=index)
    log, step = value.get("log", False), value.get("step", 1)
    if not isinstance(log, bool):
        raise ConfigError(f"{where}.log: found {log!r}, expected true or false")
    if (
        isinstance(step, bool)
        or not isinstance(step, int)
        or step < 1
        or (kind == "float" and "step" in value)
    ):
        raise ConfigError(
            f"{where}.step: found {step!r}, expected a whole number of at least 1, for an int "
            "range only"
        )
    if log and step != 1:
        raise ConfigError(f"{where}: found log and step together, expected one of them")
    low, high = _ends(value[kind], kind, where)
    if log and low <= 0:
        raise ConfigError(f"{where}: found a log range from {low}, expected it to start above 0")
    if kind == "int":
        high = int(high) - int(high - low) % step  # the last value that the steps reach
    return Dimension(key, kind, low=low, high=high, step=step, log=log, index=index)


def _choices(value: Mapping[str, Any], where: str) -> tuple[Choice, ...]:
    choices = value["choices"]
    if not isinstance(choices, list) or not choices:
        raise ConfigError(
            f"{where}.choices: found {choices!r}, expected a list with at least one entry"
        )
    for choice in choices:
        if isinstance(choice, bool) or not isinstance(choice, str | int | float):
            raise ConfigError(f"{where}.choices: found {choice!r}, expected numbers or words")
        _no_number_as_text(choice, f"{where}.choices")
    if len(set(choices)) != len(choices):
        raise ConfigError(f"{where}.choices: found {choices}, expected no entry twice")
    return tuple(choices)


def _ends(ends: Any, kind: str, where: str) -> tuple[float, float]:
    types: tuple[type, ...] = (int,) if kind == "int" else (int, float)
    if not isinstance(ends, list) or len(ends) != 2:
        raise ConfigError(f"{where}.{kind}: found {ends!r}, expected [low, high]")
    for end in ends:
        if isinstance(end, str):
            _no_number_as_text(end, f"{where}.{kind}")
        is_number = isinstance(end, types) and not isinstance(end, bool)
        if not is_number or not abs(end) <= sys.float_info.max:
            raise ConfigError(f"{where}.{kind}: found {end!r}, expected a finite {kind}")
    if ends[0] > ends[1]:
        raise ConfigError(f"{where}.{kind}: found {ends}, expected the low end first")
    return (ends[0], ends[1]) if kind == "int" else (float(ends[0]), float(ends[1]))


def _no_number_as_text(value: Choice, where: str) -> Choice:
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
