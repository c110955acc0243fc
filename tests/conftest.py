"""What every test shares.

One thread, caches of its own, no draw from torch's global generator, no waiting for the disk.
"""

import os

# Many tiny products on two cores are fastest, and give the same bits everywhere, on one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Device programs run on the CPU, which Triton must know before it is first imported.
if not os.path.exists("/dev/nvidia0"):
    os.environ.setdefault("TRITON_INTERPRET", "1")

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import event
from sqlalchemy.engine import Engine


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave what is marked ``soak`` to ``make soak``."""
    if os.environ.get("GPED_SOAK"):
        return

    slow = [item for item in items if item.get_closest_marker("soak")]
    items[:] = [item for item in items if item not in slow]
    if slow:
        config.hook.pytest_deselected(items=slow)


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Leave bytes to the system, a third of the time of a small study.

    Tests stop programs, never the machine; ``tests/faults`` imitates that in processes of its own.
    The installed command flushes as it does for users.
    """

    def relax(connection: Any, record: Any) -> None:
        if type(connection).__module__.startswith("sqlite3"):
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", relax)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        yield
    event.remove(Engine, "connect", relax)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams, data and studies of a test stay in its own folder."""
    monkeypatch.setenv("GPED_CACHE", str(tmp_path / "cache"))
    for name in ("GPED_STORAGE", "OPTUNA_STORAGE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _no_global_draws() -> Iterator[None]:
    """Fail a test that draws from torch's global generator."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state()), (
        "torch's global generator moved: pass a generator to whatever draws"
    )
