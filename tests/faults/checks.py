"""What must hold on disk after any kill, read with nothing of the package under test but its
documented formats.
"""

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
    "search": {"sampler": "brute_force", "n_trials": 4, "students_at_once": 2},
    "baseline": {"precisions": [10.0], "steps": 100},
    "recipe": {"steps": 30, "batch_size": 64, "warmup": 5},
}
"""All four genotypes of a space that is soon searched: the outcome does not depend on what a
sampler draws.
"""


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
    found = [
        path
        for name in ("segments", "views")
        for path in streams.glob(f"*/{name}/**/*")
        if path.is_file()
    ]
    return {
        str(path.relative_to(streams)): sha256(path)
        for path in [*found, *streams.glob("*/key.json")]
    }


def assert_whole(*roots: Path) -> int:
    """Assert that whatever bears a final name under ``roots`` is complete; how many files that are."""
    count = 0
    for root in roots:
        for path in root.rglob("*"):
            if (
                path.is_file()
                and not path.name.startswith(".")
                and not path.name.startswith("study.db")
            ):
                _assert_file_is_whole(path)
                count += 1
        # chunks of a segment that is sealed are on their way out
        chunks = [] if any(root.glob("streams/*/segments/*")) else root.rglob("chunk-[0-9]*")
        for folder in [
            *chunks,
            *root.glob("streams/*/segments/*"),
            *root.glob("streams/*/views/*/*"),
        ]:
            manifest = json.loads((folder / "manifest.json").read_text())
            assert manifest["shards"], folder
            for shard in manifest["shards"]:
                assert sha256(folder / shard["file"]) == shard["sha256"], folder / shard["file"]
    return count


def _assert_file_is_whole(path: Path) -> None:
    if path.name == "lock":
        return
    if path.suffix == ".npy":
        array = np.load(path, allow_pickle=False)
        assert path.stat().st_size == len(_header(path)) + array.nbytes, path
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".safetensors":
        load_file(path)
    elif path.suffix == ".yaml":
        assert yaml.safe_load(path.read_text())["name"], path
    else:
        assert path.name == "report.html", f"{path}: no file of this name is known"
        assert path.read_text().rstrip().endswith("</html>"), path


def _header(path: Path) -> bytes:
    start = path.read_bytes()[:10]
    return path.read_bytes()[: 10 + int.from_bytes(start[8:10], "little")]


def assert_no_leftovers(*roots: Path) -> None:
    """Assert that no temporary file of a killed writer is left where it would be carried along."""
    left = [path for root in roots for path in root.rglob(".*") if "building" not in path.parts]
    assert not left, left


def trials(study: Path) -> dict[int, tuple[str, str | None]]:
    """State in the database and text of the record of every trial, by number."""
    path = study / "study.db"
    if not path.exists():
        return {}
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        if not database.execute(
            "SELECT 1 FROM sqlite_master WHERE name = 'trial_user_attributes'"
        ).fetchone():
            return {}
        rows = database.execute(
            "SELECT t.number, t.state, a.value_json FROM trials t LEFT JOIN trial_user_attributes "
            "a "
            "ON a.trial_id = t.trial_id AND a.key = 'gped:row' ORDER BY t.number"
        ).fetchall()
    return {
        number: (state, None if text is None else json.loads(text).get("record"))
        for number, state, text in rows
    }


def told(study: Path) -> dict[int, tuple[str, str | None]]:
    """The trials that Optuna knows as ended, and those whose record is written though it does not
    yet.
    """
    return {n: (state, text) for n, (state, text) in trials(study).items() if text is not None}


def assert_kept(before: dict[int, tuple[str, str | None]], study: Path) -> None:
    """Assert that every record that was written before is there, unchanged."""
    after = trials(study)
    for number, (state, text) in before.items():
        assert after[number][1] == text, number
        assert after[number][0] == state or state == "RUNNING", number


def assert_finished(study: Path, num: int) -> dict[str, Any]:
    """Assert that a study ended as if it had never been killed; its complete records by genotype."""
    found = trials(study)
    states = [state for state, _ in found.values()]
    assert set(states) <= {"COMPLETE", "PRUNED", "FAIL"}, states
    assert list(found) == list(range(len(found)))
    records = [json.loads(text) for _, text in found.values() if text is not None]
    assert sum(record["state"] in FINISHED for record in records) == num
    assert all((state == "FAIL") == (text is None) for state, text in found.values()), (
        "something failed by itself"
    )
    complete: dict[str, Any] = {}
    for record in records:
        genotype = json.dumps(record["genotype"], sort_keys=True)
        if record["state"] == "complete":
            assert genotype not in complete, f"trial {record['trial']} was trained twice"
            complete[genotype] = record
    for record in records:
        if record["state"] == "duplicate":
            first = complete[json.dumps(record["genotype"], sort_keys=True)]
            assert record["reason"] == f"same genotype as trial {first['trial']}"
            assert record["metrics"] == first["metrics"]
    front = _front(list(complete.values()))
    kept = {int(path.name) for path in (study / "students").iterdir()}
    assert kept == front, "students kept and front differ"
    for number in front:
        folder = study / "students" / str(number)
        assert {path.name for path in folder.iterdir()} == {"spec.json", "weights.safetensors"}
        assert json.loads((folder / "spec.json").read_text())["about"]["trial"] == str(number)
        costs = json.loads(found[number][1] or "")["costs"]
        assert (folder / "weights.safetensors").stat().st_size == costs["storage_bytes"]
    assert (study / "report.html").is_file()
    return complete


def _front(records: list[dict[str, Any]]) -> set[int]:
    """Trials that no other one beats in both the first metric and the cost, by comparing all pairs."""
    points = {r["trial"]: (r["metrics"]["nll"], r["costs"]["params"]) for r in records}
    return {
        a
        for a, x in points.items()
        if not any(y != x and y[0] <= x[0] and y[1] <= x[1] for y in points.values())
    }
