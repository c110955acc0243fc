"""Studies of thousands of trials, without training them.

``small_study`` runs a real search of a few trials with the installed command. ``enlarge`` adds
trials that are finished: each has a record like that of a real one, of a genotype, costs and
metrics of its own. They are written in bulk, since the ledger takes milliseconds for each.
"""

import json
import math
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

from gped_nas.api.opening import open_study
from gped_nas.api.study import Study
from gped_nas.evaluate.measured import Measured
from gped_nas.search.record import TrialRecord
from gped_nas.search.rows import ROW, Row

SPACE = """\
name: large
dataset: {name: digits}
teacher:
  family: mlp
  genotype: {depth: 1, width: 8}
  method:
    {name: sgld, chains: 2, num_samples: 4, step_size: {initial: 2.0e-4}, burn_in: 20, thinning: 10}
views: [{policy: clean}]
students:
  - family: mlp
    genotype:
      depth: {int: [1, 4]}
      width: [{int: [4, 128]}, {int: [4, 128]}, {int: [4, 128]}, {int: [4, 128]}]
      group_penalty: {float: [1.0e-5, 1.0e-2], log: true}
      storage_dtype: {choices: [float32, int8]}
objectives: [nll, macs, storage_bytes]
search: {n_trials: 6, students_at_once: 6, sampler: random, keep: {}, every_dtype: false}
recipe: {steps: 200, warmup: 5}
baseline: {steps: 100, precisions: [1.0]}
"""
NAME = "large"
_FLAT = ("accuracy", "nll", "params", "macs")
_BYTES = {"float32": 4, "int8": 1}


def small_study(root: Path) -> Path:
    """The folder of a study of six trained students under ``root``, made by the command."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "large.yaml").write_text(SPACE)
    program = Path(sys.executable).with_name("gped-search")
    command = [program, "run", root / "large.yaml", "--out", root / "reports"]
    subprocess.run(command, check=True, capture_output=True)
    return root / "reports" / NAME


def enlarge(folder: Path, num: int, *, wide: bool = False) -> None:
    """Add finished trials to a study until there are ``num``.

    Args:
        folder: of a study of ``small_study``.
        num: trials in all.
        wide: whether every complete trial is on the front; else some dozens are.
    """
    study = open_study(folder)
    trials = optuna.load_study(study_name=NAME, storage=study.storage_url).trials
    model = _model_of(study)
    template = next(trial for trial in trials if trial.state == TrialState.COMPLETE)
    objectives = [objective.name for objective in study.objectives]

    engine = sqlalchemy.create_engine(study.storage_url)
    with engine.begin() as connection:
        study_id = connection.execute(sqlalchemy.select(models.StudyModel.study_id)).scalar_one()
        first_id = connection.execute(
            sqlalchemy.select(sqlalchemy.func.max(models.TrialModel.trial_id))
        ).scalar_one()

        records = _records(model, range(len(trials), num), wide=wide)
        for i, (record, params) in enumerate(records, start=1):
            tables = _tables(record, params, template, objectives)
            tables[models.TrialModel][0] |= {"study_id": study_id, "number": record.trial}
            for table, rows in tables.items():
                if rows:
                    numbered = [{**row, "trial_id": first_id + i} for row in rows]
                    connection.execute(sqlalchemy.insert(table), numbered)
    engine.dispose()


def _model_of(study: Study) -> TrialRecord:
    return next(record for record in study.ledger.records() if record.state == "complete")


def _records(
    model: TrialRecord, numbers: range, *, wide: bool
) -> Iterator[tuple[TrialRecord, dict[str, Any]]]:
    """Records of new trials, and what Optuna knows as their parameters."""
    generator = random.Random(0)
    for number in numbers:
        depth = generator.randint(1, 4)
        width = [generator.randint(4, 128) for _ in range(depth)]
        penalty = 10 ** generator.uniform(-5, -2)
        dtype = "float32" if wide else generator.choice(sorted(_BYTES))
        params = {"depth": depth, "group_penalty": penalty, "storage_dtype": dtype}
        params |= {f"width_{i}": units for i, units in enumerate(width)}
        genotype = {
            "family": "mlp",
            "depth": depth,
            "group_penalty": penalty,
            "storage_dtype": dtype,
            "width": width,
        }
        record = model.replace(trial=number, genotype=genotype, created=model.created + number)
        yield _judged(record, width, generator, wide=wide), params


def _judged(
    record: TrialRecord, width: list[int], generator: random.Random, *, wide: bool
) -> TrialRecord:
    """The record with a state, and costs and metrics that fit the widths."""
    chance = generator.random()
    if chance > 0.97:
        reason = "a metric is not finite"
        return TrialRecord(record.trial, "failed", record.genotype, reason=reason)
    if chance > 0.9:
        reason = f"same genotype as trial {record.trial // 2}"
        return record.replace(state="duplicate", reason=reason, seconds=0.0)

    layers = _layers(width)
    macs = sum(layer["inputs"] * layer["outputs"] for layer in layers)
    params = sum(layer["params"] for layer in layers)
    stored = params * _BYTES[record.genotype["storage_dtype"]] + 480
    costs = {"macs": macs, "flops": 2 * macs, "params": params, "storage_bytes": stored}

    nll = 0.1 + 12 / math.sqrt(macs)
    if not wide:
        nll *= 1 + generator.random()
    measures = {}
    for key, measured in record.measures.items():
        value = nll if key.metric == "nll" else measured.value * (0.8 + 0.2 * generator.random())
        measures[key] = _around(measured, value)

    return record.replace(
        measures=measures,
        costs=costs,
        layers=layers,
        layers_drawn=layers,
        seconds=round(0.05 + generator.random(), 4),
    )


def _around(measured: Measured, value: float) -> Measured:
    if measured.low is None or measured.high is None:
        return replace(measured, value=value)
    half = (measured.high - measured.low) / 2
    return replace(measured, value=value, low=value - half, high=value + half)


def _layers(width: list[int]) -> tuple[dict[str, Any], ...]:
    sizes = [64, *width, 11]
    layers = []
    for i, (inputs, outputs) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        num = inputs * outputs + outputs
        row = {"layer": f"layers.{i}", "kind": "linear", "inputs": inputs, "outputs": outputs}
        layers.append({**row, "params": num})
    return tuple(layers)


def _tables(
    record: TrialRecord, params: dict[str, Any], template: FrozenTrial, objectives: list[str]
) -> dict[Any, list[dict[str, Any]]]:
    """The rows of one trial in Optuna's tables, without its number in the database."""
    is_told = record.state in ("complete", "duplicate", "infeasible")
    start = datetime(2026, 1, 1) + timedelta(seconds=record.trial)
    trial = {
        "state": TrialState.COMPLETE if is_told else TrialState.FAIL,
        "datetime_start": start,
        "datetime_complete": start + timedelta(seconds=1),
    }

    distributions = {name: template.distributions.get(name) for name in params}
    for name in params:
        distributions[name] = distributions[name] or optuna.distributions.IntDistribution(4, 128)
    stored_params = []
    for name, value in params.items():
        stored_params.append(
            {
                "param_name": name,
                "param_value": distributions[name].to_internal_repr(value),
                "distribution_json": distribution_to_json(distributions[name]),
            }
        )

    values = []
    if is_told:
        for i, name in enumerate(objectives):
            kind = models.TrialValueModel.TrialValueType.FINITE
            values.append({"objective": i, "value": record.value(name), "value_type": kind})

    attributes = []
    for key, value in _attributes(record, params).items():
        attributes.append({"key": key, "value_json": json.dumps(value)})

    return {
        models.TrialModel: [trial],
        models.TrialParamModel: stored_params,
        models.TrialValueModel: values,
        models.TrialUserAttributeModel: attributes,
    }


def _attributes(record: TrialRecord, params: dict[str, Any]) -> dict[str, Any]:
    """What the ledger writes with a trial that ends."""
    row = Row(
        state="finished", claimed=1.0, renewed=1.0, record=record.dumps(), params=dict(params)
    )
    flat = {name: record.values[name] for name in _FLAT if name in record.values}
    return {ROW: row.sealed(), **flat}
