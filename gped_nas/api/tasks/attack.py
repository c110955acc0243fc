"""The tasks ``attack:NAME-RADIUS`` and ``transfer:NAME-RADIUS``.

``attack`` finds inputs for each subject within a radius, which is a share of the data's range, and
measures its answers there. ``attack:apgd-0.01..0.3`` is a curve: its ends, and what lies between
them of 1, 2 and 5 times a power of ten.

``transfer`` measures everybody at the inputs that were found for each: a matrix.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from gped_nas.api.measuring import attacked_samples, describe_attacked, is_attack
from gped_nas.api.radii import radii
from gped_nas.api.tasks.base import OPTION, Row, add_task
from gped_nas.api.tasks.bench import Answers, Bench, Subject
from gped_nas.errors import AttackWarning, ConfigError
from gped_nas.evaluate.attacks.settings import AttackSettings
from gped_nas.evaluate.conditions import Condition

METRICS_OF = ("accuracy", "nll", "agreement")
"""What is measured where nothing else is asked for."""
_CURVE = re.compile(r"(?P<name>[^-]+)-(?P<low>[^-]+?)\.\.(?P<high>[^-]+)")


def _expand(argument: str) -> list[str]:
    """A curve as one attack a radius.

    Raises:
        ConfigError: its ends are no numbers, or the wrong way round.
    """
    curve = _CURVE.fullmatch(argument)
    if curve is None:
        return [argument]
    try:
        low, high = float(curve["low"]), float(curve["high"])
    except ValueError:
        low, high = 1.0, 0.0
    if not 0 <= low < high:
        raise ConfigError(
            f"{OPTION}: found '{argument}', expected the smaller radius first, for example "
            f"{curve['name']}-0.01..0.3"
        )
    return [f"{curve['name']}-{radius:g}" for radius in radii(low, high)]


def _attack(bench: Bench, name: str) -> Condition:
    """The attack of this name.

    Raises:
        ConfigError: it is another condition.
        RegistryError: it is none.
    """
    condition = bench.condition(name, OPTION)
    if not is_attack(condition):
        raise ConfigError(f"{OPTION}: found '{name}', expected an attack; write shift:{name}")
    return condition


def _check(bench: Bench, argument: str) -> None:
    _attack(bench, argument).check_shape(bench.dataset.raw_shape, OPTION)


def attackable(bench: Bench, subject: Subject) -> tuple[Subject, str]:
    """A subject as it is attacked, and what must be said of it; empty where it is itself.

    Of a teacher with many posterior samples a few are attacked, and asked.
    """
    attacked = getattr(subject.predictor, "attacked", None)
    if bench.teacher is None or attacked is None:
        return subject, ""
    digest = f"{subject.digest} {list(attacked_samples(bench.teacher) or ())}"
    thinned = replace(subject, digest=digest, predictor=attacked, kept=None)
    return thinned, describe_attacked(bench.teacher)


@contextmanager
def warnings_as_notes(notes: list[str]) -> Iterator[None]:
    """Collect what attacks warn of, each once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AttackWarning)
        yield
    for warning in caught:
        if not issubclass(warning.category, AttackWarning):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
        elif str(warning.message) not in notes:
            notes.append(str(warning.message))


def attacked(bench: Bench, subject: Subject, attack: Condition) -> tuple[Answers, str]:
    """A subject's answers at the inputs that were found for it, and what must be said of them."""
    assert isinstance(attack.chosen, AttackSettings), "it was checked"
    notes: list[str] = []
    thinned, note = attackable(bench, subject)
    with warnings_as_notes(notes):
        answers = bench.answers(thinned, attack)
    caution = attack.chosen.caution and f"{attack.name} {attack.chosen.caution}"
    remarks = [note, caution, *notes]
    return answers, "; ".join(remark for remark in remarks if remark)


def _radius(bench: Bench, attack: Condition) -> dict[str, object]:
    """What rows say of the radius."""
    assert isinstance(attack.chosen, AttackSettings), "it was checked"
    text = attack.chosen.describe(bench.dataset.scale)
    return {"epsilon": attack.chosen.epsilon, "radius": text}


@add_task(
    "attack",
    "answers at inputs that an adversary chose",
    argument="ATTACK-RADIUS",
    example="apgd-0.1",
    kinds=("classification",),
    takes_metrics=True,
    check=_check,
    expand=_expand,
    settings=lambda bench, argument: bench.settings_of([argument]),
)
def attack_inputs(bench: Bench, argument: str) -> list[Row]:
    """The metrics of each subject at the inputs that were found for it."""
    attack = _attack(bench, argument)
    table: list[Row] = []
    for subject in bench.subjects:
        answers, note = attacked(bench, subject, attack)
        measures = bench.measures(answers, bench.metrics_or(METRICS_OF))
        more = {"note": note} if note else {}
        table += bench.rows(subject, measures, **_radius(bench, attack), **more)
    return table


@add_task(
    "transfer",
    "answers at inputs that an adversary chose for somebody else",
    argument="ATTACK-RADIUS",
    example="apgd-0.1",
    kinds=("classification",),
    is_together=True,
    takes_metrics=True,
    check=_check,
    settings=lambda bench, argument: bench.settings_of([argument]),
)
def transfer(bench: Bench, argument: str) -> list[Row]:
    """The metrics of each subject at the inputs that were found for each: a matrix.

    Rows name whose inputs they were in ``inputs_of``.
    """
    attack = _attack(bench, argument)
    able = []
    for subject in bench.subjects:
        if subject.predictor is None:
            bench.leave_out(subject, subject.why_kept)
        else:
            able.append(subject)

    table: list[Row] = []
    for i, source in enumerate(able):
        bench.session.progress(f"{bench.task}: inputs of {source.name}", i, len(able))
        answers, note = attacked(bench, source, attack)
        more = {"note": f"inputs of {source.name}: {note}"} if note else {}
        for subject in able:
            victim, _ = attackable(bench, subject)
            others = bench.answers_at(victim, answers.raw, f"{attack.name} of {source.name}")
            measures = bench.measures(others, bench.metrics_or(METRICS_OF))
            radius = _radius(bench, attack)
            table += bench.rows(subject, measures, inputs_of=source.name, **radius, **more)
    bench.session.progress(bench.task, len(able), len(able))
    return table
