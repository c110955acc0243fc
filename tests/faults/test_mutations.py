"""A damaged stream: a read gives what was sealed, or one message that names what is damaged.

Damage is drawn by ``mutations``. Whatever happens to a folder, reading it neither hangs, nor fills
memory, nor warns (a warning is an error under test), nor writes outside; and ``verify`` finds every
sealed file that is not what it was.
"""

import os
import random
import re
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gped_nas.api import TeacherStream
from gped_nas.errors import GpedError, StreamError
from gped_nas.stream import writer
from gped_nas.stream.inventory import streams_of
from gped_nas.stream.reader import Stream
from gped_nas.stream.writer import write_predictions, write_view, write_weights
from gped_nas.targets.expectations import stream_expectations
from tests.faults.conftest import soak_or
from tests.faults.mutations import MUTATIONS, Scene
from tests.scenarios import NUM_CLASSES, NUM_EXAMPLES, Chains, predict, stream_key, tree

NUM_MUTATIONS = soak_or(500, 40)
FIRST_SEED = int(os.environ.get("GPED_SOAK_SEED", "0"))
TARGETS = ("predictive", "expected_entropy")
SECONDS, BYTES = 120, 2**30
"""What reading a damaged stream of some kilobytes may take.

More is a hang, or memory asked for by a hostile size.
"""


def _about(name: str) -> dict[str, Any]:
    return {"view": {"policy": name}, "inputs": "0" * 64}


VIEWS = {"pool-clean-0": (_about("clean"), "float32"), "pool-noise-1": (_about("noise"), "float16")}


def _no_progress(what: str, done: int, total: int) -> None:
    pass


def _build(root: Path, seed: int, num_samples: int = 6) -> Path:
    return write_weights(
        root,
        stream_key(seed=seed),
        Chains(seed=seed),
        chains=2,
        num_samples=num_samples,
        provenance={},
        progress=_no_progress,
        should_stop=lambda: False,
    )


def _add_views(folder: Path) -> None:
    stream = Stream(folder, num_samples=6)
    for index, (name, (about, dtype)) in enumerate(VIEWS.items()):

        def shifted(theta_W: torch.Tensor, by: int = index) -> torch.Tensor:
            return predict(theta_W).roll(by, 0)

        write_view(
            stream,
            name,
            about,
            shifted,
            num_inputs=NUM_EXAMPLES,
            dtype=dtype,
            progress=_no_progress,
            should_stop=lambda: False,
        )


def _weights(root: Path, seed: int) -> Path:
    """Two segments of two shards each, predictions at two views, and averages of them."""
    whole = writer.SHARD_BYTES
    writer.SHARD_BYTES = 2 * 43 * 4  # two samples of 43 parameters
    try:
        for num_samples in (4, 6):
            folder = _build(root, seed, num_samples)
        _add_views(folder)
    finally:
        writer.SHARD_BYTES = whole
    _read(folder)
    return folder


def _predictions(root: Path, seed: int) -> Path:
    draw = np.random.default_rng(seed)
    return write_predictions(
        root,
        stream_key(seed=seed),
        inputs_MD=draw.normal(size=(5, 4)),
        log_prob_SMC=np.log(draw.dirichlet(np.ones(NUM_CLASSES), (6, 5))),
        weight_S=draw.random(6),
        provenance={},
    )


KINDS = {"weights": _weights, "predictions": _predictions}


def _reads(folder: Path) -> dict[str, Callable[[], Any]]:
    """Every way to read a stream, by name."""

    def opened() -> Stream:
        return Stream(folder, num_samples=6)

    reads: dict[str, Callable[[], Any]] = {
        "open": lambda: opened().key.digest,
        "weights": lambda: opened().weight_S,
        "params": lambda: [*TeacherStream(opened()).params(5).values()],
        "imported inputs": lambda: torch.from_numpy(np.array(opened().imported()[0])),
        "imported log_prob": lambda: opened().imported()[1],
    }
    for sample in range(6):
        reads[f"theta {sample}"] = lambda sample=sample: opened().theta(sample)

    def has_view(name: str) -> bool:
        about, dtype = VIEWS[name]
        return opened().has_view(name, about, dtype)

    def average(name: str, target: str) -> torch.Tensor:
        return stream_expectations(opened(), [target], name)[target]

    def average_for_people(name: str, target: str) -> torch.Tensor:
        return TeacherStream(opened()).expectation(target, name)

    for name in VIEWS:
        reads[f"has {name}"] = partial(has_view, name)
        reads[f"log_prob {name}"] = lambda name=name: opened().predictions(name)
        for target in TARGETS:
            reads[f"{target} {name}"] = partial(average, name, target)
            reads[f"people's {target} {name}"] = partial(average_for_people, name, target)
    return reads


def _is_same(a: Any, b: Any) -> bool:
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_is_same, a, b))
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    return bool(a == b)


def _read(folder: Path) -> dict[str, Any]:
    """What each read gives, or the ``StreamError`` it raises."""
    outcomes: dict[str, Any] = {}
    for name, read in _reads(folder).items():
        try:
            outcomes[name] = read()
        except StreamError as error:
            outcomes[name] = error
    return outcomes


@dataclass(frozen=True)
class Whole:
    """A stream before any damage: its folder, another of the same shapes, what each read gives."""

    folder: Path
    other: Path
    values: dict[str, Any]


@pytest.fixture(scope="module", params=KINDS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    root = tmp_path_factory.mktemp("streams")
    build = KINDS[request.param]
    folder = build(root, 0)
    other = build(root, 1)
    return Whole(folder, other, _read(folder))


@contextmanager
def _bounded() -> Iterator[None]:
    """Fail what hangs, and what asks for memory by the gigabyte."""

    def hung(signum: int, frame: object) -> None:
        raise AssertionError(f"hung for {SECONDS} s")

    limit = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BYTES, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limit)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _named(message: str, folder: Path) -> set[Path]:
    """The paths at and below ``folder`` that a message names."""
    return {Path(text) for text in re.findall(re.escape(str(folder)) + r"[^\s:;,)]*", message)}


def _names_damage(message: str, folder: Path, damaged: list[Path]) -> bool:
    """Whether a message names a damaged path, a folder around it or something in it."""
    for named in _named(message, folder):
        for path in damaged:
            if path in (named, *named.parents) or named in path.parents:
                return True
    return False


def _check(whole: Whole, folder: Path, damaged: list[Path], outside: Path) -> None:
    """Assert what the module promises of one damaged stream."""
    before = _times(outside)
    with _bounded():
        _check_reads(whole, folder, damaged)
        (listed,) = streams_of(folder.parent)
        assert listed.name == folder.name
        assert listed.num_bytes >= 0
        _check_verify(whole, folder, damaged)
        _check_building(whole, folder)
    assert _times(outside) == before, "wrote outside the stream"


def _times(outside: Path) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for path in outside.rglob("*")}


def _check_reads(whole: Whole, folder: Path, damaged: list[Path]) -> None:
    """Each read gives what was sealed, or is refused with a message that names the damage."""
    for name, value in _read(folder).items():
        expected = whole.values[name]
        is_absent = name.startswith("has ") and value is False
        if isinstance(value, StreamError):
            message = str(value)
            assert len(message) < 5000, (name, message[:200])
            if not isinstance(expected, StreamError):
                assert _names_damage(message, folder, damaged), (name, value)
        elif not is_absent:
            assert _is_same(value, expected), name


def _check_verify(whole: Whole, folder: Path, damaged: list[Path]) -> None:
    """``verify`` finds each sealed file with other bytes, and says nothing of what is whole."""
    present = _read_regular(folder)
    shards = []
    for name, content in tree(whole.folder).items():
        is_sealed_shard = name.startswith(("segments", "views")) and name.endswith(".npy")
        if is_sealed_shard and present.get(name, content) != content:
            shards.append(name)

    try:
        problems = Stream(folder, num_samples=6).verify()
    except StreamError as error:
        problems = [str(error)]
    assert all(_names_damage(problem, folder, damaged) for problem in problems), problems
    assert problems or not shards, f"verify did not see that {shards} changed"


def _read_regular(folder: Path) -> dict[str, bytes]:
    """Every plain file of a folder, links not followed, huge ones left out."""
    contents = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 2**20:
            contents[str(path.relative_to(folder))] = path.read_bytes()
    return contents


def _check_building(whole: Whole, folder: Path) -> None:
    """Building again makes good what is missing or refuses what is damaged.

    What is read then is right or refused.
    """
    if isinstance(whole.values["theta 0"], StreamError):
        return

    try:
        _build(folder.parent, seed=0)
        _add_views(folder)
    except GpedError as error:
        # perhaps a view that does not fit segments that were made anew
        assert _named(str(error), folder), error

    for name, value in _read(folder).items():
        if not isinstance(value, StreamError) and value is not False:
            assert _is_same(value, whole.values[name]), name


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + NUM_MUTATIONS))
def test_a_damaged_stream_is_right_or_refused(whole: Whole, tmp_path: Path, seed: int) -> None:
    folder = tmp_path / "streams" / whole.folder.name
    outside = tmp_path / "outside"
    shutil.copytree(whole.folder, folder)
    outside.mkdir()
    scene = Scene(folder, whole.other, outside, random.Random(seed))

    names = list(MUTATIONS)
    if not (folder / "views").exists():
        names = [name for name in names if "derived" not in name]
    mutate = MUTATIONS[names[seed % len(names)]]
    try:
        damaged = mutate(scene)
    except ValueError:  # fewer than two views or segments to mix up
        damaged = MUTATIONS["flip bits"](scene)
    _check(whole, folder, damaged, outside)
