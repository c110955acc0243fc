"""How a space calls conditions: by a text, or by settings under a name of the user's.

| written | means |
| --- | --- |
| ``permuted`` | the condition of that name |
| ``blur-3`` | its main setting is 3 |
| ``blur-s2`` | severity 2 of 5 |
| ``{hard: {name: apgd, norm: l2, epsilon: 0.5}}`` | all of its settings; its name is ``hard`` |

``conditions`` is a list of these, with ``clean`` among them, or a mapping of the user's names
alone, beside which ``clean`` is understood.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

from gped_nas.config import Config, parse
from gped_nas.errors import ConfigError
from gped_nas.evaluate.conditions import CONDITIONS, Condition
from gped_nas.evaluate.measured import CLEAN

USER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_SEVERITY = re.compile(r"s(\d{1,9})")
_WHOLE = re.compile(r"[+-]?\d+")


def parse_condition(text: object, where: str) -> Condition:
    """The condition that a space calls ``name``, ``name-VALUE`` or ``name-sSEVERITY``.

    Raises:
        RegistryError: an unknown name.
        ConfigError: no text, or a value that is missing, not wanted, impossible or no number.
    """
    if not isinstance(text, str):
        raise ConfigError(f"{where}: found {text!r}, expected the name of a condition")

    kind, _, value = text.partition("-")
    condition = CONDITIONS.find(kind, where)
    model, main = condition.settings, condition.main
    if text != kind and (model is None or not main):
        raise ConfigError(f"{where}: condition '{kind}' takes no value; found '{text}'")
    if model is None:
        return replace(condition, kind=kind)

    settings: dict[str, Any] = {}
    severity = _SEVERITY.fullmatch(value) if condition.has_severities else None
    if severity:
        settings["severity"] = int(severity[1])
    elif text != kind or condition.needs_value:
        settings[main] = _number(condition, text, value, where)

    chosen = parse(model, settings, f"{where}: {text}")
    label = f"{condition.label}, {value}" if value else condition.label
    return replace(condition, name=text, label=label, kind=kind, chosen=chosen)


def _number(condition: Condition, text: str, value: str, where: str) -> float | int:
    """The number that follows a condition's name."""
    number = _number_of(value)
    if number is not None:
        return number

    assert condition.settings is not None, "it has a main setting"
    name = text.partition("-")[0]
    meaning = condition.settings.model_fields[condition.main].description
    described = f": {meaning}" if meaning else ""
    example = f"{name}-0.1"
    if condition.has_severities:
        described += ", or a severity from s1 to s5"
        example = f"{name}-s3"
    raise ConfigError(
        f"{where}: found '{text}', expected a number after '{name}-'{described}; write {example}, "
        "for example"
    )


def _number_of(text: str) -> float | int | None:
    """The finite number that a text says; None where it says none."""
    try:
        number = float(text)
    except ValueError:
        return None

    if not isfinite(number):
        return None
    return int(number) if _WHOLE.fullmatch(text) else number  # a setting may be a count


def named_condition(name: object, settings: object, where: str) -> Condition:
    """The condition with these settings, under a name of the user's.

    Raises:
        ConfigError: the name is none, or is one that a condition has already; or the settings are
            not those of the condition that they name.
        RegistryError: they name none that is known.
    """
    if not isinstance(name, str) or not USER_NAME.fullmatch(name):
        raise ConfigError(
            f"{where}: found the name {name!r}, expected a letter, then letters, digits and _ . -"
        )
    if name.partition("-")[0] in CONDITIONS:
        raise ConfigError(
            f"{where}: found the name '{name}', which means a condition by itself; choose a name "
            "of your own"
        )

    place = f"{where}.{name}"
    condition = CONDITIONS.named(settings, "name", place)
    assert isinstance(settings, Mapping), "a name was found in it"
    others = {key: value for key, value in settings.items() if key != "name"}
    chosen = parse(condition.settings or Config, others, place)
    return replace(
        condition,
        name=name,
        label=f"{condition.label}, {name}",
        kind=condition.name,
        chosen=None if condition.settings is None else chosen,
    )


def parse_conditions(
    entries: object, where: str, asked: Iterable[tuple[str, str]] = ()
) -> tuple[Condition, ...]:
    """The conditions that a space lists, and those that its objectives and constraints name.

    Args:
        entries: a list of texts and of mappings of one name to settings, or one such mapping.
        where: file and key of them, for messages.
        asked: further texts, with where each is asked for; those that are listed are left out.

    Raises:
        ConfigError: as ``parse_condition`` and ``named_condition``; one twice, or the clean one is
            not in a list.
        RegistryError: likewise.
    """
    conditions = _listed(entries, where)
    names = [condition.name for condition in conditions]
    if len(set(names)) != len(names) or CLEAN not in names:
        raise ConfigError(f"{where}: found {names}, expected none twice and '{CLEAN}' among them")

    for text, asker in asked:
        if text not in names:
            names.append(text)
            conditions.append(parse_condition(text, asker))

    _check_differ(conditions, where)
    return tuple(conditions)


def _listed(entries: object, where: str) -> list[Condition]:
    """What a list or a mapping holds."""
    if isinstance(entries, Mapping):
        conditions = [parse_condition(CLEAN, where)]
        for name, settings in entries.items():
            conditions.append(named_condition(name, settings, where))
        return conditions

    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise ConfigError(
            f"{where}: found {entries!r}, expected a list of conditions, for example [clean, "
            "permuted]"
        )
    conditions = []
    for i, entry in enumerate(entries):
        place = f"{where}[{i}]"
        if not isinstance(entry, Mapping):
            conditions.append(parse_condition(entry, place))
            continue
        if len(entry) != 1:
            raise ConfigError(
                f"{place}: found {dict(entry)!r}, expected one name with its settings, for example "
                "{hard: {name: noise, std: 0.2}}"
            )
        ((name, settings),) = entry.items()
        conditions.append(named_condition(name, settings, place))
    return conditions


def _check_differ(conditions: Iterable[Condition], where: str) -> None:
    """Refuse one condition under two names: blur-3 and blur-3.0 would be measured twice."""
    earlier: list[Condition] = []
    for condition in conditions:
        for other in earlier:
            if (other.kind, other.chosen) == (condition.kind, condition.chosen):
                raise ConfigError(
                    f"{where}: '{condition.name}' and '{other.name}' are one condition; remove one"
                )
        earlier.append(condition)
