"""Small drawings that need no script: there before one runs, on paper, and where none may run.

All text is escaped; colors that follow the color scheme are classes of ``style.css``.
"""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup

from gped_nas.models.labels import value_text
from gped_nas.report import words
from gped_nas.report.records import Data, drawable_value, place_of


def element(name: str, *content: str, **attributes: object) -> str:
    """One element; ``class_`` and ``stroke_width`` are written ``class`` and ``stroke-width``."""
    start = name
    for key, value in attributes.items():
        written_key = key.strip("_").replace("_", "-")
        start += f' {written_key}="{html.escape(_format(value))}"'
    if not content:
        return f"<{start}/>"
    return f"<{start}>{''.join(content)}</{name}>"


def drawing(
    width: int,
    height: int,
    label: str,
    parts: Iterable[str],
    class_: str = "",
    role: Literal["img", "group"] = "img",
) -> Markup:
    """A picture with its description.

    Args:
        width, height: pixels.
        label: the description; untrusted.
        parts: elements.
        class_: a class of ``style.css``.
        role: ``group`` where parts of it are links.
    """
    picture = element(
        "svg",
        element("title", html.escape(label)),
        *parts,
        class_=f"drawing {class_}".strip(),
        viewBox=f"0 0 {width} {height}",
        role=role,
        width=width,
    )
    return Markup(picture)


def text(x: float, y: float, content: str, **attributes: object) -> str:
    """A line of text; ``content`` is untrusted."""
    return element("text", words.drawn(content, 40), x=x, y=y, **attributes)


def _format(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


# --- one student ------------------------------------------------------------------------------


MAX_LAYERS = 12
"""Layers that are drawn; of more the middle is left out."""


def layers(card: Data) -> Markup:
    """Units of each layer as bars: what was drawn in outline, what pruning left filled."""
    sizes = _layer_sizes(card["layers"])
    if len(sizes) > MAX_LAYERS:
        half = MAX_LAYERS // 2
        sizes = [*sizes[:half], *sizes[-half:]]
    largest = max(max(before, after) for _, before, after in sizes) or 1

    step, height, base = 74, 96, 112
    middle = base - height / 2
    parts = []
    for i, (name, before, after) in enumerate(sizes):
        x = 12 + i * step
        if i:
            link = f"M{x - step + 34} {middle}H{x - 4}"
            parts.append(element("path", d=link, class_="quiet-line"))

        for units, class_ in ((before, "before"), (after, "after")):
            # areas, not heights, go with the units; one unit of many stays visible
            bar = max(height * math.sqrt(units / largest), 2 if units else 0)
            top = middle - bar / 2
            parts.append(element("rect", x=x, y=top, width=30, height=bar, rx=2, class_=class_))

        caption = _describe_change(before, after)
        short_name = words.cut(name, 11)
        parts.append(text(x + 15, base + 16, caption, text_anchor="middle"))
        parts.append(text(x + 15, base + 31, short_name, text_anchor="middle", class_="quiet"))

    changes = ", ".join(f"{name} {before} to {after}" for name, before, after in sizes)
    width = 24 + step * len(sizes)
    return drawing(width, 152, f"Units of each layer: {changes}", parts, "layers")


def _layer_sizes(rows: Sequence[Data]) -> list[tuple[str, int, int]]:
    """Name and units before and after pruning, of the input and of each layer."""
    num_inputs = (rows[0]["before"] or rows[0]["after"])["inputs"]
    sizes = [("input", num_inputs, num_inputs)]
    for row in rows:
        before, after = (size["outputs"] if size else 0 for size in (row["before"], row["after"]))
        sizes.append((row["layer"], before, after))
    return sizes


def _describe_change(before: int, after: int) -> str:
    if not before and not after:
        return "removed"
    return str(after) if before == after else f"{before} → {after}"


def reliability(card: Data, teacher: Sequence[Mapping[str, Any]]) -> Markup:
    """Accuracy against confidence, student and teacher; larger marks hold more examples."""
    plot = _Plot((0.0, 1.0), (0.0, 1.0), across="confidence", up="accuracy")
    diagonal = f"M{plot.at(0, 0)}L{plot.at(1, 1)}"
    parts = [*plot.frame(), element("path", d=diagonal, class_="diagonal")]
    if teacher:
        parts += _bins(plot, teacher, "teacher")
    parts += _bins(plot, card["reliability"], "student")
    return plot.drawing(f"Reliability of trial {card['trial']}", parts)


def _bins(plot: "_Plot", bins: Sequence[Mapping[str, Any]], who: str) -> Iterable[str]:
    line = "L".join(plot.at(row["confidence"], row["accuracy"]) for row in bins)
    yield element("path", d=f"M{line}", class_=f"line {who}")

    largest = max(row["count"] for row in bins)
    for row in bins:
        size = 2 + 4 * math.sqrt(row["count"] / largest)
        yield _mark(plot.x(row["confidence"]), plot.y(row["accuracy"]), size, who)


def _mark(x: float, y: float, size: float, who: str) -> str:
    """A circle for the student, a diamond for the teacher."""
    if who == "student":
        return element("circle", cx=x, cy=y, r=size, class_=f"mark {who}")
    s = size * 1.2
    diamond = f"M{x:.5g} {y - s:.5g}l{s:.4g} {s:.4g}l{-s:.4g} {s:.4g}l{-s:.4g} {-s:.4g}z"
    return element("path", d=diamond, class_=f"mark {who}")


def spread(card: Data) -> Markup:
    """How unsure the student is of each example against how unsure the teacher is."""
    quantity = card["spread"]["quantity"]
    teacher, student = card["spread"]["teacher"], card["spread"]["student"]
    values = [*student, *teacher]
    top = max(values) * 1.04 or 1.0
    low = 0.96 * min(values) if min(values) > top / 2 else 0.0

    plot = _Plot((low, top), (low, top), across="teacher", up="student")
    # a dot is a stroke of no length with round ends: one path holds them all
    dots = "".join(f"M{plot.at(x, y)}h0" for x, y in zip(teacher, student, strict=True))
    diagonal = f"M{plot.at(low, low)}L{plot.at(top, top)}"
    parts = [
        *plot.frame(),
        element("path", d=diagonal, class_="diagonal"),
        element("path", d=dots, class_="dots"),
    ]
    return plot.drawing(f"{quantity} of trial {card['trial']} against the teacher's", parts)


def task_curve(curve: Data, trial: int) -> Markup:
    """Lines of what a task measured: of student and teacher, or of inputs inside and outside."""
    lines = curve["lines"]
    points = [point for line in lines.values() for point in line]
    ends = []
    for axis in (0, 1):
        values = [point[axis] for point in points]
        low, high = min(values), max(values)
        ends.append((min(low, 0.0) if axis else low, high if high > low else low + 1.0))

    plot = _Plot(ends[0], ends[1], across=curve["across"], up=curve["up"])
    parts = [*plot.frame()]
    for who, line in lines.items():
        style = "teacher" if who.startswith(_LIKE_THE_TEACHER) else "student"
        style += " attacked" if who.endswith("attacked") else ""
        path = "L".join(plot.at(x, y) for x, y in line)
        parts.append(element("path", d=f"M{path}", class_=f"line {style}"))
        if who in ("student", "teacher"):
            marked = line if len(line) <= _MOST_MARKS else []
            parts += [_mark(plot.x(x), plot.y(y), 3, who) for x, y in marked]
    return plot.drawing(f"{curve['title']}, trial {trial}", parts)


_LIKE_THE_TEACHER = ("teacher", "outside")
"""How the names of lines begin that have the teacher's color."""
_MOST_MARKS = 24
"""Points of a line that are marked; a longer line is drawn alone."""


class _Plot:
    """A small square plot with linear axes."""

    left, top, side, width, height = 52, 8, 196, 258, 242

    def __init__(
        self, xs: tuple[float, float], ys: tuple[float, float], *, across: str, up: str
    ) -> None:
        self.xs = xs
        self.ys = ys
        self.across = across
        self.up = up

    def x(self, value: float) -> float:
        low, high = self.xs
        return round(self.left + self.side * (value - low) / (high - low), 1)

    def y(self, value: float) -> float:
        low, high = self.ys
        return round(self.top + self.side * (1 - (value - low) / (high - low)), 1)

    def at(self, x: float, y: float) -> str:
        return f"{self.x(x):g} {self.y(y):g}"

    def frame(self) -> Iterable[str]:
        """The axes with three ticks each and their names."""
        bottom, right = self.top + self.side, self.left + self.side
        yield element("path", d=f"M{self.left} {self.top}V{bottom}H{right}", class_="axis")
        for i, anchor in enumerate(("start", "middle", "end")):
            x, y = (low + (high - low) * i / 2 for low, high in (self.xs, self.ys))
            yield text(self.x(x), bottom + 15, f"{x:.2g}", text_anchor=anchor)
            yield text(self.left - 5, self.y(y) + 4, f"{y:.2g}", text_anchor="end")

        name = {"text_anchor": "middle", "class_": "quiet"}
        center = self.top + self.side / 2
        turned = f"rotate(-90 11 {center:g})"
        yield text(self.left + self.side / 2, bottom + 31, self.across, **name)
        yield text(11, center, self.up, text_anchor="middle", transform=turned, class_="quiet")

    def drawing(self, label: str, parts: Iterable[str]) -> Markup:
        return drawing(self.width, self.height, label, parts, "plot")


# --- one study --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Mark:
    """One mark of the still front.

    ``kind`` is ``outside``, ``dominated``, ``reference`` or ``front``.
    """

    kind: str
    row: Data
    x: float
    y: float


def front(data: Data, across: Data, up: Data) -> Markup:
    """The first front as a still picture: what there is before a script draws the live one."""
    marks = _front_marks(data, across, up)
    if not marks:
        return Markup("")

    scale_x = _Scale.of_axis([mark.x for mark in marks], across)
    scale_y = _Scale.of_axis([mark.y for mark in marks], up)
    left, top, wide, high = 62, 12, 620, 320
    center = left + wide / 2

    def at(x: float, y: float) -> tuple[float, float]:
        return round(left + wide * scale_x(x), 1), round(top + high * (1 - scale_y(y)), 1)

    parts = [element("path", d=f"M{left} {top}V{top + high}H{left + wide}", class_="axis")]
    for value in scale_x.ticks:
        x, _ = at(value, scale_y.low)
        parts.append(text(x, top + high + 17, words.short(value), text_anchor="middle"))
    for value in scale_y.ticks:
        _, y = at(scale_x.low, value)
        parts.append(text(left - 6, y + 4, words.short(value), text_anchor="end"))
    name = {"text_anchor": "middle", "class_": "quiet"}
    parts.append(text(center, top + high + 37, across["label"], **name))

    for mark in marks:
        x, y = at(mark.x, mark.y)
        parts += _draw_mark(mark, x, y, label_to_the_left=x > center)
    label = (
        f"{up['label']} (up) against {across['label']} (across); the ring marks the chosen student"
    )
    return drawing(left + wide + 14, top + high + 48, label, parts, "still")


def _front_marks(data: Data, across: Data, up: Data) -> list[_Mark]:
    """What has both numbers, in the order of drawing: what matters most lies on top."""
    references = data["references"]
    rows: dict[str, list[Data]] = {"outside": [], "dominated": [], "reference": references}
    rows["front"] = []
    for record in data["records"]:
        if record["on_front"]:
            rows["front"].append(record)
        elif record["state"] == "complete":
            rows["outside" if record["outside"] else "dominated"].append(record)

    marks = []
    for kind in rows:
        for row in rows[kind]:
            x = place_of(row, across)
            y = place_of(row, up)
            if x is not None and y is not None:
                marks.append(_Mark(kind, row, x, y))
    return marks


def _draw_mark(mark: _Mark, x: float, y: float, *, label_to_the_left: bool) -> Iterable[str]:
    if mark.kind == "outside":
        yield element("circle", cx=x, cy=y, r=2.5, class_="apart")
    elif mark.kind == "dominated":
        yield element("path", d=f"M{x} {y - 4}l4 4l-4 4l-4 -4z", class_="mark near")
    elif mark.kind == "front":
        yield element("circle", cx=x, cy=y, r=4.5, class_="mark student")
    else:
        anchor = "end" if label_to_the_left else "start"
        yield element("path", d=f"M{x - 6} {y}h12M{x} {y - 6}v12", class_="mark-line")
        yield text(x, y - 10, mark.row["label"], text_anchor=anchor, class_="quiet")
    if mark.row.get("chosen"):
        yield element("circle", cx=x, cy=y, r=9.5, class_="ring")


class _Scale:
    """Values to [0, 1] of an axis, linear or logarithmic, with a little room at both ends."""

    def __init__(self, values: Sequence[float], is_log: bool) -> None:
        self.is_log = is_log
        low = self._transform(min(values))
        high = self._transform(max(values))
        room = 0.04 * (high - low) or 0.5
        self._low = low - room
        self._span = high - low + 2 * room
        self.low = 10**self._low if is_log else self._low
        self.ticks = self._choose_ticks(low, high)

    @classmethod
    def of_axis(cls, values: Sequence[float], axis: Data) -> "_Scale":
        """The scale of an axis: logarithmic where that is better seen and every value allows it."""
        return cls(values, axis["log"] and min(values) > 0)

    def __call__(self, value: float) -> float:
        return (self._transform(value) - self._low) / self._span

    def _transform(self, value: float) -> float:
        return math.log10(value) if self.is_log else value

    def _choose_ticks(self, low: float, high: float) -> list[float]:
        if self.is_log:
            powers = range(math.ceil(low), math.floor(high) + 1)
            return [10.0**power for power in powers] or [10**low, 10**high]

        # the smallest round step that needs at most six intervals
        step = 10 ** math.floor(math.log10((high - low) or 1))
        step *= next(factor for factor in (0.2, 0.5, 1, 2) if (high - low) / (step * factor) <= 6)
        first = math.ceil(low / step)
        return [round((first + i) * step, 10) for i in range(int(high / step) - first + 1)]


MAX_COLUMNS = 12


@dataclass(frozen=True)
class _Column:
    """One axis of the parallel coordinates.

    Attributes:
        label: what it shows; untrusted.
        heights: place in [0, 1] of each trial that has a value.
        ticks: places in [0, 1] and their texts.
    """

    label: str
    heights: Mapping[int, float]
    ticks: Sequence[tuple[float, str]]


def parallel(data: Data) -> Markup:
    """Settings and objectives of the front and of the layer behind it, one line a student."""
    trials = {*data["front"], *data["near"]}
    rows = [record for record in data["records"] if record["trial"] in trials]
    columns = _columns(data, rows)
    if len(rows) < 2 or len(columns) < 2:
        return Markup("")

    left, top, tall = 56, 40, 230
    step = max(96, min(150, 1040 // len(columns)))
    xs = [left + i * step for i in range(len(columns))]
    parts = []
    for x, column in zip(xs, columns, strict=True):
        parts.append(element("path", d=f"M{x} {top}V{top + tall}", class_="axis"))
        parts.append(text(x, top - 22, words.cut(column.label, 17), text_anchor="middle"))
        for height, tick in column.ticks:
            y = top + tall * (1 - height) + 4
            parts.append(text(x + 5, y, words.cut(tick, 11), class_="quiet halo"))

    # the front over the layer behind it, the chosen student over all
    for row in sorted(rows, key=lambda row: (row["chosen"], row["on_front"])):
        points = []
        for x, column in zip(xs, columns, strict=True):
            if row["trial"] in column.heights:
                points.append(f"{x} {top + tall * (1 - column.heights[row['trial']]):.1f}")
        parts.append(_strand(row, "L".join(points)))

    width = left + step * (len(columns) - 1) + 80
    label = f"Settings and objectives of {len(rows)} students, one line each"
    return drawing(width, top + tall + 24, label, parts, "parallel", "group")


def _strand(row: Data, line: str) -> str:
    """One student's line with its name; of the front a link to its card."""
    class_ = "behind"
    if row["chosen"]:
        class_ = "chosen"
    elif row["on_front"]:
        class_ = "front"
    name = words.cut(f"trial {row['trial']}: {row['genotype']}", 160)
    title = element("title", html.escape(name))
    path = element("path", title, d=f"M{line}", class_=f"strand {class_}")
    if not row["on_front"]:
        return path
    return element("a", path, href=f"#student-{row['trial']}")


def _columns(data: Data, rows: Sequence[Data]) -> list[_Column]:
    """The settings that vary, then the objectives."""
    settings: dict[str, None] = {}
    for row in rows:
        settings |= dict.fromkeys(row["settings"])

    columns = []
    for name in settings:
        values = {row["trial"]: row["settings"].get(name) for row in rows}
        columns.append(_column(name, values, is_log=False))
    for axis in data["objectives"]:
        values = {row["trial"]: drawable_value(row, axis) for row in rows}
        columns.append(_column(axis["label"], values, is_log=axis["log"]))
    return [column for column in columns if column is not None][:MAX_COLUMNS]


def _column(label: str, values: Mapping[int, Any], *, is_log: bool) -> _Column | None:
    """One axis; None where nothing varies or there are too many kinds of text."""
    present = {trial: _number(value) for trial, value in values.items() if value is not None}
    if all(isinstance(value, float) for value in present.values()):
        return _number_column(label, present, is_log=is_log)

    kinds = sorted({str(value) for value in present.values()})
    if not 2 <= len(kinds) <= 8:
        return None
    height_of = {kind: i / (len(kinds) - 1) for i, kind in enumerate(kinds)}
    heights = {trial: height_of[str(value)] for trial, value in present.items()}
    return _Column(label, heights, [(height, kind) for kind, height in height_of.items()])


def _number_column(label: str, values: Mapping[int, float], *, is_log: bool) -> _Column | None:
    if len(set(values.values())) < 2:
        return None

    low, high = min(values.values()), max(values.values())
    spans_much = high > 50 * low
    scale = _Scale([low, high], low > 0 and (spans_much or is_log))
    ticks = [(scale(end), f"{end:.3g}" if end < 1000 else words.short(end)) for end in (low, high)]
    return _Column(label, {trial: scale(value) for trial, value in values.items()}, ticks)


def _number(value: Any) -> Any:
    """A setting as a number where it is one, else as text; of a list of numbers their mean."""
    if isinstance(value, list) and value and all(isinstance(item, int | float) for item in value):
        return float(sum(value) / len(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return value_text(value)
