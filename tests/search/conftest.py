"""SQLite without waiting for the disk: these tests stop programs, never the machine."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine


@pytest.fixture(autouse=True, scope="package")
def _no_disk_flush() -> Iterator[None]:
    def relax(connection: Any, record: Any) -> None:
        if type(connection).__module__.startswith("sqlite3"):
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA journal_mode = MEMORY")

    event.listen(Engine, "connect", relax)
    yield
    event.remove(Engine, "connect", relax)
