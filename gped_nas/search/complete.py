"""Complete trials as Optuna knows them, read in bulk: parameters and values alone."""

import functools
import math
from collections.abc import Container
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState


class CompleteTrials(optuna.Study):
    """A study for reading whose trials are its complete ones, without their attributes.

    Args:
        study: the whole study, which lies in a database.
        engine: of that database.
    """

    def __init__(self, study: optuna.Study, engine: sqlalchemy.Engine) -> None:
        super().__init__(study.study_name, study._storage)
        self._complete = _read(engine, study._study_id, len(study.directions))

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The complete trials by number; none where ``states`` asks for others."""
        is_asked = states is None or TrialState.COMPLETE in states
        return self._complete if is_asked else []


def _read(engine: sqlalchemy.Engine, study_id: int, num_objectives: int) -> list[FrozenTrial]:
    trials = models.TrialModel
    is_wanted = (trials.study_id == study_id) & (trials.state == TrialState.COMPLETE)
    numbers = sqlalchemy.select(trials.trial_id, trials.number).where(is_wanted)
    values = _beside(models.TrialValueModel, "objective", "value").where(is_wanted)
    params = _beside(
        models.TrialParamModel, "param_name", "param_value", "distribution_json"
    ).where(is_wanted)

    with engine.connect() as connection:
        params = params.order_by(models.TrialParamModel.param_id)
        by_trial: dict[int, dict[str, Any]] = {}
        for trial_id, number in connection.execute(numbers.order_by(trials.trial_id)):
            by_trial[trial_id] = {"number": number, "values": {}, "params": {}, "ranges": {}}

        for trial_id, objective, value in connection.execute(values):
            if trial_id in by_trial:
                by_trial[trial_id]["values"][objective] = value
        for trial_id, name, value, text in connection.execute(params):
            if trial_id in by_trial:
                distribution = _distribution(text)
                by_trial[trial_id]["params"][name] = distribution.to_external_repr(value)
                by_trial[trial_id]["ranges"][name] = distribution

    read = []
    for trial_id, trial in by_trial.items():
        objectives = [trial["values"].get(i) for i in range(len(trial["values"]))]
        # Others have failed, see ``search.storage``.
        if len(objectives) == num_objectives and all(
            v is not None and math.isfinite(v) for v in objectives
        ):
            read.append(_frozen(trial_id, trial, objectives))
    return read


def _beside(model: Any, *columns: str) -> sqlalchemy.Select[Any]:
    """A trial's number in the database and some columns of a table of things that trials have."""
    trial_id = models.TrialModel.trial_id
    chosen = [getattr(model, column) for column in columns]
    return sqlalchemy.select(trial_id, *chosen).join(model, model.trial_id == trial_id)


@functools.lru_cache(maxsize=4096)
def _distribution(text: str) -> BaseDistribution:
    """A parameter's range; that of one parameter is mostly the same in every trial."""
    return json_to_distribution(text)


def _frozen(trial_id: int, trial: dict[str, Any], values: list[float]) -> FrozenTrial:
    return FrozenTrial(
        number=trial["number"],
        state=TrialState.COMPLETE,
        value=None,
        values=values,
        datetime_start=None,
        datetime_complete=None,
        params=trial["params"],
        distributions=trial["ranges"],
        user_attrs={},
        system_attrs={},
        intermediate_values={},
        trial_id=trial_id,
    )
