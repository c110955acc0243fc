"""Who is inside the region of interest, by hand-made values of student, teacher and ignorance."""

import pytest

from gped_nas.evaluate.measured import from_public
from gped_nas.search.document import StudyDocument, validate
from gped_nas.search.goals import Objective
from gped_nas.search.record import State, TrialRecord
from gped_nas.search.region import Bound, Keep, Region, inside, make_region, outside

NLL = Objective("nll", "minimize", "metric", "NLL (nats)")
ACCURACY = Objective("accuracy", "maximize", "metric", "accuracy")
BYTES = Objective("storage_bytes", "minimize", "cost", "storage (bytes)")
GOALS = (NLL, ACCURACY, BYTES)
KNOW_NOTHING, TEACHER = {"nll": 2.3, "accuracy": 0.1}, {"nll": 0.3, "accuracy": 0.9}


def record(
    trial: int,
    nll: float,
    accuracy: float = 0.5,
    num_bytes: int = 100,
    state: State = "complete",
    **changes: object,
) -> TrialRecord:
    measures = from_public({"nll": nll, "accuracy": accuracy})
    costs = {"storage_bytes": num_bytes}
    return TrialRecord(trial, state, {}, measures=measures, costs=costs).replace(**changes)


def region(keep: Keep = 0.9, nothing: float = 2.3, teacher: float = 0.3) -> Region:
    return make_region(
        keep,
        GOALS,
        know_nothing=KNOW_NOTHING | {"nll": nothing},
        teacher=TEACHER | {"nll": teacher},
    )


@pytest.mark.parametrize(
    ("keep", "nothing", "teacher", "bound"),
    [
        (0.9, 2.3, 0.3, 0.5),  # 2.3 - .9 * 2
        (0.5, 2.3, 0.3, 1.3),
        (1.0, 2.3, 0.3, 0.3),  # as good as its teacher
        (1.1, 2.3, 0.3, 0.1),  # better than it
        (0.9, 1.5, -2.5, -2.1),  # a density: 1.5 - .9 * 4
        (0.9, -1.0, -2.0, -1.9),
    ],
)
def test_the_bound_keeps_a_share_of_the_lead_over_ignorance(
    keep: float, nothing: float, teacher: float, bound: float
) -> None:
    made = region(keep, nothing, teacher)
    (stored,) = made.bounds
    assert (stored.name, stored.direction) == ("nll", "minimize")
    assert stored.value == pytest.approx(bound)
    assert not made.lacks_skill and made.asked == keep

    # by the value alone, whatever its interval is
    assert made.is_inside(record(0, stored.value))
    assert not made.is_inside(record(0, stored.value + 1e-9))
    assert made.skill(record(0, bound)) == pytest.approx(keep)
    assert made.skill(record(0, nothing)) == 0 and made.skill(record(0, teacher)) == 1


def test_a_teacher_of_infinite_nll_has_no_region_and_students_of_use() -> None:
    made = make_region(0.9, GOALS, know_nothing=KNOW_NOTHING, teacher={"accuracy": 0.9})
    assert made.bounds == () and not made.lacks_skill and made.is_inside(record(0, 5.0))


@pytest.mark.parametrize("teacher", [{"nll": 2.3}, {"nll": 2.4}])
def test_a_teacher_without_skill_leaves_everybody_inside(teacher: dict[str, float]) -> None:
    made = make_region(0.9, GOALS, know_nothing=KNOW_NOTHING, teacher=teacher)
    assert made.lacks_skill and made.bounds == () and made.asked == 0.9
    assert made.is_inside(record(0, 50.0)) and made.skill(record(0, 1.0)) is None


def test_bounds_by_objective_are_in_its_own_units() -> None:
    made = region({"accuracy": 0.8, "storage_bytes": 200})
    assert made.asked == {"accuracy": 0.8, "storage_bytes": 200}
    assert made.bound("accuracy") == Bound("accuracy", "maximize", 0.8)
    assert made.bound("nll") is None and not made.lacks_skill
    assert made.is_inside(record(0, 50.0, accuracy=0.8, num_bytes=200))
    assert not made.is_inside(record(0, 0.1, accuracy=0.79, num_bytes=200))
    assert not made.is_inside(record(0, 0.1, accuracy=0.9, num_bytes=201))
    assert region({}).is_inside(record(0, 50.0))


def test_a_student_without_the_number_is_not_inside() -> None:
    lone = record(0, 0.1).replace(measures=from_public({"accuracy": 0.9}))
    assert not region().is_inside(lone) and region().skill(lone) is None


def test_skill_counts_where_nll_is_no_objective() -> None:
    made = make_region(0.9, [ACCURACY, BYTES], know_nothing=KNOW_NOTHING, teacher=TEACHER)
    assert not made.is_inside(record(0, 0.6, accuracy=0.99))


def test_another_share_is_asked_of_the_same_teacher() -> None:
    again = region(0.9).asking(0.5, GOALS)
    assert again == region(0.5)
    assert again.asking({"nll": 1.0}, GOALS).asked == {"nll": 1.0}


def test_corners_are_bounds_then_what_ignorance_is_worth() -> None:
    assert region().corner(NLL) == pytest.approx(0.5)
    assert region().corner(ACCURACY) == 0.1
    assert region().corner(BYTES) is None
    assert region({"accuracy": 0.8}).corner(ACCURACY) == 0.8
    assert region({"accuracy": 0.8}).corner(NLL) == 2.3
    assert region({"storage_bytes": 50}).corner(BYTES) == 50


def test_ignorance_ends_no_axis_where_the_teacher_is_no_better() -> None:
    """The class frequencies are well calibrated: an ECE of .01 would leave no student."""
    ece = Objective("ece", "minimize", "metric", "ECE")
    permuted = Objective("ece@permuted", "minimize", "metric", "ECE, permuted")
    know_nothing = {"nll": 2.3, "ece": 0.01, "ece@permuted": 0.01}
    for of_teacher, corner in ((0.02, None), (0.005, 0.01)):
        teacher = {"nll": 0.3, "ece": of_teacher}
        made = make_region(0.9, [NLL, ece], know_nothing=know_nothing, teacher=teacher)
        assert made.corner(ece) == corner
        assert made.corner(permuted) == corner


def test_complete_trials_are_parted() -> None:
    records = [
        record(0, 0.4),
        record(1, 0.6),
        record(2, 0.1, state="infeasible"),
        record(3, 0.9, state="pruned"),
        record(4, 0.5),
    ]
    assert [r.trial for r in inside(records, GOALS, region())] == [0, 4]
    assert outside(records, GOALS, region()) == (1,)


def test_before_there_were_regions_a_guess_was_apart() -> None:
    told, guess = {"nll": (-1.0, -1.1, -0.9)}, {"nll": (-0.01, -0.02, 0.01)}
    records = [record(0, 1.3, above_guess=told), record(1, 2.29, above_guess=guess)]
    assert [r.trial for r in inside(records, GOALS, None)] == [0]
    assert outside(records, GOALS, None) == (1,)


@pytest.mark.parametrize("keep", [0.9, {"accuracy": 0.8, "storage_bytes": 200.0}, {}])
def test_a_document_keeps_it(keep: Keep) -> None:
    document = StudyDocument(identity={}, objectives=GOALS, region=region(keep))
    assert validate(StudyDocument, document.to_json(), "here").region == region(keep)
    assert "region" not in StudyDocument(identity={}, objectives=GOALS).to_json()
