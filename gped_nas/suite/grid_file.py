"""The YAML file of a grid of evaluations: found, read, checked entry by entry.

    name: digits_parity
    methods: [own, swag, {wide: {name: sgld, set: {teacher.prior.precision: 1.0}}}]
    teachers: [digits_mlp, {masked: {space: digits_mlp, set: {data.mask: 3}}}]
    students: [none, own, front, {tiny: {family: mlp, genotype: {depth: 1, width: 8}}}]
    tasks: [prediction, "ood:permuted"]
    seeds: 3
    part: test
    metrics: [nll, ece]

An entry of an axis is a name, or a name of the user's with its settings.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from gped_nas.config import Config, find_yaml, parse, read_yaml
from gped_nas.errors import ConfigError, GpedError, RegistryError, nearest
from gped_nas.models.base import Genotype
from gped_nas.posterior.base import METHODS
from gped_nas.search.space_file import find_space
from gped_nas.suite.dials import settings as turn
from gped_nas.suite.grid import (
    OWN,
    STUDENTS,
    Grid,
    MethodEntry,
    Part,
    StudentEntry,
    TeacherEntry,
)
from gped_nas.suite.shipped import shipped_grids

_LONGEST_NAME = 80
_MOST_CELLS = 100_000
_MOST_SEEDS = 1_000

ReadTask = Callable[[str, str], Sequence[str]]
"""The text of a task, and where it stands, to the texts of the tasks that it means."""


class _GridFile(Config):
    name: str = Field(min_length=1, max_length=200)
    methods: Annotated[tuple[Any, ...], Field(strict=False, min_length=1)] = (OWN,)
    teachers: Annotated[tuple[Any, ...], Field(strict=False, min_length=1)]
    students: Annotated[tuple[Any, ...], Field(strict=False, min_length=1)] = ("none",)
    tasks: Annotated[tuple[Any, ...], Field(strict=False, min_length=1)] = ("prediction",)
    seeds: Any = 1
    part: Part = "test"
    metrics: Annotated[tuple[str, ...], Field(strict=False)] = ()
    subjects: Annotated[tuple[str, ...], Field(strict=False)] = ()
    limit: int | None = Field(default=None, ge=1)
    set: dict[str, Any] = {}


class _DialsFile(Config):
    mask: Annotated[tuple[int, ...], Field(strict=False)] = ()
    subsample: Annotated[tuple[int, ...], Field(strict=False)] = ()


class _TeacherFile(Config):
    space: str
    set: dict[str, Any] = {}
    dials: _DialsFile | None = None


class _StudentFile(Config):
    family: str
    genotype: dict[str, Any] = Field(min_length=1)


def find_grid(name_or_path: str) -> Path:
    """The file of a grid given by path or by shipped name.

    Raises:
        ConfigError: neither; the message names the nearest shipped grid.
    """
    return find_yaml(name_or_path, shipped_grids(), "grid")


def load_grid(
    grid: str | Path | Mapping[str, Any],
    *,
    read_task: ReadTask,
    overrides: Mapping[str, Any] | None = None,
) -> Grid:
    """A grid from a YAML file, by the name of a shipped one, or from plain data.

    Args:
        grid: ``"ursabench"``, a path, or what a file would hold.
        read_task: a task's text and where it stands to the tasks that are meant, each by the text
            that rows have; it raises for one that is unknown.
        overrides: settings of every space, after the grid's own: dotted keys to values.

    Raises:
        ConfigError: the file or an entry is invalid; names file, key and nearest valid name.
        RegistryError: an unknown method or family.
    """
    if isinstance(grid, Mapping):
        return parse_grid(grid, "grid", read_task=read_task, overrides=overrides)
    path = find_grid(str(grid))
    data = read_yaml(path, "grid")
    return parse_grid(data, str(path), read_task=read_task, overrides=overrides)


def parse_grid(
    data: Mapping[str, Any],
    where: str,
    *,
    read_task: ReadTask,
    overrides: Mapping[str, Any] | None = None,
) -> Grid:
    """Plain data as a grid; ``where`` names the file in messages. Raises as ``load_grid``."""
    file = parse(_GridFile, data, where)
    check_name(file.name, f"{where}: name")

    grid = Grid(
        name=file.name,
        methods=_methods(file.methods, f"{where}: methods"),
        teachers=_teachers(file, {**file.set, **(overrides or {})}, where),
        students=_students(file.students, f"{where}: students"),
        tasks=_tasks(file.tasks, read_task, f"{where}: tasks"),
        seeds=_seeds(file.seeds, f"{where}: seeds"),
        part=file.part,
        metrics=file.metrics,
        subjects=file.subjects,
        limit=file.limit,
        source=where,
    )
    if grid.num_cells > _MOST_CELLS:
        raise ConfigError(
            f"{where}: found {grid.num_cells:,} cells, expected at most {_MOST_CELLS:,}; shorten "
            "an axis"
        )
    return grid


def check_name(name: str, where: str) -> None:
    """Refuse a name that is no folder, or too long for a table.

    Raises:
        ConfigError: it is not usable.
    """
    is_plain = name.isprintable() and "/" not in name and not name.startswith(".")
    if not is_plain or not name.strip() or len(name) > _LONGEST_NAME:
        raise ConfigError(
            f"{where}: found {name[:100]!r}, expected a name without '/', leading dot or control "
            f"characters, at most {_LONGEST_NAME} characters"
        )


def _entries(axis: tuple[Any, ...], where: str) -> list[tuple[str, Any, str]]:
    """Name, settings (None of a bare name) and place of each entry of an axis."""
    entries: list[tuple[str, Any, str]] = []
    for i, entry in enumerate(axis):
        place = f"{where}[{i}]"
        if isinstance(entry, str):
            entries.append((entry, None, place))
            continue

        is_named = isinstance(entry, Mapping) and len(entry) == 1
        if not is_named:
            raise ConfigError(
                f"{place}: found {str(entry)[:60]!r}, expected a name, or one name of yours with "
                "its settings: {mine: {...}}"
            )
        ((name, settings),) = entry.items()
        if not isinstance(settings, Mapping):
            raise ConfigError(
                f"{place}: {name}: found {str(settings)[:60]!r}, expected a mapping of settings"
            )
        entries.append((str(name), settings, place))

    for name, settings, place in entries:
        if settings is not None:
            check_name(name, place)
    _refuse_twice([name for name, _, _ in entries], where)
    return entries


def _refuse_twice(names: Any, where: str) -> None:
    """Raise ``ConfigError`` where an axis has an entry twice."""
    for name in names:
        if list(names).count(name) > 1:
            raise ConfigError(f"{where}: found {name!r} twice; remove one, or rename it")


def _tasks(axis: tuple[Any, ...], read_task: ReadTask, where: str) -> tuple[str, ...]:
    tasks: list[str] = []
    for i, text in enumerate(axis):
        place = f"{where}[{i}]"
        if not isinstance(text, str):
            raise ConfigError(
                f"{place}: found {str(text)[:60]!r}, expected a task as text, in quotes where it "
                "has a colon: 'ood:permuted'"
            )
        tasks += read_task(text, place)
    _refuse_twice(tasks, where)
    return tuple(tasks)


def _methods(axis: tuple[Any, ...], where: str) -> tuple[MethodEntry, ...]:
    methods = []
    for name, settings, place in _entries(axis, where):
        if settings is None and name == OWN:
            methods.append(MethodEntry(name))
        elif settings is None:
            if name not in METHODS:
                raise RegistryError(
                    f"{place}: unknown method '{name}'{nearest(name, [OWN, *METHODS])}"
                )
            methods.append(MethodEntry(name, {"name": name}))
        else:
            METHODS.named(settings, "name", f"{place}: {name}")
            of_method = {key: value for key, value in settings.items() if key != "set"}
            overrides = settings.get("set", {})
            if not isinstance(overrides, Mapping):
                raise ConfigError(
                    f"{place}: {name}.set: found {str(overrides)[:60]!r}, expected a mapping of "
                    "dotted keys: {teacher.prior.precision: 10.0}"
                )
            _refuse_seed(overrides, f"{place}: {name}.set")
            methods.append(MethodEntry(name, of_method, dict(overrides)))
    return tuple(methods)


def _teachers(file: _GridFile, shared: Mapping[str, Any], where: str) -> tuple[TeacherEntry, ...]:
    """Spaces with overrides; dials make several of one entry."""
    _refuse_seed(shared, f"{where}: set")
    teachers = []
    for name, settings, place in _entries(file.teachers, f"{where}: teachers"):
        if settings is None:
            path = _find_space(name, where, place)
            label = Path(name).stem if name.endswith((".yaml", ".yml")) else name
            teachers.append(TeacherEntry(label, path, dict(shared)))
            continue

        entry = parse(_TeacherFile, settings, f"{place}: {name}")
        _refuse_seed(entry.set, f"{place}: {name}.set")
        path = _find_space(entry.space, where, f"{place}: {name}.space")
        base = TeacherEntry(name, path, {**entry.set, **shared})
        teachers += _turned(base, entry.dials, f"{place}: {name}.dials")

    _refuse_twice([teacher.name for teacher in teachers], f"{where}: teachers")
    return tuple(teachers)


def _refuse_seed(overrides: Mapping[str, Any], where: str) -> None:
    """Raise ``ConfigError`` for a seed of a space: the cell's takes its place."""
    if "seed" in overrides:
        raise ConfigError(
            f"{where}: found seed, which is an axis of the grid; write seeds: [{overrides['seed']}]"
        )


def _turned(base: TeacherEntry, dials: _DialsFile | None, where: str) -> list[TeacherEntry]:
    """A teacher at every setting of its dials, the data as they are first."""
    if dials is None:
        return [base]
    try:
        places = turn(dials.mask, dials.subsample)
    except ConfigError:
        raise ConfigError(
            f"{where}: found nothing to turn, or a negative number; expected for example "
            "{mask: [2, 4], subsample: [200]}"
        ) from None

    teachers = []
    for place in places:
        name = f"{base.name} {place.name}" if place.dial else base.name
        data = {f"data.{dial}": value for dial, value in place.data.items()}
        teachers.append(TeacherEntry(name, base.space, {**base.overrides, **data}))
    return teachers


def _find_space(name: str, source: str, place: str) -> str:
    """A space's file; a relative one is looked for beside the grid, then in the current folder."""
    beside = Path(source).parent / name
    if name.endswith((".yaml", ".yml")) and beside.is_file():
        return str(beside)
    try:
        return str(find_space(name))
    except GpedError as error:
        raise ConfigError(f"{place}: {error}") from None


def _students(axis: tuple[Any, ...], where: str) -> tuple[StudentEntry, ...]:
    students = []
    for name, settings, place in _entries(axis, where):
        if settings is None:
            if name not in STUDENTS:
                raise ConfigError(f"{place}: found '{name}'{nearest(name, STUDENTS)}")
            students.append(StudentEntry(name))
            continue

        if name in STUDENTS:
            raise ConfigError(
                f"{place}: found settings for '{name}', which has none; choose another name"
            )
        entry = parse(_StudentFile, settings, f"{place}: {name}")
        try:
            genotype = Genotype(entry.family, **entry.genotype)
        except GpedError as error:
            raise type(error)(f"{place}: {name}: {error}") from None
        students.append(StudentEntry(name, genotype))
    return tuple(students)


def _seeds(value: Any, where: str) -> tuple[int, ...]:
    """Seeds as a list, or how many of them from 0."""
    is_count = isinstance(value, int) and not isinstance(value, bool)
    if is_count and 1 <= value <= _MOST_SEEDS:
        return tuple(range(value))

    is_list = isinstance(value, list | tuple) and 1 <= len(value) <= _MOST_SEEDS
    if is_list and all(type(seed) is int and 0 <= seed < 2**31 for seed in value):
        _refuse_twice(value, where)
        return tuple(value)
    raise ConfigError(
        f"{where}: found {str(value)[:60]}, expected how many (3), or a list of whole numbers from "
        "0: [0, 1, 2]"
    )
