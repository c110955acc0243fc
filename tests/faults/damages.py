"""Ways to damage a study: its students' files, its other files, its attributes, its database.

Each is drawn by a seed and changes one thing, as rot, a careless copy or another program would.
"""

import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.mutations import HOSTILE, MUTATIONS, Scene, edit, entries

Rows = list[tuple[str, int, str, str]]
"""Table, id of the row, key and JSON text."""

ATTRIBUTES = (
    "study_user_attributes",
    "study_system_attributes",
    "trial_user_attributes",
    "trial_system_attributes",
)


@dataclass(frozen=True)
class Target:
    """What is damaged.

    Attributes:
        study: a study's folder; a copy.
        export: a folder with an export of one of its students; a copy.
        outside: an empty folder.
        draw: what is drawn from.
    """

    study: Path
    export: Path
    outside: Path
    draw: random.Random

    def scene(self, folder: Path) -> Scene:
        """One of its folders for the mutations of streams."""
        return Scene(folder, folder, self.outside, self.draw)


_PAIR = ["weights.safetensors", "spec.json"]


def damage_student(target: Target) -> str:
    """One file of a student of the study, or of the exported one."""
    students = sorted((target.study / "students").iterdir())
    folder = target.draw.choice([*students, target.export])
    kind = target.draw.choice(
        ("flip bits", "flip bits", "truncate", "zeros", "swap", "edit", "extend")
    )
    if kind == "swap" and folder == target.export:
        # Both files of another student would be its export.
        name = target.draw.choice(_PAIR)
        shutil.copy(target.draw.choice(students) / name, folder)
        return f"{name} in {folder}"
    if kind == "swap":
        other = target.draw.choice([path for path in students if path != folder])
        names = target.draw.choice((_PAIR[:1], _PAIR[1:], _PAIR))
        for name in names:
            shutil.copy(other / name, folder)
        return f"{names} of {other} in {folder}"
    if kind == "edit":
        return f"edit {edit(target.scene(folder), 'spec.json')}"
    if kind == "zeros":
        return f"zeros in {_zero(target, target.scene(folder).file())}"
    return f"{kind} {MUTATIONS[kind](target.scene(folder))}"


def damage_file(target: Target) -> str:
    """One file of the study or of the export, whatever it is."""
    folder = target.draw.choice((target.study, target.study, target.export))
    scene = target.scene(folder)
    kinds = ("flip bits", "overwrite", "truncate", "extend", "swap two files", "hostile JSON")
    kind = target.draw.choice((*kinds, "edit", "a link", "a pipe"))
    if kind == "edit":
        return f"edit {edit(scene, '**/*.json')}"
    if kind not in kinds:
        return f"{kind} {_replace(target, scene.file(), kind)}"
    return f"{kind} {MUTATIONS[kind](scene)}"


def _replace(target: Target, path: Path, kind: str) -> Path:
    """A link, perhaps to nowhere, or a pipe in place of a file."""
    moved = target.outside / "moved"
    path.rename(moved)
    if kind == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(target.draw.choice((moved, target.outside / "absent")))
    return path


def damage_database(target: Target) -> str:
    """One bit of a page of the database that holds attributes."""
    path = target.study / "study.db"
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[16:18], "big")
    pages = set()
    for _, _, _, text in read_attributes(path):
        for start in range(0, len(text), 40):
            at = data.find(text[start : start + 40].encode())
            if at >= 0:
                pages.add(at // size)

    page = target.draw.choice(sorted(pages))
    at = page * size + target.draw.randrange(size)
    data[at] ^= 1 << target.draw.randrange(8)
    path.write_bytes(data)
    return f"a bit of byte {at} of {path}: {bytes(data[at - 20 : at + 20])!r}"


def damage_attribute(target: Target) -> str:
    """One attribute of the study or of a trial, or something Optuna keeps of it."""
    path = target.study / "study.db"
    kind = target.draw.choice(("edit", "edit", "edit", "edit", "swap", "drop", "optuna"))
    if kind == "optuna":
        return _damage_optuna(target, path)

    rows = read_attributes(path)
    table, row, key, text = target.draw.choice(rows)
    if kind == "edit":
        value = json.loads(text)
        is_text = isinstance(value, str) and value.startswith("{")
        inner = json.loads(value) if is_text else value
        holder = {"value": inner}
        what = _edit_value(target.draw, holder)
        changed = json.dumps(holder["value"]) if is_text else holder["value"]
        _write(path, table, row, json.dumps(changed))
        return f"{key} of {table} {row}: {what}"
    if kind == "swap":
        peers = [peer for peer in rows if peer[0] == table and peer[1] != row]
        other = target.draw.choice(peers or [rows[0]])
        _write(path, table, row, other[3])
        return f"{key} of {table} {row} is {other[2]} of {other[1]}"
    if key.startswith("gped:test:"):  # The next run makes a test that is gone.
        return f"{key} stays"
    _drop(path, table, row)
    return f"{key} of {table} {row} dropped"


def _edit_value(draw: random.Random, holder: dict[str, Any]) -> str:
    """Change one entry of a JSON value; records are texts inside it, and are gone into."""
    places = entries(holder)
    for container, key in places:
        if key == "record" and isinstance(container[key], str) and draw.random() < 0.6:
            record = {"value": json.loads(container[key])}
            what = _edit_value(draw, record)
            container[key] = json.dumps(record["value"])
            return f"record: {what}"

    container, key = draw.choice(places)
    before = container[key]
    is_number = isinstance(before, int | float) and not isinstance(before, bool)
    if is_number and draw.random() < 0.5:
        container[key] = draw.choice((before + 1, before * 1.5, -before, before * 10))
    else:
        container[key] = draw.choice([value for value in HOSTILE if value != "\ud800"])
    return f"{key} was {str(before)[:60]}, is {str(container[key])[:60]}"


OPTUNA = (
    "UPDATE trial_values SET value = value * 1.5 WHERE trial_value_id = 2",
    "UPDATE trial_values SET value_type = 'INF_POS' WHERE trial_value_id = 1",
    "UPDATE trial_values SET objective = 1 WHERE trial_value_id = 1",
    "DELETE FROM trial_values WHERE trial_value_id = 3",
    "UPDATE trial_params SET param_value = 7 WHERE param_id = 1",
    "UPDATE trial_params SET param_name = 'x' WHERE param_id = 1",
    "UPDATE trial_params SET distribution_json = '{}' WHERE param_id = 2",
    "UPDATE trial_params SET distribution_json = '[1' WHERE param_id = 2",
    'UPDATE trial_params SET distribution_json = \'{"name": "X", "attributes": {}}\'',
    "DELETE FROM trial_params WHERE param_id = 1",
    "UPDATE trials SET state = 'RUNNING' WHERE trial_id = 2",
    "UPDATE trials SET state = 'FAIL' WHERE trial_id = 3",
    "UPDATE trials SET state = 'DONE' WHERE trial_id = 3",
    "UPDATE trials SET number = 7 WHERE trial_id = 2",
    "UPDATE trials SET datetime_complete = 'never' WHERE trial_id = 2",
    "DELETE FROM trials WHERE trial_id = 2",
    "UPDATE study_directions SET direction = 'MAXIMIZE' WHERE objective = 0",
    "UPDATE study_directions SET direction = 'UP' WHERE objective = 0",
    "DELETE FROM study_directions WHERE objective = 0",
    "UPDATE studies SET study_name = 'other'",
    "UPDATE trial_user_attributes SET value_json = '{' WHERE key = 'nll'",
    "UPDATE study_system_attributes SET value_json = '[1, 2]'",
    "UPDATE version_info SET schema_version = 99",
    "UPDATE alembic_version SET version_num = 'v0'",
)
"""What another program may do to what Optuna keeps itself."""


def _damage_optuna(target: Target, path: Path) -> str:
    statement = target.draw.choice(OPTUNA)
    _execute(path, statement)
    return statement


def read_attributes(path: Path) -> Rows:
    """Every attribute in a database."""
    rows: Rows = []
    with closing(sqlite3.connect(path)) as database:
        for table in ATTRIBUTES:
            query = f"SELECT rowid, key, value_json FROM {table} ORDER BY rowid"
            rows += [(table, *row) for row in database.execute(query)]
    return rows


def _write(path: Path, table: str, row: int, text: str) -> None:
    _execute(path, f"UPDATE {table} SET value_json = ? WHERE rowid = ?", text, row)


def _drop(path: Path, table: str, row: int) -> None:
    _execute(path, f"DELETE FROM {table} WHERE rowid = ?", row)


def _execute(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(statement, values)


def _zero(target: Target, path: Path) -> Path:
    """A block of zeros, as a disk leaves it that lost what it was given."""
    data = bytearray(path.read_bytes())
    start = target.draw.randrange(len(data))
    stop = min(len(data), start + target.draw.choice((16, 64, 512, 4096)))
    data[start:stop] = bytes(stop - start)
    path.write_bytes(data)
    return path


DAMAGES: dict[str, Callable[[Target], str]] = {
    "student": damage_student,
    "file": damage_file,
    "attribute": damage_attribute,
    "database": damage_database,
}
