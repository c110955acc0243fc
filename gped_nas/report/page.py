"""The report as one HTML file that needs no network: text, tables and still pictures first, live
drawings on top.
"""

import functools
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from gped_nas.report import svg, words
from gped_nas.report.charts import charts
from gped_nas.report.figures import Chart
from gped_nas.report.front import first_pair, legend, within_marker
from gped_nas.report.records import Data, find, table

TEMPLATES = Path(__file__).parent / "templates"
PLOTLY_JS_VERSION = "4.1.1"
PLOTLY_JS_SHA256 = "99784e3abfb07b142a15e521a439e6d9addceadb3f79553fd24c72774f0649ba"
"""Of ``templates/plotly-basic.min.js``, taken unchanged from the npm package
``plotly.js-basic-dist-min``.
"""
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)
"""``blob:`` is what saving a drawing as a picture needs; the page makes such addresses, nothing is
loaded.
"""
PLOTLY_CONFIG = {"showSendToCloud": False, "displaylogo": False, "responsive": True}
MAX_CARDS = 24
"""Students whose cards are in the page; the others' are in the file beside it."""
SCRIPTS = ("draw.js", "reveal.js")
REPORT_SCRIPTS = (*SCRIPTS, "numbers.js", "explorer.js", "space.js", "budget.js", "trials.js")
_EMBEDDED = (
    "name",
    "objectives",
    "axes",
    "front",
    "near",
    "chosen",
    "rule",
    "knee",
    "references",
    "comparisons",
    "hypervolume",
    "reference_point",
    "importances",
    "savings",
    "provenance",
    "split_text",
    "config",
)


def page(data: Data, *, more: str = "") -> str:
    """The report of a study as one self-contained HTML text.

    Args:
        data: what ``data_of`` gave.
        more: name of the file beside it that ``more_page`` fills, where there is one.

    Returns:
        The same text for the same data, byte for byte. It loads nothing and sends nothing.
    """
    drawings = charts(data)
    pair, within = first_pair(data), {card["trial"] for card in cards_within(data)}
    axes = {"x": pair[0]["name"], "y": pair[1]["name"]} if pair else {}
    return render(
        "report.html.j2",
        drawings,
        scripts=REPORT_SCRIPTS,
        numbers=embedded(numbers_of(data)),
        explorer={**axes, "within": within_marker(), "more": more},
        data=data,
        front=[find(data, trial) for trial in data["front"]],
        chosen=find(data, data["chosen"]) if data["chosen"] is not None else None,
        charts={chart.section: chart for chart in drawings},
        legend=legend(data),
        still=svg.front(data, *pair) if pair else "",
        pair=axes,
        cards=cards_within(data),
        more=more,
        within=within,
        parallel=svg.parallel(data),
        bounds=_bounds(data),
        config_text=json.dumps(data["config"], indent=2, sort_keys=True, ensure_ascii=False),
    )


def more_page(data: Data, *, back: str) -> str | None:
    """The cards that ``page`` has no room for, as a page without scripts; None where all have.

    Args:
        data: what ``data_of`` gave.
        back: name of the report's file.
    """
    within = {card["trial"] for card in cards_within(data)}
    cards = [card for card in data["cards"] if card["trial"] not in within]
    return render_still("cards.html.j2", data=data, cards=cards, back=back) if cards else None


def cards_within(data: Data) -> list[Data]:
    """The cards in the page: the front's first, and the chosen student's in any case."""
    cards, chosen = data["cards"], data["chosen"]
    if len(cards) <= MAX_CARDS:
        return list(cards)
    kept = cards[:MAX_CARDS]
    if all(card["trial"] != chosen for card in kept):
        kept = kept[:-1] + [card for card in cards if card["trial"] == chosen]
    return list(kept)


def numbers_of(data: Data) -> Data:
    """The page's one JSON: what its script reads, its table is sorted by and its downloads are made
    from.
    """
    names = ([entry["name"] for entry in data[kind]] for kind in ("metrics", "costs"))
    return {key: data[key] for key in _EMBEDDED} | {"table": table(data["records"], *names)}


def _bounds(data: Data) -> list[Data]:
    """What a budget can be set on: costs that differ over the front, the first objective and the
    accuracy.
    """
    front = [find(data, trial) for trial in data["front"]]
    costs = {axis["name"] for axis in data["axes"] if axis["kind"] == "cost"} - {"macs"}
    quality = {"accuracy", *(o["name"] for o in data["objectives"][:1])}
    found = []
    for axis in data["axes"]:
        values = {{**row["metrics"], **row["costs"]}.get(axis["name"]) for row in front}
        if axis["name"] in costs | quality and axis["direction"] and len(values - {None}) > 1:
            found.append(axis)
    return sorted(found, key=lambda axis: axis["kind"] == "metric")


def render(
    template: str,
    drawings: Sequence[Chart],
    *,
    data: Data,
    scripts: Sequence[str] = SCRIPTS,
    numbers: Markup | None = None,
    explorer: Data | None = None,
    **values: Any,
) -> str:
    """One self-contained HTML text: a template with its drawings, its data and all it needs to draw
    them.

    Args:
        template: a file of ``templates/``.
        drawings: every drawing on the page.
        data: the page's numbers.
        scripts: files of ``templates/``, in order.
        numbers: the JSON to embed; ``data`` as they are by default.
        explorer: how the live front starts; its chart comes without the numbers that the script
            fills in.
        values: what else the template reads.
    """
    specs = {chart.id: json.loads(chart.figure.to_json()) for chart in drawings}
    if explorer is not None and "chart-front" in specs:
        _hollow(specs["chart-front"])
    return _template(template).render(
        data=data,
        drawings=drawings,
        chart_data=embedded({"config": PLOTLY_CONFIG, "charts": specs, "explorer": explorer}),
        numbers=embedded(data) if numbers is None else numbers,
        csp=CONTENT_SECURITY_POLICY,
        style=_asset("style.css"),
        script=Markup("(() => {\n{}})();\n").replace(
            "{}", Markup("").join(_asset(name) for name in scripts)
        ),
        plotly=_asset("plotly-basic.min.js"),
        **values,
    )


def render_still(template: str, *, data: Data, **values: Any) -> str:
    """One self-contained HTML text without scripts."""
    return _template(template).render(
        data=data, csp=CONTENT_SECURITY_POLICY, style=_asset("style.css"), **values
    )


def _hollow(spec: Data) -> None:
    """Take out of the front's figure what ``explorer.js`` fills in."""
    for trace in spec["data"]:
        trace |= {"x": [], "y": []}
        trace.pop("hovertext", None)
        for bars in (trace.get("error_x"), trace.get("error_y")):
            if bars:
                bars |= {"array": [], "arrayminus": []}


def embedded(value: Any) -> Markup:
    """JSON that is safe inside a script element: no character can end it or start markup."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


@functools.cache
def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = (
        "spaced",
        "count",
        "metric",
        "interval",
        "difference",
        "compact",
        "cut",
        "duration",
        "short",
    )
    environment.filters |= {name: getattr(words, name) for name in names} | {"shell": shlex.quote}
    environment.globals["svg"] = svg
    return environment.get_template(name)


@functools.cache
def _asset(name: str) -> Markup:
    """A file of this package, which is trusted text."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))
