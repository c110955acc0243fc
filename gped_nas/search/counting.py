"""How many genotypes a finite space holds, without listing them.

Once it is known how many layers there are, every other range acts by itself: it sets some places of
a genotype, or none where its layer is not there. The genotypes of a number of layers are then a
product, here a ``_Box``, and a space is a union of boxes. For example, two layers of 3 and 4 widths
and a storage type of 2 are a box of 3 * 4 * 2 genotypes. Two boxes overlap where their places are
the same and their values meet, so that a union is counted by inclusion and exclusion.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gped_nas.models.base import FAMILIES, Genotype
from gped_nas.search.dimensions import Choice, Dimension, Fixed, StudentSpace

Place = tuple[str, int]
"""A genotype value, and the layer in it; -1 for a value that is no list."""
_Places = dict[Place, Any]


@dataclass(frozen=True)
class _Box:
    """Genotypes whose places take their values independently, but for those that go together.

    Attributes:
        family: of all of them.
        parts: places that always have the same value, and the values that they can have.
    """

    family: str
    parts: tuple[tuple[frozenset[Place], frozenset[Any]], ...]

    @property
    def size(self) -> int:
        """How many genotypes it holds."""
        return math.prod(len(values) for _, values in self.parts)

    def meet(self, other: "_Box") -> "_Box | None":
        """The genotypes that are in both; None where there are none."""
        is_alike = self.family == other.family and self._places() == other._places()
        if not is_alike:
            return None

        merged: list[tuple[frozenset[Place], frozenset[Any]]] = list(self.parts)
        for places, values in other.parts:
            apart = []
            for tied_places, tied_values in merged:
                if tied_places & places:
                    places |= tied_places
                    values &= tied_values
                else:
                    apart.append((tied_places, tied_values))
            merged = [*apart, (places, values)]
        return _Box(self.family, tuple(merged)) if all(values for _, values in merged) else None

    def _places(self) -> frozenset[Place]:
        return frozenset().union(*(places for places, _ in self.parts))


def count_genotypes(students: Sequence[StudentSpace]) -> int:
    """How many different genotypes are in finite ranges of students, those in two counted once."""
    has_multipliers = any(d.times for student in students for d in student.dimensions)
    if has_multipliers and len(students) > 1:
        # lists and their entries are different places, which boxes cannot compare
        seen: set[Genotype] = set()
        return sum(1 for student in students for _ in student.enumerate(seen))
    return _count_union([box for student in students for box in _boxes_of(student)])


def _count_union(boxes: Sequence[_Box]) -> int:
    """How many genotypes are in at least one of the boxes."""
    total = 0
    for i, box in enumerate(boxes):
        shared = [box.meet(earlier) for earlier in boxes[:i]]
        total += box.size - _count_union([overlap for overlap in shared if overlap is not None])
    return total


def _boxes_of(student: StudentSpace) -> Iterable[_Box]:
    """The genotypes of one family's ranges, a box for each number of layers."""
    free = [dimension for dimension in student.dimensions if dimension.kind != "fixed"]
    first = {dimension.name: _values(dimension)[0] for dimension in free}
    deciding = [dimension for dimension in free if _decides(student, dimension, first)]
    others = [dimension for dimension in free if dimension not in deciding]

    for numbers in itertools.product(*(dict.fromkeys(_values(d)) for d in deciding)):
        chosen = {d.name: number for d, number in zip(deciding, numbers, strict=True)}
        yield _box_around(student, first | chosen, others)


def _decides(student: StudentSpace, dimension: Dimension, first: dict[str, Choice]) -> bool:
    """Whether a range says which layers, or other places, there are."""
    if dimension.index is None and dimension.key in FAMILIES[student.family].counts.values():
        return True
    ends = (first, {**first, dimension.name: _values(dimension)[-1]})
    return len({frozenset(_places_of(student, drawn)) for drawn in ends}) > 1


def _box_around(
    student: StudentSpace, drawn: dict[str, Choice], others: Sequence[Dimension]
) -> _Box:
    """The box that ``others`` span around one genotype."""
    fixed = _places_of(student, drawn)
    parts = []
    for dimension in others:
        values = _values(dimension)
        # The entries of an int range all differ, so that its ends tell; choices may be alike.
        is_itself = dimension.kind == "int" and not dimension.times
        tried = (values[0], values[-1]) if is_itself else values
        results = [_places_of(student, {**drawn, dimension.name: value}) for value in tried]
        places = frozenset(
            place for place in fixed if len({result[place] for result in results}) > 1
        )
        if not places:
            continue

        some_place = next(iter(places))
        taken = values if is_itself else [result[some_place] for result in results]
        parts.append((places, frozenset(taken)))

    moved = frozenset().union(*(places for places, _ in parts))
    parts += [
        (frozenset([place]), frozenset([value]))
        for place, value in fixed.items()
        if place not in moved
    ]
    return _Box(student.family, tuple(parts))


def _places_of(student: StudentSpace, drawn: dict[str, Choice]) -> _Places:
    """Every place of a genotype with its value; each entry of a list is one."""
    params = {student.prefix + name: value for name, value in drawn.items()}
    genotype: Genotype = student.draw(Fixed(params))
    # entries that one number multiplies differ from each other: their list is one place
    multiplied = {dimension.key for dimension in student.dimensions if dimension.times}
    places: _Places = {}
    for name, value in genotype.values:
        if isinstance(value, tuple) and name not in multiplied:
            places |= {(name, i): entry for i, entry in enumerate(value)}
        else:
            places[name, -1] = value
    return places


def _values(dimension: Dimension) -> tuple[Choice, ...]:
    values = dimension.finite()
    assert values, "a float range is not counted"
    return values
