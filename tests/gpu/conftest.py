"""What every test of a device shares."""

import pytest

from gped_nas import device as devices
from tests.gpu.place import IS_CARD, stand_in


@pytest.fixture(autouse=True)
def _device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Full float32, as a session sets it; without a card, what stands for one."""
    devices.set_precision()
    if not IS_CARD:
        stand_in(monkeypatch)
