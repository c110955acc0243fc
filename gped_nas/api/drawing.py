"""What objectives are worth on bootstrap draws of validation, noted while a student is judged."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from gped_nas.evaluate.base import METRICS, Metric, Resamples
from gped_nas.evaluate.judging import evaluate
from gped_nas.evaluate.measured import CLEAN, Key, Measured, parse_name
from gped_nas.evaluate.predictions import AnyPredictions, Labels
from gped_nas.search.draws import NUM_DRAWS, pack_draws
from gped_nas.search.goals import Objective


@dataclass(eq=False)
class NotedDraws:
    """Evaluates as ``evaluate`` does, and notes the draws of the objectives on the way.

    Attributes:
        objectives: of the study.
        draws: by the name of a quality objective, see ``search.draws``.
    """

    objectives: Iterable[Objective]
    draws: dict[str, str] = field(default_factory=dict)

    def evaluate(
        self,
        predictions: AnyPredictions,
        labels_N: Labels,
        teacher: AnyPredictions | None = None,
        *,
        resamples: Resamples,
        condition: str = CLEAN,
        asked: Collection[str | Metric] = (),
        **settings: Any,
    ) -> dict[Key, Measured]:
        """See ``evaluate.judging.evaluate``, whose arguments and errors these are."""
        measures = evaluate(
            predictions,
            labels_N,
            teacher,
            resamples=resamples,
            condition=condition,
            asked=asked,
            **settings,
        )
        first = Resamples(resamples.counts_RN[:NUM_DRAWS], resamples.device)
        for goal in self.objectives:
            key = parse_name(goal.name)
            if goal.kind == "metric" and key.condition == condition and key in measures:
                metric = METRICS[key.metric]
                terms_NT = metric.checked_terms(predictions, labels_N, teacher)
                self.draws[goal.name] = pack_draws(metric.on_resamples(terms_NT, first))
        return measures
