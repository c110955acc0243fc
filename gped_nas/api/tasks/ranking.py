"""The task ``ranking:K``: whether the examples that are least sure are those of the teacher.

Source: Vadera, Jalaian & Marlin 2020, arXiv:2005.08110, whose figure is ``ndcg20_expected``.
"""

from gped_nas.api.tasks.base import OPTION, LeftOut, Row, add_task
from gped_nas.api.tasks.bench import TEACHER, Bench
from gped_nas.errors import ConfigError
from gped_nas.evaluate.ranking import RANKED, K, ndcg_metric
from gped_nas.evaluate.scores import SCORES


def _check(bench: Bench, argument: str) -> None:
    """Refuse a number of places that is none, or more than there are examples."""
    num = len(bench.labels)
    if not argument.isdecimal() or not 1 <= int(argument) <= num:
        raise ConfigError(
            f"{OPTION}: found 'ranking:{argument}', expected a number of places from 1 to {num}, "
            f"the examples of {bench.part} that are asked about; write ranking:{min(K, num)}"
        )


@add_task(
    "ranking",
    "finding the examples that the teacher is least sure of",
    argument="K",
    default=str(K),
    needs_teacher=True,
    metrics=("ndcg",),
    check=_check,
)
def ranking(bench: Bench, argument: str) -> list[Row]:
    """nDCG of the first K examples by each score, whose relevance is the teacher's score."""
    metrics = [ndcg_metric(SCORES[name], int(argument)) for name in RANKED]
    table: list[Row] = []
    for subject in bench.subjects:
        if subject.kind == TEACHER:
            raise LeftOut("the others are ranked by it")
        table += bench.rows(subject, bench.measures(bench.answers(subject), metrics))
    return table
