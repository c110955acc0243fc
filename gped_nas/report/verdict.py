"""The verdict on a study in words: one function of the evidence, for everybody who says it.

The first of these that holds:

| kind                | when                                                                      |
|---------------------|---------------------------------------------------------------------------|
| `teacher_guesses`   | the teacher is not better than a guess from the training labels, or has   |
|                     | no skill that a student could keep                                        |
| `too_few_trials`    | no trial has finished; or fewer than ``MIN_TRIALS``, of a space that has  |
|                     | more, and the student does not keep what its teacher knows                |
| `none_within`       | no student is within the constraints, or within the budget                |
| `nothing_learned`   | no student is in the region of interest; in studies that were begun       |
|                     | before there was one, none is better than a guess                         |
| `untrusted_teacher` | the posterior's own verdict is "do not trust", and the teacher does not   |
|                     | predict better than one MAP network of its size                           |
| `plain_as_good`     | a plain network costs no more, and the student predicts no better         |
| `keeps`             | nothing is lost that could be told, and little that could not             |
| `undecided`         | nothing is lost that could be told, but much could be: too few examples   |
| `far_behind`        | less than ``LEAST_KEPT`` of the teacher's lead over a guess is kept       |
| `loses`             | all others: something is lost, at a price                                 |

What is lost is judged by paired differences on the same examples and their 95 % intervals, in every
metric that they were made of: accuracy beside NLL, so that a loss in one hides behind nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gped_nas.io import SCHEMA_VERSION
from gped_nas.report import words
from gped_nas.report.beside import TEACHER, Evidence, Loss, losses
from gped_nas.report.holdout import describe_gap
from gped_nas.report.sentences import (
    LEAST_KEPT,
    PRICES,
    describe_controls,
    describe_doubt,
    describe_loss,
    describe_price,
    describe_quality,
    first_reason,
    may_hide,
)
from gped_nas.report.twins import describe_bought
from gped_nas.search.guess import is_teacher_guess
from gped_nas.search.record import TrialRecord
from gped_nas.search.region import Region
from gped_nas.search.snapshot import Reference

Kind = Literal[
    "keeps",
    "loses",
    "far_behind",
    "undecided",
    "plain_as_good",
    "untrusted_teacher",
    "teacher_guesses",
    "nothing_learned",
    "none_within",
    "too_few_trials",
]

MIN_TRIALS = 10
"""Finished trials below which a search has hardly begun; TPE draws as many at random."""
PRICE_SLACK = 1.25
"""Up to how many times a student's cost is about the same price."""


@dataclass(frozen=True)
class StudyVerdict:
    """What a study says of its student, or why it has none.

    Attributes:
        kind: one of the kinds above.
        sentence: the verdict, one sentence.
        trial: of the student that it is about; None where there is none.
        details: what else must be known, a sentence each.
        figures: the numbers behind it by name, for example ``test_accuracy``,
            ``test_accuracy_of_teacher``, ``test_accuracy_lost``, ``macs`` and ``macs_of_teacher``.
    """

    kind: Kind
    sentence: str
    trial: int | None = None
    details: tuple[str, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """All of it as one text."""
        return " ".join([self.sentence, *self.details])

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": self.kind,
            "sentence": self.sentence,
            "trial": self.trial,
            "details": list(self.details),
            "figures": dict(self.figures),
        }


def judge_study(evidence: Evidence) -> StudyVerdict:
    """The verdict on a study by the evidence, see the module docstring."""
    without_student = _judge_without_student(evidence)
    if without_student is not None:
        return without_student

    student = evidence.student
    assert student is not None, "a front has students"
    teacher = evidence.reference(TEACHER)
    lost = losses(evidence, teacher) if teacher is not None else []

    kind, sentence = _judge_student(evidence, student, teacher, lost)
    details = [
        describe_quality(lost),
        _describe_teacher(evidence),
        describe_bought(evidence),
        describe_controls(evidence, student),
    ]
    gap = "" if teacher is None else describe_gap(teacher, evidence.metrics)
    return StudyVerdict(
        kind=kind,
        sentence=sentence,
        trial=student.trial,
        details=tuple(detail for detail in (*details, gap) if detail),
        figures=_figures(student, teacher, lost),
    )


# --- no student to speak of -------------------------------------------------------------------


def _judge_without_student(evidence: Evidence) -> StudyVerdict | None:
    region = evidence.region
    if is_teacher_guess(evidence.diagnosis) or (region is not None and region.lacks_skill):
        return StudyVerdict(
            "teacher_guesses",
            "No student is to be used: the teacher is not better than a guess.",
            details=(
                _describe_guessing_teacher(evidence.diagnosis),
                *_describe_no_region(region),
                "Mend the teacher, then search anew.",
            ),
        )
    if not evidence.num_finished:
        return StudyVerdict(
            "too_few_trials", "No student was chosen: no trial has finished. Run the search on."
        )

    finished = f"{words.things(evidence.num_finished, 'trial')}"
    if not evidence.num_complete:
        bounds = _describe_bounds(evidence.constraints, evidence)
        return StudyVerdict(
            "none_within",
            f"No student is within the budget: none of {finished} is within {bounds}."
            if bounds
            else f"No student was chosen: none of {finished} is complete.",
            details=("Loosen the constraints, or widen the space.",),
        )
    if not evidence.num_on_front and region is not None:
        what, remedy = evidence.emptiness
        sentence = f"No student is of use: {what}."
        return StudyVerdict("nothing_learned", sentence, details=(f"To do: {remedy}.",))
    if not evidence.num_on_front:
        complete = words.things(evidence.num_complete, "complete student")
        return StudyVerdict(
            "nothing_learned",
            f"No student has learned anything: none of {complete} is better than a guess from the "
            "training labels.",
            details=("Mend the teacher, or train students longer (recipe.steps).",),
        )
    if evidence.student is None:
        bounds = _describe_bounds(evidence.within, evidence)
        on_front = words.things(evidence.num_on_front, "student")
        return StudyVerdict(
            "none_within",
            f"No student is within the budget: none of {on_front} on the front is within {bounds}.",
            details=("Loosen the bounds, or search on.",),
        )
    return None


def _describe_no_region(region: Region | None) -> Iterable[str]:
    """That students cannot be parted by their skill where the teacher has none."""
    if region is not None and region.lacks_skill:
        yield "There is no region of interest: the teacher has no skill that they could keep."


def _describe_guessing_teacher(diagnosis: Mapping[str, Any]) -> str:
    """How a teacher that is no better than a guess does beside it."""
    if "guess" not in diagnosis:
        return "On validation its NLL is not below that of a guess from the training labels."
    mine = (diagnosis.get("average") or {}).get("nll")
    beside = diagnosis["guess"]
    text = (
        f"On validation its NLL is {words.metric(mine, 'nll')}, that of a guess from the training "
        f"labels {words.metric(beside.get('nll'), 'nll')}"
    )
    if beside.get("above"):
        difference, *bounds = beside["above"]
        text += f" (paired difference {difference:+.4f} "
        text += f"{words.interval(bounds, 'nll')}, n = {words.count(beside.get('n'))})"
    return f"{text}."


def _describe_bounds(bounds: Mapping[str, float], evidence: Evidence) -> str:
    """Bounds as people write them: ``macs <= 2,000,000 and accuracy >= 0.9``."""
    parts = []
    for name, bound in bounds.items():
        told = evidence.metrics.get(name.removeprefix("test_").partition("@")[0])
        sign = ">=" if told is not None and told.direction == "maximize" else "<="
        number = f"{bound:,.0f}" if float(bound).is_integer() else f"{bound:.6g}"
        parts.append(f"{name} {sign} {number}")
    return " and ".join(parts)


# --- one student ------------------------------------------------------------------------------


def _judge_student(
    evidence: Evidence, student: TrialRecord, teacher: Reference | None, lost: Sequence[Loss]
) -> tuple[Kind, str]:
    """The kind, and its sentence."""
    trial = f"Trial {student.trial}"
    price = describe_price(student, teacher)

    # what predicts better is worth imitating, whatever it is a sample of
    is_better = evidence.predictions.get("level") == "better"
    if evidence.trust.get("level") == "do not trust" and not is_better:
        reason = first_reason(evidence.trust.get("sentence", ""))
        return "untrusted_teacher", (
            f"{trial} copies a teacher whose posterior is not to be trusted ({reason}): it "
            f"{describe_loss(lost)}, and {price}."
        )

    control = _control_as_good(evidence, student)
    if control is not None:
        reference, is_better = control
        as_good = "is better than" if is_better else "is as good as"
        return "plain_as_good", (
            f"A plain network {as_good} trial {student.trial} and costs no more: the teacher did "
            f"not help it predict ({reference.label})."
        )

    kind = _grade(lost)
    is_begun = evidence.num_finished >= MIN_TRIALS or evidence.is_exhausted
    if kind != "keeps" and not is_begun:
        trials = words.things(evidence.num_finished, "trial")
        return "too_few_trials", (
            f"{trials} {'is' if evidence.num_finished == 1 else 'are'} too few for a choice: so "
            f"far {trial.lower()} {describe_loss(lost)}, and {price}."
        )

    price += _describe_dearer(evidence, student)
    match kind:
        case "keeps":
            return (
                kind,
                f"{trial} can stand in for its teacher: it {describe_loss(lost)}, and {price}.",
            )
        case "undecided":
            return kind, f"{trial} {describe_doubt(lost)}; it {price}."
        case "far_behind":
            return kind, (
                f"{trial} is far behind its teacher and no stand-in for it: it "
                f"{describe_loss(lost)}; it {price}."
            )
        case _:
            return kind, f"{trial} {describe_loss(lost)}, and {price}."


def _describe_teacher(evidence: Evidence) -> str:
    """That a teacher which is no posterior predicts better than a network; empty otherwise."""
    if evidence.trust.get("level") in (None, "trusted"):
        return ""
    if evidence.predictions.get("level") != "better":
        return ""
    return (
        "As a posterior the teacher is not vouched for, but it predicts better than one tuned MAP "
        "network of its size: distilling it makes sense."
    )


def _grade(lost: Sequence[Loss]) -> Kind:
    """How much of its teacher a student keeps."""
    if any(row.is_lost for row in lost):
        kept = [row.kept for row in lost if row.is_lost and row.kept is not None]
        return "far_behind" if kept and min(kept) < LEAST_KEPT else "loses"

    known = [row for row in lost if row.is_known]
    if not known or any(may_hide(row) for row in known):
        return "undecided"
    return "keeps"


def _control_as_good(evidence: Evidence, student: TrialRecord) -> tuple[Reference, bool] | None:
    """A plain network that the student is no better than, at its price; whether it is better."""
    for reference in evidence.references:
        rows = losses(evidence, reference) if reference.is_control else []
        known = [row for row in rows if row.is_known]
        if not known or not _costs_no_more(reference, student):
            continue
        if not any(row.is_gained for row in known):
            return reference, any(row.is_lost for row in known)
    return None


def _describe_dearer(evidence: Evidence, student: TrialRecord) -> str:
    """A plain network that is better than the student for more money; empty where none is."""
    for reference in evidence.references:
        rows = losses(evidence, reference) if reference.is_control else []
        is_better = any(row.is_lost for row in rows) and not any(row.is_gained for row in rows)
        macs, theirs = student.costs.get("macs"), reference.costs.get("macs")
        if is_better and macs and theirs:
            size = f"{theirs / macs:.3g} times its MACs"
            if 1 / PRICE_SLACK <= theirs / macs <= PRICE_SLACK:
                size = "about as many MACs"
            return f"; a plain network of {size} is better"
    return ""


def _costs_no_more(reference: Reference, student: TrialRecord) -> bool:
    """Whether a reference has about the student's price or a lower one."""
    names = [name for name, _, _ in PRICES if name in reference.costs and name in student.costs]
    if not names:
        return False
    return all(reference.costs[name] <= PRICE_SLACK * student.costs[name] for name in names)


def _figures(
    student: TrialRecord, teacher: Reference | None, lost: Iterable[Loss]
) -> dict[str, float]:
    figures: dict[str, float] = {}
    for row in lost:
        name = f"test_{row.metric}" if row.part == "test" else row.metric
        figures |= {name: row.mine, f"{name}_of_teacher": row.other, f"{name}_lost": row.value}
        if row.low is not None and row.high is not None:
            figures |= {f"{name}_lost_low": row.low, f"{name}_lost_high": row.high}
        if row.kept is not None:
            figures[f"{name}_lead_kept"] = row.kept
    for name, _, _ in PRICES:
        if name in student.costs:
            figures[name] = student.costs[name]
        if teacher is not None and name in teacher.costs:
            figures[f"{name}_of_teacher"] = teacher.costs[name]
    return figures
