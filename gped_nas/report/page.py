"""The report as one HTML file that needs no network: text and tables first, drawings on top of them."""

import functools
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from gped_nas.report import words
from gped_nas.report.data import Data, find
from gped_nas.report.figures import Chart, charts, legend

TEMPLATES = Path(__file__).parent / "templates"
PLOTLY_JS_VERSION = "4.1.1"
PLOTLY_JS_SHA256 = "99784e3abfb07b142a15e521a439e6d9addceadb3f79553fd24c72774f0649ba"
"""Of ``templates/plotly-basic.min.js``, taken unchanged from the npm package ``plotly.js-basic-dist-min``."""
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)
"""``blob:`` is what saving a drawing as a picture needs; the page makes such addresses, nothing is loaded."""
PLOTLY_CONFIG = {"showSendToCloud": False, "displaylogo": False, "responsive": True}


def page(data: Data) -> str:
    """The report of a study as one self-contained HTML text.

    Args:
        data: what ``data_of`` gave.

    Returns:
        The same text for the same data, byte for byte. It loads nothing and sends nothing.
    """
    drawings = charts(data)
    return render(
        "report.html.j2",
        drawings,
        data=data,
        front=[find(data, trial) for trial in data["front"]],
        chosen=find(data, data["chosen"]) if data["chosen"] is not None else None,
        charts={chart.section: chart for chart in drawings},
        fronts=[chart for chart in drawings if chart.section == "front"],
        legend=legend(data),
        config_text=json.dumps(data["config"], indent=2, sort_keys=True, ensure_ascii=False),
    )


def render(template: str, drawings: Sequence[Chart], *, data: Data, **values: Any) -> str:
    """One self-contained HTML text: a template with its drawings, its data and all it needs to draw them.

    Args:
        template: a file of ``templates/``.
        drawings: every drawing on the page.
        data: the page's numbers, embedded as they are.
        values: what else the template reads.
    """
    return _template(template).render(
        data=data,
        drawings=drawings,
        chart_data=embedded(
            {
                "config": PLOTLY_CONFIG,
                "charts": {chart.id: json.loads(chart.figure.to_json()) for chart in drawings},
            }
        ),
        numbers=embedded(data),
        csp=CONTENT_SECURITY_POLICY,
        style=_asset("style.css"),
        script=_asset("page.js"),
        plotly=_asset("plotly-basic.min.js"),
        **values,
    )


def embedded(value: Any) -> Markup:
    """JSON that is safe inside a script element: no character can end it or start markup."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
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
    names = ("label", "count", "metric", "interval", "difference", "compact")
    environment.filters |= {name: getattr(words, name) for name in names} | {"shell": shlex.quote}
    return environment.get_template(name)


@functools.cache
def _asset(name: str) -> Markup:
    """A file of this package, which is trusted text."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))
