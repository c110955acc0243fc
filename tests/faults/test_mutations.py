"""A damaged stream: each read gives the value that was sealed, or one message that names what is
damaged.

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
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
"""What reading a damaged stream of some kilobytes may take: more is a hang, or memory asked for by
a hostile size.
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
    """Two segments, each of two shards, with predictions at two views and expectations derived from
    them.
    """
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
    for name, (about, dtype) in VIEWS.items():
        reads[f"has {name}"] = lambda name=name, about=about, dtype=dtype: opened().has_view(
            name, about, dtype
        )
        reads[f"log_prob {name}"] = lambda name=name: opened().predictions(name)
        for target in TARGETS:
            reads[f"{target} {name}"] = lambda name=name, target=target: stream_expectations(
                opened(), [target], name
            )[target]
            reads[f"people's {target} {name}"] = lambda name=name, target=target: TeacherStream(
                opened()
            ).expectation(target, name)
    return reads


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return torch.equal(a, b) and a.dtype == b.dtype if isinstance(a, torch.Tensor) else a == b


def _read(folder: Path) -> dict[str, Any]:
    """What each read gives, or the ``StreamError`` it raises."""
    found: dict[str, Any] = {}
    for name, read in _reads(folder).items():
        try:
            found[name] = read()
        except StreamError as error:
            found[name] = error
    return found


@dataclass(frozen=True)
class Whole:
    """A stream before any damage: its folder, another of the same shapes, and what each read of it
    gives.
    """

    folder: Path
    other: Path
    values: dict[str, Any]


@pytest.fixture(scope="module", params=KINDS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    root, build = tmp_path_factory.mktemp("streams"), KINDS[request.param]
    folder, other = build(root, 0), build(root, 1)
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
    return {Path(found) for found in re.findall(re.escape(str(folder)) + r"[^\s:;,)]*", message)}


def _names_damage(message: str, folder: Path, damaged: list[Path]) -> bool:
    """Whether a message names a damaged path, a folder around it or something in it."""
    found = _named(message, folder)
    return any(
        path in (name, *name.parents) or name in path.parents for path in damaged for name in found
    )


def _sealed(folder: Path) -> dict[str, bytes]:
    """What is sealed, as the names in the folder that was damaged."""
    return {
        name: content
        for name, content in tree(folder).items()
        if name.startswith(("segments", "views"))
    }


def _check(whole: Whole, folder: Path, damaged: list[Path], outside: Path) -> Counter[str]:
    """Assert what the module promises of one damaged stream; how often a value came, and how often
    a refusal.
    """
    outcomes: Counter[str] = Counter()
    before = {path: path.lstat().st_mtime_ns for path in outside.rglob("*")}
    with _bounded():
        found = _read(folder)
        for name, value in found.items():
            expected = whole.values[name]
            if isinstance(value, StreamError):
                assert isinstance(expected, StreamError) or _names_damage(
                    str(value), folder, damaged
                ), (name, value)
                assert len(str(value)) < 5000, (name, str(value)[:200])
                outcomes["refused"] += not isinstance(expected, StreamError)
            elif name.startswith("has ") and value is False:
                outcomes["absent"] += 1
            else:
                assert _same(value, expected), name
                outcomes["exact"] += 1
        (listed,) = streams_of(folder.parent)
        assert listed.name == folder.name and listed.num_bytes >= 0
        _check_verify(whole, folder, damaged)
        _check_building(whole, folder, damaged)
    assert {path: path.lstat().st_mtime_ns for path in outside.rglob("*")} == before, (
        "wrote outside the stream"
    )
    return outcomes


def _check_verify(whole: Whole, folder: Path, damaged: list[Path]) -> None:
    """``verify`` finds each sealed file that is there with other bytes, and says nothing of what is
    whole.
    """
    regular = {
        name: c
        for name, c in _read_regular(folder).items()
        if name.startswith(("segments", "views"))
    }
    changed = [
        name
        for name, content in _sealed(whole.folder).items()
        if regular.get(name, content) != content
    ]
    shards = [name for name in changed if name.endswith(".npy")]
    try:
        problems = Stream(folder, num_samples=6).verify()
    except StreamError as error:
        problems = [str(error)]
    assert all(_names_damage(problem, folder, damaged) for problem in problems), problems
    assert problems or not shards, f"verify did not see that {shards} changed"


def _read_regular(folder: Path) -> dict[str, bytes]:
    """Every plain file of a folder, links not followed, huge ones left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 2**20
    }


def _check_building(whole: Whole, folder: Path, damaged: list[Path]) -> None:
    """Building again makes good what is missing or refuses what is damaged; what is read then is
    right or refused.
    """
    if isinstance(whole.values["theta 0"], StreamError):
        return
    try:
        _build(folder.parent, seed=0)
        _add_views(folder)
    except GpedError as error:
        assert _named(str(error), folder), (
            error
        )  # perhaps a view that does not fit segments that were made anew
    for name, value in _read(folder).items():
        assert (
            isinstance(value, StreamError) or value is False or _same(value, whole.values[name])
        ), name


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + NUM_MUTATIONS))
def test_a_damaged_stream_is_right_or_refused(whole: Whole, tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    folder, outside = tmp_path / "streams" / whole.folder.name, tmp_path / "outside"
    shutil.copytree(whole.folder, folder)
    outside.mkdir()
    has_views = (folder / "views").exists()
    applicable = [
        mutate for name, mutate in MUTATIONS.items() if has_views or "derived" not in name
    ]
    mutation = applicable[seed % len(applicable)]
    try:
        damaged = mutation(Scene(folder, whole.other, outside, draw))
    except ValueError:  # fewer than two views or segments to mix up
        damaged = MUTATIONS["flip bits"](Scene(folder, whole.other, outside, draw))
    _check(whole, folder, damaged, outside)
