"""What an answer must be: the region S of the question whether a network maps a set T into it.

A region is said in words, which a box file has under ``safe``:

* ``class is A``, ``class is A or B``: the answer is one of these classes.
* ``class is never A``, ``class is never A or B``: it is none of them.
* ``mean <= 5``, ``3 <= mean <= 7``, ``std <= 2``: of a real label, in its own unit.
* ``mean <= 3 or mean >= 7``: one of several is enough.

Several lines must hold together. A region is therefore a conjunction of clauses, and a clause is a
disjunction of atoms. An atom is a number that the answer gives, which is above zero where it holds.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from gped_nas.data.normalization import Normalization
from gped_nas.errors import ConfigError, listed, nearest

Quantity = Literal["mean", "std"]
QUANTITIES: tuple[Quantity, ...] = ("mean", "std")
_CLASS = re.compile(r"class\s+is\s+(?P<names>.+)", re.DOTALL)
_NEVER = "never "
_OR = re.compile(r"\s+or\s+")
_COMPARED = re.compile(r"\s*(<=|>=|<|>|==|=)\s*")


@dataclass(frozen=True)
class Lead:
    """By how much one class leads another, in log-probability.

    Attributes:
        winner, other: their numbers.
    """

    winner: int
    other: int


@dataclass(frozen=True)
class Limit:
    """How far a quantity is on the right side of a number.

    Attributes:
        quantity: of the label.
        sign: 1 where it must not be below the number, -1 where it must not be above.
        number: in the label's own unit.
    """

    quantity: Quantity
    sign: int
    number: float

    def of(self, value: Tensor) -> Tensor:
        """The atom's number, of the quantity in the label's own unit."""
        return self.sign * (value - self.number)


Atom = Lead | Limit
Clause = tuple[Atom, ...]


@dataclass(frozen=True)
class Region:
    """The answers that are safe.

    Attributes:
        text: in words.
        clauses: all must hold; one holds where one of its atoms is above zero.
    """

    text: str
    clauses: tuple[Clause, ...]

    @property
    def atoms(self) -> tuple[Atom, ...]:
        """All of them, clause by clause: R."""
        return tuple(atom for clause in self.clauses for atom in clause)

    def clearance(self, values_BR: Tensor) -> Tensor:
        """How far the worst clause is from failing, (B,): below zero is outside.

        Of lower bounds of the atoms it is a lower bound.

        Args:
            values_BR: the atoms' numbers.
        """
        worst = []
        start = 0
        for clause in self.clauses:
            stop = start + len(clause)
            worst.append(values_BR[:, start:stop].amax(1))
            start = stop
        return torch.stack(worst, 1).amin(1)


def parse_region(texts: Sequence[str], class_names: Sequence[str], where: str) -> Region:
    """The region that lines of text describe.

    Args:
        texts: the lines, which must hold together.
        class_names: in label order; none where labels are real numbers.
        where: file and key, for messages.

    Raises:
        ConfigError: a line says nothing that can be asked of such labels.
    """
    clauses: list[Clause] = []
    for text in texts:
        if class_names:
            clauses += _of_classes(text.strip(), class_names, where)
        else:
            clauses += _of_limits(text.strip(), where)
    _check_not_empty(clauses, where)
    return Region(" and ".join(text.strip() for text in texts), tuple(clauses))


def stays(number: int, class_names: Sequence[str]) -> Region:
    """The region of answers that are one class."""
    name = class_names[number]
    return Region(f"class is {name}", _one_of({number}, len(class_names)))


# ------------------------------------------------------------------------------------- classes


def _of_classes(text: str, class_names: Sequence[str], where: str) -> tuple[Clause, ...]:
    match = _CLASS.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"{where}: found '{text}', expected 'class is NAME' or 'class is never NAME'; the "
            f"classes are: {listed(list(class_names))}"
        )
    names = match["names"].strip()
    is_never = names.startswith(_NEVER) and names not in class_names
    if is_never:
        names = names.removeprefix(_NEVER).strip()

    numbers = {_number_of(name, class_names, where) for name in _names(names, class_names)}
    if is_never:
        numbers = set(range(len(class_names))) - numbers
    if not numbers or len(numbers) == len(class_names):
        kind = "no" if not numbers else "every"
        raise ConfigError(
            f"{where}: found '{text}', which {kind} answer is; name some of the classes and not all"
        )
    return _one_of(numbers, len(class_names))


def _names(text: str, class_names: Sequence[str]) -> list[str]:
    """The names apart by ``or``; a class may have that word in its own name."""
    return [text] if text in class_names else _OR.split(text)


def _number_of(name: str, class_names: Sequence[str], where: str) -> int:
    name = name.strip().strip("'\"")
    if name not in class_names:
        raise ConfigError(f"{where}: found the class '{name}'{nearest(name, class_names)}")
    return list(class_names).index(name)


def _one_of(numbers: set[int], num_classes: int) -> tuple[Clause, ...]:
    """Clauses of an answer that is one of these classes: against each other one, one of them."""
    clauses = []
    for other in range(num_classes):
        if other not in numbers:
            clauses.append(tuple(Lead(winner, other) for winner in sorted(numbers)))
    return tuple(clauses)


# ---------------------------------------------------------------------------------- real labels


def _of_limits(text: str, where: str) -> list[Clause]:
    """Clauses of a line: what is apart by ``or`` is a conjunction of limits each."""
    alternatives = [_limits(part, text, where) for part in _OR.split(text)]
    # (a and b) or c = (a or c) and (b or c)
    return [tuple(clause) for clause in product(*alternatives)]


def _limits(part: str, text: str, where: str) -> list[Limit]:
    """The limits of ``mean <= 5``, ``5 >= mean`` or ``3 <= mean <= 7``."""
    words = _COMPARED.split(part.strip())
    names, marks = words[::2], words[1::2]
    places = [place for place, name in enumerate(names) if name in QUANTITIES]
    is_chain = 2 <= len(names) <= 3 and len(set(marks)) == 1 and len(places) == 1
    is_between = len(names) == 2 or places == [1]
    if not is_chain or not is_between:
        raise _misread(text, where)
    if marks[0] not in ("<=", ">="):
        raise ConfigError(
            f"{where}: found '{text}', expected <= or >=: a bound with its end has the same "
            f"certificate; write <= or >= for '{marks[0]}'"
        )

    (place,) = places
    quantity: Quantity = "mean" if names[place] == "mean" else "std"
    # the quantity is above what stands before it where the marks are <=
    above_before = 1 if marks[0] == "<=" else -1
    limits = []
    for other, name in enumerate(names):
        if other != place:
            sign = above_before if other < place else -above_before
            limits.append(Limit(quantity, sign, _finite(name, text, where)))
    return limits


def _check_not_empty(clauses: Sequence[Clause], where: str) -> None:
    """Refuse limits that no number keeps.

    Raises:
        ConfigError: a quantity must be above a number and below a smaller one.
    """
    for quantity in QUANTITIES:
        lows, highs = [-torch.inf], [torch.inf]
        for first, *others in clauses:
            if others or not isinstance(first, Limit):
                continue
            if first.quantity == quantity:
                (lows if first.sign == 1 else highs).append(first.number)
        if max(lows) > min(highs):
            raise ConfigError(
                f"{where}: found {quantity} above {max(lows):g} and below {min(highs):g}, which no "
                "number is; swap the bounds, or join what may hold alone by 'or'"
            )


def _finite(name: str, text: str, where: str) -> float:
    try:
        number = float(name)
    except ValueError:
        raise _misread(text, where) from None
    if not -torch.inf < number < torch.inf:
        raise ConfigError(f"{where}: found '{text}', expected finite numbers; write a bound")
    return number


def _misread(text: str, where: str) -> ConfigError:
    return ConfigError(
        f"{where}: found '{text}', expected a bound of mean or std in the label's own unit; write "
        "'mean <= 5' or '3 <= mean <= 7', for example"
    )


# ------------------------------------------------------------------- what an answer says of atoms


def values_of_answers(
    region: Region, answers_BG: Tensor, unit: Normalization | None = None
) -> Tensor:
    """The atoms' numbers (B, R), float64, of what a network answered.

    Args:
        region: whose atoms.
        answers_BG: log-probabilities, or mean and variance in the label's normalized unit.
        unit: of real labels; None for classes.
    """
    answers = answers_BG.double()
    values = []
    for atom in region.atoms:
        if isinstance(atom, Lead):
            values.append(answers[:, atom.winner] - answers[:, atom.other])
        else:
            assert unit is not None, "labels are real"
            values.append(atom.of(quantity_of(atom.quantity, answers, unit)))
    return torch.stack(values, 1)


def quantity_of(quantity: Quantity, answers_B2: Tensor, unit: Normalization) -> Tensor:
    """A quantity in the label's own unit, (B,), of mean and variance in its normalized one."""
    mean, variance = answers_B2.unbind(-1)
    return mean * unit.std + unit.mean if quantity == "mean" else variance.sqrt() * unit.std
