"""What every test of the kernel runs on."""

import pytest


@pytest.fixture(autouse=True)
def _processor_without_bfloat16(monkeypatch):
    """``precision: auto`` is float32, so that no comparison depends on the machine."""
    monkeypatch.setattr("gped_nas.device.half_is_fast", lambda device: False)
