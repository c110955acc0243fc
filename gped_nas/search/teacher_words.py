"""What is said of a study's teacher on pages, cards and notes: what it is and what it costs."""

from collections.abc import Mapping
from typing import Any

NOT_GIVEN = "not given"


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
    if given:
        member = "member" if num_samples == 1 else "members"
        return f"{given.get('name')}, {count}{member} known by predictions"

    genotype = teacher.get("genotype") or "a teacher"
    method = teacher.get("method") or "an unnamed method"
    return f"{count}posterior samples of {genotype}, drawn by {method}"


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
