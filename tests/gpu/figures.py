"""The figures of a GPU in the documentation, from ``reports/reference``.

python -m tests.gpu.figures                write the documentation's tables anew
python -m tests.gpu.figures --take OUT     first take what card.sh left in OUT into the reports
"""

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.figures import REPORTS, ROOT, Tables, number, table, write

PAGES = (ROOT / "docs/kernel.md", ROOT / "docs/scaling.md")
SPACES = {"fashion search": "fashion_sgld", "digits search": "digits_sgld"}
"""What each search of ``card.sh`` searches."""
_TOLD = re.compile(r"phase \d|: all \d+ in|population took|^ *[\d.]+ +Trial ")
"""Lines of a search's log that are kept."""
_TRAINED = re.compile(r"students: all \d+ in ([\d.]+) s")

WAYS = {
    "kernel": "**two launches**",
    "padded": "batched products of students padded by depth, one Adam, one graph",
    "kernel, graph": "the products of `fused_mlp.py` in a graph",
    "a graph each": "a graph for each student, on four streams",
    "vmap, compiled": "`vmap` of padded stacks, compiled, in a graph",
    "foreach": "`torch._foreach_mm`, in a graph",
    "loop": "loop over students",
}
CONVOLUTIONS = {
    "kernel": "**students in turn, one graph**",
    "padded": "grouped convolutions of students padded by kernel size, one graph",
}
TILES = {
    "walk": "**`tf32x3`, 64 x 32**",
    "walk, 32 x 32": "`tf32x3`, 32 x 32",
    "walk, ieee 32 x 32": "float32, 32 x 32",
    "walk, ieee": "float32, 64 x 32",
}


def _steps(family: str, ways: Mapping[str, str], report: Mapping[str, Any]) -> str:
    """Milliseconds a step of each way, by population."""
    populations = [p for p in report["populations"] if _is_of(family, p["population"])]
    populations.sort(key=lambda p: (p["population"].startswith("equal"), p["students"]))
    head = ["way"]
    for population in populations:
        name = population["population"]
        head.append("equal" if name.startswith("equal") else " ".join(reversed(name.split())))

    rows = []
    for way, label in ways.items():
        if any(way in population["ms"] for population in populations):
            rows.append([label, *(_median(population, way) for population in populations)])
    least = [number(population["roofline"]["least_ms"]) for population in populations]
    if not populations:
        return "Not measured yet.\n"
    return table(head, [*rows, ["least", *least]])


def _is_of(family: str, name: str) -> bool:
    return name.startswith("cnn") == (family == "cnn")


def _median(population: Mapping[str, Any], way: str) -> str:
    ms = population["ms"].get(way)
    return "" if ms is None else number(ms[1])


def steps(report: Mapping[str, Any]) -> str:
    """Of students that are chains of dense layers."""
    return _steps("mlp", WAYS, report)


def convolutions(report: Mapping[str, Any]) -> str:
    """Of convolutional students."""
    return _steps("cnn", CONVOLUTIONS, report)


def chains(report: Mapping[str, Any]) -> str:
    """Milliseconds a step of all chains of a teacher, by tile and number of chains."""
    ms = {(row["side"], row["chains"]): row["ms a step"] for row in report["rows"]}
    nums = sorted({num for side, num in ms if side in TILES})
    rows = []
    for side, label in TILES.items():
        rows.append([label, *(number(ms[side, num]) if (side, num) in ms else "" for num in nums)])
    head = [f"{num} chains" if num == nums[0] else str(num) for num in nums]
    return table(["products, tile", *head], rows)


def searches(report: Mapping[str, Any]) -> str:
    """Searches end to end."""
    rows = []
    for part in report["parts"]:
        if "finished" not in part["status"]:
            continue
        trained = [float(seconds) for line in part["log"] for seconds in _TRAINED.findall(line)]
        end = "the report" if any("phase 5" in line for line in part["log"]) else "the time limit"
        rows.append(
            [
                f"`{part['space']}`",
                f"{part['status']['finished']:,}",
                f"{part['seconds']:.0f}",
                f"{sum(trained):.1f}",
                ", ".join(filter(None, [end, part.get("note")])),
            ]
        )
    return table(["space", "trials", "seconds", "of them training", "until"], rows)


TABLES: Tables = {
    "steps": ("kernel-cuda.json", steps),
    "convolutions": ("kernel-cuda.json", convolutions),
    "chains": ("teacher-cuda.json", chains),
    "searches": ("searches-cuda.json", searches),
}


# -------------------------------------------------------------------------------------------------
# from a run of card.sh


def take(out: Path, reports: Path = REPORTS) -> None:
    """Take a run's results into the reports: what it measured replaces what it measured again.

    Args:
        out: what ``card.sh`` wrote.
        reports: where the reports lie.
    """
    card = json.loads((out / "card.json").read_text())
    for part in card["parts"]:
        results = part["results"]
        if results.get("kernel-cuda.json"):
            _merge_kernel(reports / "kernel-cuda.json", results["kernel-cuda.json"])
        if results.get("teacher-cuda.json"):
            _write(reports / "teacher-cuda.json", results["teacher-cuda.json"])
    _merge_searches(reports / "searches-cuda.json", card, (out / "card.log").read_text())


def _merge_kernel(path: Path, measured: Mapping[str, Any]) -> None:
    report = json.loads(path.read_text())
    rows = {row["population"]: row for row in report["populations"]}
    rows |= {row["population"]: row for row in measured["populations"]}
    _write(path, {"hardware": measured["hardware"], "populations": list(rows.values())})


def _merge_searches(path: Path, card: Mapping[str, Any], log: str) -> None:
    report = json.loads(path.read_text())
    parts = {part["name"]: part for part in report["parts"]}
    sections = re.split(r"^===== (.*?): .*$", log, flags=re.MULTILINE)[1:]
    lines_of = dict(zip(sections[::2], sections[1::2], strict=True))
    for part in card["parts"]:
        if part["name"] not in SPACES or part["state"] == "skipped":
            continue
        lines = [line.strip() for line in lines_of[part["name"]].splitlines()]
        parts[part["name"]] = {
            "name": part["name"],
            "space": SPACES[part["name"]],
            "state": part["state"],
            "seconds": part["seconds"],
            "status": part["results"].get("status") or {},
            "log": [line[:160] for line in lines if _TOLD.search(line)],
        }
    _write(path, {"hardware": report["hardware"], "parts": list(parts.values())})


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def main() -> None:
    """Write the documentation."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--take", type=Path, help="what card.sh wrote")
    args = parser.parse_args()
    if args.take is not None:
        take(args.take)
    write(PAGES, TABLES)


if __name__ == "__main__":
    main()
