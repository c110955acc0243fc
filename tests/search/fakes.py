"""A search without training: numbers that depend on the genotype alone."""

from dataclasses import asdict, replace

import optuna
import pytest

from gped_nas import rng
from gped_nas.evaluate.measured import from_public
from gped_nas.io import canonical_json
from gped_nas.models.costs import genotype_cost
from gped_nas.search.database import sqlite_url
from gped_nas.search.engine import Local
from gped_nas.search.record import TrialRecord
from gped_nas.search.run import TimeLimit, search
from gped_nas.search.space_file import parse_space
from gped_nas.search.study import create_or_load

SHAPE, CLASSES = (1, 2, 2), 3
IDENTITY = {"students": "1", "recipe": "2"}
HOME = "a folder"
"""Whoever opens a study here holds the folder's lock, so what was claimed before is dead."""


def make_space(
    genotype=None, objectives=("nll", "params"), constraints=None, seed=0, **search_settings
):
    students = genotype or {"depth": 1, "width": {"int": [1, 6]}}
    data = {
        "name": "fake",
        "dataset": {"name": "digits"},
        "teacher": {
            "family": "mlp",
            "genotype": {"depth": 1, "width": 4},
            "method": {"name": "sgld", "num_samples": 2, "step_size": {"initial": 1e-4}},
        },
        "students": [{"family": "mlp", "genotype": students}],
        "objectives": list(objectives),
        "constraints": constraints or {},
        "search": {"sampler": "random", "n_trials": 10, "students_at_once": 4, **search_settings},
        "seed": seed,
    }
    return parse_space(data, "fake.yaml")


def number(genotype, what):
    """A number in [0, 1) that depends on the genotype."""
    return rng.seed(0, what, canonical_json(genotype.to_json())) / 2**63


def make_record(claim, **changes):
    """A complete record; ``metrics`` replaces the values that it would have."""
    costs = asdict(genotype_cost(claim.genotype, SHAPE, CLASSES + 1))
    metrics = {"nll": number(claim.genotype, "nll"), "accuracy": number(claim.genotype, "accuracy")}
    metrics = changes.pop("metrics", metrics)
    measures = from_public(metrics, {"nll": (0.0, 1.0)}, dict.fromkeys(metrics, 5))
    record = TrialRecord(
        claim.number,
        "complete",
        claim.genotype.to_json(),
        measures=measures,
        costs=costs,
    )
    return record.replace(**changes)


def with_variants(claim, **changes):
    """A record as ``make_record``, with those of the same student in its other storage types."""
    record = make_record(claim, **changes)
    variants = []
    for dtype in claim.dtypes if record.state == "complete" else ():
        genotype = claim.genotype.replace(storage_dtype=dtype)
        made = make_record(replace(claim, genotype=genotype), **changes)
        variants.append(made.replace(variant_of=claim.number))
    return record.replace(variants=tuple(variants))


class Fake:
    """Stands for training: counts what it is asked for, and does ``change`` to each record."""

    def __init__(self, change=lambda claim: {}):
        self.change = change
        self.trained = []

    def __call__(self, asked):
        self.trained += [claim.genotype for claim in asked]
        return [with_variants(claim, **self.change(claim)) for claim in asked]


_memory = {}


def storage_of(path):
    """What Optuna opens: a SQLite file or, for ``*.memory``, a faster stand-in.

    A later opening finds the stand-in again.
    """
    if path.suffix == ".memory":
        return _memory.setdefault(path, optuna.storages.InMemoryStorage())
    return sqlite_url(path)


def open_store(space, path, name="fake", identity=IDENTITY):
    with pytest.MonkeyPatch.context() as patch:
        if path.suffix == ".memory":
            patch.setattr(optuna.storages, "get_storage", lambda url: storage_of(path))
        return create_or_load(sqlite_url(path), name, space.objectives, identity, home=HOME)


def optuna_study(path, name="fake"):
    """The study as Optuna sees it."""
    return optuna.load_study(storage=storage_of(path), study_name=name)


def run(
    space,
    store,
    fake=None,
    n_trials=10,
    limit=None,
    told=lambda r, n: None,
    should_stop=lambda: False,
    watch=None,
):
    return search(
        space,
        store,
        Local(Fake() if fake is None else fake),
        n_trials=n_trials,
        limit=TimeLimit() if limit is None else limit,
        input_shape=SHAPE,
        num_classes=CLASSES,
        told=told,
        should_stop=should_stop,
        watch=watch,
    )
