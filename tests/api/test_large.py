"""Data that are larger than memory: what comes out is the same, and memory stays small."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gped_nas as gn
from gped_nas.api.session import Session
from gped_nas.api.teacher import Teacher, sample_teacher
from gped_nas.config import dump_yaml
from gped_nas.data import rows as rows_module
from gped_nas.data.rows import Rows
from gped_nas.posterior.problem import posterior_of
from gped_nas.search.space import SearchSpace
from gped_nas.search.space_file import parse_space

MIB = 2**20
SPACE: dict[str, Any] = {
    "name": "large",
    "teacher": {
        "family": "mlp",
        "genotype": {"depth": 1, "width": 4},
        "method": {
            "name": "sgld",
            "chains": 1,
            "num_samples": 2,
            "burn_in": 50,
            "thinning": 5,
        },
    },
    "views": [{"policy": "clean"}],
    "students": [{"family": "mlp", "genotype": {"depth": 1, "width": {"choices": [2, 4]}}}],
    "recipe": {"steps": 100, "warmup": 5, "lr": 0.02},
    "baseline": {"steps": 100, "precisions": [1.0]},
    "twins": {"seeds": 1, "students": 1},
    "search": {"n_trials": 2, "students_at_once": 2, "keep": {}, "every_dtype": False},
}


def _write(folder: Path, num: int, side: int) -> Path:
    """Pictures of noise, brighter in one of two classes."""
    folder.mkdir(exist_ok=True)
    draw = np.random.default_rng(0)
    y = draw.integers(0, 2, num)
    shape = (num, side, side, 3)
    x = np.lib.format.open_memmap(folder / "x_train.npy", mode="w+", dtype=np.uint8, shape=shape)
    for start in range(0, num, 10_000):
        some = slice(start, min(start + 10_000, num))
        block = draw.integers(0, 200, (some.stop - start, side, side, 3), dtype=np.uint8)
        x[some] = block + (40 * y[some, None, None, None]).astype(np.uint8)
    x.flush()
    np.save(folder / "y_train.npy", y)
    return folder


def _settings(folder: Path, num: int, **changes: Any) -> dict[str, Any]:
    """A space over pictures, with a step of the teacher that suits their number."""
    settings = {**SPACE, "dataset": {"name": "npy", "path": str(folder)}, **changes}
    method = {**SPACE["teacher"]["method"], "step_size": {"initial": 0.1 / num}}
    return {**settings, "teacher": {**SPACE["teacher"], "method": method}}


def _space(folder: Path, **changes: Any) -> SearchSpace:
    return parse_space(_settings(folder, 400, **changes), "large.yaml")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return _write(tmp_path / "pictures", 400, 6)


def _session(folder: Path) -> Session:
    return Session(streams=folder)


def _study(space: SearchSpace, folder: Path) -> list[Any]:
    """The metrics of a study's trials, and of what they are compared with."""
    study = gn.run(space, out=folder, session=_session(folder / "cache"))
    trials = [record.metrics for record in study.records()]
    return [*trials, *(reference.metrics for reference in study.references())]


def test_a_study_is_the_same_wherever_its_data_lie(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory = _study(_space(pictures), tmp_path / "a")
    monkeypatch.setattr(rows_module, "IN_MEMORY", 1000)
    on_disk = _study(_space(pictures), tmp_path / "b")
    assert repr(on_disk) == repr(in_memory)


def _teacher(space: SearchSpace, folder: Path) -> Teacher:
    return sample_teacher(space, _session(folder / "cache"))


@pytest.mark.parametrize("policy", ["noise", "mixup", "disagreement"])
def test_moved_inputs_of_large_data_lie_in_a_file(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    monkeypatch.setattr(rows_module, "IN_MEMORY", 1000)
    monkeypatch.setattr(rows_module, "_CHUNK_ROWS", 64)
    space = _space(pictures, views=[{"policy": policy}])
    teacher = _teacher(space, tmp_path)
    (view,) = teacher.resolve_views()
    moved = teacher.inputs(view)
    assert isinstance(moved, Rows)
    (file,) = (tmp_path / "cache").glob("**/derived/inputs-*.npy")

    clean = teacher.dataset.inputs("train").read()  # type: ignore[attr-defined]
    step = moved.read() - clean
    assert 0 < step.std() < 1.2
    assert not torch.equal(step[:64], step[64:128])  # blocks have draws of their own
    assert np.array_equal(np.load(file), moved.read())

    before = file.read_bytes()
    file.write_bytes(before[:-1] + b"\x01")
    again = _teacher(space, tmp_path).inputs(view)
    assert torch.equal(again, torch.from_numpy(np.load(file)))
    assert file.read_bytes() == before


def test_a_potential_over_large_data_is_summed_in_batches(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = _space(pictures)
    whole = gn.load_dataset(space).inputs("train")
    monkeypatch.setattr(rows_module, "IN_MEMORY", 1000)
    monkeypatch.setattr("gped_nas.posterior.problem._BATCH", 32)
    dataset = gn.load_dataset(space)

    gradients = []
    for x in (whole, dataset.inputs("train")):
        problem = posterior_of(
            space.network,
            x,
            dataset.normalized_labels("train"),
            num_outputs=2,
            prior=space.prior,
            likelihood=space.likelihood,
            device=torch.device("cpu"),
        )
        params = problem.initialize(torch.Generator().manual_seed(0))
        params = {name: value.requires_grad_() for name, value in params.items()}
        value = problem.potential(params, torch.arange(len(x)))
        gradients.append(torch.autograd.grad(value, list(params.values())))
    for expected, actual in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected)


_MEASURED = """
import re, sys
from pathlib import Path
import torch._dynamo  # which torch imports at some first use, here in the large run
from gped_nas.data import rows
from gped_nas.cli import main

def resident(key):
    return int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

def call(*words):
    sys.argv = ["gped-search", *words]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (words, end.code)

limit, small, large = int(sys.argv[1]), sys.argv[2], sys.argv[3]
rows.IN_MEMORY = limit
call("run", small)  # everything is imported, and has its buffers
Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
call("space", large)
call("run", large, "--dry-run")
call("run", large)
print("added MiB:", resident("VmHWM") - before)
"""


def _added_mib(tmp_path: Path, num: int, side: int, in_memory: int, **changes: Any) -> float:
    """Memory that commands on a large set take, more than the same ones on a small set."""
    words = [str(in_memory)]
    for name, count in (("small", 300), ("large", num)):
        folder = tmp_path / name
        _write(folder, count, side)
        settings = _settings(folder, count, name=name, **changes)
        (tmp_path / f"{name}.yaml").write_text(dump_yaml(settings))
        words.append(f"{name}.yaml")

    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout.rsplit("added MiB:", 1)[1])


def test_no_part_of_large_data_is_ever_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 9,000 training pictures, 4,096 lie in memory at once at most."""
    num = 15_000
    pictures = _write(tmp_path / "pictures", num, 2)
    monkeypatch.setattr(rows_module, "IN_MEMORY", 1000)
    read, lengths = Rows.read, set[int]()

    def watched(rows: Rows) -> torch.Tensor:
        lengths.add(len(rows))
        return read(rows)

    monkeypatch.setattr(Rows, "read", watched)
    views = [{"policy": "clean"}, {"policy": "noise"}]
    space = parse_space(_settings(pictures, num, views=views), "large.yaml")
    gn.run(space, out=tmp_path, session=_session(tmp_path / "cache"))
    assert max(lengths) <= 4096


@pytest.mark.soak
def test_memory_does_not_grow_with_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 MiB of bytes would be 160 as float32, and 320 with a view that moves them.

    What a process adds by itself differs from run to run: from 68 to 104 MiB.
    """
    monkeypatch.setenv("GPED_CACHE", str(tmp_path / "cache"))
    views = [{"policy": "clean"}, {"policy": "noise"}]
    assert _added_mib(tmp_path, 40 * MIB // (3 * 16 * 16), 16, MIB, views=views) < 135


_PEAK = """
import re, resource, sys
from pathlib import Path
import numpy as np
import gped_nas as gn
from gped_nas.cli import main

def call(*words):
    sys.argv = ["gped-search", *words]
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code

def bring(folder):
    x, y = [np.load(Path(folder, name), mmap_mode="r") for name in ("x_train.npy", "y_train.npy")]
    gn.as_dataset((x, y))

bring(sys.argv[2]) if sys.argv[1] == "bring" else call(*sys.argv[1:])
# what a process begins with in ru_maxrss is its parent's: this one's peak is in its status
own = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
print("peak MiB:", max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024)
"""


def _peak_mib(folder: Path, *words: str) -> float:
    """Memory that a command takes at most, of the largest of its processes."""
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, *words], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout.rsplit("peak MiB:", 1)[1])


@pytest.mark.soak
def test_two_gigabytes_of_pictures_take_less_than_two_and_a_half_gibibytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A memory map, brought without a copy; views are moved as they are drawn, so none is kept."""
    monkeypatch.setenv("GPED_CACHE", str(tmp_path / "cache"))
    num = 2 * 10**9 // 3072
    folder = _write(tmp_path / "pictures", num, 32)
    try:
        brought = _peak_mib(tmp_path, "bring", "pictures")
        x = np.load(folder / "x_train.npy", mmap_mode="r")
        dataset = gn.as_dataset((x, np.load(folder / "y_train.npy")))
        assert dataset["x_train"] == str(folder / "x_train.npy")

        settings = _settings(folder, num, dataset=dataset, views=[{"policy": "noise"}])
        recipe = {**SPACE["recipe"], "draw_views": "fresh"}
        (tmp_path / "large.yaml").write_text(dump_yaml({**settings, "recipe": recipe}))
        words = [("space", "large.yaml"), ("run", "large.yaml", "--dry-run"), ("run", "large.yaml")]
        peaks = [_peak_mib(tmp_path, *command) for command in words]
        kept = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*"))
    finally:
        (folder / "x_train.npy").unlink()
    assert brought < 1024 and max(peaks) < 2.5 * 1024, (brought, peaks)
    assert kept < 100 * MIB
    print("peaks, MiB:", brought, *peaks)
