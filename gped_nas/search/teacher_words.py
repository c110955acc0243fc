"""What is said of a study's teacher on pages, cards and notes: what it is and what it costs."""

from collections.abc import Mapping
from typing import Any

NOT_GIVEN = "not given"
_MOST_WEIGHTS = 10


def teacher_text(teacher: Mapping[str, Any]) -> str:
    """Who the teacher is: ``4 posterior samples of mlp(depth=1, width=8), drawn by sgld``.

    Of one that is known by its predictions alone: ``5 x resnet18, 5 members known by predictions``.
    All of it is text that a user may have chosen.

    Args:
        teacher: the summary of a study's snapshot.
    """
    num_samples = teacher.get("num_samples")
    count = "" if num_samples is None else f"{num_samples:,} "
    given = teacher.get("given")
    fit = teacher.get("calibration")
    calibration = f", {calibration_text(fit)}" if fit else ""
    if given:
        member = "member" if num_samples == 1 else "members"
        return f"{given.get('name')}, {count}{member} known by predictions{calibration}"

    genotype = teacher.get("genotype") or "a teacher"
    method = teacher.get("method") or "an unnamed method"
    return f"{count}posterior samples of {genotype}, drawn by {method}{calibration}"


def calibration_text(calibration: Mapping[str, Any]) -> str:
    """How samples are read: ``temperature 1.31``, or ``stacked with weights .6, .4``.

    Args:
        calibration: ``CalibrationFit`` as plain data.
    """
    if calibration["kind"] == "temperature":
        at_end = " at an end of its range" if calibration["is_at_end"] else ""
        return f"temperature {calibration['temperature']:g}{at_end}"
    weights = calibration["weights"]
    shown = ", ".join(f"{weight:g}" for weight in weights[:_MOST_WEIGHTS])
    more = f" and {len(weights) - _MOST_WEIGHTS} more" if len(weights) > _MOST_WEIGHTS else ""
    return f"stacked with weights {shown}{more}"


def describe_calibration(calibration: Mapping[str, Any]) -> str:
    """What was fitted, what it gained where it was fitted, and what to keep in mind.

    Args:
        calibration: ``CalibrationFit`` as plain data.
    """
    nll = {}
    for name in ("nll_raw", "nll", "nll_held_out"):
        value = calibration[name]
        nll[name] = "infinite" if value is None else f"{value:.4f}"
    text = (
        f"({calibration_text(calibration)}): NLL {nll['nll']} there, {nll['nll_raw']} before "
        f"(n = {calibration['n']:,}); fitted on one half and measured on the other "
        f"{nll['nll_held_out']}."
    )
    if calibration.get("part", "validation") != "validation":
        return (
            f"The teacher is calibrated on the calibration part {text} Neither the choice of "
            "students nor test has a part in it."
        )
    return (
        f"The teacher is calibrated on validation {text} Validation chooses students too; test has "
        "no part in either."
    )


def given_costs(teacher: Mapping[str, Any]) -> dict[str, str]:
    """What all members of a given teacher cost together, in words; nothing of any other teacher.

    Args:
        teacher: the summary of a study's snapshot.
    """
    given = teacher.get("given")
    if not given:
        return {}
    return {
        "multiply-adds": _count(given.get("macs")),
        "bytes of weights": _count(given.get("storage_bytes")),
    }


def _count(value: int | None) -> str:
    return NOT_GIVEN if value is None else f"{value:,}"
