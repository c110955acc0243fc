"""Engines on the installed command: the same records from each, and workers that are killed."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.harness import Result, call, installed, refused
from tests.faults.checks import FINISHED, trials, write_space
from tests.faults.test_hangs import left_behind

MORTAL = """
import os, signal
from pathlib import Path
from gped_nas.models.base import FAMILIES
from gped_nas.models.mlp import Mlp

class Mortal(Mlp):
    def forward(self, params, x):
        marker = Path(os.environ["MORTAL"])
        if len(params["layers.0.bias"]) > 30 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(params, x)

FAMILIES.register("mortal")(Mortal())
"""
SEARCH = {"sampler": "random", "n_trials": 6, "students_at_once": 1}
"""Several workers make the last populations smaller: those of one student are always the same."""
WIDTHS = {"int": [4, 60]}


def install_mortal(folder: Path) -> dict[str, str]:
    """The environment with a plug-in whose family kills its process once.

    It does so where the file ``$MORTAL`` is not there yet.
    """
    info = folder / "site" / "mortal-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "site" / "mortal.py").write_text(MORTAL)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mortal\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gped_nas.plugins]\nmortal = mortal\n")
    path = os.pathsep.join([str(folder / "site"), os.environ.get("PYTHONPATH", "")])
    return {"PYTHONPATH": path, "GPED_CACHE": str(folder / "cache")}


def search(folder: Path, out: str, *options: object, **env: str) -> Result:
    """A search whose records follow from its space alone."""
    students = [{"family": "mortal", "genotype": {"depth": 1, "width": WIDTHS}}]
    recipe = {"steps": 30, "batch_size": 64, "warmup": 5, "lr": 0.02, "precision": "float32"}
    space = write_space(folder, students=students, search=SEARCH, recipe=recipe)
    result = installed("run", space, "--out", folder / out, *options, **env)
    assert result.code == 0, result.err
    return result


def records(folder: Path) -> list[dict[str, Any]]:
    """What follows from the space of each record, by trial."""
    kept = []
    for number, (state, text) in sorted(trials(folder / "tiny").items()):
        assert text is not None, (number, state)
        record = json.loads(text)
        for key in ("seconds", "created"):
            record.pop(key, None)
        kept.append(record)
    return kept


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with the study that one process made, and the environment of that."""
    folder = tmp_path_factory.mktemp("engines")
    env = install_mortal(folder)
    marker = folder / "never"
    marker.touch()
    search(folder, "local", MORTAL=str(marker), **env)
    return folder, env


@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_workers_make_the_records_of_one_process_although_one_is_killed(
    one_process: tuple[Path, dict[str, str]], engine: str
) -> None:
    folder, env = one_process
    marker = folder / engine
    result = search(
        folder, f"by_{engine}", "--engine", engine, "--workers", 2, MORTAL=str(marker), **env
    )
    assert marker.exists()
    deadline = time.monotonic() + 30  # a cluster ends its workers when its command has ended
    while left_behind(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left_behind(folder)
    assert "workers: 2, which had nothing to do for " in result.err
    # the worker's death is nobody's news, and Ray has no word in it
    assert not [line for line in result.err.splitlines() if "ray" in line.lower()]

    expected = records(folder / "local")
    assert records(folder / f"by_{engine}") == expected
    assert sum(record["state"] in FINISHED - {"duplicate"} for record in expected) == 6


@pytest.mark.parametrize(
    "options, says",
    [
        (["--engine", "dask"], "--engine: found 'dask', expected local, processes, ray"),
        (["--workers", 0], "--workers: found 0, expected at least 1"),
        (["--workers", 2], "--workers: found 2 with --engine local"),
        (["--engine", "processes", "--address", "auto"], "--address: found auto with --engine"),
        (["--engine", "ray", "--worker-gpus", 1.5], "--worker-gpus: found 1.5, expected a share"),
    ],
)
def test_a_setting_that_no_engine_has_is_refused(
    tmp_path: Path, options: list[object], says: str
) -> None:
    space = write_space(tmp_path)
    result = call("run", space, "--device", "cpu", "--out", tmp_path / "reports", *options)
    assert result.code == 2 and says in result.err
    assert not (tmp_path / "reports").exists()


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gped_nas.api.engines.workers.find_spec", lambda name: None)
    space = write_space(tmp_path)
    refused(5, "run", space, "--engine", "ray", "--device", "cpu", says=("'gped-nas[ray]'",))


def test_workers_disturb_whoever_is_timed(tmp_path: Path) -> None:
    space = write_space(tmp_path, latency={"repeats": 30})
    refused(2, "run", space, "--engine", "processes", "--out", tmp_path, says=("latency: found",))
