"""Dimensions of a search space: ranges of genotype values, to draw from and to list."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gped_nas.errors import ConfigError
from gped_nas.models.base import FAMILIES, Genotype

Choice = str | int | float
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
        times: numbers of a per-layer list, one a layer, that what is drawn multiplies; none where
            it is the value itself.
    """

    key: str
    kind: str
    low: float = 0
    high: float = 0
    step: int = 1
    log: bool = False
    choices: tuple[Choice, ...] = ()
    index: int | None = None
    times: tuple[int, ...] = ()

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

    def value(self, drawn: Choice) -> Any:
        """What a genotype has where this was drawn: itself, or one rounded number a layer."""
        if not self.times:
            return drawn
        return [max(1, math.floor(base * float(drawn) + 0.5)) for base in self.times]

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
                drawn = dimension.suggest(trial, self.prefix)
                values[dimension.key] = dimension.value(drawn)
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
                values[dimension.key] = dimension.value(choices[dimension.name])
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
