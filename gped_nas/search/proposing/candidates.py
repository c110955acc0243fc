"""Genotypes that may be proposed: all of a small finite space, else random ones and variations."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gped_nas.models.base import Genotype
from gped_nas.models.pruning import STORAGE_DTYPES
from gped_nas.search.dimensions import Choice
from gped_nas.search.space import SearchSpace

DTYPE = "storage_dtype"
Key = tuple[tuple[str, Any], ...]
"""What a training follows from: see ``key_of``."""
_MOST_LISTED = 1024
"""Genotypes of a finite space up to which all of them are candidates."""
_TRIES = 20
"""Draws a candidate that is new, at most, before there are too few."""
_STEP = 0.15
"""Standard deviation of a variation of a number, as a share of its range."""


@dataclass(frozen=True)
class Candidate:
    """A genotype that may be proposed.

    Attributes:
        params: Optuna's parameters that give it.
        genotype: what they give.
    """

    params: Mapping[str, Choice]
    genotype: Genotype


class Drawing:
    """A trial whose values are drawn at random, or near those of another; keeps what it gave.

    Args:
        generator: draws.
        near: parameters whose values are kept, but for one.
        varied: the one that is not, which is drawn near its value where it is a number, else anew;
            parameters that ``near`` lacks are drawn.
        fixed: values of parameters that are not drawn.
    """

    def __init__(
        self,
        generator: np.random.Generator,
        near: Mapping[str, Choice] | None = None,
        varied: str | None = None,
        fixed: Mapping[str, Choice] | None = None,
    ) -> None:
        self.params: dict[str, Choice] = {}
        self._fixed = fixed or {}
        self._generator = generator
        self._near = near or {}
        self._varied = varied

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        """A whole number of a range."""
        start, end = (math.log(low - 0.5), math.log(high + 0.5)) if log else (low, high + step)
        if self._is_kept(name):
            return int(self._keep(name, self._near[name]))

        drawn = self._uniform(name, start, end, log)
        whole = round(math.exp(drawn)) if log else low + math.floor((drawn - low) / step) * step
        return int(self._keep(name, min(max(whole, low), high)))

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        """A number of a range."""
        if self._is_kept(name):
            return float(self._keep(name, self._near[name]))

        start, end = (math.log(low), math.log(high)) if log else (low, high)
        drawn = self._uniform(name, start, end, log)
        value = math.exp(drawn) if log else drawn
        return float(self._keep(name, min(max(value, low), high)))

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of several values."""
        if name in self._fixed:
            return self._keep(name, self._fixed[name])
        if self._is_kept(name):
            return self._keep(name, self._near[name])
        return self._keep(name, choices[int(self._generator.integers(len(choices)))])

    def _is_kept(self, name: str) -> bool:
        return name in self._near and name != self._varied

    def _keep(self, name: str, value: Any) -> Any:
        self.params[name] = value
        return value

    def _uniform(self, name: str, start: float, end: float, log: bool) -> float:
        """A number of a range, or near the one that is varied."""
        if name not in self._near:
            return float(self._generator.uniform(start, end))
        value = float(self._near[name])
        center = math.log(value) if log else value
        drawn = self._generator.normal(center, _STEP * (end - start))
        return float(min(max(drawn, start), math.nextafter(end, start)))


class Candidates:
    """Makes candidates of a space, none of which was trained.

    Args:
        space: where they are from.
        known: what was trained, is in training, or need not be.
        generator: draws.
    """

    def __init__(
        self, space: SearchSpace, known: Iterable[Key], generator: np.random.Generator
    ) -> None:
        self._space = space
        self._generator = generator
        self._taken = set(known)
        self._cheapest = cheapest_dtypes(space)

    @property
    def are_listed(self) -> bool:
        """Whether the space is finite and small, so that ``listed`` gives all there are."""
        return self._space.is_finite and self._space.num_genotypes <= _MOST_LISTED

    def listed(self) -> list[Candidate]:
        """All genotypes of a finite space that are new."""
        return self.new(self._space.enumerate())

    def new(self, listed: Iterable[Mapping[str, Choice]]) -> list[Candidate]:
        """Those of some parameters whose genotypes are new, each training once."""
        candidates = []
        for params in listed:
            cheapest = {name: self._cheapest[name] for name in params if name in self._cheapest}
            cheap = {**params, **cheapest}
            candidates += self._take(cheap, self._space.genotype_of(cheap))
        return candidates

    def drawn(self, num: int) -> list[Candidate]:
        """Up to ``num`` random genotypes; fewer where the space has hardly more."""
        candidates: list[Candidate] = []
        for _ in range(num * _TRIES):
            if len(candidates) == num:
                break
            candidates += self._draw({}, None)
        return candidates

    def varied(self, around: Sequence[Mapping[str, Choice]], num: int) -> list[Candidate]:
        """Up to ``num`` genotypes that differ from one of some in one parameter."""
        candidates: list[Candidate] = []
        for i in range(num if around else 0):
            near = around[i % len(around)]
            names = [name for name in near if name not in self._cheapest]
            if names:
                varied = names[int(self._generator.integers(len(names)))]
                candidates += self._draw(near, varied)
        return candidates

    def _draw(self, near: Mapping[str, Choice], varied: str | None) -> list[Candidate]:
        drawing = Drawing(self._generator, near, varied, self._cheapest)
        genotype = self._space.draw(drawing)
        return self._take(drawing.params, genotype)

    def _take(self, params: Mapping[str, Choice], genotype: Genotype) -> list[Candidate]:
        """The candidate in a list; none where it was trained or taken before."""
        key = key_of(genotype.to_json(), self._space)
        if key in self._taken:
            return []
        self._taken.add(key)
        return [Candidate(params, genotype)]


def key_of(genotype: Mapping[str, Any], space: SearchSpace) -> Key:
    """The same for genotypes that one training answers, and for no others.

    Args:
        genotype: as ``Genotype.to_json`` gives it.
        space: says whether a training answers for all storage types.
    """
    entries = []
    for name in sorted(genotype):
        if name == DTYPE and space.search.every_dtype:
            continue
        value = genotype[name]
        entries.append((name, tuple(value) if isinstance(value, list) else value))
    return tuple(entries)


def cheapest_dtypes(space: SearchSpace) -> dict[str, str]:
    """By the parameter that draws a storage type, the one of the fewest bytes that it may be.

    Every student is told in all of them, and none costs quality that a search could see: int8
    costs .00007 nats. So students are judged in this one. None where each type is a training.
    """
    if not space.search.every_dtype:
        return {}
    cheapest = {}
    for student in space.students:
        for dimension in student.dimensions:
            if dimension.key == DTYPE and dimension.kind == "choices":
                places = [STORAGE_DTYPES.index(str(choice)) for choice in dimension.choices]
                cheapest[f"{student.prefix}{DTYPE}"] = STORAGE_DTYPES[max(places)]
    return cheapest


def random_genotypes(space: SearchSpace, num: int, seed: int) -> list[Genotype]:
    """Random genotypes of a space, with repeats."""
    generator = np.random.default_rng(seed)
    return [space.draw(Drawing(generator)) for _ in range(num)]
