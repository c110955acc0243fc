"""What ``card.sh`` measured, as a text for people."""

from collections.abc import Mapping
from typing import Any

MUST = {"mlp 8": 3.2, "mlp 32": 2.8, "mlp 128": 2.6, "mlp 256": 2.4, "equal 128": 1.05}
"""How many times faster than its rival a step must be: padded products, or today's graph for equal
students."""


def table_of(told: Mapping[str, Any]) -> str:
    """The parts, then the kernel's sides where they were measured."""
    lines = ["part             state     seconds  remark"]
    for part in told["parts"]:
        remark = part["reason"] or _remark(part)
        lines.append(f"{part['name']:16} {part['state']:9} {part['seconds']:7.1f}  {remark}")
    lines += ["", *told.get("missing packages", []), *told.get("unfit", [])]

    for part in told["parts"]:
        kernel = part["results"].get("kernel-cuda.json") or {}
        for row in kernel.get("populations", []):
            lines += ["", *_sides(row)]
    return "\n".join(lines) + "\n"


def _remark(part: Mapping[str, Any]) -> str:
    """How far a search came; the last line of others."""
    status = part["results"].get("status")
    if isinstance(status, Mapping):
        shown = [f"{key} {value}" for key, value in status.items() if not isinstance(value, dict)]
        return ", ".join(shown)[:120]
    lines = [line for line in part["results"].get("last lines", []) if line.strip()]
    return lines[-1][:120] if lines else ""


def _sides(row: Mapping[str, Any]) -> list[str]:
    """Milliseconds a step of each side of a population."""
    name, ms = row["population"], row["ms"]
    lines = [f"{name}: least {row['roofline']['least_ms']:.3f} ms a step"]
    for side, (_, median, _) in ms.items():
        lines.append(f"  {side:16} {median:9.3f} ms  {median / ms['kernel'][1]:7.2f}x")

    rival = "kernel, graph" if name.startswith("equal") else "padded"
    if name in MUST and rival in ms:
        ratio = ms[rival][1] / ms["kernel"][1]
        word = "met" if ratio >= MUST[name] else "missed"
        lines.append(f"  {word}: {ratio:.2f}x of {rival}, expected {MUST[name]}x")
    lines += [f"  {side}: left out, {why}" for side, why in row["left out"].items()]
    return lines
