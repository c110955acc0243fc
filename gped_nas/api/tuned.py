"""The tuned teacher of a space, in place of the one that its file has."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gped_nas.api.tuning_record import read_record, record_folder
from gped_nas.errors import ConfigError
from gped_nas.search.space import SearchSpace
from gped_nas.search.space_file import parse_space

TUNED = "tuned"


def with_named_teacher(space: SearchSpace, teacher: str | None) -> SearchSpace:
    """The space with the teacher that is named: ``tuned``, or its own for None.

    Raises:
        ConfigError: another name, or there is no tuning of this space.
    """
    if teacher is None:
        return space
    if teacher != TUNED:
        raise ConfigError(
            f"--teacher: found '{teacher}', expected '{TUNED}'; leave it out for the space's own"
        )
    return with_tuned_teacher(space)


def with_tuned_teacher(space: SearchSpace) -> SearchSpace:
    """The space with the teacher that ``tune_teacher`` found for it.

    Raises:
        ConfigError: there is no tuning of this space that came to its end.
    """
    record = read_record(record_folder(space))
    if record is None or record.answer is None:
        state = "none" if record is None else "one that has not come to its end"
        raise ConfigError(
            f"{space.source}: --teacher tuned: found {state} of this space with these settings and "
            f"seed {space.seed}; run gped-search teacher tune {space.source} first"
        )
    return with_teacher(space, record.answer["teacher"])


def with_teacher(space: SearchSpace, block: Mapping[str, Any]) -> SearchSpace:
    """The space with another ``teacher`` block.

    Raises:
        ConfigError: the block does not suit the space.
    """
    parsed = parse_space({**space.resolved, "teacher": dict(block)}, space.source)
    return replace(parsed, module=space.module)  # of which a file knows the name alone
