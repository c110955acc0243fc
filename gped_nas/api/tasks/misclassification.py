"""The task ``misclassification``: whether uncertainty tells wrong answers from right ones."""

import numpy as np

from gped_nas.api.tasks.base import LeftOut, Row, add_task
from gped_nas.api.tasks.bench import Bench
from gped_nas.evaluate.measured import Key, Measured
from gped_nas.evaluate.predictions import Floats, Predictions
from gped_nas.evaluate.uncertainty import auroc


@add_task("misclassification", "telling wrong answers by uncertainty", kinds=("classification",))
def misclassification(bench: Bench, argument: str) -> list[Row]:
    """The area under the ROC curve by each score; a wrong answer is the positive class."""
    table: list[Row] = []
    for subject in bench.subjects:
        answers = bench.answers(subject)
        assert isinstance(answers.predictions, Predictions), "labels are classes"
        is_wrong = answers.predictions.answer_N != bench.labels
        if is_wrong.all() or not is_wrong.any():
            raise LeftOut("its answers are all right, or all wrong")

        measures = {}
        for name, score_N in _scores(answers.predictions).items():
            value = auroc(score_N[~is_wrong], score_N[is_wrong])
            key = Key(f"misclassification_auroc_{name}", answers.condition, bench.part)
            measures[key] = Measured(value, n=len(score_N), why="no interval was made")
        table += bench.rows(subject, measures)
    return table


def _scores(predictions: Predictions) -> dict[str, Floats]:
    """How unsure the predictions are, (N,) by name."""
    scores = {"confidence": -predictions.confidence_N, "total": predictions.entropy_N}
    if "expected_entropy" in predictions.expectations and not predictions.is_point:
        scores["expected"] = predictions.expected_entropy_N
        scores["model"] = np.asarray(predictions.mutual_information_N)
    return scores
