"""How people read genotypes and costs: words alone, without what builds networks."""

from collections.abc import Mapping
from typing import Any

COSTS: dict[str, str] = {
    "macs": "MACs",
    "flops": "FLOPs",
    "params": "parameters",
    "storage_bytes": "storage (bytes)",
}
"""Name to label of every cost; all are minimized."""


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


def value_text(value: Any) -> str:
    """One value of a genotype: those of a list joined by dashes, a float to three digits."""
    if isinstance(value, list | tuple):
        return "-".join(map(str, value)) or "none"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
