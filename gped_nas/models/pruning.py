"""How a genotype says that it is pruned, by these of its values.

* ``group_penalty``: weight of the group lasso; 0, the default, prunes nothing.
* ``prune_to_macs``: the network is pruned to at most so many multiply-adds; ``prune_to_flops`` and
  ``prune_to_params`` likewise.
* ``prune_to_int8_bytes``: to a file of at most so many bytes if weights are stored as int8, however
  these are; ``prune_to_float16_bytes`` and ``prune_to_float32_bytes`` likewise.
* ``prune_criterion``: how units are ranked that a budget removes. ``group_lasso``, the default, is
  by the penalty that removes them, ``magnitude`` by the length of their weights.
* ``prune_exempt``: layers that keep all their units: ``first``, ``last``, or names joined by "+".
* ``prune_at``: share of the training before pruning; the recipe's where it is absent.

A budget finds the penalty itself, so that a genotype has one of the two.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gped_nas.errors import ConfigError, nearest

STORAGE_DTYPES = ("float32", "float16", "int8")

PRUNE_TO = "prune_to"
CRITERIA = ("group_lasso", "magnitude")
NO_LAYER = "none"
ENDS = ("first", "last")
_JOINT = "+"


@dataclass(frozen=True)
class Budget:
    """What a network may cost.

    Attributes:
        cost: name of the cost, such as ``macs``.
        most: the largest value that it may have.
        dtype: how weights are stored where the cost is ``storage_bytes``; None of other costs.
    """

    cost: str
    most: int
    dtype: str | None = None

    def __str__(self) -> str:
        as_stored = f" as {self.dtype}" if self.dtype else ""
        return f"{self.cost} {self.most}{as_stored}"


BUDGETS: dict[str, tuple[str, str | None]] = {
    "prune_to_macs": ("macs", None),
    "prune_to_flops": ("flops", None),
    "prune_to_params": ("params", None),
    **{f"prune_to_{dtype}_bytes": ("storage_bytes", dtype) for dtype in STORAGE_DTYPES},
}
"""Cost and storage type by the genotype value that is a budget of it."""

PRUNING_VALUES = ("group_penalty", *BUDGETS, "prune_criterion", "prune_exempt", "prune_at")


def budget_value(cost: object, dtype: str, where: str = PRUNE_TO) -> str:
    """The genotype value that is a budget of a cost.

    Args:
        cost: its name.
        dtype: how weights are stored, for bytes.
        where: what names the cost, for messages.

    Raises:
        ConfigError: no network can be pruned to such a cost.
    """
    for value, (name, stored) in BUDGETS.items():
        if name == cost and stored in (None, dtype):
            return value
    costs = tuple(dict.fromkeys(name for name, _ in BUDGETS.values()))
    raise ConfigError(
        f"{where}: found {cost!r}, which no network is pruned to{nearest(cost, costs)}"
    )


def take_pruning(values: dict[str, Any]) -> dict[str, float | int | str]:
    """The values of pruning among a genotype's, checked; those that change nothing are left out.

    Args:
        values: of a genotype; what is returned is taken out of them.

    Raises:
        ConfigError: one is impossible, or two of them exclude each other.
    """
    penalty = _check_penalty(values.pop("group_penalty", 0.0))
    taken: dict[str, float | int | str] = {"group_penalty": penalty}

    budgets = {name: values.pop(name) for name in BUDGETS if name in values}
    if len(budgets) > 1:
        raise ConfigError(f"{PRUNE_TO}: found {', '.join(budgets)}, expected one budget")
    for name, most in budgets.items():
        taken[name] = _check_budget(name, most)
        if penalty:
            raise ConfigError(
                f"{PRUNE_TO}: found {name} beside group_penalty {penalty:g}, which a budget finds "
                "itself, expected one of them; leave the other out"
            )

    criterion = values.pop("prune_criterion", CRITERIA[0])
    if criterion not in CRITERIA:
        raise ConfigError(
            f"prune_criterion: found {criterion!r}, expected one of {', '.join(CRITERIA)}"
        )
    if criterion != CRITERIA[0]:
        if not budgets:
            raise ConfigError(
                f"prune_criterion: found {criterion} without {PRUNE_TO}, which says how many units "
                f"it removes, expected both; add {PRUNE_TO}, for example {{macs: 20000}}"
            )
        taken["prune_criterion"] = criterion

    exempt = _check_exempt(values.pop("prune_exempt", NO_LAYER))
    if exempt != NO_LAYER and (penalty or budgets):
        taken["prune_exempt"] = exempt

    if "prune_at" in values:
        taken["prune_at"] = _check_share(values.pop("prune_at"))
    return taken


def budget_in(values: Mapping[str, Any]) -> Budget | None:
    """The budget among a genotype's values; None where it has none."""
    for name, (cost, dtype) in BUDGETS.items():
        if name in values:
            return Budget(cost, values[name], dtype)
    return None


def exempt_words(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The layers that a genotype's values exempt: ``first``, ``last``, or their names."""
    return tuple(word for word in str(values.get("prune_exempt", "")).split(_JOINT) if word)


def join_layers(layers: list[str]) -> str:
    """The value of ``prune_exempt`` for these layers."""
    return _JOINT.join(layers) or NO_LAYER


def is_named(layer: str, word: str) -> bool:
    """Whether a word names a layer, or what it is part of: ``layers.1`` names ``layers.1.0``."""
    return layer == word or layer.startswith(f"{word}.")


def _check_penalty(penalty: Any) -> float:
    is_number = isinstance(penalty, int | float) and not isinstance(penalty, bool)
    if not is_number or not 0 <= penalty <= sys.float_info.max:
        raise ConfigError(
            f"group_penalty: found {penalty!r}, expected a finite number of at least 0"
        )
    return float(penalty)


def _check_budget(name: str, most: Any) -> int:
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise ConfigError(f"{name}: found {most!r}, expected a whole number of at least 1")
    return most


def _check_exempt(exempt: Any) -> str:
    words = exempt.split(_JOINT) if isinstance(exempt, str) else []
    if not words or not all(word.strip() == word and word for word in words):
        raise ConfigError(
            f"prune_exempt: found {exempt!r}, expected {NO_LAYER}, {', '.join(ENDS)}, or names of "
            f"layers joined by '{_JOINT}'"
        )
    if NO_LAYER in words and len(words) > 1:
        raise ConfigError(f"prune_exempt: found {exempt!r}, expected {NO_LAYER} alone, or layers")
    return join_layers(list(dict.fromkeys(words)))


def _check_share(share: Any) -> float:
    is_number = isinstance(share, int | float) and not isinstance(share, bool)
    if not is_number or not 0 < share < 1:
        raise ConfigError(f"prune_at: found {share!r}, expected a number between 0 and 1")
    return float(share)
