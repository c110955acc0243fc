"""The report as one HTML file that needs no network.

Text, tables and still pictures come first; where scripts run, live drawings replace the pictures.
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
"""Of ``templates/plotly-basic.min.js``, unchanged from npm's ``plotly.js-basic-dist-min``."""
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)
"""Saving a drawing as a picture needs ``blob:``, an address that the page itself makes."""
PLOTLY_CONFIG = {"showSendToCloud": False, "displaylogo": False, "responsive": True}
MAX_CARDS = 24
"""Students whose cards are in the page; the others' are in the file beside it."""
SCRIPTS = ("draw.js", "reveal.js")
REPORT_SCRIPTS = (*SCRIPTS, "numbers.js", "explorer.js", "space.js", "budget.js", "trials.js")
_WORD_FILTERS = (
    "spaced",
    "count",
    "things",
    "metric",
    "interval",
    "difference",
    "compact",
    "cut",
    "duration",
)
"""Functions of ``words`` that the templates call."""
_EMBEDDED = (
    "name",
    "objectives",
    "axes",
    "front",
    "near",
    "outside",
    "region",
    "chosen",
    "rule",
    "knee",
    "references",
    "comparisons",
    "twins",
    "hypervolume",
    "reference_point",
    "importances",
    "savings",
    "provenance",
    "split_text",
    "config",
    "verdict",
    "class_names",
    "by_class",
)
"""What of the data goes into the page's JSON, beside the table of trials."""


def page(data: Data, *, more: str = "") -> str:
    """The report of a study as one self-contained HTML text.

    Args:
        data: what ``data_of`` gave.
        more: name of the file beside it that ``more_page`` fills, where there is one.

    Returns:
        The same text for the same data, byte for byte. It loads nothing and sends nothing.
    """
    drawings = charts(data)
    pair = first_pair(data)
    axes = {"x": pair[0]["name"], "y": pair[1]["name"]} if pair else {}
    chosen = data["chosen"]
    cards = cards_within(data)

    return render(
        "report.html.j2",
        drawings,
        scripts=REPORT_SCRIPTS,
        numbers=embedded(numbers_of(data)),
        explorer={**axes, "within": within_marker(), "more": more},
        data=data,
        front=[find(data, trial) for trial in data["front"]],
        chosen=None if chosen is None else find(data, chosen),
        charts={chart.section: chart for chart in drawings},
        legend=legend(data),
        still=svg.front(data, *pair) if pair else "",
        pair=axes,
        cards=cards,
        more=more,
        within={card["trial"] for card in cards},
        parallel=svg.parallel(data),
        bounds=_bounds(data),
        folded=data["folded"],
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
    if not cards:
        return None
    return render_still("cards.html.j2", data=data, cards=cards, back=back)


def cards_within(data: Data) -> list[Data]:
    """The cards in the page: the front's first, and the chosen student's in any case."""
    cards = list(data["cards"])
    if len(cards) <= MAX_CARDS:
        return cards

    within = cards[:MAX_CARDS]
    chosen_cards = [card for card in cards if card["trial"] == data["chosen"]]
    if chosen_cards and chosen_cards[0] not in within:
        within[-1] = chosen_cards[0]
    return within


def numbers_of(data: Data) -> Data:
    """The page's one JSON, which its scripts read and its downloads are made from."""
    metrics = [entry["name"] for entry in data["metrics"]]
    costs = [entry["name"] for entry in data["costs"]]
    # what tasks measured of students is an axis too
    axes = [axis["name"] for axis in data["axes"]]
    metrics = list(dict.fromkeys([*metrics, *(name for name in axes if name not in costs)]))
    numbers = {key: data[key] for key in _EMBEDDED}
    return numbers | {"table": table(data["records"], metrics, costs)}


def _bounds(data: Data) -> list[Data]:
    """What a budget can be set on: costs, the first objective and the accuracy.

    Each of them must differ over the front.
    """
    front = [find(data, trial) for trial in data["front"]]
    # MACs are half the FLOPs: a second slider for the same thing
    candidates = {axis["name"] for axis in data["axes"] if axis["kind"] == "cost"} - {"macs"}
    candidates |= {"accuracy"}
    candidates |= {objective["name"] for objective in data["objectives"][:1]}

    bounds = []
    for axis in data["axes"]:
        if axis["name"] not in candidates or not axis["direction"]:
            continue
        values = {{**row["metrics"], **row["costs"]}.get(axis["name"]) for row in front}
        if len(values - {None}) > 1:
            bounds.append(axis)
    return sorted(bounds, key=lambda axis: axis["kind"] == "metric")


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
    """One self-contained HTML text: a template with its data, its drawings and what draws them.

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
        _empty_traces(specs["chart-front"])

    # the scripts share one scope, and leave no name behind
    joined = Markup("").join(_asset(name) for name in scripts)
    script = Markup("(() => {\n") + joined + Markup("})();\n")

    return _template(template).render(
        data=data,
        drawings=drawings,
        chart_data=embedded({"config": PLOTLY_CONFIG, "charts": specs, "explorer": explorer}),
        numbers=embedded(data) if numbers is None else numbers,
        csp=CONTENT_SECURITY_POLICY,
        style=_asset("style.css"),
        script=script,
        plotly=_asset("plotly-basic.min.js"),
        **values,
    )


def render_still(template: str, *, data: Data, **values: Any) -> str:
    """One self-contained HTML text without scripts."""
    return _template(template).render(
        data=data, csp=CONTENT_SECURITY_POLICY, style=_asset("style.css"), **values
    )


def _empty_traces(spec: Data) -> None:
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
    environment.filters |= {name: getattr(words, name) for name in _WORD_FILTERS}
    environment.filters["shell"] = shlex.quote
    environment.globals["svg"] = svg
    return environment.get_template(name)


@functools.cache
def _asset(name: str) -> Markup:
    """A file of this package, which is trusted text."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))
