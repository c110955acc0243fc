"""The report's figures as the dashboard shows them: each with a title, a legend and paper."""

import html

import plotly.graph_objects as go

from gped_nas.export.text import visible
from gped_nas.report.charts import charts
from gped_nas.report.records import Data


def dashboard_figures(data: Data) -> dict[str, go.Figure]:
    """The charts of ``data_of``'s data by ids that stay the same as a study grows."""
    return {chart.id: _frame(chart.figure, chart.title) for chart in charts(data)}


def _frame(figure: go.Figure, title: str) -> go.Figure:
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
