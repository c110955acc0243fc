"""What every Plotly figure of the pages shares: colors, the empty figure, a chart with its words.

Colors are Okabe & Ito's; every group also has its own marker. Pure black stands for "ink": the
page turns it light on a dark background. Texts from the study are escaped, since Plotly reads a
little HTML.
"""

from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from gped_nas.report import words

INK = "#000000"
BLUE, SKY, GREEN, ORANGE = "#0072B2", "#56B4E9", "#009E73", "#E69F00"
VERMILLION, PURPLE, GREY = "#D55E00", "#CC79A7", "#888888"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, VERMILLION, SKY)


@dataclass(frozen=True)
class Chart:
    """One drawing of the page.

    Attributes:
        id: of its element; never made from the study's texts.
        section: ``front``, ``hypervolume``, ``importances``, ``training`` or ``teacher``.
        title: a plain text heading.
        text: what it shows, in words, for those who do not see it.
        figure: the drawing.
    """

    id: str
    section: str
    title: str
    text: str
    figure: go.Figure


def blank(across: str, up: str) -> go.Figure:
    """A figure with nothing drawn yet, its axes named."""
    axis = {
        "gridcolor": "rgba(128,128,128,0.22)",
        "linecolor": GREY,
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": GREY,
        "showline": True,
    }

    return go.Figure(
        layout={
            "template": go.layout.Template(),
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"color": INK, "size": 12},
            "margin": {"l": 64, "r": 12, "t": 12, "b": 52},
            "hovermode": "closest",
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            "xaxis": axis | {"title": _axis_title(across)},
            "yaxis": axis | {"title": _axis_title(up), "automargin": True},
        }
    )


def _axis_title(text: str) -> dict[str, Any]:
    return {"text": words.drawn(text), "standoff": 8, "font": {"size": 13}}
