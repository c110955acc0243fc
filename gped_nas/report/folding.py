"""Students of the front that hardly anybody would use: they keep little of what the teacher knows.

They are on the front because they cost next to nothing. Tables fold them away and say how many
there are; the knee is named with what it keeps.
"""

from gped_nas.evaluate.measured import CLEAN, VALIDATION, parse_name
from gped_nas.report import words
from gped_nas.report.beside import GUESS, TEACHER
from gped_nas.report.records import Data, find

LEAST_LEAD = 0.5
"""Share of the teacher's lead over a guess, on validation, below which a student is folded away."""


def folded_trials(data: Data) -> tuple[list[int], str]:
    """Trials of the front to be folded away, and the metric that says so.

    The chosen student is never among them, and not all of the front is.

    Args:
        data: with records, front, references, objectives and axes.
    """
    name, lead = _lead(data)
    if not lead:
        return [], ""

    weak = [trial for trial in data["front"] if _kept(data, trial, name, lead) < LEAST_LEAD]
    if len(weak) == len(data["front"]):
        return [], ""
    return [trial for trial in weak if trial != data["chosen"]], name


def describe_knee(data: Data) -> tuple[str, bool]:
    """What the knee keeps beside the best student, and whether that is far behind.

    Args:
        data: as of ``folded_trials``, with the knee.
    """
    name, lead = _lead(data)
    if data["knee"] is None or not lead:
        return "", False

    best, knee = find(data, data["front"][0]), find(data, data["knee"])
    value = words.metric(knee["metrics"].get(name), name)
    best_value = words.metric(best["metrics"].get(name), name)
    kept = _kept(data, data["knee"], name, lead)
    text = (
        f"Its validation {words.spaced(name)} is {value}, that of the front's best student "
        f"{best_value}: it keeps {100 * max(kept, 0.0):.0f} % of the teacher's lead over a guess."
    )
    return text, kept < 0.75


def _lead(data: Data) -> tuple[str, tuple[float, float] | None]:
    """The first quality objective that guess and teacher have, and both values."""
    by_name = {reference["name"]: reference["metrics"] for reference in data["references"]}
    guess, teacher = by_name.get(GUESS, {}), by_name.get(TEACHER, {})
    for objective in data["objectives"]:
        name = objective["name"]
        key = parse_name(name)
        if objective["kind"] != "metric" or (key.condition, key.part) != (CLEAN, VALIDATION):
            continue
        if guess.get(name) is not None and teacher.get(name) is not None:
            sign = 1 if objective["direction"] == "minimize" else -1
            if sign * (guess[name] - teacher[name]) > 0:
                return name, (guess[name], teacher[name])
    return "", None


def _kept(data: Data, trial: int, name: str, lead: tuple[float, float]) -> float:
    """Share of the teacher's lead over the guess that a student has."""
    guess, teacher = lead
    value = find(data, trial)["metrics"].get(name)
    if value is None:
        return 0.0
    return float((guess - value) / (guess - teacher))
