"""Every Plotly figure that a study's data allow, by name."""

import plotly.graph_objects as go

from gped_nas.errors import ConfigError, nearest
from gped_nas.report import progress
from gped_nas.report.figures import Chart
from gped_nas.report.front import first_pair, front_chart
from gped_nas.report.records import Data


def charts(data: Data) -> list[Chart]:
    """Every chart, in the order of the page."""
    made = []
    pair = first_pair(data)
    if pair:
        made.append(front_chart(data, *pair))
    if data["hypervolume"]:
        made += [progress.over_trials(data), progress.over_time(data)]
    if data["importances"]:
        made.append(progress.importances(data))
    if data["curves"]:
        made.append(progress.training(data))
    if data["teacher"].get("samples_to_nll"):
        made.append(progress.samples_to_nll(data))
    return made


def figure(data: Data, name: str, *, x: str | None = None, y: str | None = None) -> go.Figure:
    """One figure by its section's name; of the front over any two metrics or costs.

    Args:
        data: what ``data_of`` gave.
        name: ``front``, ``hypervolume``, ``hypervolume-time``, ``importances``, ``training`` or
            ``teacher``.
        x, y: axes of the front; the first cost and the first quality by default.

    Raises:
        ConfigError: the study has no such figure or axis.
    """
    axes = {axis["name"]: axis for axis in data["axes"]}
    for axis in (x, y):
        if axis is not None and (name != "front" or axis not in axes):
            raise ConfigError(f"axis '{axis}': unknown{nearest(axis, axes)}")

    if name == "front" and (x or y):
        across, up = first_pair(data) or (data["axes"][0], data["axes"][0])
        return front_chart(data, axes[x] if x else across, axes[y] if y else up).figure

    figures = {chart.section: chart.figure for chart in charts(data)}
    if name not in figures:
        raise ConfigError(f"figure '{name}': unknown{nearest(name, figures)}")
    return figures[name]
