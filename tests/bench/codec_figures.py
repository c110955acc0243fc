"""Tables and the picture of codecs, of ``reports/reference/codec_*.json``.

python -m tests.bench.codec_figures     write them into the documentation
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gped_nas.api.coding_rows import STREAM
from gped_nas.report.svg import drawing, element, text
from tests.bench.bench_codec_tasks import ALL_ROUNDS, OWN
from tests.bench.bench_kept import over_seeds
from tests.bench.kept_figures import cell, digits_of
from tests.figures import REPORTS, ROOT, Tables, table, write

PAGES = (ROOT / "docs/codec.md",)
PICTURE = ROOT / "docs/pictures/codecs.svg"
Report = Mapping[str, Any]

CASES = {
    "small": "digits, 1,210 weights",
    "digits": "digits, 26,122 weights",
    "fashion": "Fashion-MNIST, 478,410 weights",
}
"""Reports, by the order of panels, and what each is called."""
SHOWN = (
    *("energy_to_read", "energy", "average_kl", "information_ratio"),
    *("ood_auroc_model", "draw_nll_difference"),
)
RIVALS = {
    "energy_to_read": "energy distance, nats",
    "average_kl_to_read": "KL of averages, nats",
    "information_ratio": "mutual information, off by",
}
"""Measures by which codes are told apart, all beside the samples that were read."""
_SLACK = 1.1
"""A code of so many networks' bytes has a little for its file, and a flow for its network."""


def codes(report: Report) -> str:
    """A row a code, from the smallest one: means, and half of their intervals."""
    by_code = _by_code(report)
    rows = []
    for name, means in sorted(by_code.items(), key=lambda item: item[1]["energy"]["bytes"]):
        size = f"{means['energy']['bytes'] / 1000:,.0f}"
        rows.append([name, size, *(cell(_figure(means[metric])) for metric in SHOWN)])
    return table(["code", "kB", *(f"`{metric}`" for metric in SHOWN)], rows)


def _by_code(report: Report) -> dict[str, dict[str, Mapping[str, Any]]]:
    by_code: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in report["means"]:
        by_code.setdefault(row["predictor"], {})[row["metric"]] = row
    return by_code


def _figure(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return None if row["value"] is None else {**row, "mean": row["value"]}


@dataclass(frozen=True)
class Winner:
    """The best code of at most so many bytes.

    Attributes:
        name: its own.
        value: its mean loss.
        others: codes whose loss, paired by seed, cannot be told from its own.
    """

    name: str
    value: float
    others: Sequence[str]


def winner(report: Report, metric: str, most_bytes: float) -> Winner | None:
    """Who loses least within a size, on average over seeds; None where there is no code."""
    losses = {}
    for name, means in _by_code(report).items():
        if name != STREAM and means[metric]["bytes"] <= most_bytes:
            losses[name] = losses_of(report, name, metric)
    if not losses:
        return None

    best = min(losses, key=lambda name: sum(losses[name]))
    others = []
    for name, values in losses.items():
        pairs = zip(values, losses[best], strict=True)
        difference = over_seeds([mine - least for mine, least in pairs])
        if name != best and difference["low"] <= 0:
            others.append(name)
    return Winner(best, sum(losses[best]) / len(losses[best]), others)


def losses_of(report: Report, name: str, metric: str) -> list[float]:
    """Of each seed: a distance, or by which share mutual information is off."""
    values: list[float] = report["values"][name][metric]
    if metric != "information_ratio":
        return values
    whole = report["values"][STREAM][metric]
    return [abs(mine / all_of_it - 1) for mine, all_of_it in zip(values, whole, strict=True)]


def winners(cases: Mapping[str, Report]) -> str:
    """A row a case and size: who loses least."""
    rows = []
    for name, report in cases.items():
        sizes = [4, 12, 24 if name == "fashion" else 40]
        network = _by_code(report)[STREAM]["energy"]["bytes"] / _num_read(report)
        for size in sizes:
            cells = []
            for metric in RIVALS:
                best = winner(report, metric, size * network * _SLACK)
                cells.append("" if best is None else _said(best))
            rows.append([CASES[name], f"{size}", *cells])
    return table(["case", "networks", *RIVALS.values()], rows)


def _num_read(report: Report) -> int:
    return next(row["n"] for row in report["means"] if row["predictor"] == STREAM)


def _said(best: Winner) -> str:
    num = len(best.others)
    return f"{best.name}: {digits_of(best.value)}" + (f" (and {num})" if num else "")


def runs(cases: Mapping[str, Report]) -> str:
    """A row a case and kind of draws: how many p-values, the smallest, and those below .05."""
    rows = []
    for name, report in cases.items():
        by_codec: dict[str, list[float]] = {}
        for code, means in _by_code(report).items():
            values = report["values"][code].get("runs_p", [])
            by_codec.setdefault(means["energy"]["codec"], []).extend(values)
        for codec, values in by_codec.items():
            if values:
                num_small = sum(value < 0.05 for value in values)
                middle = sorted(values)[len(values) // 2]
                line = [f"{len(values)}", digits_of(min(values)), digits_of(middle)]
                rows.append([CASES[name], codec, *line, f"{num_small}"])
    head = ["case", "draws of", "p-values", "smallest", "median", "below .05"]
    return table(head, rows)


TASKS = {
    ("ood:permuted", "ood_auroc_model", "permuted"): "permuted pixels, AUROC by mutual information",
    ("ood:permuted", "ood_auroc_total", "permuted"): "the same by entropy",
    ("ood:noise", "ood_auroc_model", "noise"): "noise, by mutual information",
    ("ood:rotated", "ood_auroc_model", "rotated"): "rotated digits, by mutual information",
    ("ood:rotated", "ood_auroc_total", "rotated"): "the same by entropy",
    ("active:bald", "accuracy", ALL_ROUNDS): "labels bought by BALD, accuracy, mean of rounds",
    ("active:bald", "accuracy", "100-labels"): "the same with 100 labels",
    ("active:random", "accuracy", ALL_ROUNDS): "labels drawn, accuracy, mean of rounds",
    ("active:random", "accuracy", "100-labels"): "the same with 100 labels",
    ("transfer:quick", "accuracy", "map"): "inputs found for an ordinary network, accuracy",
    ("transfer:quick", "accuracy", "teacher"): "inputs found for the average itself, accuracy",
    ("prediction", "accuracy", "clean"): "no attack, accuracy",
    ("prediction", "nll", "clean"): "no attack, NLL",
}
"""Lines of the tables of tasks: task, metric and what is asked, and how each is called."""


def tasks(*grids: str) -> Callable[[Report], str]:
    """A table of some grids: a row a line, own's mean, and how far each method is from it."""

    def made(report: Report) -> str:
        measured = [report["reports"][name] for name in grids if name in report["reports"]]
        by_line = {}
        for grid in measured:
            for line in grid["lines"]:
                by_line[line["task"], line["metric"], line["asked"]] = line
        if not by_line:
            return "Not measured yet.\n"

        methods: dict[str, None] = {}
        for name in grids:
            for method in report["grids"][name]["methods"][1:]:
                methods |= dict.fromkeys(method)
        rows = []
        for key, label in TASKS.items():
            if key in by_line:
                line = by_line[key]
                differences = [difference(line, method) for method in methods]
                rows.append([label, cell(line["methods"][OWN]), *differences])
        return table(["what", "samples as they are", *methods], rows)

    return made


def difference(line: Mapping[str, Any], method: str) -> str:
    """``-.015 ± .047``; bold where the interval holds no 0, empty where there is none."""
    figure = line["methods"].get(method, {}).get("minus own")
    if not figure:
        return ""
    shown = cell(figure).replace("-.0000 ", ".0000 ")
    return f"**{shown}**" if figure["low"] * figure["high"] > 0 else shown


LEFT, TOP, PANEL, GAP, TALL, BELOW = 48, 46, 250, 46, 190, 60
COLORS = {
    "subset": "#1f6fb4",
    "quantized": "#9a5b00",
    "quantized of subset": "#6a3d9a",
    "low_rank": "#2a8a4a",
    "flow": "#c0392b",
    "gan": "#d48806",
    "apd": "#555555",
}
"""Of codecs, in the order of the legend."""
ROWS = {
    "energy": ("distance from the held-out chain", False),
    "energy_to_read": ("distance from what was read", True),
}
"""Measures, from the upper row of panels on: what is said of them, whether in powers of ten."""
_LEAST = 0.01
"""Nats below which a distance is drawn as that: it is an estimate, and may be below 0."""


@dataclass(frozen=True)
class Panel:
    """Where a case's points stand.

    Attributes:
        x, y: of the upper left corner.
        ends: powers of ten of bytes.
        limits: of the measure.
        is_log: whether the measure is in powers of ten.
    """

    x: float
    y: float
    ends: tuple[float, float]
    limits: tuple[float, float]
    is_log: bool

    def across(self, num_bytes: float) -> float:
        """Pixels of a size."""
        low, high = self.ends
        return round(self.x + (math.log10(num_bytes) - low) / (high - low) * PANEL, 1)

    def up(self, value: float) -> float:
        """Pixels of a distance."""
        low, high = self.limits
        if self.is_log:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, low))
        return round(self.y + TALL - (value - low) / (high - low) * TALL, 1)


def picture(cases: Mapping[str, Report]) -> str:
    """Bytes against distance, a panel a case and measure; the floor is that of two real chains."""
    width = LEFT + len(cases) * PANEL + (len(cases) - 1) * GAP + 20
    height = TOP + len(ROWS) * (TALL + BELOW) + 24
    parts = [element("rect", width=width, height=height, fill="white")]
    for row, metric in enumerate(ROWS):
        for column, name in enumerate(cases):
            panel = _panel(cases[name], metric, row, column)
            parts += _frame(panel, CASES[name] if row == 0 else "")
            parts += _points(panel, cases[name], metric)
        parts.append(text(LEFT, TOP + row * (TALL + BELOW) - 8, f"{ROWS[metric][0]} (nats)"))
    parts += _legend(height - 14)
    label = "Codecs: bytes across, energy distance up; dashed is how far apart two real chains are"
    svg = str(drawing(width, height, label, parts))
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" font-size="11" ', 1) + "\n"


def _panel(report: Report, metric: str, row: int, column: int) -> Panel:
    rows = [line for line in report["means"] if line["metric"] == metric]
    sizes = [line["bytes"] for line in rows]
    is_log = ROWS[metric][1]
    most = max(line["value"] for line in rows)
    return Panel(
        x=LEFT + column * (PANEL + GAP),
        y=TOP + row * (TALL + BELOW),
        ends=(math.log10(min(sizes)) - 0.1, math.log10(max(sizes)) + 0.1),
        limits=(_LEAST, 10 ** math.ceil(math.log10(most))) if is_log else (0.0, 1.1 * most),
        is_log=is_log,
    )


def _frame(panel: Panel, title: str) -> list[str]:
    """Lines and numbers of both axes."""
    parts = []
    for size in _sizes(panel):
        x = panel.across(size)
        parts.append(element("line", x1=x, x2=x, y1=panel.y, y2=panel.y + TALL, stroke="#ddd"))
        parts.append(text(x, panel.y + TALL + 14, _size(size), text_anchor="middle"))
    for value in _ticks(panel):
        y = panel.up(value)
        parts.append(element("line", x1=panel.x, x2=panel.x + PANEL, y1=y, y2=y, stroke="#ddd"))
        parts.append(text(panel.x - 6, y + 4, f"{value:g}", text_anchor="end"))
    if title:
        parts.append(text(panel.x + PANEL / 2, 16, title, text_anchor="middle"))
    return parts


def _sizes(panel: Panel) -> list[int]:
    """1, 2 and 5 of each power of ten within a panel; where there are many, powers alone."""
    low, high = panel.ends
    steps = (1, 2, 5) if high - low < 2 else (1,)
    sizes = [step * 10**power for power in range(math.floor(low), 10) for step in steps]
    return [size for size in sizes if low <= math.log10(size) <= high]


def _ticks(panel: Panel) -> list[float]:
    low, high = panel.limits
    if panel.is_log:
        return [10.0**power for power in range(round(math.log10(low)), round(math.log10(high)) + 1)]
    step = 10 ** math.floor(math.log10(high))
    step = step / 2 if high / step < 3 else step
    return [step * number for number in range(math.floor(high / step) + 1)]


def _size(num_bytes: int) -> str:
    return f"{num_bytes // 10**6} MB" if num_bytes >= 10**6 else f"{num_bytes // 1000} kB"


def _points(panel: Panel, report: Report, metric: str) -> list[str]:
    """The floor, and a line a codec through its sizes."""
    rows = [line for line in report["means"] if line["metric"] == metric]
    parts = []
    for stream in [line for line in rows if line["codec"] == STREAM and not panel.is_log]:
        y = panel.up(stream["value"])
        ends = {"x1": panel.x, "x2": panel.x + PANEL}
        parts.append(element("line", **ends, y1=y, y2=y, stroke="#222", stroke_dasharray="5 4"))
    for codec, color in COLORS.items():
        lines = sorted(
            (line for line in rows if line["codec"] == codec), key=lambda line: line["bytes"]
        )
        places = [(panel.across(line["bytes"]), panel.up(line["value"])) for line in lines]
        drawn = " ".join(f"{x},{y}" for x, y in places)
        parts.append(element("polyline", points=drawn, fill="none", stroke=color))
        parts += [element("circle", cx=x, cy=y, r=4, fill=color) for x, y in places]
    return parts


def _legend(y: float) -> list[str]:
    parts, x = [], float(LEFT)
    for codec, color in COLORS.items():
        parts.append(element("circle", cx=x, cy=y - 4, r=4, fill=color))
        parts.append(text(x + 9, y, codec))
        x += 40 + 6.2 * len(codec)
    ends = {"x1": x, "x2": x + 24, "y1": y - 4, "y2": y - 4}
    parts.append(element("line", **ends, stroke="#222", stroke_dasharray="5 4"))
    parts.append(text(x + 30, y, "two real chains"))
    return parts


def read() -> dict[str, Report]:
    """The reports that are there, by case."""
    paths = {name: REPORTS / f"codec_{name}.json" for name in CASES}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def of_all(make: Callable[[Mapping[str, Report]], str]) -> Callable[[Report], str]:
    """A table of all cases."""
    return lambda report: make(read())


TABLES: Tables = {
    **{f"codecs {name}": (f"codec_{name}.json", codes) for name in CASES},
    "codec tasks digits": ("codec_tasks.json", tasks("digits", "digits transfer")),
    "codec tasks small": ("codec_tasks.json", tasks("small", "small transfer")),
    "codec tasks active": ("codec_tasks.json", tasks("small active", "small active random")),
    "codec winners": ("codec_small.json", of_all(winners)),
    "codec runs": ("codec_small.json", of_all(runs)),
}


if __name__ == "__main__":
    write(PAGES, TABLES)
    PICTURE.write_text(picture(read()))
