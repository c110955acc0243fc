"""Figures of the search and of its teacher: how the front grew, what mattered, how they were
trained.
"""

import itertools
from collections.abc import Sequence

import plotly.graph_objects as go

from gped_nas.report import words
from gped_nas.report.figures import BLUE, GREY, INK, SERIES, SKY, VERMILLION, Chart, blank
from gped_nas.report.records import Data

_CHANCE = "same trials, random order"


def over_trials(data: Data) -> Chart:
    """Hypervolume after each trial, beside its expectation with the same trials in random order."""
    rows = data["hypervolume"]
    figure = _growth("trials", [row[0] + 1 for row in rows], rows)
    last = rows[-1][2]
    text = f"After {words.count(len(rows))} trials the front covers {100 * (last or 0):.2f} % of the reference box."
    if rows[-1][3] is not None:
        half = next(i for i, row in enumerate(rows) if (row[2] or 0) >= 0.99 * (last or 0)) + 1
        text += (
            f" 99 % of that was there after {words.count(half)}. The dashed line is the mean over "
            "all orders of the "
            "same trials: above it, good students were found early; it is not a search of its own."
        )
    return Chart("chart-hypervolume", "hypervolume", "Hypervolume after each trial", text, figure)


def over_time(data: Data) -> Chart:
    """The same against the seconds that students took, added up."""
    rows = data["hypervolume"]
    figure = _growth(
        "seconds of distilling and measuring, added up", [row[1] for row in rows], rows
    )
    total = rows[-1][1]
    chance = [total * (i + 1) / len(rows) for i in range(len(rows))]
    figure.data[-1].x = chance if len(figure.data) > 1 else figure.data[-1].x
    text = f"All students took {words.duration(total)}; breaks between runs, and the teacher, are not counted."
    return Chart(
        "chart-hypervolume-time", "hypervolume-time", "Hypervolume against time", text, figure
    )


def _growth(across: str, places: Sequence[float], rows: Sequence[Sequence[float]]) -> go.Figure:
    figure = blank(across, "hypervolume, share of the box")
    line = {"shape": "hv", "color": BLUE, "width": 2}
    figure.add_scatter(
        x=list(places), y=[row[2] for row in rows], mode="lines", line=line, name="this search"
    )
    if rows[-1][3] is not None:
        dashed = {"color": GREY, "width": 2, "dash": "dash"}
        figure.add_scatter(
            x=list(places), y=[row[3] for row in rows], mode="lines", line=dashed, name=_CHANCE
        )
    figure.update_yaxes(rangemode="tozero")
    return figure


def importances(data: Data) -> Chart:
    """Share of each setting in what an objective varies."""
    figure = blank("share of the importance", "")
    names = sorted({name for shares in data["importances"].values() for name in shares})
    total = {
        name: sum(shares.get(name) or 0 for shares in data["importances"].values())
        for name in names
    }
    names.sort(key=lambda name: total[name])
    labels = {o["name"]: o["label"] for o in data["objectives"]}
    for color, (objective, shares) in zip(
        itertools.cycle(SERIES), data["importances"].items(), strict=False
    ):
        figure.add_bar(
            x=[shares.get(name) or 0 for name in names],
            y=[words.drawn(name, 30) for name in names],
            orientation="h",
            name=words.drawn(labels.get(objective, objective), 40),
            marker={"color": color},
        )
    figure.update_layout(barmode="group", bargap=0.35, bargroupgap=0.08)
    figure.update_yaxes(automargin=True, showgrid=False)
    text = f"Most important over all objectives: {words.cut(names[-1], 60)}." if names else ""
    return Chart("chart-importances", "importances", "Which settings matter", text, figure)


def training(data: Data) -> Chart:
    """Training loss of students by step."""
    curves = data["curves"]
    chosen = [c for c in curves if c["trial"] == data["chosen"]]
    front = [c for c in curves if c["on_front"] and c not in chosen]
    others = [c for c in curves if not c["on_front"]]
    figure = blank("step", "training loss (nats)")
    groups = (("others", others, SKY, 1), ("front", front, BLUE, 1.5), ("chosen", chosen, INK, 2.5))
    for name, group, color, width in groups:
        if not group:
            continue
        # one trace a group, its curves apart by gaps: a hundred traces would be slow
        rows = [
            (step, loss, f"trial {c['trial']}")
            for c in group
            for step, loss in [*c["points"], [None, None]]
        ]
        x, y, names = (list(column) for column in zip(*rows, strict=True))
        line = {"color": color, "width": width}
        hover = {"hovertext": names, "hoverinfo": "x+y+text"}
        figure.add_scatter(x=x, y=y, mode="lines", name=name, line=line, **hover)
    if all(loss > 0 for c in curves for _, loss in c["points"]):
        figure.update_yaxes(type="log", nticks=6)
    ends = sorted(c["points"][-1][1] for c in curves)
    text = f"{words.count(len(curves))} students; the last loss goes from {ends[0]:.3g} to {ends[-1]:.3g}."
    return Chart("chart-training", "training", "How students were trained", text, figure)


def samples_to_nll(data: Data) -> Chart:
    """The teacher's validation NLL by how many posterior samples are averaged."""
    counts, values = zip(*data["teacher"]["samples_to_nll"], strict=True)
    figure = blank("posterior samples averaged", "validation NLL (nats)")
    figure.add_scatter(
        x=counts,
        y=values,
        mode="lines+markers",
        name="teacher",
        line={"color": VERMILLION, "width": 2},
        marker={"size": 6},
    )
    figure.update_layout(showlegend=False)
    figure.update_xaxes(type="log", tickformat="~s", nticks=6)
    text = (
        f"Averaging {words.count(counts[-1])} samples gives {words.metric(values[-1], 'nll')} nats."
    )
    return Chart(
        "chart-teacher", "teacher", "How many posterior samples the teacher needs", text, figure
    )
