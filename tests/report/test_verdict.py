"""The verdict on a study: every kind, on recorded studies and by hand."""

import dataclasses
import json
import math

import pytest

from gped_nas.evaluate.measured import from_public
from gped_nas.report.beside import Evidence, evidence_of, losses
from gped_nas.report.holdout import describe_gap, gap_of
from gped_nas.report.verdict import LEAST_KEPT, MIN_TRIALS, StudyVerdict, judge_study
from gped_nas.search.goals import MetricWords, Objective
from gped_nas.search.record import TrialRecord
from gped_nas.search.snapshot import PairedDifference, Reference
from tests.report.example import make_snapshot
from tests.report.recorded import evidence

WORDS = {
    "accuracy": MetricWords("accuracy (share)", "maximize", "share"),
    "nll": MetricWords("NLL (nats)", "minimize", "nats"),
}
SUCCESS = ("can stand in", "to use", "keeps its")
"""What is said of a student that can be used, and of no other."""


@pytest.mark.parametrize(
    ("study", "kind", "words"),
    [
        (
            "keeps",
            "keeps",
            "Trial 2 can stand in for its teacher: it cannot be told from its teacher",
        ),
        ("loses", "loses", " of NLL against its teacher ("),
        ("far", "far_behind", "is far behind its teacher and no stand-in for it"),
        ("few", "undecided", "on too few examples to say that it keeps up: it may lose 10.80 pp"),
        ("plain", "plain_as_good", "A plain network is better than trial 8 and costs no more"),
        ("untrusted", "untrusted_teacher", "copies a teacher whose posterior is not to be trusted"),
        ("noise", "teacher_guesses", "the teacher is not better than a guess"),
        ("nothing", "nothing_learned", "none of 12 complete students is better than a guess"),
        ("infeasible", "none_within", "none of 12 trials is within nll <= 0.001"),
        ("too_few", "too_few_trials", "2 trials are too few for a choice: so far trial "),
    ],
)
def test_every_kind_is_told_of_a_recorded_study(study: str, kind: str, words: str) -> None:
    verdict = judge_study(evidence(study))
    assert verdict.kind == kind
    assert words in verdict.sentence
    assert verdict.sentence.endswith(".")
    if kind != "keeps":
        assert not any(word in verdict.sentence for word in SUCCESS)
    assert json.loads(json.dumps(verdict.to_json(), allow_nan=False))["kind"] == kind


def test_a_teacher_that_predicts_better_is_worth_imitating_whatever_it_samples() -> None:
    made = evidence("untrusted")
    better = dataclasses.replace(made, predictions={"level": "better"})
    assert judge_study(better).kind != "untrusted_teacher"
    says = "As a posterior the teacher is not vouched for, but it predicts better than one tuned"
    assert any(says in detail for detail in judge_study(better).details)

    for level in ("no better", "worse", "unknown"):
        other = dataclasses.replace(made, predictions={"level": level})
        assert judge_study(other) == judge_study(made)
    trusted = dataclasses.replace(better, trust={"level": "trusted"})
    assert not any(says in detail for detail in judge_study(trusted).details)


def test_the_figures_are_those_of_the_record() -> None:
    made = evidence("far")
    student, verdict = made.student, judge_study(made)
    assert student is not None
    teacher = made.reference("teacher")
    assert teacher is not None
    figures = verdict.figures
    assert verdict.trial == student.trial
    assert figures["test_accuracy"] == student.metrics["test_accuracy"]
    assert figures["test_accuracy_of_teacher"] == teacher.metrics["test_accuracy"]
    lost = figures["test_accuracy_of_teacher"] - figures["test_accuracy"]
    assert figures["test_accuracy_lost"] == pytest.approx(lost)
    assert figures["test_accuracy_lost_low"] < lost < figures["test_accuracy_lost_high"]
    assert figures["macs"] == student.costs["macs"]


def by_hand(
    accuracy: float,
    nll: float,
    *,
    teacher: tuple[float, float] = (0.715, 0.902),
    half: tuple[float, float] = (0.03, 0.05),
    control: tuple[float, float] | None = None,
    control_macs: int = 400_000,
    num_finished: int = 24,
    n: int = 1_200,
) -> Evidence:
    """A study whose guess has an accuracy of .30 and an NLL of 1.8 on test."""

    def both(values: tuple[float, float]) -> dict[str, float]:
        return {"test_accuracy": values[0], "test_nll": values[1]}

    def paired(second: str, values: tuple[float, float]) -> list[PairedDifference]:
        rows = []
        mine = (accuracy, nll)
        for i, metric in enumerate(("accuracy", "nll")):
            value = mine[i] - values[i]
            interval = (value - half[i], value + half[i])
            rows.append(PairedDifference("student", second, metric, "test", value, interval, n))
        return rows

    costs = {"macs": 402_000, "storage_bytes": 10_000}
    references = [
        Reference(
            "teacher",
            "teacher (average)",
            from_public(both(teacher)),
            {"macs": 14_300_000, "storage_bytes": 1_800_000},
        ),
        Reference("guess", "guess from the labels", from_public(both((0.30, 1.8)))),
    ]
    differences = paired("teacher", teacher)
    if control is not None:
        bought = {"macs": control_macs, "storage_bytes": 10_000}
        plain = from_public(both(control))
        references.append(Reference("twin", "label twin", plain, bought, is_control=True))
        differences += paired("twin", control)

    student = TrialRecord(
        trial=13,
        state="complete",
        genotype={},
        measures=from_public(both((accuracy, nll))),
        costs=costs,
    )
    return Evidence(
        student=student,
        num_finished=num_finished,
        num_complete=num_finished,
        num_on_front=1,
        objectives=(Objective("nll", "minimize", "metric", "NLL (nats)"),),
        references=tuple(references),
        differences=tuple(differences),
        metrics=WORDS,
    )


def test_a_student_of_half_its_teachers_accuracy_is_no_success() -> None:
    """The road of a stranger: .4525 beside .7150, under the headline "the student to use"."""
    verdict = judge_study(by_hand(0.4525, 1.413))
    assert verdict.kind == "far_behind"
    assert "far behind its teacher and no stand-in for it" in verdict.sentence
    assert "accuracy 45.25 % against 71.50 %, 26.25 pp lost [23.25, 29.25]" in verdict.text
    # of .415 that the teacher is ahead of a guess, .1525 are left
    assert verdict.figures["test_accuracy_lead_kept"] == pytest.approx(0.1525 / 0.415)
    assert "keeps 37 % of its lead over a guess" in verdict.sentence
    assert "402 k MACs (36 times less) and 10 kB (180 times less)" in verdict.sentence


def test_what_a_student_keeps_decides_between_losing_and_being_far_behind() -> None:
    lead = 0.715 - 0.30
    for kept, kind in ((LEAST_KEPT + 0.01, "loses"), (LEAST_KEPT - 0.01, "far_behind")):
        verdict = judge_study(by_hand(0.715 - (1 - kept) * lead, 0.902))
        assert verdict.kind == kind
    # a loss of accuracy is one where the likelihood is as good, and the other way round
    assert judge_study(by_hand(0.66, 0.902)).kind == "loses"
    assert judge_study(by_hand(0.715, 0.99)).kind == "loses"
    assert judge_study(by_hand(0.715, 0.902, half=(0.01, 0.02))).kind == "keeps"
    assert "is better than its teacher" in judge_study(by_hand(0.80, 0.70)).sentence


def test_a_wide_interval_is_no_proof_that_nothing_is_lost() -> None:
    verdict = judge_study(by_hand(0.66, 0.902, half=(0.12, 0.05), n=40))
    assert verdict.kind == "undecided"
    # the far end: .055 + .12
    assert "may lose 17.50 pp of accuracy (n = 40)" in verdict.sentence


def test_a_plain_network_can_be_better_in_one_thing_and_worse_in_another() -> None:
    verdict = judge_study(by_hand(0.8583, 0.8754, control=(0.8058, 0.7691)))
    assert "is better in NLL and worse in accuracy: " in verdict.text
    assert "not told apart" not in verdict.text


def test_a_plain_network_counts_at_the_price_of_the_student_alone() -> None:
    verdict = judge_study(by_hand(0.70, 0.92, control=(0.70, 0.92)))
    assert verdict.kind == "plain_as_good"
    assert "A plain network is as good as trial 13 and costs no more" in verdict.sentence
    assert "(label twin)" in verdict.sentence

    better = judge_study(by_hand(0.4525, 1.413, control=(0.6525, 1.008)))
    assert (better.kind, "is better than trial 13" in better.sentence) == ("plain_as_good", True)

    worse = judge_study(by_hand(0.715, 0.902, half=(0.01, 0.02), control=(0.60, 1.1)))
    assert worse.kind == "keeps"
    assert "The plain network beside it (label twin) is worse" in worse.text

    dear = by_hand(0.715, 0.902, half=(0.01, 0.02), control=(0.80, 0.70), control_macs=4_020_000)
    verdict = judge_study(dear)
    assert verdict.kind == "keeps"
    assert verdict.sentence.endswith("; a plain network of 10 times its MACs is better.")


def test_few_trials_are_named_unless_the_student_keeps_its_teacher_or_none_are_left() -> None:
    few = by_hand(0.66, 0.902, num_finished=MIN_TRIALS - 1)
    assert judge_study(few).kind == "too_few_trials"
    assert judge_study(dataclasses.replace(few, num_finished=MIN_TRIALS)).kind == "loses"
    assert judge_study(dataclasses.replace(few, is_exhausted=True)).kind == "loses"
    keeps = by_hand(0.715, 0.902, half=(0.01, 0.02), num_finished=1)
    assert judge_study(keeps).kind == "keeps"
    none = dataclasses.replace(few, num_finished=0, student=None, num_on_front=0)
    assert judge_study(none).sentence == (
        "No student was chosen: no trial has finished. Run the search on."
    )


def test_a_budget_that_nobody_meets_is_named() -> None:
    made = dataclasses.replace(
        by_hand(0.7, 0.9), student=None, within={"macs": 2e6, "accuracy": 0.9}
    )
    assert judge_study(made).sentence == (
        "No student is within the budget: none of 1 student on the front is within "
        "macs <= 2,000,000 and accuracy >= 0.9."
    )


def test_an_exact_test_decides_where_there_is_one() -> None:
    made = by_hand(0.66, 0.902)
    rows = [
        dataclasses.replace(row, p_value=0.06) if row.metric == "accuracy" else row
        for row in made.differences
    ]
    made = dataclasses.replace(made, differences=tuple(rows))
    teacher = made.reference("teacher")
    assert teacher is not None
    assert [row.is_lost for row in losses(made, teacher)] == [False, False]


def test_a_difference_reads_the_same_from_both_sides() -> None:
    made = by_hand(0.66, 1.0)
    turned = []
    for row in made.differences:
        assert row.interval is not None
        low, high = row.interval
        turned.append(
            dataclasses.replace(
                row,
                first=row.second,
                second="student",
                difference=-row.difference,
                interval=(-high, -low),
            )
        )
    other = dataclasses.replace(made, differences=tuple(turned))
    assert judge_study(other) == judge_study(made)


def teacher_with(
    validation: float, test: float, *, half: float, name: str = "accuracy"
) -> Reference:
    metrics = {name: validation, f"test_{name}": test}
    intervals = {key: (value - half, value + half) for key, value in metrics.items()}
    sizes = {name: 1_000, f"test_{name}": 1_200}
    return Reference("teacher", "teacher", from_public(metrics, intervals, sizes))


def test_a_teacher_that_has_seen_validation_is_told_with_its_figures() -> None:
    """The road of a stranger: .805 on validation beside .715 on test."""
    gap = gap_of(teacher_with(0.805, 0.715, half=0.025), WORDS)
    assert gap is not None
    assert gap.value == pytest.approx(0.09)
    # MOVER of symmetric intervals: the root of the sum of squares, from 95 to 99 %
    half = math.hypot(0.025, 0.025) * 2.575829 / 1.959964
    assert (gap.low, gap.high) == pytest.approx((0.09 - half, 0.09 + half))

    text = describe_gap(teacher_with(0.805, 0.715, half=0.025), WORDS)
    assert "accuracy 80.50 % against 71.50 %, a gap of +9.00 pp" in text
    assert "n = 1,000 and 1,200" in text
    assert "teacher.trained_on" in text

    assert not describe_gap(teacher_with(0.805, 0.715, half=0.06), WORDS)  # noise
    assert not describe_gap(teacher_with(0.715, 0.805, half=0.02), WORDS)  # better on test
    assert not describe_gap(teacher_with(0.805, 0.795, half=0.001), WORDS)  # sure, and tiny
    assert describe_gap(teacher_with(0.6, 0.9, half=0.02, name="nll"), WORDS)
    assert not describe_gap(teacher_with(0.9, 0.6, half=0.02, name="nll"), WORDS)


def test_ends_that_are_not_symmetric_are_paired_with_the_far_ones() -> None:
    """Of validation minus test, the low end takes validation's low and test's high."""
    metrics = {"accuracy": 0.9, "test_accuracy": 0.7}
    intervals = {"accuracy": (0.87, 0.91), "test_accuracy": (0.69, 0.74)}
    gap = gap_of(Reference("teacher", "", from_public(metrics, intervals)), WORDS)
    assert gap is not None
    widened = 2.575829 / 1.959964
    assert gap.low == pytest.approx(0.2 - widened * math.hypot(0.03, 0.04))
    assert gap.high == pytest.approx(0.2 + widened * math.hypot(0.01, 0.01))


def test_the_verdict_of_a_snapshot_is_about_the_chosen_student() -> None:
    snapshot = make_snapshot()
    verdict = judge_study(evidence_of(snapshot))
    assert isinstance(verdict, StudyVerdict)
    assert verdict.trial == snapshot.chosen
