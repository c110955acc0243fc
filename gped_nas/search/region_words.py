"""What is said of a region of interest: what it is, who is outside, and why nobody is inside."""

import math
from collections.abc import Sequence

from gped_nas.search import guess
from gped_nas.search.goals import Objective
from gped_nas.search.record import TrialRecord
from gped_nas.search.region import SKILL_METRIC, Bound, Region, outside

BEFORE = (
    "none: the study was begun before there was a region of interest; who cannot be told from a "
    "guess from the training labels is on no front"
)
"""What is said of studies that have the rule of then."""


def describe_region(region: Region | None) -> str:
    """What students inside meet: ``nll <= 0.2877 (90 % of the teacher's skill)``."""
    if region is None:
        return BEFORE
    if region.lacks_skill:
        return f"none: {_describe_lack(region)}"
    if not region.bounds and region.keep is not None:
        return f"none: the teacher's validation {SKILL_METRIC} is not finite"
    if not region.bounds:
        return "none: search.keep asks for nothing"

    bounds = " and ".join(describe_bound(bound) for bound in region.bounds)
    if region.keep is None:
        return bounds
    return f"{bounds} ({percent(region.keep)} of the teacher's skill)"


def describe_bound(bound: Bound) -> str:
    """``nll <= 0.2877``."""
    sign = ">=" if bound.direction == "maximize" else "<="
    return f"{bound.name} {sign} {number(bound.value)}"


def percent(share: float) -> str:
    """A share as people write it: ``90 %``."""
    return f"{100 * share:.4g} %"


def number(value: float) -> str:
    """A count whole, anything else to four digits."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def explain_empty_front(
    records: Sequence[TrialRecord], objectives: Sequence[Objective], region: Region | None
) -> tuple[str, str]:
    """Why no student is chosen, and what to do."""
    complete = [record for record in records if record.state == "complete"]
    if not any(record.is_counted for record in records):
        return "no trial has finished", "run the search on"
    if not complete:
        return "no student is feasible", "loosen the constraints"
    if region is None:
        return guess.explain_guesses(complete, objectives)
    if region.lacks_skill:
        return f"no student is to be used: {_describe_lack(region)}", "mend the teacher"
    if region.keep is None:
        return _explain_bounds(complete, region)
    return _explain_share(complete, region.keep, region)


def _describe_lack(region: Region) -> str:
    """Why there is no share of a teacher's skill."""
    ignorant, teacher = region.know_nothing[SKILL_METRIC], region.teacher[SKILL_METRIC]
    return (
        f"the teacher has no skill, its validation {SKILL_METRIC} is {number(teacher)}, that of a "
        f"guess from the training labels {number(ignorant)}"
    )


def _explain_share(complete: Sequence[TrialRecord], keep: float, region: Region) -> tuple[str, str]:
    """Why no student keeps enough of its teacher's skill."""
    skills = {record.trial: region.skill(record) for record in complete}
    known = {trial: skill for trial, skill in skills.items() if skill is not None}
    best = max(known, key=lambda trial: known[trial])
    (nearest,) = (record for record in complete if record.trial == best)
    what = (
        f"no student keeps {percent(keep)} of the teacher's skill "
        f"({describe_bound(region.bounds[0])}): the most that one of the {len(complete)} complete "
        f"ones keeps is {percent(_floor(known[best]))} (trial {best}, {SKILL_METRIC} "
        f"{number(nearest.value(SKILL_METRIC))})"
    )

    remedy = "train students longer (recipe.steps), or widen the space"
    if _floor(known[best]) > 0:
        remedy += (
            f", or ask for less: with --set search.keep={_floor(known[best]):g} the same command "
            "shows what there is, without searching again"
        )
    return what, remedy


def _floor(skill: float) -> float:
    """A share that surely is reached, to two digits after the point."""
    return math.floor(100 * skill + 1e-9) / 100  # -10 is not -11 by the last bit


def _explain_bounds(complete: Sequence[TrialRecord], region: Region) -> tuple[str, str]:
    """Why no student meets the bounds that were asked for."""
    bounds = " and ".join(describe_bound(bound) for bound in region.bounds)
    nearest = min(complete, key=lambda record: _excess(record, region))
    values = ", ".join(
        f"{bound.name} {number(nearest.value(bound.name))}" for bound in region.bounds
    )
    what = (
        f"no student is in the region of interest ({bounds}): of the {len(complete)} complete ones "
        f"trial {nearest.trial} is nearest, with {values}"
    )
    return what, "loosen search.keep (the same command then shows what there is), or search on"


def _excess(record: TrialRecord, region: Region) -> float:
    """The largest share of its bound by which a record breaks one."""
    shares = []
    for bound in region.bounds:
        sign = -1 if bound.direction == "maximize" else 1
        beyond = sign * (record.value(bound.name) - bound.value)
        shares.append(beyond / (abs(bound.value) or 1.0))
    return max(shares)


def note_outside(
    records: Sequence[TrialRecord], objectives: Sequence[Objective], region: Region | None
) -> tuple[str, ...]:
    """What a reader must know of students that are of no use, a sentence; nothing without any."""
    if region is None:
        return guess.note_guesses(records, objectives)
    apart = outside(records, objectives, region)
    if not apart:
        return ()
    num = sum(record.state == "complete" for record in records)
    verb = "is" if len(apart) == 1 else "are"
    return (
        f"{len(apart)} of {num} complete students {verb} outside the region of interest, "
        f"{describe_region(region)}: on no front, however small.",
    )
