"""Small drawings that need no script: they are there before one runs, on paper, and where none may
run.

All text is escaped; colors that follow the color scheme are classes of ``style.css``.
"""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from markupsafe import Markup

from gped_nas.models.base import value_text
from gped_nas.report import words
from gped_nas.report.records import Data


def element(name: str, *content: str, **attributes: object) -> str:
    """One element; ``class_`` and ``stroke_width`` are written ``class`` and ``stroke-width``."""
    given = "".join(
        f' {key.strip("_").replace("_", "-")}="{html.escape(_text(v))}"'
        for key, v in attributes.items()
    )
    return f"<{name}{given}>{''.join(content)}</{name}>" if content else f"<{name}{given}/>"


def drawing(
    width: int,
    height: int,
    label: str,
    parts: Iterable[str],
    class_: str = "",
    role: Literal["img", "group"] = "img",
) -> Markup:
    """A picture with its description; a ``group`` where parts of it are links."""
    inside = [element("title", html.escape(label)), *parts]
    box = f"0 0 {width} {height}"
    return Markup(
        element(
            "svg", *inside, class_=f"drawing {class_}".strip(), viewBox=box, role=role, width=width
        )
    )


def text(x: float, y: float, content: str, **attributes: object) -> str:
    """A line of text; ``content`` is untrusted."""
    return element("text", words.drawn(content, 40), x=x, y=y, **attributes)


def _text(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


# ----------------------------------------------------------------------------------------------------
# one student


def layers(card: Data) -> Markup:
    """Units of each layer as bars: what was drawn in outline, what pruning left filled."""
    rows = card["layers"]
    first = (rows[0]["before"] or rows[0]["after"])["inputs"]
    sizes = [("input", first, first)]
    sizes += [
        (r["layer"], *((r[side] or {"outputs": 0})["outputs"] for side in ("before", "after")))
        for r in rows
    ]
    shown = sizes if len(sizes) <= 12 else [*sizes[:6], *sizes[-6:]]
    largest = max(max(before, after) for _, before, after in shown) or 1
    step, height, base = 74, 96, 112
    parts = []
    for i, (name, before, after) in enumerate(shown):
        x = 12 + i * step
        if i:
            parts.append(
                element(
                    "path", d=f"M{x - step + 34} {base - height / 2}H{x - 4}", class_="quiet-line"
                )
            )
        for units, class_ in ((before, "before"), (after, "after")):
            tall = max(height * math.sqrt(units / largest), 2 if units else 0)
            top = base - height / 2 - tall / 2
            parts.append(element("rect", x=x, y=top, width=30, height=tall, rx=2, class_=class_))
        change = str(after) if before == after else f"{before} → {after}"
        parts.append(
            text(x + 15, base + 16, change if units or before else "removed", text_anchor="middle")
        )
        parts.append(
            text(x + 15, base + 31, words.cut(name, 11), text_anchor="middle", class_="quiet")
        )
    label = "Units of each layer: " + ", ".join(
        f"{name} {before} to {after}" for name, before, after in shown
    )
    return drawing(24 + step * len(shown), 152, label, parts, "layers")


def reliability(card: Data, teacher: Sequence[Mapping[str, Any]]) -> Markup:
    """Accuracy against confidence, student and teacher; larger marks hold more examples."""
    plot = _Plot((0.0, 1.0), (0.0, 1.0), across="confidence", up="accuracy")
    parts = [
        *plot.frame(),
        element("path", d=f"M{plot.at(0, 0)}L{plot.at(1, 1)}", class_="diagonal"),
    ]
    if teacher:
        parts += _bins(plot, teacher, "teacher")
    parts += _bins(plot, card["reliability"], "student")
    return plot.drawing(f"Reliability of trial {card['trial']}", parts)


def _bins(plot: "_Plot", bins: Sequence[Mapping[str, Any]], who: str) -> Iterable[str]:
    largest = max(row["count"] for row in bins)
    points = [(row["confidence"], row["accuracy"], row["count"]) for row in bins]
    yield element(
        "path", d="M" + "L".join(plot.at(x, y) for x, y, _ in points), class_=f"line {who}"
    )
    for x, y, count in points:
        size = 2 + 4 * math.sqrt(count / largest)
        yield _mark(plot.x(x), plot.y(y), size, who)


def _mark(x: float, y: float, size: float, who: str) -> str:
    """A circle for the student, a diamond for the teacher."""
    if who == "student":
        return element("circle", cx=x, cy=y, r=size, class_=f"mark {who}")
    s = size * 1.2
    return element(
        "path",
        d=f"M{x:.5g} {y - s:.5g}l{s:.4g} {s:.4g}l{-s:.4g} {s:.4g}l{-s:.4g} {-s:.4g}z",
        class_=f"mark {who}",
    )


def spread(card: Data) -> Markup:
    """How unsure the student is of each example against how unsure the teacher is."""
    found = card["spread"]
    values = [v for side in ("student", "teacher") for v in found[side]]
    top = max(values) * 1.04 or 1.0
    low = 0.96 * min(values) if min(values) > top / 2 else 0.0
    plot = _Plot((low, top), (low, top), across="teacher", up="student")
    dots = "".join(
        f"M{plot.at(x, y)}h0" for x, y in zip(found["teacher"], found["student"], strict=True)
    )
    parts = [
        *plot.frame(),
        element("path", d=f"M{plot.at(low, low)}L{plot.at(top, top)}", class_="diagonal"),
    ]
    return plot.drawing(
        f"{found['quantity']} of trial {card['trial']} against the teacher's",
        [*parts, element("path", d=dots, class_="dots")],
    )


class _Plot:
    """A small square plot with linear axes."""

    left, top, side, width, height = 52, 8, 196, 258, 242

    def __init__(
        self, xs: tuple[float, float], ys: tuple[float, float], *, across: str, up: str
    ) -> None:
        self.xs, self.ys, self.across, self.up = xs, ys, across, up

    def x(self, value: float) -> float:
        return round(self.left + self.side * (value - self.xs[0]) / (self.xs[1] - self.xs[0]), 1)

    def y(self, value: float) -> float:
        return round(
            self.top + self.side * (1 - (value - self.ys[0]) / (self.ys[1] - self.ys[0])), 1
        )

    def at(self, x: float, y: float) -> str:
        return f"{self.x(x):g} {self.y(y):g}"

    def frame(self) -> Iterable[str]:
        bottom, right = self.top + self.side, self.left + self.side
        yield element("path", d=f"M{self.left} {self.top}V{bottom}H{right}", class_="axis")
        for i in range(3):
            x, y = (low + (high - low) * i / 2 for low, high in (self.xs, self.ys))
            yield text(
                self.x(x), bottom + 15, f"{x:.2g}", text_anchor=("start", "middle", "end")[i]
            )
            yield text(self.left - 5, self.y(y) + 4, f"{y:.2g}", text_anchor="end")
        yield text(
            self.left + self.side / 2,
            bottom + 31,
            self.across,
            text_anchor="middle",
            class_="quiet",
        )
        middle = f"rotate(-90 11 {self.top + self.side / 2:g})"
        yield text(
            11,
            self.top + self.side / 2,
            self.up,
            text_anchor="middle",
            transform=middle,
            class_="quiet",
        )

    def drawing(self, label: str, parts: Iterable[str]) -> Markup:
        return drawing(self.width, self.height, label, parts, "plot")


# ----------------------------------------------------------------------------------------------------
# one study


def front(data: Data, across: Data, up: Data) -> Markup:
    """The first front as a still picture: what there is before a script draws the live one."""
    rows = [r for r in data["records"] if r["state"] == "complete"]
    sources = [("reference", r) for r in data["references"]]
    sources += [("front" if r["on_front"] else "dominated", r) for r in rows]
    points = [(kind, row, *(_value(row, axis) for axis in (across, up))) for kind, row in sources]
    points = [p for p in points if p[2] is not None and p[3] is not None]
    if not points:
        return Markup("")
    scale_x, scale_y = (
        _Scale([p[i] for p in points], axis["log"] and min(p[i] for p in points) > 0)
        for i, axis in ((2, across), (3, up))
    )
    left, top, wide, high = 62, 12, 620, 320

    def at(x: float, y: float) -> tuple[float, float]:
        return round(left + wide * scale_x(x), 1), round(top + high * (1 - scale_y(y)), 1)

    parts = [element("path", d=f"M{left} {top}V{top + high}H{left + wide}", class_="axis")]
    for value in scale_x.ticks:
        parts.append(
            text(
                at(value, scale_y.low)[0], top + high + 17, words.short(value), text_anchor="middle"
            )
        )
    for value in scale_y.ticks:
        parts.append(
            text(left - 6, at(scale_x.low, value)[1] + 4, words.short(value), text_anchor="end")
        )
    parts.append(
        text(
            left + wide / 2, top + high + 37, across["label"], text_anchor="middle", class_="quiet"
        )
    )
    for kind, row, x, y in sorted(
        points, key=lambda p: ("dominated", "reference", "front").index(p[0])
    ):
        px, py = at(x, y)
        if kind == "dominated":
            parts.append(element("path", d=f"M{px} {py - 4}l4 4l-4 4l-4 -4z", class_="mark near"))
        elif kind == "front":
            parts.append(element("circle", cx=px, cy=py, r=4.5, class_="mark student"))
        else:
            parts.append(
                element("path", d=f"M{px - 6} {py}h12M{px} {py - 6}v12", class_="mark-line")
            )
            parts.append(
                text(
                    px,
                    py - 10,
                    row["label"],
                    text_anchor="end" if px > left + wide / 2 else "start",
                    class_="quiet",
                )
            )
        if row.get("chosen"):
            parts.append(element("circle", cx=px, cy=py, r=9.5, class_="ring"))
    label = (
        f"{up['label']} (up) against {across['label']} (across); the ring marks the chosen student"
    )
    return drawing(left + wide + 14, top + high + 48, label, parts, "still")


class _Scale:
    """Values to [0, 1] of an axis, linear or logarithmic, with a little room at both ends."""

    def __init__(self, values: Sequence[float], is_log: bool) -> None:
        self.is_log = is_log
        low, high = self._of(min(values)), self._of(max(values))
        room = 0.04 * (high - low) or 0.5
        self._low, self._span = low - room, high - low + 2 * room
        self.low = 10**self._low if is_log else self._low
        self.ticks = self._ticks(low, high)

    def _of(self, value: float) -> float:
        return math.log10(value) if self.is_log else value

    def __call__(self, value: float) -> float:
        return (self._of(value) - self._low) / self._span

    def _ticks(self, low: float, high: float) -> list[float]:
        if self.is_log:
            powers = range(math.ceil(low), math.floor(high) + 1)
            return [10.0**p for p in powers] or [10**low, 10**high]
        step = 10 ** math.floor(math.log10((high - low) or 1))
        step *= next(f for f in (0.2, 0.5, 1, 2) if (high - low) / (step * f) <= 6)
        first = math.ceil(low / step)
        return [round((first + i) * step, 10) for i in range(int(high / step) - first + 1)]


def _value(row: Data, axis: Data) -> float | None:
    value = {**row["costs"], **row["metrics"]}.get(axis["name"])
    return value if value is not None and (axis["kind"] == "metric" or value > 0) else None


def parallel(data: Data) -> Markup:
    """Settings and objectives of the front and of the layer behind it, one line a student."""
    shown = [r for r in data["records"] if r["trial"] in {*data["front"], *data["near"]}]
    columns = _columns(data, shown)
    if len(shown) < 2 or len(columns) < 2:
        return Markup("")
    step, top, tall = max(96, min(150, 1040 // len(columns))), 40, 230
    parts = []
    for i, column in enumerate(columns):
        x = 56 + i * step
        parts.append(element("path", d=f"M{x} {top}V{top + tall}", class_="axis"))
        parts.append(text(x, top - 22, words.cut(column["label"], 17), text_anchor="middle"))
        for place, tick in column["ticks"]:
            parts.append(
                text(x + 5, top + tall * (1 - place) + 4, words.cut(tick, 11), class_="quiet halo")
            )
    for row in sorted(shown, key=lambda r: (r["chosen"], r["on_front"])):
        places = [
            (56 + i * step, column["places"].get(row["trial"])) for i, column in enumerate(columns)
        ]
        line = "L".join(f"{x} {top + tall * (1 - p):.1f}" for x, p in places if p is not None)
        class_ = "chosen" if row["chosen"] else "front" if row["on_front"] else "behind"
        title = element(
            "title", html.escape(words.cut(f"trial {row['trial']}: {row['genotype']}", 160))
        )
        path = element("path", title, d=f"M{line}", class_=f"strand {class_}")
        parts.append(
            element("a", path, href=f"#student-{row['trial']}") if row["on_front"] else path
        )
    label = f"Settings and objectives of {len(shown)} students, one line each"
    return drawing(
        56 + step * (len(columns) - 1) + 80, top + tall + 24, label, parts, "parallel", "group"
    )


def _columns(data: Data, shown: Sequence[Data]) -> list[Data]:
    settings = list(dict.fromkeys(key for row in shown for key in row["settings"]))
    columns = [
        _column(key, {r["trial"]: r["settings"].get(key) for r in shown}, is_log=False)
        for key in settings
    ]
    for axis in data["objectives"]:
        values = {r["trial"]: _value(r, axis) for r in shown}
        columns.append(_column(axis["label"], values, is_log=axis["log"]))
    return [column for column in columns if column][:12]


def _column(label: str, values: Mapping[int, Any], *, is_log: bool) -> Data | None:
    """One axis: where each trial is on it; None if nothing varies or there are too many kinds of
    text.
    """
    known = {trial: _number(value) for trial, value in values.items() if value is not None}
    if all(isinstance(value, float) for value in known.values()):
        if len(set(known.values())) < 2:
            return None
        wide = min(known.values()) > 0 and max(known.values()) > 50 * min(known.values())
        scale = _Scale(list(known.values()), wide or (is_log and min(known.values()) > 0))
        ends = (min(known.values()), max(known.values()))
        ticks = [(scale(v), f"{v:.3g}" if v < 1000 else words.short(v)) for v in ends]
        return {"label": label, "places": {t: scale(v) for t, v in known.items()}, "ticks": ticks}
    kinds = sorted({str(value) for value in known.values()})
    if not 2 <= len(kinds) <= 8:
        return None
    place = {kind: i / (len(kinds) - 1) for i, kind in enumerate(kinds)}
    places = {t: place[str(v)] for t, v in known.items()}
    return {"label": label, "places": places, "ticks": [(place[kind], kind) for kind in kinds]}


def _number(value: Any) -> Any:
    """A setting as a number where it is one; of a list of equal numbers the number they share, else
    their mean.
    """
    if isinstance(value, list) and value and all(isinstance(v, int | float) for v in value):
        return float(sum(value) / len(value))
    return (
        float(value)
        if isinstance(value, int | float) and not isinstance(value, bool)
        else value_text(value)
    )
