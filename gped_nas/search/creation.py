"""Trials written whole, all of a population in one transaction."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy
from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
    json_to_distribution,
)
from optuna.storages import BaseStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial
from sqlalchemy import Connection

from gped_nas.search.changes import database_of, refusals, write_values
from gped_nas.search.storage import patiently

Place = tuple[int, int]
"""Optuna's identifier of a trial, and its number."""


def create_trials(
    storage: BaseStorage, study_id: int, templates: Sequence[FrozenTrial]
) -> list[Place]:
    """Write trials that run, with parameters and attributes; where each one is, in their order.

    Args:
        storage: where the study lies.
        study_id: of the study in it.
        templates: what to write.

    Raises:
        StorageInternalError: the database takes nothing.
        ValueError: a parameter's range does not go with that of earlier trials.
    """
    backend = database_of(storage)
    if backend is None:
        ids = [storage.create_new_trial(study_id, template) for template in templates]
        return [(trial_id, storage.get_trial_number_from_id(trial_id)) for trial_id in ids]
    if not templates:
        return []

    num_calls = 0

    def write() -> list[Place]:
        nonlocal num_calls
        num_calls += 1
        with refusals(), backend.engine.begin() as connection:
            _lock(connection, study_id)
            # a connection that was lost may have written them
            first = _first_written(connection, study_id, templates) if num_calls > 1 else None
            if first is None:
                first = _next_number(connection, study_id)
                _write(connection, study_id, first, templates)
            return _places(connection, study_id, first, len(templates))

    return patiently(backend, write)


def insert_trials(
    connection: Connection, study_id: int, make: Callable[[int], Sequence[FrozenTrial]]
) -> None:
    """Write trials in a transaction that has begun.

    Args:
        connection: in it.
        study_id: of the study.
        make: the trials, by the number of the first of them.
    """
    _lock(connection, study_id)
    first = _next_number(connection, study_id)
    _write(connection, study_id, first, make(first))


def _lock(connection: Connection, study_id: int) -> None:
    """Nobody else makes trials of the study meanwhile; on SQLite, writes to the file at all."""
    studies = models.StudyModel.__table__
    this_study = studies.c.study_id == study_id
    same = {"study_name": studies.c.study_name}
    connection.execute(sqlalchemy.update(studies).where(this_study).values(same))


def _first_written(
    connection: Connection, study_id: int, templates: Sequence[FrozenTrial]
) -> int | None:
    """The number of the first of them, known by the microsecond of its start."""
    trials = models.TrialModel.__table__
    same_start = trials.c.datetime_start == _utc(templates[0])
    query = sqlalchemy.select(trials.c.number).where((trials.c.study_id == study_id) & same_start)
    first: int | None = connection.execute(query).scalar_one_or_none()
    return first


def _next_number(connection: Connection, study_id: int) -> int:
    trials = models.TrialModel.__table__
    num = sqlalchemy.select(sqlalchemy.func.count()).where(trials.c.study_id == study_id)
    return int(connection.execute(num).scalar_one())


def _write(
    connection: Connection, study_id: int, first: int, templates: Sequence[FrozenTrial]
) -> None:
    """Write all rows of trials that are numbered from ``first``."""
    _check_ranges(connection, study_id, templates)
    trials = models.TrialModel.__table__
    rows = []
    for number, template in enumerate(templates, start=first):
        times = {"datetime_start": _utc(template), "datetime_complete": _utc_of_end(template)}
        rows.append({"study_id": study_id, "number": number, "state": template.state, **times})
    connection.execute(sqlalchemy.insert(trials), rows)

    params, user_attributes, system_attributes = [], [], []
    places = _places(connection, study_id, first, len(templates))
    for (trial_id, _), template in zip(places, templates, strict=True):
        params += _rows_of_params(trial_id, template)
        user_attributes += _rows_of_attributes(trial_id, template.user_attrs)
        system_attributes += _rows_of_attributes(trial_id, template.system_attrs)
        write_values(connection, trial_id, template.values or ())

    for model, model_rows in (
        (models.TrialParamModel, params),
        (models.TrialUserAttributeModel, user_attributes),
        (models.TrialSystemAttributeModel, system_attributes),
    ):
        if model_rows:
            connection.execute(sqlalchemy.insert(model.__table__), model_rows)


def _places(connection: Connection, study_id: int, first: int, num: int) -> list[Place]:
    """Where trials of consecutive numbers are."""
    trials = models.TrialModel.__table__
    is_new = (trials.c.number >= first) & (trials.c.number < first + num)
    query = sqlalchemy.select(trials.c.trial_id, trials.c.number)
    query = query.where((trials.c.study_id == study_id) & is_new).order_by(trials.c.number)
    return [(int(trial_id), int(number)) for trial_id, number in connection.execute(query)]


def _check_ranges(connection: Connection, study_id: int, templates: Sequence[FrozenTrial]) -> None:
    """As Optuna does: one parameter has one kind of range, and one list of choices."""
    ranges: dict[str, list[BaseDistribution]] = {}
    for template in templates:
        for name, distribution in template.distributions.items():
            known = ranges.setdefault(name, [])
            if distribution not in known:
                known.append(distribution)

    params, trials = models.TrialParamModel.__table__, models.TrialModel.__table__
    for name, distributions in ranges.items():
        query = sqlalchemy.select(params.c.distribution_json).join(
            trials, params.c.trial_id == trials.c.trial_id
        )
        query = query.where((trials.c.study_id == study_id) & (params.c.param_name == name))
        text = connection.execute(query.limit(1)).scalar_one_or_none()
        before = distributions[0] if text is None else json_to_distribution(text)
        for distribution in distributions:
            check_distribution_compatibility(before, distribution)


def _rows_of_params(trial_id: int, template: FrozenTrial) -> list[dict[str, Any]]:
    rows = []
    for name, value in template.params.items():
        distribution = template.distributions[name]
        stored = {
            "param_value": distribution.to_internal_repr(value),
            "distribution_json": distribution_to_json(distribution),
        }
        rows.append({"trial_id": trial_id, "param_name": name, **stored})
    return rows


def _rows_of_attributes(trial_id: int, attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
        for key, value in attributes.items()
    ]


def _utc(template: FrozenTrial) -> Any:
    """The start as the column holds it."""
    return models.TrialModel(datetime_start=template.datetime_start)._datetime_start_utc


def _utc_of_end(template: FrozenTrial) -> Any:
    """The end as the column holds it; None of one that runs."""
    return models.TrialModel(datetime_complete=template.datetime_complete)._datetime_complete_utc
