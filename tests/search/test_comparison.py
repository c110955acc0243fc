"""Studies side by side: one box, exact hypervolumes, and clear refusals."""

import pytest

from gped_nas.errors import ConfigError
from gped_nas.evaluate.measured import from_public
from gped_nas.search.comparison import MAX_STUDIES, compare_fronts
from gped_nas.search.goals import Objective
from gped_nas.search.record import TrialRecord
from gped_nas.search.snapshot import StudySnapshot

LOSS = Objective("nll", "minimize", "metric", "NLL")
COST = Objective("macs", "minimize", "cost", "MACs")
SHARE = Objective("accuracy", "maximize", "metric", "accuracy")


def study(
    name: str,
    points: list[tuple[float, float]],
    *,
    objectives=(LOSS, COST),
    worst=(2.0, 100.0),
    best=(0.0, 1.0),
):
    """A study of a metric and a cost: its points, then a trial that failed."""
    names = metric, cost = [objective.name for objective in objectives]
    records = []
    for trial, (quality, price) in enumerate(points):
        measures = from_public({metric: quality})
        record = TrialRecord(trial, "complete", {}, measures=measures, costs={cost: int(price)})
        records.append(record)

    return StudySnapshot(
        name=name,
        config={},
        objectives=objectives,
        records=(*records, TrialRecord(len(records), "failed", {})),
        front=(),
        chosen=None,
        rule="",
        references=(),
        paired_differences=(),
        hypervolume=(),
        reference_point=dict(zip(names, worst, strict=True)),
        importances={},
        teacher={},
        provenance={},
        num_test_evaluations=0,
        split_text="",
        best_point=dict(zip(names, best, strict=True)),
    )


def test_hypervolumes_by_hand_in_the_box_that_holds_both() -> None:
    """Box: NLL 0 to 4, MACs 1 to 100 (log10: 0 to 2).

    (1, 10) covers (1 - 1/4) (1 - 1/2) = .375; (2, 10) covers .25.
    """
    better = study("a", [(1.0, 10)])
    worse = study("b", [(2.0, 10)], worst=(4.0, 50.0), best=(0.5, 2.0))
    comparison = compare_fronts([better, worse])

    assert comparison.worst == {"nll": 4.0, "macs": 100.0}
    assert comparison.best == {"nll": 0.0, "macs": 1.0}
    assert comparison.hypervolumes == pytest.approx((0.375, 0.25))
    (difference,) = comparison.differences
    assert (difference.first, difference.second) == (0, 1)
    assert difference.difference == pytest.approx(0.125)
    assert difference.interval is None
    assert difference.why == "no interval: 2 trials, expected at least 32"


@pytest.mark.parametrize(("num", "has_interval"), [(30, False), (31, True)])
def test_intervals_take_enough_trials(num: int, has_interval: bool) -> None:
    points = [(1.0 + i / 100, 10) for i in range(num)]  # and one that failed
    (difference,) = compare_fronts([study("a", points), study("b", points)]).differences
    assert (difference.interval is not None) == has_interval
    assert bool(difference.why) != has_interval


def test_a_maximized_objective_keeps_its_ends() -> None:
    """Box: accuracy 1 to 0; (.8, 10) covers .8 * .5 = .4."""
    ends = {"objectives": (SHARE, COST), "worst": (0.0, 100.0), "best": (1.0, 1.0)}
    comparison = compare_fronts([study("a", [(0.8, 10)], **ends), study("b", [], **ends)])
    assert comparison.best["accuracy"] == 1.0 and comparison.worst["accuracy"] == 0.0
    assert comparison.hypervolumes == pytest.approx((0.4, 0.0))


def test_every_pair_is_compared_and_none_with_itself() -> None:
    studies = [study(name, [(1.0, 10)]) for name in "abc"]
    pairs = [(d.first, d.second) for d in compare_fronts(studies).differences]
    assert pairs == [(0, 1), (0, 2), (1, 2)]


def test_studies_of_other_objectives_cannot_be_compared() -> None:
    other = study("b", [], objectives=(SHARE, COST), worst=(0.0, 100.0), best=(1.0, 1.0))
    message = r"study 'b': its objectives are accuracy \(maximize\), macs .* those of 'a'"
    with pytest.raises(ConfigError, match=message):
        compare_fronts([study("a", []), other])


def test_two_to_six_different_studies_are_compared() -> None:
    with pytest.raises(ConfigError, match="given twice among a, a"):
        compare_fronts([study("a", []), study("a", [])])
    with pytest.raises(ConfigError, match="found 1 studies"):
        compare_fronts([study("a", [])])
    with pytest.raises(ConfigError, match=f"found 7 studies, expected 2 to {MAX_STUDIES}"):
        compare_fronts([study(name, []) for name in "abcdefg"])


def test_a_study_that_has_not_begun_cannot_be_compared() -> None:
    begun = StudySnapshot(**{**vars(study("b", [])), "best_point": {}})
    with pytest.raises(ConfigError, match="study 'b': it has not begun"):
        compare_fronts([study("a", []), begun])
