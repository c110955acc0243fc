"""Which parameter an objective hangs on: what only Optuna can compute."""

import warnings
from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from gped_nas.search.goals import Objective

_FEWEST = 10


def importances(
    study: optuna.Study, objectives: Sequence[Objective]
) -> dict[str, dict[str, float]]:
    """PED-ANOVA share of each parameter, by objective; empty with fewer than ten complete trials.

    PED-ANOVA looks at the low values, so objectives that are maximized are negated first.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < _FEWEST or not any(trial.params for trial in complete):
        return {}

    result = {}
    for i, objective in enumerate(objectives):
        sign = -1.0 if objective.direction == "maximize" else 1.0

        def loss(trial: FrozenTrial, i: int = i, sign: float = sign) -> float:
            return float(sign * trial.values[i])

        with warnings.catch_warnings():
            # It reminds us that it looks at low values, which the sign above takes care of.
            warnings.filterwarnings(
                "ignore", message="PedAnovaImportanceEvaluator", category=UserWarning
            )
            try:
                shares = optuna.importance.get_param_importances(study, target=loss)
            except (ValueError, RuntimeError):  # nothing varies, so nothing has a share
                continue

        result[objective.name] = {name: float(share) for name, share in shares.items()}
    return result
