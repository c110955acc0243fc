"""How people read genotypes and costs: words alone, without what builds networks."""

from collections.abc import Mapping
from typing import Any

COUNTED_COSTS: dict[str, str] = {
    "macs": "MACs",
    "flops": "FLOPs",
    "params": "parameters",
    "storage_bytes": "storage (bytes)",
}
"""Name to label of the costs that follow from a genotype, on whatever machine."""

TIMED_COSTS: dict[str, str] = {
    "latency_ms": "latency (ms)",
    "latency_p95_ms": "latency, 95th percentile (ms)",
}
"""Name to label of the costs that one machine has, and that are measured where they are asked for:
the median time of a call, and its 95th percentile."""

COSTS: dict[str, str] = {**COUNTED_COSTS, **TIMED_COSTS}
"""Name to label of every cost; all are minimized."""


CLOSE_TO_BUDGET = 0.98
"""Share of a budget from which on a network is close enough to it."""


def budget_text(budget: Mapping[str, Any], num_dead: int) -> str:
    """How a student lies under its budget, for people: ``macs 19,800 of 20,000``.

    Args:
        budget: ``cost``, ``most``, ``reached``; of bytes the ``dtype`` that they are counted in.
        num_dead: units that were removed.
    """
    as_stored = f" as {budget['dtype']}" if budget.get("dtype") else ""
    text = f"{budget['cost']}{as_stored} {budget['reached']:,} of {budget['most']:,}"
    if num_dead == 0:
        return f"{text}: nothing is removed"
    if budget["reached"] < CLOSE_TO_BUDGET * budget["most"]:
        return f"{text}: the nearest below that its units allow"
    return text


def genotype_text(values: Mapping[str, Any]) -> str:
    """A genotype on one line, its family first; a penalty of zero is left out.

    Args:
        values: ``family`` and the genotype's values, as plain data or not:
            ``mlp(depth=2, width=8-4)``.
    """
    parts = []
    for name, value in values.items():
        is_off = name == "group_penalty" and value == 0
        if name != "family" and not is_off:
            parts.append(f"{name}={value_text(value)}")
    return f"{values.get('family', 'student')}({', '.join(parts)})"


def short_genotype(values: Mapping[str, Any], most: int = 24) -> str:
    """A genotype in few words, for tables: ``mlp 64-32 int8``.

    The widths and how weights are stored come first. Numbers of layers that a list shows, what is
    off, and floats (penalties) are left out, and at the end what is too long.

    Args:
        values: as in ``genotype_text``.
        most: characters.
    """
    lengths = {len(value) for value in values.values() if isinstance(value, list | tuple)}
    first = {name: values[name] for name in ("width", "storage_dtype") if name in values}

    text = str(values.get("family", "student"))
    for name, value in {**first, **values}.items():
        is_length = "depth" in name and isinstance(value, int) and value in lengths
        if name == "family" or is_length or isinstance(value, float) or not value:
            continue
        word = _short_value(name, value)
        if len(text) + len(word) + 1 > most:
            return f"{text} \u2026"
        text += f" {word}"
    return text


def _short_value(name: str, value: Any) -> str:
    """A value with its name, unless it says by itself what it is: widths, a text."""
    if value is True:
        return name
    if isinstance(value, list | tuple):
        is_uniform = len(set(value)) == 1
        if name != "width":
            return f"{name} {value_text(value[0] if is_uniform else value)}"
        return f"{len(value)}x{value[0]}" if is_uniform and len(value) > 3 else value_text(value)
    if name.startswith("prune_to_"):
        return f"\u2264{value:,} {name.removeprefix('prune_to_').replace('_', ' ')}"
    return value if isinstance(value, str) else f"{name} {value}"


def value_text(value: Any) -> str:
    """One value of a genotype: those of a list joined by dashes, a float to three digits."""
    if isinstance(value, list | tuple):
        return "-".join(map(str, value)) or "none"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
