"""Settings that were spelled the British way once: what they are called now, and in digests still.

The old names are read wherever a setting can be written. Digests of studies and streams cover the
old names, so that what was made before is found and gone on with.
"""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

NEW_NAMES = {
    "optimiser": "optimizer",
    "regulariser": "regularizer",
    "centred": "centered",
    "num_unlabelled": "num_unlabeled",
}
OLD_NAMES = {new: old for old, new in NEW_NAMES.items()}
FIRST_PARTS = {"unlabeled": "unlabelled"}


def renamed(data: Any, names: Mapping[str, str]) -> Any:
    """Plain data with some keys of its mappings called otherwise, at every depth."""
    if isinstance(data, Mapping):
        return {names.get(key, key): renamed(value, names) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [renamed(value, names) for value in data]
    return data


def as_digested(data: Any) -> Any:
    """Plain data as digests cover it: under the names that settings had first."""
    return renamed(data, OLD_NAMES)


def first_part(part: str) -> str:
    """The name that a part of a dataset had first: views and draws are still named after it."""
    return FIRST_PARTS.get(part, part)


def as_today(data: Any) -> Any:
    """Plain data that was stored under either name, under the names of today."""
    return renamed(data, NEW_NAMES)


def other_name(key: str) -> str | None:
    """The other spelling of a setting; None where it has one alone."""
    return NEW_NAMES.get(key) or OLD_NAMES.get(key)


class SpellingWarning(FutureWarning):
    """A setting is written under its old name; the command prints this as a line of its own."""


def warn_of_old_names(written: Any, understood: Any) -> None:
    """Tell a user once a run which of the settings that he wrote have old names.

    Args:
        written: plain data as the user wrote it.
        understood: the same after reading; a name that is in it too belongs to a plug-in.
    """
    plug_in_names = {path[-1] for path in _paths(understood)}
    changes = []
    for path in _paths(written):
        if path[-1] in NEW_NAMES and path[-1] not in plug_in_names:
            new_path = [NEW_NAMES.get(key, key) for key in path]
            changes.append(f"{'.'.join(path)} is now called {'.'.join(new_path)}")

    if changes:
        # Python shows one text once a run.
        warnings.warn(
            f"{', '.join(changes)}; old names are still read", SpellingWarning, stacklevel=2
        )


def _paths(data: Any, parents: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The keys that lead to each setting, at every depth; an entry of a list counts from 0."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            path = (*parents, str(key))
            yield path
            yield from _paths(value, path)
    elif isinstance(data, (list, tuple)):
        for i, value in enumerate(data):
            yield from _paths(value, (*parents, str(i)))
