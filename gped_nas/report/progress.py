"""Figures of the search and of its teacher: the front's growth, importances, training."""

import itertools
from collections import Counter
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
    last = rows[-1][2] or 0
    text = (
        f"After {words.things(len(rows), 'trial')} the front covers {100 * last:.2f} % of the "
        "reference box."
    )
    if rows[-1][3] is not None:
        nearly_all = [index for index, row in enumerate(rows) if (row[2] or 0) >= 0.99 * last]
        text += (
            f" 99 % of that was there after {words.count(nearly_all[0] + 1)}. The dashed line is "
            "the mean over all orders of the same trials: above it, good students were found "
            "early; it is not a search of its own."
        )
    return Chart("chart-hypervolume", "hypervolume", "Hypervolume after each trial", text, figure)


def over_time(data: Data) -> Chart:
    """The same against the seconds that students took, added up."""
    rows = data["hypervolume"]
    across = "seconds of distilling and measuring, added up"
    figure = _growth(across, [row[1] for row in rows], rows)
    total = rows[-1][1]
    if len(figure.data) > 1:
        # in random order every trial takes the mean time
        figure.data[-1].x = [total * (i + 1) / len(rows) for i in range(len(rows))]

    title = "Hypervolume against time"
    text = (
        f"All students took {words.duration(total)}; breaks between runs, and the teacher, are not "
        "counted."
    )
    return Chart("chart-hypervolume-time", "hypervolume-time", title, text, figure)


def _growth(across: str, xs: Sequence[float], rows: Sequence[Sequence[float]]) -> go.Figure:
    """Two lines over the same places: this search, and its trials in random order if known."""
    figure = blank(across, "hypervolume, share of the box")
    search = [row[2] for row in rows]
    solid = {"shape": "hv", "color": BLUE, "width": 2}
    figure.add_scatter(x=list(xs), y=search, mode="lines", line=solid, name="this search")
    if rows[-1][3] is not None:
        random_order = [row[3] for row in rows]
        dashed = {"color": GREY, "width": 2, "dash": "dash"}
        figure.add_scatter(x=list(xs), y=random_order, mode="lines", line=dashed, name=_CHANCE)
    figure.update_yaxes(rangemode="tozero")
    return figure


def importances(data: Data) -> Chart:
    """Share of each setting in what an objective varies."""
    by_objective = data["importances"]
    totals: Counter[str] = Counter()
    for shares in by_objective.values():
        for name, share in shares.items():
            totals[name] += share or 0
    # by name where totals are equal; the last bar is drawn on top
    names = sorted(sorted(totals), key=lambda name: totals[name])

    figure = blank("share of the importance", "")
    labels = {objective["name"]: objective["label"] for objective in data["objectives"]}
    colors = itertools.cycle(SERIES)
    for color, (objective, shares) in zip(colors, by_objective.items(), strict=False):
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
    chosen = [curve for curve in curves if curve["trial"] == data["chosen"]]
    front = [curve for curve in curves if curve["on_front"] and curve not in chosen]
    others = [curve for curve in curves if not curve["on_front"]]

    figure = blank("step", "training loss (nats)")
    _add_curves(figure, others, "others", {"color": SKY, "width": 1})
    _add_curves(figure, front, "front", {"color": BLUE, "width": 1.5})
    _add_curves(figure, chosen, "chosen", {"color": INK, "width": 2.5})
    smallest = [min(loss for _, loss in curve["points"]) for curve in curves]
    if min(smallest) > 0:
        figure.update_yaxes(type="log", nticks=6)

    last = [curve["points"][-1][1] for curve in curves]
    text = (
        f"{words.things(len(curves), 'student')}; the last loss goes from {min(last):.3g} to "
        f"{max(last):.3g}."
    )
    return Chart("chart-training", "training", "How students were trained", text, figure)


def _add_curves(figure: go.Figure, curves: Sequence[Data], name: str, line: Data) -> None:
    """One trace of several curves, apart by gaps: a hundred traces would be slow."""
    if not curves:
        return

    steps: list[float | None] = []
    losses: list[float | None] = []
    texts = []
    for curve in curves:
        for step, loss in [*curve["points"], (None, None)]:
            steps.append(step)
            losses.append(loss)
            texts.append(f"trial {curve['trial']}")

    figure.add_scatter(
        x=steps,
        y=losses,
        mode="lines",
        name=name,
        line=line,
        hovertext=texts,
        hoverinfo="x+y+text",
    )


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

    title = "How many posterior samples the teacher needs"
    nll = words.metric(values[-1], "nll")
    text = f"Averaging {words.count(counts[-1])} samples gives {nll} nats."
    return Chart("chart-teacher", "teacher", title, text, figure)
