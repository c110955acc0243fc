"""``stop_when_flat`` on a recorded study of ``digits_mlp``, whose truth is the mean of other seeds.

The study lies in ``reports/reference/seeds.json``; ``tests/bench/bench_seeds.py`` made it.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from gped_nas.evaluate.measured import from_public
from gped_nas.search.flatness import Flatness, FrontWatch
from gped_nas.search.objectives import objective
from gped_nas.search.pareto import hypervolume, to_box
from gped_nas.search.record import TrialRecord

NAMES = ("nll", "flops", "storage_bytes")
GOALS = tuple(objective(name, "test") for name in NAMES)
REFERENCE = Path(__file__).parents[2] / "reports/reference/seeds.json"
RECORDED = json.loads(REFERENCE.read_text())["recorded"]


def records():
    made = []
    for trial, row in enumerate(RECORDED["trials"]):
        costs = {name: row[name] for name in NAMES[1:]}
        measures = from_public({"nll": row["nll"]})
        draws = {"nll": row["draws"]}
        record = TrialRecord(trial, "complete", {}, measures=measures, costs=costs, draws=draws)
        made.append(record)
    return made


def walk(patience: int) -> list[Flatness]:
    """What is said after each trial, up to the end of the search."""
    watch = FrontWatch(patience, GOALS, RECORDED["best"], RECORDED["worst"])
    said = []
    for record in records():
        watch.add(record)
        said.append(watch.look())
        if said[-1].is_flat:
            break
    return said


def true_volume(num: int) -> float:
    """The hypervolume of the first trials, by the mean NLL of other seeds."""
    trials = RECORDED["trials"][:num]
    values = [[row["true_nll"], row["flops"], row["storage_bytes"]] for row in trials]
    scales = [goal.scale for goal in GOALS]
    losses = to_box(values, RECORDED["best"], RECORDED["worst"], scales=scales)
    return hypervolume(losses, np.ones(3))


@pytest.mark.parametrize("patience", [6, 12])
def test_it_ends_so_many_trials_after_the_last_gain(patience):
    said = walk(patience)
    assert said[-1].is_flat and len(said) < len(RECORDED["trials"])
    assert said[-1].num_since == patience

    # a gain beyond the noise is told at its trial, and nothing later is one
    last_gain = said[-1].trial
    assert last_gain is not None and said[last_gain].trial == last_gain
    for flatness in said[last_gain + 1 :]:
        assert flatness.gain <= flatness.noise and not np.isnan(flatness.noise)


def test_what_it_misses_is_little():
    """Against all trials, by a truth that the search never saw."""
    ended = len(walk(12))
    assert true_volume(ended) > 0.95 * true_volume(len(RECORDED["trials"]))
