"""How a space calls out-of-distribution sets: by a text, or by settings under a name of the user's.

| written | means |
| --- | --- |
| ``noise``, ``rotated`` | drawn from the dataset itself |
| ``fashion_mnist`` | a dataset with its default settings |
| ``permuted``, ``blur-2``, ``hard`` | a condition, also by the user's name for it |
| ``{mine: {path: other.npz}}`` | a file or a folder of pictures |
| ``{mine: {dataset: {name: npz, path: other.npz}}}`` | a dataset with settings |
| ``{mine: {condition: {name: noise, std: 0.5}}}`` | a condition with settings |
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from gped_nas.config import parse
from gped_nas.data.base import DATASETS
from gped_nas.errors import ConfigError, RegistryError, nearest
from gped_nas.evaluate.condition_names import USER_NAME, named_condition, parse_condition
from gped_nas.evaluate.conditions import CONDITIONS, Condition
from gped_nas.evaluate.outside import DRAWN, Outside, OutsideSettings

_EXAMPLE = "{mine: {path: other.npz}}"


def is_set_alone(text: str) -> bool:
    """Whether a text names a set that is no condition."""
    return text.partition("-")[0] not in CONDITIONS and (text in DRAWN or text in DATASETS)


def parse_outside(text: object, where: str, conditions: Sequence[Condition] = ()) -> Outside:
    """The set that a space calls by a text.

    Args:
        text: its name.
        where: file and key of it, for messages.
        conditions: of the space, which may be sets under their names there.

    Raises:
        ConfigError: no text, or a condition's value is missing, not wanted or impossible.
        RegistryError: an unknown name.
    """
    if not isinstance(text, str):
        raise ConfigError(f"{where}: found {text!r}, expected the name of a set")

    for condition in conditions:
        if condition.name == text:
            return Outside(text, condition=condition)
    if text in DRAWN:
        return Outside(text)
    if text in DATASETS:
        return Outside(text, OutsideSettings(dataset={"name": text}))
    if text.partition("-")[0] in CONDITIONS:
        return Outside(text, condition=parse_condition(text, where))
    raise RegistryError(
        f"{where}: unknown set '{text}'{nearest(text, {*DRAWN, *DATASETS, *CONDITIONS})}"
    )


def named_outside(
    name: object, settings: object, where: str, conditions: Sequence[Condition] = ()
) -> Outside:
    """The set with these settings, under a name of the user's.

    Raises as ``parse_outside``; also where the name is none, or is taken.
    """
    if not isinstance(name, str) or not USER_NAME.fullmatch(name):
        raise ConfigError(
            f"{where}: found the name {name!r}, expected a letter, then letters, digits and _ . -"
        )
    taken = [*DRAWN, *DATASETS, *CONDITIONS, *(condition.name for condition in conditions)]
    if name in taken or name.partition("-")[0] in CONDITIONS:
        raise ConfigError(
            f"{where}: found the name '{name}', which means a set by itself; choose a name of your "
            "own"
        )

    place = f"{where}.{name}"
    chosen = parse(OutsideSettings, settings, place)
    if chosen.dataset is not None:
        DATASETS.named(chosen.dataset, "name", f"{place}: dataset")
    if chosen.condition is None:
        return Outside(name, chosen)
    if isinstance(chosen.condition, str):
        return Outside(name, chosen, parse_condition(chosen.condition, f"{place}: condition"))
    return Outside(name, chosen, named_condition(name, chosen.condition, f"{place}: condition"))


def parse_outsides(
    entries: object,
    where: str,
    conditions: Sequence[Condition] = (),
    asked: Iterable[tuple[str, str]] = (),
) -> tuple[Outside, ...]:
    """The sets that a space lists, and those that its objectives and constraints name.

    Args:
        entries: a list of texts and of mappings of one name to settings, or one such mapping.
        where: file and key of them, for messages.
        conditions: of the space.
        asked: further texts, with where each is asked for; those that are listed are left out.

    Raises:
        ConfigError: as ``parse_outside``; or one twice.
        RegistryError: likewise.
    """
    sets = [replace(outside, is_listed=True) for outside in _listed(entries, where, conditions)]
    names = [outside.name for outside in sets]
    if len(set(names)) != len(names):
        raise ConfigError(f"{where}: found {names}, expected none twice; remove one")

    for text, asker in asked:
        if text not in names:
            names.append(text)
            sets.append(parse_outside(text, asker, conditions))
    return tuple(sets)


def _listed(entries: object, where: str, conditions: Sequence[Condition]) -> list[Outside]:
    """What a list or a mapping holds."""
    if isinstance(entries, Mapping):
        return [named_outside(*entry, where, conditions) for entry in entries.items()]

    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise ConfigError(
            f"{where}: found {entries!r}, expected a list of sets, for example [permuted, "
            f"{_EXAMPLE}]"
        )
    sets = []
    for i, entry in enumerate(entries):
        place = f"{where}[{i}]"
        if not isinstance(entry, Mapping):
            sets.append(parse_outside(entry, place, conditions))
            continue
        if len(entry) != 1:
            raise ConfigError(
                f"{place}: found {dict(entry)!r}, expected one name with its settings, for example "
                f"{_EXAMPLE}"
            )
        ((name, settings),) = entry.items()
        sets.append(named_outside(name, settings, place, conditions))
    return sets
