"""Variants of trained students, as a user meets them: listed, shown, exported, restored, killed."""

import csv
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.harness import Home, accepted, new_home

SEARCH = "{n_trials: 3, students_at_once: 2, sampler: random, keep: {}}"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A study with variants; tests that change it put back what they took."""
    home = new_home(tmp_path_factory.mktemp("variants"), search=SEARCH)
    home.space.write_text(home.space.read_text() + "objectives: [nll, storage_bytes]\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPED_CACHE", str(home.cache))
        for name in ("GPED_STORAGE", "OPTUNA_STORAGE"):
            patch.delenv(name, raising=False)
        home.run()
        yield home


def records(home: Home) -> list[dict[str, object]]:
    out = accepted("trials", home.study, "--format", "json").out
    listed: list[dict[str, object]] = json.loads(out)
    return listed


def variant_on_front(home: Home) -> dict[str, object]:
    front = json.loads(accepted("front", home.study, "--format", "json").out)
    numbers = {record["trial"] for record in front}
    variants = [r for r in records(home) if "variant_of" in r and r["trial"] in numbers]
    assert variants, "the smallest student in bytes is on it, and it is one of int8"
    first: dict[str, object] = variants[0]
    return first


def test_three_trainings_make_six_students(shared: Home) -> None:
    counted = [record for record in records(shared) if "variant_of" not in record]
    assert len(records(shared)) == 6 and len(counted) == 3
    status = dict(csv.reader(io.StringIO(accepted("status", shared.study, "--format", "csv").out)))
    assert status["finished"] == "3" and status["complete"] == "6"


def test_a_variant_says_whose_student_it_is(shared: Home) -> None:
    record = next(record for record in records(shared) if "variant_of" in record)
    shown = accepted("show", shared.study, record["trial"]).out
    dtype = record["genotype"]["storage_dtype"]  # type: ignore[index]
    words = f"student of trial {record['variant_of']}, stored as {dtype}"
    assert words in " ".join(shown.split())
    assert words in " ".join(accepted("trials", shared.study, "--wide").out.split())


def test_a_variant_is_exported_and_lies_under_its_own_number(shared: Home, tmp_path: Path) -> None:
    record = variant_on_front(shared)
    number = str(record["trial"])
    assert (shared.study / "students" / number / "spec.json").is_file()
    assert all(path.name.isdigit() for path in (shared.study / "students").iterdir())

    accepted("export", shared.study, number, "--into", tmp_path)
    (weights,) = tmp_path.rglob("weights.safetensors")
    costs: dict[str, int] = record["costs"]  # type: ignore[assignment]
    assert weights.stat().st_size == costs["storage_bytes"]
    front = json.loads(accepted("front", shared.study, "--format", "json").out)
    (tested,) = [row for row in front if row["trial"] == record["trial"]]
    assert tested["metrics"]["test_nll"] > 0


def test_a_variant_that_is_gone_is_trained_again_to_the_bit(shared: Home) -> None:
    number = str(variant_on_front(shared)["trial"])
    folder = shared.study / "students" / number
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)
    shared.run()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_student_that_was_not_put_in_place_is_at_the_next_run(shared: Home) -> None:
    """A run that was killed after its transaction leaves it under the trained trial's number."""
    record = variant_on_front(shared)
    students = shared.study / "students"
    folder = students / str(record["trial"])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    dtype = record["genotype"]["storage_dtype"]  # type: ignore[index]
    folder.rename(students / f"{record['variant_of']}-{dtype}")
    written = (students / f"{record['variant_of']}-{dtype}" / "weights.safetensors").stat()

    shared.run()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert (folder / "weights.safetensors").stat().st_mtime_ns == written.st_mtime_ns
    assert all(path.name.isdigit() for path in students.iterdir())
