"""Who is no better than a guess, which knows the training labels and nothing of the input.

A guess costs nothing. A student is worth its costs only if it is better in something that the study
asks for: if in one quality objective the 95 % interval of its paired difference to the guess, on
the same validation examples, lies wholly on the better side of 0. Who is not is on no front: as a
point with no costs, the guess dominates it.

Objectives that the guess has no value for, or whose difference has no known interval, say nothing.
Where the examples are too few for an interval, the value alone decides. Records of studies that
were begun before there was a guess are not compared, and keep their fronts.

It is the rule of studies that were begun before there was a region of interest; see
``search.region`` for that of all others.
"""

from collections.abc import Iterable, Mapping, Sequence

from gped_nas.evaluate.measured import Direction
from gped_nas.search.goals import Objective
from gped_nas.search.record import Above, TrialRecord

_NEAR = 0.1
"""Of what the best student gains over the guess, the share below which a student is near it."""


def is_better_by(above: Above, direction: Direction) -> bool:
    """Whether a paired difference to the guess tells who is better than it.

    Any finite value is better than that of a guess which has none: the difference is None then.
    """
    if above is None:
        return True
    _, low, high = above
    return high < 0 if direction == "minimize" else low > 0


def is_guess(record: TrialRecord, objectives: Iterable[Objective]) -> bool:
    """Whether a student was compared with the guess and is better in no quality objective."""
    for goal in objectives:
        if goal.name in record.above_guess:
            if is_better_by(record.above_guess[goal.name], goal.direction):
                return False
    return bool(record.above_guess)


def near_guesses(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> frozenset[int]:
    """Trials that are hardly better than the guess, though they can be told from it.

    In each quality objective that was compared they gain less than a tenth of what the best of
    these records gains over the guess. Small and cheap, they are on fronts and of little use.
    """
    gains_by_trial: dict[int, dict[str, float]] = {record.trial: {} for record in records}
    for goal in objectives:
        sign = -1.0 if goal.direction == "minimize" else 1.0
        for record in records:
            above = record.above_guess.get(goal.name)
            if above is not None:
                gains_by_trial[record.trial][goal.name] = sign * above[0]

    best: dict[str, float] = {}
    for gains in gains_by_trial.values():
        for name, gain in gains.items():
            best[name] = max(gain, best.get(name, gain))

    near = set()
    for trial, gains in gains_by_trial.items():
        shares = [gain < _NEAR * best[name] for name, gain in gains.items()]
        if shares and all(shares):
            near.add(trial)
    return frozenset(near)


def explain_guesses(
    complete: Sequence[TrialRecord], objectives: Sequence[Objective]
) -> tuple[str, str]:
    """Why no complete student is on the front, and what to do."""
    names = " or ".join(goal.name for goal in objectives if goal.name in complete[0].above_guess)
    what = (
        "no student is better than a guess from the training labels: of none of the "
        f"{len(complete)} complete ones can validation {names} be told from the guess's"
    )
    return what, "mend the teacher, or train students longer (recipe.steps)"


def note_guesses(
    records: Sequence[TrialRecord], objectives: Sequence[Objective]
) -> tuple[str, ...]:
    """What a reader must know of students that only guess, a sentence; nothing without any."""
    complete = [record for record in records if record.state == "complete"]
    guesses = [record.trial for record in complete if is_guess(record, objectives)]
    if not guesses:
        return ()
    note = (
        f"{len(guesses)} of {len(complete)} complete students are on no front: on validation they "
        "cannot be told from a guess from the training labels, or are worse."
    )
    return (note,)


def is_teacher_guess(diagnosis: Mapping[str, object]) -> bool:
    """Whether a diagnosis, as it is stored, says that its teacher is no better than a guess."""
    beside = diagnosis.get("guess")
    return isinstance(beside, Mapping) and beside.get("is_better") is False
