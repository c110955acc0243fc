"""Students that hang, in a step or where they are measured, and end with ``student_timeout``."""

import json
import os
from pathlib import Path

from tests.cli.harness import Result, installed
from tests.faults.checks import trials, write_space
from tests.faults.conftest import SOAK

HANGS = """
import re, time
import torch
from gped_nas.models.base import FAMILIES
from gped_nas.models.mlp import Mlp

class Stuck(Mlp):
    def forward(self, params, x):
        width = len(params["layers.0.bias"])
        if width == 3 and torch.is_grad_enabled():
            re.match("(a+)+$", "a" * 64 + "b")  # for years, and no other thread runs beside it
        if width == 4 and not torch.is_grad_enabled():
            time.sleep(1e9)
        return super().forward(params, x)

FAMILIES.register("stuck")(Stuck())
"""


def run(folder: Path, widths: list[int], limit_s: float, *, at_once: int) -> Result:
    """Search one genotype a width of the family that hangs at 3 and 4."""
    site = folder / "site"
    info = site / "stuck-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "stuck.py").write_text(HANGS)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stuck\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gped_nas.plugins]\nstuck = stuck\n")

    genotype = {"depth": 1, "width": {"choices": widths}}
    space = write_space(
        folder,
        students=[{"family": "stuck", "genotype": genotype}],
        search={
            "sampler": "brute_force",
            "n_trials": len(widths),
            "students_at_once": at_once,
            "keep": {},
            "student_timeout": limit_s,
        },
    )
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    cache = str(folder / "cache")
    return installed("run", space, "--out", folder, PYTHONPATH=path, GPED_CACHE=cache)


def left_behind(folder: Path) -> list[str]:
    """Command lines of processes that were started in this test and are still there."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            command = (process / "cmdline").read_text()
        except OSError:  # it has ended, or is another user's
            continue
        if str(folder / "cache").encode() in environment:
            lines.append(command)
    return lines


def memory_without_owner() -> set[str]:
    """Torch's files of shared memory, called after their processes, that outlived these."""
    names = set()
    for path in Path("/dev/shm").glob("torch_*_*"):
        if not Path("/proc", path.name.split("_")[1]).exists():
            names.add(path.name)
    return names


def test_a_student_that_hangs_fails_and_the_search_goes_on(tmp_path: Path) -> None:
    widths, limit_s, at_once = ([8, 3, 4, 5], 5.0, 2) if SOAK else ([8, 3], 5.0, 1)
    before = set(os.listdir("/dev/shm"))
    result = run(tmp_path, widths, limit_s, at_once=at_once)
    assert result.code == 0, result.err
    assert not left_behind(tmp_path)
    assert not memory_without_owner() - before

    reasons = {}
    for _, text in trials(tmp_path / "tiny").values():
        assert text is not None
        record = json.loads(text)
        (width,) = record["genotype"]["width"]
        reasons[width] = (record["state"], record["reason"])
    ended = ("failed", f"took longer than search.student_timeout={limit_s:g} seconds; was ended")
    stuck = {width: reason for width, reason in reasons.items() if width in (3, 4)}
    assert set(stuck.values()) == {ended}
    assert all(reasons[width] == ("complete", "") for width in set(widths) - {3, 4})


if SOAK:

    def test_a_limit_that_nobody_reaches_changes_no_number(tmp_path: Path) -> None:
        records = []
        for limit_s in (None, 600.0):
            search = {"sampler": "brute_force", "n_trials": 4, "students_at_once": 2, "keep": {}}
            folder = tmp_path / str(limit_s)
            folder.mkdir()
            space = write_space(folder, search={**search, "student_timeout": limit_s})
            result = installed("run", space, "--out", folder, GPED_CACHE=str(tmp_path / "cache"))
            assert result.code == 0, result.err
            texts = [text for _, text in trials(folder / "tiny").values() if text is not None]
            kept = ("trial", "genotype", "metrics", "intervals", "costs", "extra")
            records.append([{key: json.loads(text)[key] for key in kept} for text in texts])
        assert len(records[0]) == 4
        assert records[0] == records[1]
