"""Tests of streams interrupt Python, not the power: flushing to disk would only cost their time."""

import pytest

from gped_nas import io


@pytest.fixture(autouse=True)
def _no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io.os, "fsync", lambda fd: None)
