"""The report's figures as the dashboard shows them: each on its own, so with a title, a legend and paper under it."""

import html

import plotly.graph_objects as go

from gped_nas.export.text import visible
from gped_nas.report.data import Data
from gped_nas.report.figures import Chart, charts


def dashboard_figures(data: Data) -> dict[str, go.Figure]:
    """The main charts of ``data_of``'s data by ids that stay the same as a study grows.

    Of the front's students only the chosen one's reliability is among them: the page shows them all below each other.
    """
    others = {f"reliability-{trial}" for trial in data["front"] if trial != data["chosen"]}
    shown = [chart for chart in charts(data) if chart.section not in others]
    return {_identifier(chart): _framed(chart.figure, chart.title) for chart in shown}


def _identifier(chart: Chart) -> str:
    return "chart-reliability" if chart.section.startswith("reliability") else chart.id


def _framed(figure: go.Figure, title: str) -> go.Figure:
    framed = go.Figure(figure)
    framed.update_layout(
        title={"text": html.escape(visible(title)), "font": {"size": 15}},
        margin={"l": 64, "r": 16, "t": 44, "b": 120},
        legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
        showlegend=True,
        # the figures' ink is black, which the dashboard's dark theme would swallow
        paper_bgcolor="white",
        plot_bgcolor="white",
    )
    return framed
