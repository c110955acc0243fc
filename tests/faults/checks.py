"""What must hold on disk after any kill.

Files are read by their documented formats, without the package under test.
"""

import csv
import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import load_file

FINISHED = {"complete", "pruned", "infeasible", "duplicate"}
SPACE: dict[str, Any] = {
    "name": "tiny",
    "dataset": {"name": "digits"},
    "teacher": {
        "family": "mlp",
        "genotype": {"depth": 1, "width": 8},
        "prior": {"precision": 1.0},
        "method": {
            "name": "sgld",
            "chains": 2,
            "num_samples": 6,
            "step_size": {"initial": 2.0e-4},
            "burn_in": 20,
            "thinning": 20,
            "batch_size": 20,
        },
    },
    "views": [{"policy": "clean"}],
    "targets": ["predictive"],
    "students": [{"family": "mlp", "genotype": {"depth": 1, "width": {"choices": [2, 3, 4, 5]}}}],
    "objectives": ["nll", "params"],
    "search": {"sampler": "brute_force", "n_trials": 4, "students_at_once": 2, "keep": {}},
    "baseline": {"precisions": [10.0], "steps": 100},
    "recipe": {"steps": 30, "batch_size": 64, "warmup": 5, "lr": 0.02},
}
"""A space of four genotypes, all of which are tried: no sampler's draw decides the outcome."""


def write_space(folder: Path, **changes: Any) -> Path:
    """Write ``SPACE`` with some of its parts changed, ``method`` being the teacher's."""
    space = json.loads(json.dumps(SPACE))
    space["teacher"]["method"] |= changes.pop("method", {})
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**space, **changes}))
    return path


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sealed(cache: Path) -> dict[str, str]:
    """The digest of everything that is sealed in a cache, hidden files included, by its path."""
    streams = cache / "streams"
    paths = [
        *streams.glob("*/key.json"),
        *streams.glob("*/segments/**/*"),
        *streams.glob("*/views/**/*"),
    ]
    return {str(path.relative_to(streams)): sha256(path) for path in paths if path.is_file()}


def assert_whole(root: Path) -> None:
    """Assert that whatever bears a final name under ``root`` is complete."""
    for path in root.rglob("*"):
        is_final = not path.name.startswith((".", "study.db"))
        if path.is_file() and is_final:
            _assert_file_is_whole(path)

    folders = [*root.glob("streams/*/segments/*"), *root.glob("streams/*/views/*/*")]
    # Chunks of a segment that is sealed are on their way out.
    if not any(root.glob("streams/*/segments/*")):
        folders += root.rglob("chunk-[0-9]*")

    for folder in folders:
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["shards"], folder
        for shard in manifest["shards"]:
            assert sha256(folder / shard["file"]) == shard["sha256"], folder / shard["file"]


def _assert_file_is_whole(path: Path) -> None:
    if path.name == "lock":
        return
    if path.suffix == ".npy":
        array = np.load(path, allow_pickle=False)
        assert path.stat().st_size == _header_bytes(path) + array.nbytes, path
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".safetensors":
        load_file(path)
    elif path.name == "rows.jsonl":
        assert all(json.loads(line)["schema_version"] for line in path.read_text().splitlines())
    elif path.name == "rows.csv":
        with path.open() as file:
            assert len({len(row) for row in csv.reader(file)}) == 1, path
    elif path.name == "tables.tex":
        assert path.read_text().endswith("\\end{table}\n"), path
    elif path.suffix == ".yaml":
        assert yaml.safe_load(path.read_text())["name"], path
    else:
        assert path.name in ("report.html", "suite.html"), f"{path}: no file of this name is known"
        assert path.read_text().rstrip().endswith("</html>"), path


def _header_bytes(path: Path) -> int:
    return 10 + int.from_bytes(path.read_bytes()[8:10], "little")


def assert_no_leftovers(root: Path) -> None:
    """Assert that no temporary file of a killed writer is left where it would be carried along."""
    leftovers = [path for path in root.rglob(".*") if "building" not in path.parts]
    assert not leftovers, leftovers


def trials(study: Path) -> dict[int, tuple[str, str | None]]:
    """State in the database and text of the record of every trial, by number."""
    path = study / "study.db"
    if not path.exists():
        return {}
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)

        table = "SELECT 1 FROM sqlite_master WHERE name = 'trial_user_attributes'"
        if not database.execute(table).fetchone():
            return {}
        rows = database.execute(
            "SELECT t.number, t.state, a.value_json FROM trials t "
            "LEFT JOIN trial_user_attributes a "
            "ON a.trial_id = t.trial_id AND a.key = 'gped:row' ORDER BY t.number"
        ).fetchall()

    found_trials: dict[int, tuple[str, str | None]] = {}
    for number, state, text in rows:
        record = None if text is None else json.loads(text).get("record")
        found_trials[number] = (state, record)
    return found_trials


def recorded(study: Path) -> dict[int, tuple[str, str | None]]:
    """The trials whose record is written, whether Optuna knows that they ended or not yet."""
    return {n: (state, text) for n, (state, text) in trials(study).items() if text is not None}


def assert_kept(before: dict[int, tuple[str, str | None]], study: Path) -> None:
    """Assert that every record that was written before is there, unchanged."""
    after = trials(study)
    for number, (state, text) in before.items():
        assert after[number][1] == text, number
        assert after[number][0] == state or state == "RUNNING", number


def assert_finished(study: Path, num: int) -> dict[str, Any]:
    """Assert that a study ended as if it was never killed; its complete records by genotype."""
    records = _assert_trials_ended(trials(study), num)
    complete = _assert_each_trained_once(records)
    _assert_front_is_kept(study, list(complete.values()))
    assert (study / "report.html").is_file()
    return complete


def _assert_trials_ended(
    ended: dict[int, tuple[str, str | None]], num: int
) -> list[dict[str, Any]]:
    """Assert that ``num`` trials have an outcome; the records."""
    states = [state for state, _ in ended.values()]
    assert set(states) <= {"COMPLETE", "PRUNED", "FAIL"}, states
    assert list(ended) == list(range(len(ended)))
    for state, text in ended.values():
        assert (state == "FAIL") == (text is None), "something failed by itself"

    records = [json.loads(text) for _, text in ended.values() if text is not None]
    assert sum(is_counted(record) for record in records) == num
    return records


def is_counted(record: dict[str, Any]) -> bool:
    """Whether a record, as plain data, is a finished trial: neither a variant nor a repeat."""
    is_another = "variant_of" in record or "repeat_of" in record
    return record["state"] in FINISHED and not is_another


def _assert_each_trained_once(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Assert that a genotype has one complete record, which its duplicates repeat."""
    complete: dict[str, Any] = {}
    for record in records:
        genotype = json.dumps(record["genotype"], sort_keys=True)
        if record["state"] == "complete":
            assert genotype not in complete, f"trial {record['trial']} was trained twice"
            complete[genotype] = record

    for record in records:
        if record["state"] == "duplicate":
            original = complete[json.dumps(record["genotype"], sort_keys=True)]
            assert record["reason"] == f"same genotype as trial {original['trial']}"
            assert record["metrics"] == original["metrics"]
    return complete


def _assert_front_is_kept(study: Path, records: list[dict[str, Any]]) -> None:
    """Assert that the students of the front are there, whole, and no others."""
    front = _front(records)
    students = {int(path.name) for path in (study / "students").iterdir()}
    assert students == front, "students kept and front differ"

    costs = {record["trial"]: record["costs"] for record in records}
    trained_in = {r["trial"]: r.get("variant_of", r["trial"]) for r in records}
    for number in front:
        folder = study / "students" / str(number)
        assert {path.name for path in folder.iterdir()} == {"spec.json", "weights.safetensors"}
        about = json.loads((folder / "spec.json").read_text())["about"]
        assert about.get("trial", about.get("trained_in")) == str(trained_in[number])
        size = (folder / "weights.safetensors").stat().st_size
        assert size == costs[number]["storage_bytes"]


def _front(records: list[dict[str, Any]]) -> set[int]:
    """Trials that no other one beats in both nll and params, by comparing all pairs."""
    points = {}
    for record in records:
        points[record["trial"]] = (record["metrics"]["nll"], record["costs"]["params"])
    front = set()
    for trial, (nll, params) in points.items():
        beaten = any(
            other != (nll, params) and other[0] <= nll and other[1] <= params
            for other in points.values()
        )
        if not beaten:
            front.add(trial)
    return front
